"""One verdict for all faces: every case of a caption through terminal, report, app,
trackers, results and model card.
"""

from __future__ import annotations

import csv
import html
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from _cases import FOUND, GONE, OVER, TAU, UNDER, Case, run_with

from findnemo.app import events
from findnemo.cli import _closing, _overview, _show
from findnemo.export import model_card, select
from findnemo.report import _captions as cards
from findnemo.report import render, write_evidence
from findnemo.runs import (
    BAD,
    STANDINGS,
    STATES,
    Run,
    all_neurons,
    counts,
    neurons_of,
    p_values,
    q_values,
    row,
    standing,
    state,
    write_results,
)
from findnemo.runs.overview import figures
from findnemo.runs.standing import WORDS, z_scores
from findnemo.runs.track import caption_values, run_values
from findnemo.runs.verdict import ALL, verdict_of
from findnemo.runs.why import why

UNSEEN = {"same_seed": 0.3}  # a run without images
FEW = {"copies_before": 0.25, "copies_after": 0.25}


def _p(word: str = "") -> str:
    """What is shown of a caption that is only suspected."""
    return f"{word}, suspected (p = 0.19)" if word else "suspected (p = 0.19)"


LEFT = {"copy_before": 0.97, "order": [["a", 3]]}  # what the search saw with the neurons off
LESS = LEFT | {"points": [[1, 0.55, 0.01]]}
NO_LESS = LEFT | {"points": [[1, 0.7, 0.01]]}
NOT_REACHED = FOUND | {"reached": False}

COPIED = GONE | {"copies_after": 0.25}
BEYOND = (OVER, FOUND | {"reached": False}, GONE)  # out of reach of its own neurons
CASES = {
    "nothing yet": Case("open", None, False),
    "detection failed": Case("failed", None, False, (), "detect"),
    "under tau": Case("not memorized", "not memorized", False, (UNDER,)),
    # no image was looked at: suspected, with neurons off where some were found
    "over tau, not sought": Case("suspected", "suspected", False, (OVER,)),
    "search failed": Case("failed", "suspected", False, (OVER,), "localize"),
    "no seed replicated": Case(
        "suspected", "suspected", False, (OVER, FOUND | {"neurons": {}, "z": {}})
    ),
    "out of reach, not looked at": Case("suspected", "suspected", False, (OVER, NOT_REACHED)),
    "found": Case("suspected", "suspected", True, (OVER, FOUND)),
    "check failed": Case("failed", "suspected", True, (OVER, FOUND), "verify"),
    "scores fall, no images": Case("suspected", "suspected", True, (OVER, FOUND, UNSEEN)),
    "back, no images": Case("back", "suspected", True, (OVER, FOUND, {"same_seed": 0.41})),
    "no fresh seed replicates, no images": Case(
        "suspected", "suspected", True, (OVER, FOUND, {"replicating": 0})
    ),
    "no scores of hold-out captions": Case(
        "suspected", "suspected", False, ({k: v for k, v in OVER.items() if k != "p"},)
    ),
    "gone alone and together": Case("gone", "memorized", True, (OVER, FOUND, GONE), together=GONE),
    "gone alone, copies together": Case(
        "copies", "memorized", True, (OVER, FOUND, GONE), together=COPIED | {"back": [1000]}
    ),
    "copies alone, gone together": Case(
        "gone", "memorized", True, (OVER, FOUND, COPIED), together=GONE
    ),
    "back together, no images": Case(
        "back", "suspected", True, (OVER, FOUND, {"same_seed": 0.1}), together={"same_seed": 0.41}
    ),
    "out of reach, gone together": Case("gone", "memorized", False, BEYOND, together=GONE),
    "out of reach, fewer copies together": Case(
        "reduced", "memorized", False, BEYOND, together=COPIED
    ),
    "gone alone, check together failed": Case(
        "failed", "memorized", True, (OVER, FOUND, GONE), "union:feed0123"
    ),
    "gone, check of an older union failed": Case(
        "gone", "memorized", True, (OVER, FOUND, GONE), "union:01d01d01"
    ),
    "ordinary: whatever others do": Case(
        "suspected", "suspected", False, (OVER, FOUND, UNSEEN | FEW), together=UNSEEN | FEW
    ),
    # images were looked at, and are no copies
    "ordinary: chance copies": Case("suspected", "suspected", False, (OVER, FOUND, UNSEEN | FEW)),
    "ordinary: no copies": Case(
        "suspected", "suspected", False, (OVER, FOUND, GONE | {"copies_before": 0.0})
    ),
    "ordinary, fresh seeds stay alike": Case(
        "suspected", "suspected", False, (OVER, FOUND, FEW | {"same_seed": 0.95})
    ),
    "ordinary, no fresh seed replicates": Case("suspected", "suspected", False, (OVER, FOUND, FEW)),
    "ordinary, out of reach": Case(
        "suspected", "suspected", False, (OVER, NOT_REACHED | LESS, UNSEEN | FEW)
    ),
    # copies were seen
    "gone": Case("gone", "memorized", True, (OVER, FOUND, GONE)),
    "gone at tau": Case("gone", "memorized", True, (OVER, FOUND, GONE | {"same_seed": TAU})),
    "noise alike, pictures gone": Case(
        "gone", "memorized", True, (OVER, FOUND, GONE | {"same_seed": 0.41})
    ),
    "copies": Case("copies", "memorized", True, (OVER, FOUND, GONE | {"copies_after": 0.25})),
    "no fresh seed replicates, images copied": Case(
        "gone", "memorized", True, (OVER, FOUND, {"copies_before": 1.0, "copies_after": 0})
    ),
    "no fresh seed replicates, images copy": Case(
        "copies", "memorized", True, (OVER, FOUND, {"copies_before": 1.0, "copies_after": 1})
    ),
    "copies its training image": Case(
        "gone",
        "memorized",
        True,
        (OVER, FOUND, UNSEEN | FEW | {"sscd_orig_before": 0.8, "sscd_orig_after": 0.1}),
    ),
    "one image, still its training image": Case(
        "copies",
        "memorized",
        True,
        (OVER, FOUND, UNSEEN | {"sscd_orig_before": 0.8, "sscd_orig_after": 0.71}),
    ),
    "copies its training image still": Case(
        "copies",
        "memorized",
        True,
        (OVER, FOUND, UNSEEN | FEW | {"sscd_orig_before": 0.8, "sscd_orig_after": 0.71}),
    ),
    "out of reach": Case(
        "out of reach", "memorized", False, (OVER, NOT_REACHED, GONE | {"copies_after": 1.0})
    ),
    "out of reach, though the search saw less": Case(
        "out of reach", "memorized", False, (OVER, NOT_REACHED | LESS, GONE | {"copies_after": 1.0})
    ),
    "reduced: fewer copies": Case(
        "reduced", "memorized", False, (OVER, NOT_REACHED | NO_LESS, GONE | {"copies_after": 0.75})
    ),
    "reduced: no finished copy, though the search saw one": Case(
        "reduced", "memorized", False, (OVER, NOT_REACHED, GONE)
    ),
    # on the list, or seen to copy a training picture: memorized whatever else was looked at
    "on the list": Case("gone", "memorized", True, (OVER, FOUND, UNSEEN | FEW), listed=True),
    "on the list, no images": Case("gone", "memorized", True, (OVER, FOUND, UNSEEN), listed=True),
    "on the list, back": Case(
        "back", "memorized", True, (OVER, FOUND, FEW | {"same_seed": 0.95}), listed=True
    ),
    "on the list, nothing to check": Case(
        "not replicated", "memorized", True, (OVER, FOUND, FEW), listed=True
    ),
    "on the list, not sought": Case("not localized", "memorized", False, (OVER,), listed=True),
    "on the list, found": Case("not verified", "memorized", True, (OVER, FOUND), listed=True),
    "on the list, no seed replicated": Case(
        "no neurons", "memorized", False, (OVER, FOUND | {"neurons": {}, "z": {}}), listed=True
    ),
    "on the list, reduced in the search": Case(
        "reduced", "memorized", False, (OVER, NOT_REACHED | LESS), listed=True
    ),
    "on the list, out of reach in the search": Case(
        "out of reach", "memorized", False, (OVER, NOT_REACHED | NO_LESS), listed=True
    ),
    "copies a training picture, search failed": Case(
        "failed", "memorized", False, (OVER | {"copies": True},), "localize"
    ),
    # what other methods did says nothing
    "under tau, though a later stage failed": Case(
        "not memorized", "not memorized", False, (UNDER,), "compare:wanda"
    ),
    "gone, though another method failed": Case(
        "gone", "memorized", True, (OVER, FOUND, GONE), "compare:wanda"
    ),
}
SHOWN = ("memorized", "suspected")  # states of captions that have a card in the report


def said_of(case: Case) -> str:
    """How a case is shown, with its p-value where it is only suspected."""
    if case.is_ != "suspected":
        return case.says
    if case.results and "p" not in case.results[0]:
        return "suspected"
    return _p() if case.says == "suspected" else _p(case.says)


def _packed(run: Run, folder) -> dict[str, float]:
    """The figures of finished images in an evidence pack."""
    _, file = write_evidence(run, folder / "evidence.html")
    rows = json.loads(file.read_text(encoding="utf-8"))["attacks"]
    return {
        figure["name"]: figure["value"]
        for one in rows
        if one["attack"] == "Regurgitation"
        for figure in one["figures"]
    }


@pytest.mark.parametrize("name", CASES)
def test_all_faces_say_the_same_of_a_caption(tmp_path, name):
    case = CASES[name]
    said = said_of(case)
    with run_with(tmp_path / "run", {name: case}) as run:
        (caption,) = run.captions()
        assert (standing(caption), state(caption)) == (case.says, case.is_)
        assert bool(len(all_neurons([caption]))) == case.off
        # results.csv and results.json
        in_csv, in_json = write_results(run)
        (line,) = csv.DictReader(in_csv.read_text(encoding="utf-8").splitlines())
        (values,) = json.loads(in_json.read_text(encoding="utf-8"))["results"]
        assert values == row(caption, q_values(p_values(run)))
        assert (line["standing"], line["state"]) == (case.says, case.is_ or "")
        assert (values["standing"], values["state"]) == (case.says, case.is_)
        checked = len(case.results) > 2
        looked_at = checked and bool({*case.results[2]} & {"copies_before", "sscd_orig_before"})
        unknown = case.is_ is None or (case.is_ == "suspected" and not looked_at)
        assert values["memorized"] is (None if unknown else case.is_ == "memorized")
        off = "its own neurons" if case.together is None else "the neurons of all captions"
        assert values["checked_with"] == (off if checked else None)
        seen = case.together or (case.results[2] if checked else {})
        assert values["copies_after"] == seen.get("copies_after")
        # terminal: the line of the table, and what is told of one caption
        cells = [
            next(iter(column.cells)) for column in _show.summary_table([caption], ["a"]).columns
        ]
        assert re.sub(r"\[.*?\]", "", cells[-1]) == said
        assert cells[-1].startswith(f"[{_show.COLOURS[WORDS[case.says].tone]}]")
        verdict = re.sub(r"\[.*?\]", "", _overview.verdict_of(caption))
        assert verdict.startswith(f"{said}: ")
        if case.says != "suspected":
            others = case.says == "gone" and not case.off
            by = ", by the neurons of other captions; it has no set of its own" if others else ""
            assert verdict == f"{said}: {STANDINGS[case.says]}{by}"
        else:
            assert ("none of its images was looked at" in verdict) == (not looked_at)
            assert ("nothing is switched off" in verdict) == looked_at
            assert ("switched off all the same" in verdict) == case.off
        # app
        (shown,) = events.cards(_subject(run), [caption])
        assert (shown.said, shown.tone) == (said, WORDS[case.says].tone)
        assert f"{verdict}" in _text(events.detail(_subject(run), caption.id).title)
        about = _text(events.detail(_subject(run), caption.id).about)
        assert f"verdict {verdict}" in about
        assert why(caption) in about
        assert case.is_ is None or f"state {case.is_} " in about
        kept = {shown for shown, lets in events.FILTERS.items() if lets(caption)}
        assert kept >= {"all", case.says}
        assert ("memorized" in kept) == (case.is_ == "memorized")
        assert ("suspected" in kept) == (case.is_ == "suspected")
        # trackers
        words = {key.removeprefix("caption/") for key in caption_values(caption)} & set(STANDINGS)
        assert words == {case.says}
        assert run_values(run, [caption])[f"standing/{case.says}"] == 1
        # report
        if case.is_ in SHOWN:
            card = cards.card(run.path, caption, {"a": 1}, {})
            assert (card["standing"], card["tone"]) == (case.says, WORDS[case.says].tone)
            assert card["said"] == said
            assert (card["meaning"], bool(card["off"])) == (verdict.partition(": ")[2], case.off)
            assert card["why"] == why(caption)
        # neurons, and their z-scores where the search or verification has them
        neurons = neurons_of(caption)
        z = z_scores(caption)
        lines = _overview.neuron_lines(caption, {"a": 1})
        assert sum(line.count("#") for line in lines) == len(neurons)
        assert sum(line.count("(z ") for line in lines) == len(z)
        if lines:
            assert ("not switched off" in lines[0]) == (not case.off)
        assert sum(
            "z = " in label for label, _ in events.ticks(_subject(run), _chosen(caption))
        ) == len(z)
        assert [(layer, value) for layer, _, value in cards.neurons(caption, {})] == sorted(
            ((layer, z.get(f"{layer}:{i}")) for layer, i in neurons), key=lambda n: -(n[1] or 0)
        )
        # the five figures of all faces
        found, worse, gone, off, _ = figures([caption], None)
        assert found.value == (
            None if unknown and case.is_ == "suspected" else case.is_ == "memorized"
        )
        bad = case.is_ == "memorized" and case.says in BAD
        assert (gone.value or 0, worse.value or 0) == (case.says == "gone", bad)
        assert bool(off.value) == case.off
        # evidence pack: a caption that still gives copies has them among its images, too
        if looked_at:
            packed = _packed(run, tmp_path)
            still = packed.get("captions that give copies, neurons off")
            after = packed.get("share of a caption's images that are copies, after")
            if still and after is not None:
                assert after > 0
            if not case.off and case.together is None:  # the cleaned model is the untouched one
                assert after == packed.get("share of a caption's images that are copies, before")
                assert still == packed.get("captions that give copies, untouched model")
        # model card of the export
        if case.off or case.says == "reduced":
            text = model_card(select(run, reduced=True))
            line = next(line for line in text.splitlines() if re.match(r"\| \d", line))
            assert line.split(" | ")[2] == said
            assert line.endswith("| 1 |")
            assert f"- {case.says}: {STANDINGS[case.says]}" in text
            assert verdict_of(run, [caption]).text in text


def test_the_page_says_of_every_case_what_the_run_says(tmp_path):
    known = {name: case for name, case in CASES.items() if case.is_ in SHOWN}
    with run_with(tmp_path / "run", CASES) as run:
        page = _text(render(run))
        rows = {c.text: c.row for c in run.captions()}
    for name, case in known.items():
        assert re.search(rf"{re.escape(said_of(case))} +row {rows[name]}\b", page), name
    for word, said in WORDS.items():
        number = sum(case.says == word for case in CASES.values())
        assert not said.clause or f"{number} {said.clause} : {said.means}." in page, word
    for name in set(CASES) - set(known):
        assert re.search(rf" {re.escape(name)} .{{0,40}}{CASES[name].says}", page), name


def test_every_word_has_a_case():
    assert {case.says for case in CASES.values()} == set(STANDINGS)
    assert {case.is_ for case in CASES.values()} == {*STATES, None}


def test_a_run_of_all_cases_is_counted_alike_everywhere(tmp_path, capsys):
    with run_with(tmp_path / "run", CASES) as run:
        captions = list(run.captions())
        by_state = {word: sum(case.is_ == word for case in CASES.values()) for word in STATES}
        gone = sum(case.says == "gone" for case in CASES.values())
        looked_at = sum(bool(case.results) for case in CASES.values())
        ordinary = sum(name.startswith("ordinary") for name in CASES)
        verdict = verdict_of(run, captions)
        assert verdict.tone == "mixed"
        assert f"Of {by_state['memorized']} memorized captions" in verdict.text
        assert f"{gone} memories are gone" in verdict.text
        assert (
            f"{ordinary} are over the threshold and only suspected (p = 0.19): their images are no"
            " copies" in verdict.text
        )
        unseen = by_state["suspected"] - ordinary
        assert (
            f"{unseen} are over the threshold and suspected (p = 0.19): none of their images was"
            " looked at." in verdict.text
        )
        assert "With 5 hold-out captions no p-value is under 1/6." in verdict.text
        _closing.show_closing(run, captions, ALL)
        told = capsys.readouterr().out
        assert verdict.text in told
        assert verdict.text in _text(render(run))
        assert verdict.text in model_card(select(run))
        numbers = run_values(run, captions)
        assert numbers["run/captions memorized"] == by_state["memorized"]
        assert numbers["run/memories gone on fresh seeds"] == gone
        assert len(events.matching(_subject(run), "", "suspected", "row")) == by_state["suspected"]
        assert numbers["run/captions memorized"] == figures(captions, None)[0].value
        counted = counts(run)
        assert (counted["memorized"], counted["suspected"], counted["unseen"]) == (
            by_state["memorized"],
            by_state["suspected"],
            unseen,
        )
        about = select(run).about
        assert about["audited"] == figures(captions, None)[0].of == looked_at
        assert f"{looked_at} audited, {by_state['memorized']} memorized" in model_card(select(run))
        assert (about["memorized"], about["suspected"]) == (
            by_state["memorized"],
            by_state["suspected"],
        )


def _subject(run: Run) -> Any:
    """As much of an app's subject as captions need."""
    return SimpleNamespace(
        run=run.path, model=SimpleNamespace(source="model", widths=lambda scope: {"a": 8})
    )


def _text(page: str) -> str:
    """What a reader of some HTML sees, on one line."""
    return " ".join(html.unescape(re.sub(r"<.*?>", " ", page)).split())


def _chosen(caption):
    return events.SessionState(caption.text, tuple(neurons_of(caption)), z_scores(caption))


def test_neurons_of_suspected_captions_stay_on_unless_they_are_named(tmp_path):
    ordinary = CASES["ordinary: no copies"]
    other = Case("gone", "memorized", True, (OVER, FOUND | {"neurons": {"b": [1]}}, GONE))
    with run_with(tmp_path / "run", {"ordinary": ordinary, "memory": other}) as run:
        assert select(run).neurons.layers == {"b": (1,)}
        assert select(run, ["ordinary"]).neurons.layers == {"a": (3,)}
        assert [c.text for c in select(run).captions] == ["memory"]
    with (
        run_with(tmp_path / "another", {"ordinary": ordinary}) as run,
        pytest.raises(Exception, match="only suspected: 1 caption, name one"),
    ):
        select(run)


def test_reduced_captions_go_into_an_export_that_asks_for_them(tmp_path):
    reduced = CASES["reduced: fewer copies"]
    other = Case("gone", "memorized", True, (OVER, FOUND | {"neurons": {"b": [1]}}, GONE))
    with run_with(tmp_path / "run", {"less": reduced, "memory": other}) as run:
        assert select(run).neurons.layers == {"b": (1,)}
        left = model_card(select(run))
        assert "| 1 | less | reduced, left as it is | 100 % | 100 % |" in left
        assert "reduced only" not in left
        for options in ({"reduced": True}, {"captions": ["less", "memory"]}):
            chosen = select(run, **options)
            assert chosen.neurons.layers == {"a": (3,), "b": (1,)}
            card = model_card(chosen)
            lines = [line for line in card.splitlines() if re.match(r"\| \d", line)]
            assert [line.split(" | ")[:5] for line in lines] == [
                ["| 1", "less", "reduced", "100 %", "75 %"],
                ["| 2", "memory", "gone", "100 %", "0 %"],
            ]
            assert "**1 caption of this export is reduced only**" in card
            assert "1 of 2 captions whose untouched images were copies still gives copies" in card
            assert "The worst: row 1, less: 75 % of its images are copies" in card
    with (
        run_with(tmp_path / "another", {"less": reduced}) as run,
        pytest.raises(Exception, match="only reduced: 1 caption, --include-reduced"),
    ):
        select(run)
