"""`--budget` and `--like`: captions in order by their text, as far as a budget goes; what stops goes
on, and what cannot be is refused.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from importlib import import_module

import pytest
from _command import cli
from _tiny import tiny_pipeline

import findnemo
from findnemo import Calibration, tasks
from findnemo.detection import Drives, Unusual
from findnemo.errors import InputError, MismatchError
from findnemo.neurons import NeuronSet
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, start
from findnemo.tasks import Detecting
from findnemo.tasks.ranking import is_ordered, memories_of, refuse_order

HOLDOUT = ["a cat", "two dogs in the snow", "a red fox by a tree", "an owl", "the sea at night"]
TABLE = [
    f"{what} {k}" for k in range(5) for what in ("a grey owl", "the tall ship", "1 x 2 =", "=")
]
MEMORY = "the tall ship of old"
GROUP = 4


@pytest.fixture(scope="module")
def calibration(model) -> Calibration:
    return replace(findnemo.calibrate(model, HOLDOUT, "findnemo"), tau=0.03)


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch):
    for place in ("findnemo.runs.audit", "findnemo.tasks.path"):
        monkeypatch.setattr(import_module(place), "group_size", lambda model: GROUP)


@pytest.fixture(scope="module")
def known(model, calibration, tmp_path_factory):
    """A run with one memory that has neurons."""
    path = tmp_path_factory.mktemp("known") / "run"
    layer = next(iter(model.value_layers))
    with start(path, model, calibration, AuditPlan(images=0)) as run:
        (number,) = run.add([Prompt(MEMORY, 1)])
        score = {"score": 0.9, "tau": 0.03}
        run.record(number, "detect", {"memorized": True, **score}, 0.0)
        found = {"score_before": 0.9, "score_after": 0.0, "reached": True}
        run.record(number, "localize", {"neurons": {layer: [0, 2, 3]}, **found}, 0.0)
    return path


def results(run):
    return {c.text: c.results["detect"] for c in run.captions(stage="detect")}


def spent(run):
    return sum(found["evaluations"] for found in results(run).values())


@pytest.mark.slow
def test_a_budget_is_spent_on_unusual_captions_and_a_larger_one_goes_on(
    model, calibration, tmp_path
):
    said = []
    listener = tasks.Listener(say=said.append)
    values = dict(zip(TABLE, Unusual(model, HOLDOUT)(TABLE).tolist(), strict=True))

    def detected(out, budget):
        with tasks.detect(
            model,
            TABLE,
            tmp_path / out,
            Detecting(calibration=calibration, budget=budget),
            listener=listener,
        ) as run:
            about = run.meta("budget")
            assert about["spent"] == spent(run)
            assert about["looked"] == len(results(run))
            assert budget <= about["spent"] < budget + 4 * GROUP
            return results(run)

    first = detected("one", 12)
    assert f"Of {len(TABLE)} captions {len(first)} were looked at" in said[-1]
    likeliest = sorted(TABLE, key=lambda text: -values[text])
    by_likelihood = [text for text in likeliest if text in first]
    assert by_likelihood[: len(first) - 1] == likeliest[: len(first) - 1]
    more = detected("one", 28)
    assert first.items() <= more.items()
    assert detected("two", 28) == more  # as if it had been the budget from the beginning
    assert len(more) < len(TABLE)


@pytest.mark.slow
def test_a_budget_that_is_stopped_goes_on_and_stops_where_it_would_have(
    model, calibration, tmp_path
):
    options = Detecting(calibration=calibration, budget=24)
    done = []
    early = tasks.Listener(
        progress=lambda stage, known, total: done.append(known if stage == "detect" else 0),
        stop=lambda: max(done, default=0) > 0,
    )
    with tasks.detect(model, TABLE, tmp_path / "run", options, listener=early) as run:
        begun = results(run)
    with tasks.detect(model, TABLE, tmp_path / "run", options) as run:
        whole = results(run)
    with tasks.detect(model, TABLE, tmp_path / "other", options) as run:
        assert results(run) == whole
    assert len(begun) > 0
    assert begun.items() < whole.items()


def test_siblings_of_a_memory_are_confirmed_from_the_likeliest_down(
    model, calibration, known, tmp_path
):
    table = [*TABLE, MEMORY]
    options = Detecting(like=known, budget=16)
    with tasks.detect(model, table, tmp_path / "run", options) as run:
        found = results(run)
        assert run.meta("settings")["tau"] == calibration.tau  # that of the known run
    with (tmp_path / "run" / "like.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    layer = next(iter(model.value_layers))
    drives = Drives(model, {MEMORY: NeuronSet({layer: [0, 2, 3]})}, HOLDOUT)
    values = dict(zip(TABLE, drives(TABLE).tolist(), strict=True))
    best = sorted(TABLE, key=lambda text: -values[text])[:8]  # two evaluations each at least
    assert [TABLE[int(row["row"]) - 1] for row in rows] == best
    assert [row["caption"] for row in rows if "=" not in row["caption"]] == [
        text for text in best if not text.startswith("=") and "=" not in text
    ]
    for row, text in zip(rows, best, strict=True):
        assert float(row["drive"]) == pytest.approx(values[text], abs=1e-4)
        assert row["like"] == MEMORY
        assert bool(row["score"]) == (text in found)
        if text in found:
            assert row["over_tau"] == str(found[text]["memorized"])
    assert set(found) == set(best[: len(found)])
    assert spent_enough(found, 16)


def spent_enough(found, budget):
    return budget <= sum(one["evaluations"] for one in found.values()) < budget + 4 * GROUP


def test_what_cannot_be_is_refused_before_anything_is_written(model, calibration, known, tmp_path):
    out = tmp_path / "run"
    bare = tmp_path / "bare"
    with start(bare, model, calibration, AuditPlan(images=0)) as run:
        run.add([Prompt("a cat", 1)])
    other = findnemo.load(tiny_pipeline(seed=3))
    cases = [
        (model, {"like": bare}, InputError, "has found no neurons"),
        (model, {"like": tmp_path / "none"}, InputError, "not a run directory"),
        (other, {"like": known}, MismatchError, "another model"),
        (model, {"calibration": calibration, "budget": 1}, InputError, "--budget 1"),
        (model, {"calibration": calibration, "miss": 1.5}, InputError, "--miss 1.5"),
        (
            model,
            {"calibration": calibration, "miss": 0.1, "fdr": 0.1},
            InputError,
            "--fdr takes all",
        ),
    ]
    for opened, options, error, words in cases:
        with pytest.raises(error, match=words):
            tasks.detect(opened, TABLE, out, Detecting(**options))
        assert not out.exists()
    shard = tasks.Captions(TABLE, shard="1/2")
    with pytest.raises(InputError, match="--shard"):
        tasks.detect(model, shard, out, Detecting(calibration=calibration, budget=20))
    with pytest.raises(InputError, match="--train-images"):
        tasks.audit(model, tasks.FineTune("photos"), out, Detecting(budget=20))
    none = replace(calibration, ordinary=())
    with pytest.raises(InputError, match="an order of captions needs hold-out captions"):
        tasks.detect(model, TABLE, out, Detecting(calibration=none, budget=20))
    assert not out.exists()


@pytest.mark.slow
def test_a_run_keeps_the_share_that_it_may_lose(model, calibration, tmp_path):
    first = tasks.Captions(TABLE, limit=2)

    said = []
    listener = tasks.Listener(say=said.append)

    def settings(out, **options):
        given = Detecting(calibration=options.pop("calibration", calibration), **options)
        with tasks.detect(model, first, tmp_path / out, given, listener=listener) as run:
            return run.meta("settings").get("miss")

    assert settings("usual") == 0.005
    assert "takes 598 hold-out captions, these are 5" in said[-1]
    assert settings("bold", miss=0.9) == 0.9
    assert len(said) == 1  # they are enough for that
    assert settings("none", miss=0.0) == 0.0
    assert settings("none") == 0.0  # goes on as it was begun
    assert settings("list", fdr=0.5) is None
    with pytest.raises(MismatchError, match=r"miss 0.0, now 0.1"):
        settings("none", miss=0.1)
    with start(tmp_path / "old", model, calibration, AuditPlan(images=4)) as run:
        assert "miss" not in run.meta("settings")  # as runs from before it are
    assert settings("old") is None
    paper = findnemo.calibrate(model, HOLDOUT)
    assert settings("paper", calibration=paper) is None
    with pytest.raises(InputError, match="variant 'paper'"):
        settings("paper", calibration=paper, miss=0.1)


@pytest.mark.slow
def test_the_commands_say_what_was_found(model, calibration, known, tmp_path):
    model.pipeline.save_pretrained(tmp_path / "model", safe_serialization=True)
    saved = findnemo.load(tmp_path / "model")
    own = replace(findnemo.calibrate(saved, HOLDOUT, "findnemo"), tau=0.03)
    own.save(tmp_path / "calibration")
    (tmp_path / "captions.txt").write_text("\n".join(TABLE), encoding="utf-8")
    made = cli(
        *("detect", tmp_path / "model", "--prompts", tmp_path / "captions.txt"),
        *("--calibration", tmp_path / "calibration", "--budget", 20, "--out", tmp_path / "run"),
    )
    assert made.status == 0
    assert f"Of {len(TABLE)} captions" in made.err
    told = cli("inspect", tmp_path / "run", "--json")
    assert len(json.loads(told.out)["results"]) == 10
    with Run.open(tmp_path / "run") as run:
        assert run.meta("budget")["spent"] >= 20


def test_an_order_needs_a_budget_that_buys_a_score_and_a_whole_table():
    for ordered in (Detecting(budget=2), Detecting(like="run")):
        assert is_ordered(ordered)
        refuse_order(ordered, None)
        with pytest.raises(InputError, match="--shard takes captions as they come"):
            refuse_order(ordered, "1/2")
    assert not is_ordered(Detecting())
    refuse_order(Detecting(), "1/2")
    with pytest.raises(InputError, match="--budget 1: a caption takes 2 evaluations"):
        refuse_order(Detecting(budget=1), None)


def test_memories_are_those_of_which_the_run_has_neurons(model, known):
    layer = next(iter(model.value_layers))
    assert memories_of(known) == {MEMORY: NeuronSet({layer: [0, 2, 3]})}
