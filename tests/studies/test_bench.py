"""A bench computes once, keeps what it has in the run, and goes on where a caption fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from findnemo.errors import NumericalError, StoppedError
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.compare import localized_captions
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.runs.work import StageAnswer
from findnemo.studies import Study, Table, study, write
from findnemo.studies.figure import figure


def test_a_result_is_computed_once_and_kept(bench):
    calls = []
    captions = bench.memorized_captions()

    def length(desk, caption):
        calls.append(caption.id)
        return StageAnswer({"length": len(caption.text)})

    for _ in range(2):
        results = bench.each("kept", captions, length)
        assert results == {c.id: {"length": len(c.text)} for c in captions}
    assert calls == [c.id for c in captions]


def test_a_caption_that_fails_is_left_out_recorded_and_tried_again(bench):
    first, *others = bench.memorized_captions()

    def fails(desk, caption):
        if caption.id == first.id:
            raise NumericalError("NaN here")
        return StageAnswer({})

    assert set(bench.each("fails", [first, *others], fails)) == {c.id for c in others}
    failed = next(c for c in bench.work.run.captions() if c.id == first.id).failed
    assert failed.pop("study:fails") == "NaN here"
    again = bench.each("fails", [first, *others], lambda desk, caption: StageAnswer({}))
    assert set(again) == {c.id for c in [first, *others]}


def test_what_is_wrong_with_one_caption_is_raised_when_the_others_are_kept(bench):
    first, *others = bench.memorized_captions()

    def wrong(desk, caption):
        return StageAnswer({"one": 1 / (caption.id != first.id)})

    with pytest.raises(ZeroDivisionError):
        bench.each("wrong", [first, *others], wrong)
    assert all(bench.work.run.result(c.id, "study:wrong") == {"one": 1.0} for c in others)


def test_answers_come_in_the_order_of_what_was_asked(bench):
    assert bench.over("squares", lambda desk, item: item * item, [3, 1, 2]) == [9, 1, 4]
    with pytest.raises(ZeroDivisionError):
        bench.over("wrong", lambda desk, item: 1 / item, [1, 0])


def test_stopping_ends_between_captions_keeps_what_is_done_and_goes_on(bench, tmp_path):
    captions = bench.memorized_captions()
    done = []

    def compute(desk, caption):
        done.append(caption.id)
        return StageAnswer({})

    stopped = replace(bench, stop=lambda: len(done) == 2)
    with pytest.raises(StoppedError, match="before all 3 of halves"):
        stopped.each("halves", captions, compute)
    assert [bench.work.run.result(c.id, "study:halves") for c in captions] == [{}, {}, None]
    bench.each("halves", captions, compute)
    assert done == [c.id for c in captions]
    assert study(["all"], replace(bench, stop=lambda: True), tmp_path) == {}


def test_what_depends_on_other_captions_is_computed_anew(bench):
    calls = []
    for limit in (1, 1, 2):
        replace(bench, limit=limit).once("anew", lambda: calls.append(1) or len(calls))
    assert len(calls) == 2


def test_the_sample_takes_so_many_of_each_type(bench):
    assert [c.type for c in bench.sample()] == ["VM", "TM"] or [c.type for c in bench.sample()] == [
        "TM",
        "VM",
    ]
    assert len(replace(bench, limit=None).sample()) == len(bench.memorized_captions()) == 3


def test_images_with_nothing_off_are_those_without(bench):
    caption = bench.memorized_captions()[0]
    cases = {"no neurons": (caption, EMPTY, 0.0), "factor 1": (caption, neurons_of(caption), 1.0)}
    payloads = bench.off("nothing", cases)
    for name in cases:
        assert payloads[name]["sscd_gen"] == pytest.approx(1, abs=1e-4)


def test_every_factor_and_set_has_a_result_of_its_own(bench):
    caption = bench.memorized_captions()[0]
    name = next(iter(bench.model.value_layers))
    everything = NeuronSet({n: range(w) for n, w in bench.model.widths().items()})
    sets = ((everything, 0.0), (everything, 0.5), (NeuronSet({name: [0]}), 0.0))
    payloads = bench.off("each", {case: (caption, *case) for case in sets})
    assert len({payloads[case]["sscd_gen"] for case in sets}) == 3


def test_where_captions_have_a_type_those_without_are_left_out():
    def caption(kind, **results):
        return Caption(0, "a caption", 1, kind, None, results, {}, 0.0)

    found = {"neurons": {"mid": [1]}, "reached": True, "score_before": 0.9, "score_after": 0.1}
    typed = caption("VM", localize=found)
    plain = caption(None, localize=found)
    none = caption("TM")
    assert localized_captions([typed, plain, none]) == [typed]
    assert localized_captions([plain, none]) == [plain]


def test_a_study_is_written_with_its_tables_its_figures_and_how_images_were_made(tmp_path):
    tables = [Table("One", ["a", "b"], [[1, None]], "A note."), Table("Two", ["c"], [["d"]])]
    with figure() as (sheet, _):
        pass
    write(Study("What it shows.", tables, {"fig10": sheet}), tmp_path, "fig10", "Images: few.")
    names = {file.name for file in tmp_path.iterdir()}
    of_tables = {f"fig10-{k}.{end}" for k in (1, 2) for end in ("csv", "tex")}
    assert names == {"fig10.md", "fig10.png", "fig10.svg", *of_tables}
    page = (tmp_path / "fig10.md").read_text(encoding="utf-8")
    assert page.startswith("# Figures 10 to 12: shared neurons\n\nWhat it shows.\n")
    assert page.endswith("![fig10](fig10.png)\n\nImages: few.\n")
    assert page.index("**One**") < page.index("A note.") < page.index("**Two**")
    write(Study("", tables[:1]), tmp_path / "one", "fig10")
    assert {file.name for file in (tmp_path / "one").iterdir()} == {
        "fig10.md",
        "fig10.csv",
        "fig10.tex",
    }
