"""`findnemo benchmark`: scored once, shown again, with one's own answers, and what is refused."""

from __future__ import annotations

import json

import pytest
from _command import cli
from _planting import CAPTION, INDEX
from _tiny_suite import tiny_member

from findnemo import tasks
from findnemo.benchmark import METHODS, NATURAL_VERSION, published
from findnemo.benchmark.results import Results

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    tiny_member(folder)
    return folder


@pytest.mark.slow
def test_a_suite_is_scored_once_and_then_shown(suite, tmp_path):
    command = (
        "benchmark",
        "--suite",
        suite,
        "--out",
        tmp_path,
        "--methods",
        "gradient,z-score",
        "--limit",
        "2",
        "--json",
    )
    status, out, _ = cli(*command)
    assert status == 0
    kept = (tmp_path / "results.json").read_bytes()
    results = json.loads(kept)
    mine = [r for r in results["results"] if r["member"] == "seed7" and r["method"] == "gradient"]
    assert [
        (r["caption"], r.get("precision"), r["neurons"]) for r in mine if r["caption"] == CAPTION
    ] == [(CAPTION, 1.0, 1)]
    assert {"gradient", "z-score", "the truth"} <= set(json.loads(out)["tuned on"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "gradient", None)  # calling it would fail: nothing is computed again
        status, again, _ = cli(*command)
    assert (status, again) == (0, out)
    assert (tmp_path / "results.json").read_bytes() == kept


@pytest.mark.slow
def test_in_python_it_goes_on_and_joins_the_published_results(suite, tmp_path, monkeypatch):
    scoring = tasks.Scoring(suite=suite, methods="gradient")
    found = tasks.benchmark(tmp_path, scoring, limit=1)
    own = Results.load(tmp_path / "results.json")
    assert set(own.members) == {"seed7"}
    assert (CAPTION, "gradient") in {(r.caption, r.method) for r in own.scores}
    assert set(found.members) == {"seed7", *published().members}
    monkeypatch.setitem(METHODS, "gradient", None)  # nothing is computed again
    assert tasks.benchmark(tmp_path, scoring, limit=1) == found


@pytest.mark.slow
def test_answers_of_ones_own_are_scored_beside(suite, tmp_path):
    answers = {
        "method": "mine [/]",
        "answers": {"seed7": {CAPTION: {"neurons": {LAYER: [INDEX, 2]}, "evaluations": 1}}},
    }
    (tmp_path / "mine.json").write_text(json.dumps(answers))
    status, out, _ = cli(
        "benchmark",
        "--suite",
        suite,
        "--out",
        tmp_path / "o",
        "--limit",
        "2",
        "--methods",
        "z-score",
        "--add",
        tmp_path / "mine.json",
    )
    assert status == 0
    results = json.loads((tmp_path / "o" / "results.json").read_text())["results"]
    assert [r["precision"] for r in results if r["method"] == "mine [/]" and "precision" in r] == [
        0.5
    ]
    assert "mine" in out


@pytest.mark.slow
def test_the_published_table_shows_every_method():
    status, out, _ = cli("benchmark", "--published", "--kinds")
    assert status == 0
    assert all(name.split()[0] in out for name in METHODS)
    assert "not natural" in out
    assert "one neuron" in out


@pytest.mark.slow
def test_the_published_natural_table_says_on_which_models_methods_were_tuned():
    status, out, _ = cli("benchmark", "--published", "--natural")
    assert status == 0
    assert "untouched" in out
    assert "demo-natural 10 of 11" in " ".join(out.split())
    assert "Tuned on." in out


@pytest.mark.slow
def test_a_natural_memory_is_scored(tmp_path):
    """The shipped model, with a method that needs no pass: what the table has of it is what
    the untouched model does.
    """
    status, out, _ = cli(
        "benchmark",
        "--natural",
        "--limit",
        "1",
        "--methods",
        "z-score",
        "--out",
        tmp_path,
        "--json",
    )
    assert status == 0
    results = Results.load(tmp_path / "natural.json", NATURAL_VERSION)
    untouched, score = results.scores
    assert (untouched.method, untouched.gone, untouched.kept, untouched.neurons) == (
        "untouched",
        False,
        1.0,
        0,
    )
    assert len(score.copies) == 10
    assert untouched.median > 0.9
    assert [a.kind for a in results.alarms] == ["ordinary"]
    assert "tuned on" in json.loads(out)
    assert "methods" not in json.loads(out)  # never pooled


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "nemo9"), "'nemo9' is not known: use findnemo"),
        (("--train",), "give its folder"),
        (("--suite", "nowhere"), "holds no trained models"),
        (("--natural", "--suite", "nowhere"), "holds no natural members"),
        (("--natural", "--kinds"), "are of planted memories"),
        (("--add", "no-such.json"), "is not JSON with the answers"),
    ],
)
def test_bad_input_is_said_in_a_line(arguments, said, tmp_path):
    status, _, err = cli("benchmark", "--out", tmp_path / "o", *arguments)
    assert status != 0
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "results.json").exists()


def test_results_that_are_none_are_not_overwritten(suite, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    status, _, err = cli("benchmark", "--suite", suite, "--out", tmp_path)
    assert status != 0
    assert "holds no results of suite" in " ".join(err.split())
    assert (tmp_path / "results.json").read_text() == "{}"
