"""What attempts and attacks say together: sentences, charts and stale
results, by hand-computed cases.
"""

import pytest

from findnemo.errors import InputError
from findnemo.report import _charts as charts
from findnemo.report.sentences import EARLIER, WEIGHTS, of_caption, sentences
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

NAME = "neurons off: memorized less never seen"


def told(works=5, back=0, n=None, silent=(), beyond=0):
    """What an attempt says of captions, counted by hand but for Wilson's interval."""
    low, high = wilson(back, works) if works else (None, None)
    n = works + len(silent) + beyond if n is None else n
    counts = {"n": n, "works": works, "back": back, "beyond": beyond, "silent": list(silent)}
    return counts | {"low": low, "high": high}


def cell(captions, n=5, **of):
    return {"images": captions / n, "captions": captions, "n": n, "low": 0.0, "high": 0.43, **of}


def attempts(words, given, ordinary):
    table = {
        "seeds: fresh": {
            "untouched": cell(5),
            "neurons off": cell(0, told=told(5)),
            "ordinary, neurons off": cell(2),
        },
        "words: synonyms": {
            "untouched": cell(4),
            "neurons off": cell(words, told=told(4, words, silent=[0.41])),
        },
        "script: Greek": {
            "untouched": cell(0),
            "neurons off": cell(0, told=told(0, silent=[0.17, 0.2, 0.3, 0.1, 0.0])),
        },
        "image to image: 0.9": {
            "untouched": cell(5),
            "neurons off": cell(given, told=told(5, given)),
            "ordinary, neurons off": cell(ordinary),
        },
    }
    return {"columns": ["untouched", "neurons off", "ordinary, neurons off"], "table": table}


def test_nothing_tried_says_nothing():
    assert sentences(None, None) == []


def test_attempts_without_a_copy_and_with_some():
    what = "attempts with other seeds, samplers, steps, guidance, words and tokens"
    none, silent, quiet, given, last = sentences(attempts(0, 1, 4), None)
    assert none == (
        f"With neurons off, none of 2 {what} gives a copy of a caption for which it works on the"
        " untouched model (4 to 5 of the 5 captions tried, each; 95 %: fewer than 49 %)."
    )
    assert silent == (
        "1 of 3 attempts tell nothing: on the untouched model they give no copy of the 5 captions"
        " tried either (similarity at most 0.30)."
    )
    assert quiet.startswith("No prompt that brings a picture back from the untouched model brought")
    assert "with neurons off, of the 5 captions tried" in quiet
    assert given == (
        "Image to image: 0.9, which is given the picture, gives back 1 of the 5 captions tried"
        " for which it works on the untouched model, and 4 of 5 of ordinary captions."
    )
    assert last == WEIGHTS
    some, silent, *rest = sentences(attempts(3, 1, 4), None)
    assert len(rest) == 2, "prompts bring pictures back: nothing is said of them being quiet"
    assert some == (
        f"With neurons off, 1 of 2 {what} give copies; the most has 'words: synonyms', of 3 of the"
        " 4 captions tried for which it works on the untouched model."
    )


def test_where_no_attempt_works_nothing_is_said_of_prompts_that_bring_nothing_back():
    mute = {"untouched": cell(0), "neurons off": cell(0, told=told(0, silent=[0.17] * 5))}
    said = sentences({"columns": [*mute], "table": {"seeds: fresh": mute}}, None)
    assert said == [
        "1 of 1 attempts tell nothing: on the untouched model they give no copy of the 5 captions"
        " tried either (similarity at most 0.17).",
        WEIGHTS,
    ]


def test_the_attack_says_of_how_many_captions_it_tells_what():
    told_of = {
        "neurons off": told(3, 2, silent=[0.17, None]) | {"never": [1, 5]},
        "hardened": told(3, 0, silent=[0.17], beyond=1),
    }
    off, mute, after, beyond, silent, _ = sentences(None, {"curves": {}, "told": told_of})
    assert off == (
        "With neurons off, an optimized embedding gives a copy of 2 of the 3 captions attacked for"
        " which the attack works on the untouched model (95 %: 21 to 94 %); of pictures never seen, of 1 of 5."
    )
    assert mute == (
        "With neurons off, the attack tells nothing of 2 captions of the 5 attacked: on the"
        " untouched model it gives no copy either (0.17)."
    )
    assert "of 0 of the 3 captions attacked" in after
    assert "a copy of 1 caption of which it gives none on the untouched model" in beyond
    assert "nothing of 1 caption of the 5 attacked" in silent


def test_what_was_kept_without_controls_tells_nothing():
    bare = {"untouched": cell(5), "neurons off": cell(0)}
    old = {"columns": [*bare], "table": {"seeds: fresh": bare}}
    curves = {"curves": {"memorized, neurons off": [[0, 0.1]]}, "gaps": {NAME: [[5, 0.5, 0.2, 1]]}}
    assert sentences(old, curves) == [EARLIER, WEIGHTS]


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
    attack = {"curves": {}, "gaps": {NAME: points, mirrored: points}}
    _, never, mirror, last = sentences(None, attack | {"told": {"neurons off": told(5)}})
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
