"""What attempts and attacks say together: sentences, charts and stale
results, by hand-computed cases.
"""

import pytest
from _counts import NAME

from findnemo.errors import InputError
from findnemo.report.sentences import of_caption
from findnemo.runs import Run
from findnemo.runs.evidence import (
    attack_summary,
    attempts_summary,
    counted,
    tried_columns,
    verdict,
    verdicts,
)
from findnemo.runs.export import row
from findnemo.runs.store import Caption
from findnemo.stats import wilson


@pytest.mark.parametrize(
    ("reached", "control", "word"),
    [
        (0.7, 0.9, "back"),
        (0.9, 0.1, "back"),
        (0.9, None, "back"),
        (0.69, 0.7, "not back"),
        (0.1, 0.69, "tells nothing"),
        (0.1, None, "tells nothing"),
    ],
)
def test_a_copy_counts_anyhow_and_none_only_beside_a_control_that_gives_one(reached, control, word):
    assert verdict(reached, control).word == word


def caption(number, results, is_memorized=True):
    return Caption(
        number,
        f"caption {number}",
        number,
        None,
        None,
        {"detect": {"memorized": is_memorized, "score": 0.9, "tau": 0.4}, **results},
        {},
        0.0,
    )


def attacked(basis, value):
    return {"basis": basis, "known": True, "curves": {"caption": {"0": [value]}}}


def test_results_for_other_neurons_are_not_mixed_in():
    captions = [
        caption(
            1,
            {"attack:neurons off": attacked("new", 0.5), "attempts:neurons off": _near("new", 0.9)},
        ),
        caption(
            2,
            {"attack:neurons off": attacked("old", 0.9), "attempts:neurons off": _near("old", 0.9)},
        ),
    ]
    assert attack_summary(captions, {"attack:neurons off": "new"})["curves"] == {
        "memorized, neurons off": [[0, 0.5]]
    }
    assert attack_summary(captions, {"attack:neurons off": "old"})["curves"] == {
        "memorized, neurons off": [[0, 0.9]]
    }
    assert (
        attempts_summary(captions, {"attempts:neurons off": "new"})["table"]["seeds: fresh"][
            "neurons off"
        ]["n"]
        == 1
    )


def test_all_curves_are_of_the_same_captions():
    """Two captions attacked with neurons off, one of them after hardening: what
    is compared is that one.
    """
    bases = {
        "attack:neurons off": "a",
        "attack:hardened": "b",
        "attempts:neurons off": "a",
        "attempts:hardened": "b",
    }
    both = {"attack:neurons off": attacked("a", 0.5), "attack:hardened": attacked("b", 0.1)}
    both |= {"attempts:neurons off": _near("a", 0.9), "attempts:hardened": _near("b", 0.1)}
    only = {"attack:neurons off": attacked("a", 0.9), "attempts:neurons off": _near("a", 0.1)}
    told = attack_summary([caption(1, both), caption(2, only)], bases)
    assert told["curves"] == {
        "memorized, neurons off": [[0, 0.5]],
        "memorized, hardened": [[0, 0.1]],
    }
    assert told["n"] == 1
    table = attempts_summary([caption(1, both), caption(2, only)], bases)["table"]["seeds: fresh"]
    assert {name: cell["captions"] for name, cell in table.items()} == {
        "neurons off": 1,
        "hardened": 0,
    }


def found(off, untouched, start="random"):
    """Results of a caption on which an attack and an attempt reached so much in both models."""
    results = {}
    for state, value in (("neurons off", off), ("untouched", untouched)):
        if value is not None:
            begun = "caption" if state == "neurons off" else start
            curves = {begun: {"0": [0.0], "50": [value]}}
            results[f"attack:{state}"] = {"basis": "b", "known": True, "curves": curves}
            results[f"attempts:{state}"] = _near("b", value)
    return results


BASES = {
    f"{stage}:{state}": "b"
    for stage in ("attack", "attempts")
    for state in ("neurons off", "untouched")
}


def test_of_mixed_captions_only_those_count_on_which_the_attack_works():
    """Back, not back, telling nothing; a copy without a control."""
    pairs = [(0.9, 0.9), (0.1, 0.9), (0.1, 0.17), (0.8, 0.2)]
    captions = [caption(k, found(*pair)) for k, pair in enumerate(pairs)]
    attack = attack_summary(captions, BASES)
    attempted = attempts_summary(captions, BASES)["table"]["seeds: fresh"]
    low, high = wilson(1, 2)
    counts = {"n": 4, "works": 2, "back": 1, "beyond": 1, "silent": [0.17]}
    ends = {"low": pytest.approx(low, abs=1e-4), "high": pytest.approx(high, abs=1e-4)}
    assert attack["told"] == {"neurons off": counts | ends | {"never": [0, 0]}}
    assert attempted["neurons off"]["told"] == counts | ends
    assert "told" not in attempted["untouched"]
    assert counted(attempted["neurons off"])["works"] == 2
    assert counted(attempted["untouched"])["works"] == 4
    words = [verdicts(c, BASES)["neurons off"]["seeds: fresh"].word for c in captions]
    assert words == ["back", "not back", "tells nothing", "back"]
    kept = row(captions[2], bases=BASES)
    assert (kept["attack"], kept["attempts_work"], kept["attempts_back"]) == ("tells nothing", 0, 0)
    assert kept["attack_why"] == "on the untouched model it gives no copy either: 0.17"
    assert row(captions[2])["attack"] is None
    assert of_caption(verdicts(captions[2], BASES)) == [
        "With neurons off: 0 of 0 attempts that work on the untouched model give a copy, 1 more"
        " tell nothing; the attack tells nothing: on the untouched model it gives no copy either:"
        " 0.17."
    ]


def test_gaps_are_of_captions_on_which_the_attack_works():
    never = {
        "attack:neurons off, never seen": {
            "basis": "b",
            "known": True,
            "curves": {"caption": {"0": [0.0], "50": [0.25]}},
        }
    }
    bases = BASES | {"attack:neurons off, never seen": "b"}
    pairs = [(0.75, 0.9), (0.1, 0.17)]
    captions = [caption(k, found(*pair) | never) for k, pair in enumerate(pairs)]
    made = attack_summary(captions, bases)
    gaps = made["gaps"]
    assert made["told"]["neurons off"]["never"] == [0, 2]
    assert gaps == {NAME: [[0, 0.0, None, None], [50, 0.5, None, None]]}
    assert attack_summary(captions[1:], bases)["gaps"] == {}


@pytest.mark.parametrize(("untouched", "start"), [(0.9, "caption"), (None, "random")])
def test_a_search_that_begins_with_the_picture_is_no_control(untouched, start):
    """The caption gives the picture of the untouched model without any search."""
    one = caption(1, found(0.1, untouched, start))
    attack = verdicts(one, BASES)["neurons off"]["optimized embedding"]
    assert (attack.word, attack.control) == ("tells nothing", None)
    assert tried_columns({"optimized embedding": attack})["attack_why"] == (
        "it was not tried on the untouched model"
    )


def _near(basis, value):
    return {"basis": basis, "known": True, "closeness": {"seeds: fresh": [value]}, "skipped": {}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"gaps": {"a": [[0, None, 0.1, 0.2]]}},
        {"gaps": {"a": [[0, 0.1]]}},
        {"bands": {"a": [[0, 0.1, "x"]]}},
        {"bands": [1]},
        {"known": "all"},
    ],
)
def test_curves_of_another_kind_are_refused(tmp_path, wrong):
    right = {"x": "steps", "y": "similarity", "n": 1, "curves": {"a": [[0, 0.1]]}, "known": 1}
    with Run.create(tmp_path / "run", {"model": "0"}) as run:
        run.set_meta(
            "attack",
            right | {"bands": {"a": [[0, 0.0, 0.2]]}, "gaps": {"b": [[0, 0.1, None, None]]}},
        )
        assert run.meta("attack")["known"] == 1
        run.set_meta("attack", right | wrong)
        with pytest.raises(InputError, match="'attack' is not what a run keeps"):
            run.meta("attack")
        run.set_meta("attempts", {"columns": ["a"], "table": {"x": {"a": {"captions": 1}}}})
        with pytest.raises(InputError, match="'attempts' is not what a run keeps"):
            run.meta("attempts")


def test_results_on_another_basis_are_left_out_of_the_curves():
    def caption(id_, basis, value, memorized=True):
        found = {"basis": basis, "known": True, "curves": {"caption": {"0": [value]}}}
        never = found | {"curves": {"caption": {"0": [value / 2]}}}
        detected = {"memorized": memorized, "score": value, "tau": 0.5}
        results = {"detect": detected, "attack:neurons off": found}
        control = found | {"curves": {"random": {"0": [0.9]}}}
        tried = {"attack:neurons off, never seen": never, "attack:untouched": control}
        results |= tried if memorized else {}
        return Caption(id_, f"caption {id_}", id_, None, None, results, {}, 0.0)

    captions = [
        caption(1, "new", 0.8),
        caption(2, "old", 0.2),
        caption(3, "new", 0.4),
        caption(4, "new", 0.1, False),
    ]
    stages = ("neurons off", "neurons off, never seen", "untouched")
    made = attack_summary(captions, {f"attack:{name}": "new" for name in stages})
    assert made["curves"]["memorized, neurons off"] == [[0, pytest.approx(0.6)]]
    assert made["gaps"]["neurons off: memorized less never seen"] == [
        [0, pytest.approx(0.3), None, None]
    ]
    assert made["gaps"]["neurons off: memorized less mirrored"] == [
        [0, pytest.approx(0.5), None, None]
    ]
    assert attack_summary(captions, {})["curves"] == {}
