"""What attempts and attacks say together: sentences, charts and stale
results, by hand-computed cases.
"""

import pytest
from PIL import Image

from findnemo.errors import InputError
from findnemo.report import _charts as charts
from findnemo.report.sentences import QUIET, WEIGHTS, sentences
from findnemo.robustness.controls import pictures
from findnemo.runs import Run
from findnemo.runs._tried import attack_summary, attempts_summary
from findnemo.runs.store import Caption

NAME = "neurons off: memorized less never seen"


def cell(captions, n=5, high=0.43):
    return {"images": captions / n, "captions": captions, "n": n, "low": 0.0, "high": high}


def attempts(words, given, ordinary):
    table = {
        "seeds: fresh": {
            "untouched": cell(5),
            "neurons off": cell(0),
            "ordinary, neurons off": cell(2),
        },
        "words: synonyms": {"untouched": cell(4), "neurons off": cell(words)},
        "image to image: 0.3": {
            "untouched": cell(5),
            "neurons off": cell(5),
            "ordinary, neurons off": cell(5),
        },
        "image to image: 0.9": {
            "untouched": cell(5),
            "neurons off": cell(given),
            "ordinary, neurons off": cell(ordinary),
        },
    }
    return {"columns": ["untouched", "neurons off", "ordinary, neurons off"], "table": table}


def test_nothing_tried_says_nothing():
    assert sentences(None, None) == []


def test_attempts_without_a_copy_and_with_some():
    what = "attempts with other seeds, samplers, steps, guidance, words and tokens give"
    none, given, *last = sentences(attempts(0, 1, 4), None)
    assert (
        none
        == f"With neurons off, none of 2 {what} a copy of any of 5 pictures (2 do with no neuron"
        " off; 95 %: fewer than 43 % of pictures, each)."
    )
    assert (
        given == "Image to image: 0.9, which is given the picture, gives 1 of 5 back, and 4 of 5 of"
        " ordinary captions."
    )
    assert last == [QUIET, WEIGHTS]
    some, _, *last = sentences(attempts(3, 1, 4), None)
    assert last == [WEIGHTS], "prompts bring pictures back: nothing is said of them being quiet"
    assert (
        some == f"With neurons off, 1 of 2 {what} copies; the most has 'words: synonyms', of 3 of 5"
        " pictures."
    )


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (
            [[0, 0.9, 0.8, 1.0], [5, 0.5, 0.2, 0.8]],
            (
                "come nearer to them than to {}: the gap is 0.90 [0.80, 1.00] at the start, 0.50"
                " [0.20, 0.80] after 5 steps."
            ),
        ),
        (
            [[5, 0.5, 0.2, 0.8], [50, 0.1, -0.1, 0.3]],
            (
                "come nearer to them than to {}: the gap is 0.50 [0.20, 0.80] after 5 steps, 0.10"
                " [-0.10, 0.30] after 50 steps."
            ),
        ),
        (
            [[0, 0.9, 0.8, 1.0], [5, 0.1, -0.1, 0.3]],
            (
                "are not seen to come nearer to them than to {}: the gap is 0.90 [0.80, 1.00] at"
                " the start, 0.10 [-0.10, 0.30] after 5 steps."
            ),
        ),
        (
            [[5, 0.5, None, None], [9, 0.6, None, None]],
            (
                "gaps to {} have no interval (the gap is 0.50 after 5 steps, 0.60 after 9 steps):"
                " too few"
            ),
        ),
    ],
)
def test_an_attack_is_told_for_every_control_by_all_its_intervals(points, says):
    mirrored = NAME.replace("never seen", "mirrored")
    never, mirror, last = sentences(None, {"curves": {}, "gaps": {NAME: points, mirrored: points}})
    assert says.format("pictures never seen") in never
    assert says.format("mirrored images of ordinary captions") in mirror
    assert last == WEIGHTS


def test_bands_and_gaps_stand_where_their_values_are():
    attack = {
        "x": "steps",
        "y": "similarity",
        "n": 5,
        "curves": {"a": [[0, 0.0], [50, 1.0]], "b": [[0, 0.2]]},
        "bands": {"a": [[0, -0.5, 0.5], [50, 0.9, 1.0]]},
        "gaps": {
            "x": [[0, 0.0, None, None], [50, 0.5, 0.25, 1.0]],
            "y": [[50, 0.5, 0.0, 1.0]],
            "none": [],
        },
    }
    drawn = charts.curves(attack)
    (x0, low0), (x1, _), _, (x3, high0) = (
        [float(v) for v in p.split(",")] for p in drawn["lines"][0]["band"].split()
    )
    assert (x0, x1, x3) == (130, 630, 130)
    assert low0 == 220 - 12  # the lowest value of all
    assert high0 == pytest.approx(12 + 196 * (1.0 - 0.5) / 1.5, abs=0.01)
    assert drawn["lines"][1]["band"] == ""
    assert [text for _, text in drawn["levels"]] == ["\u22120.5", "0.0", "0.5", "1.0"]
    made = charts.gaps(attack)
    assert [line["name"] for line in made["lines"]] == ["x", "y"]
    (_, zero, *none), (x, y, low, high) = made["lines"][0]["points"]
    assert (zero, none) == (made["zero"], [None, None])
    assert (y, low, high) == (12 + 98, 12 + 147, 12)
    assert made["lines"][1]["points"][0][0] > x  # beside each other
    assert charts.gaps(attack | {"gaps": {}}) is None


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


@pytest.mark.parametrize("size", [(7100, 7100), (16, 16)])
def test_a_control_that_is_too_large_or_cut_off_is_named(tmp_path, size):
    file = tmp_path / "a.png"
    Image.new("1", size).convert("L").save(file)
    if size == (16, 16):
        file.write_bytes(file.read_bytes()[:45])
    with pytest.raises(InputError, match=r"a\.png is no picture that can be read: "):
        pictures(tmp_path)
