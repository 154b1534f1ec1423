"""What a table is judged by is not chosen by what it judges: captions as they come, NeMo as
published, seeds that nothing decided on.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from _workshop import a_run, rows_of

import findnemo
from findnemo.calibration import calibrate
from findnemo.errors import InputError
from findnemo.localization import localize
from findnemo.metrics.kind import is_memory
from findnemo.mitigation import MITIGATIONS
from findnemo.prompts import Prompt
from findnemo.runs import audit
from findnemo.runs.calibrating import as_published
from findnemo.runs.compare import compare, method_neurons, methods, nemo_of, samples
from findnemo.runs.ordinary import ordinary
from findnemo.runs.standing import neurons_of
from findnemo.runs.workers import Serial
from findnemo.studies import Bench
from findnemo.studies.table1 import EACH, each, table

# captions as they come ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "memory"),
    [
        ("VM", True),
        ("TM", True),
        ("MV", True),
        ("verbatim", True),
        ("N", False),
        (" None ", False),
        ("", False),
        (None, False),
        ("0", False),
    ],
)
def test_types_that_say_none_are_no_memories(kind, memory, work, tmp_path):
    assert is_memory(kind) == memory
    mine = a_run(work, tmp_path / "run")
    with mine.run:
        audit(mine, [Prompt("a boat", 1, kind), Prompt("two cups", 2, "VM")], ())
        assert ordinary(mine.run) == ([] if memory else ["a boat"])


# NeMo's row and ours ------------------------------------------------------------------------------


@pytest.mark.slow
def test_nemo_is_the_listing_and_findnemo_what_the_run_has(other, monkeypatch):
    seen = []
    images = findnemo.generate
    monkeypatch.setattr(
        "findnemo.runs.compare.generate", lambda m, p, at, s: seen.extend(at) or images(m, p, at, s)
    )
    compare(other, ["neurons", "nemo", "random-1"])
    for caption in other.run.captions():
        listed = localize(other.model, caption.text, other.calibration, "listing").neurons
        assert nemo_of(other, caption) == listed == method_neurons(other, caption, "nemo")
        assert method_neurons(other, caption, "neurons") == neurons_of(caption) != listed
        drawn = method_neurons(other, caption, "random-1")
        assert not len(drawn & listed)
        for name, rows in listed.layers.items():
            assert len(drawn.layers.get(name, ())) == min(
                len(rows), other.model.widths()[name] - len(rows)
            )
        counts = {
            n: caption.results[f"compare:{n}"]["neurons"] for n in ("neurons", "nemo", "random-1")
        }
        assert counts == {
            "neurons": len(neurons_of(caption)),
            "nemo": len(listed),
            "random-1": len(drawn),
        }
    made = rows_of(table(other.run))
    assert {label for label, _ in made} == {
        "All neurons active",
        "Random neurons",
        "Deactivated neurons (NeMo)",
        "Deactivated neurons (findnemo)",
    }
    of_each = each(other.run)
    assert len(of_each.rows) == 4 * len(list(other.run.captions()))
    for row, text, kind, name, *figures in of_each.rows:
        caption = next(c for c in other.run.captions() if c.row == row)
        payload = caption.results[f"compare:{name}"]
        assert (text, kind) == (caption.text, caption.type)
        assert figures == [payload.get(key) for key in EACH]
    assert made[("Deactivated neurons (NeMo)", "VM")]["median neurons, paper"] == "4"
    assert made[("Deactivated neurons (findnemo)", "VM")]["median neurons, paper"] is None
    assert set(seen) == set(samples(other))  # not those of searches
    assert not set(seen) & set(range(other.calibration.settings.samples))


def test_a_run_of_the_listing_is_not_searched_again(work, tmp_path, monkeypatch):
    caption = next(c for c in work.run.captions() if c.type == "VM")
    mine = a_run(work, tmp_path / "run", plan=replace(work.plan, search="listing"))
    with mine.run:
        audit(mine, [Prompt(caption.text, 1, "VM")], ("detect", "localize"))
        monkeypatch.setattr("findnemo.runs.compare.localize", None)
        compare(mine, ["nemo"])
        (again,) = mine.run.captions()
        assert again.results["compare:nemo"]["neurons"] == len(neurons_of(again))
        assert "listing" not in again.results


@pytest.mark.slow
def test_a_listing_that_fails_is_said_of_the_methods_that_need_it(other, monkeypatch):
    def fails(*args):
        raise InputError("no listing here")

    monkeypatch.setattr("findnemo.runs.compare.localize", fails)
    compare(other, ["neurons", "nemo"])
    for caption in other.run.captions():
        assert caption.failed["compare:nemo"] == "nemo needs NeMo's neurons: no listing here"
        assert "compare:neurons" in caption.results
    monkeypatch.undo()
    compare(other, ["nemo"])  # what failed is tried again
    assert all("compare:nemo" in c.results for c in other.run.captions())


def test_names_of_methods():
    assert methods()[0] == "none"
    assert Counter(methods())["nemo"] == 1
    with pytest.raises(InputError, match="use random-1, random-2"):
        methods(["hope"])


def test_a_table_of_detectors_reads_types_that_say_none(tmp_path):
    from findnemo.runs.detectors import results

    class Known:
        meta = staticmethod(lambda key: {f"h{k}": 0.2 + 0.01 * k for k in range(10)})

    def caption(kind, value):
        return findnemo.runs.Caption(
            1,
            "c",
            1,
            kind,
            None,
            {"detect:ssim": {"value": value, "evaluations": 10, "seconds": 0.1}},
            {},
            0.1,
        )

    captions = [caption("VM", 0.9), caption("TM", 0.45), caption("N", 0.6), caption(None, 0.1)]
    (made,) = results(Known(), captions, [f"h{k}" for k in range(10)], ["ssim"])
    assert (made.evaluation.positives, made.evaluation.negatives, made.verbatim.positives) == (
        2,
        2,
        1,
    )
    assert made.half == pytest.approx(2 / 4)  # VM and the quiet one are right
    assert made.verbatim_half == pytest.approx(2 / 3)
    assert made.evaluation.accuracy == pytest.approx(3 / 4)


def test_csv_of_detectors_is_told_beside_what_was_published():
    import torch

    from findnemo.cli._detectors import beside_published
    from findnemo.detection import evaluate

    judged = evaluate(
        torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.6]), torch.tensor([0.1, 0.2, 0.3])
    )
    result = findnemo.runs.detectors.Result(
        "ssim", 0.3, judged, 4, 2, 0, 10.0, 0.1, 0.75, judged, 0.75
    )
    lines = beside_published(result)
    assert [line.split(":")[0] for line in lines] == ["ssim, all (n = 2)", "ssim, VM (n = 2)"]
    assert "accuracy at .5 0.750 (paper 0.942)" in lines[0]
    assert "AUROC 1.000 (paper 0.9964)" in lines[1]
    assert beside_published(replace(result, detector="edges", half=None, verbatim_half=None)) == []


def test_nemo_is_by_the_papers_score_whatever_the_run_detects_with(work, tmp_path, monkeypatch):
    clean = [
        f"a {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("boat", "cup")
    ]
    own = calibrate(work.model, clean, "findnemo")
    paper = calibrate(work.model, clean, precision=None)
    mine = a_run(work, tmp_path / "run", own)
    with mine.run:
        told = []
        published = as_published(
            mine.run, Serial(work.model), own, lambda *progress: told.append(progress)
        )
        assert told == [("calibrate with the paper's score", k, 6) for k in range(7)]
        assert published.settings == paper.settings != own.settings
        assert published.tau == paper.tau
        assert all(torch.equal(published.mean[name], mean) for name, mean in own.mean.items())
        monkeypatch.setattr(
            "findnemo.runs.calibrating.calibrate_in",
            lambda *given, **options: pytest.fail("made again"),
        )
        assert (
            as_published(mine.run, Serial(work.model), own).tau
            == Bench(mine, ()).calibration.tau
            == paper.tau
        )
        assert as_published(mine.run, Serial(work.model), paper) is paper
        monkeypatch.undo()
        damaged = mine.run.path / "calibration-paper" / "calibration.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1])
        assert as_published(mine.run, Serial(work.model), own).tau == paper.tau  # made again
        audit(mine, [Prompt("a lamp at night", 1, "VM")], ("detect",))
        score = Bench(mine, ()).scores()
        assert list(score.values()) == pytest.approx(
            [findnemo.score(work.model, "a lamp at night")], abs=1e-5
        )


def test_options_of_methods_are_checked_before_work_begins():
    assert methods(["embedding:target=3:iterations=20"])[1:] == (
        "embedding:target=3:iterations=20",
    )
    for wrong, reason in {
        "embedding:targets=3": "embedding has no option 'targets': it has target, iterations",
        "embedding:iterations=2.5": "embedding:iterations is a whole number, not '2.5'",
        "embedding:target=nan": "embedding:target is a number, not 'nan'",
        "delayed:tau=inf": "delayed:tau is a number",
        "random-1:repeat=3": "random-1 has no option 'repeat': it has factor",
        "embedding:target": "write NAME:OPTION=VALUE",
        "embedding:target=1:target=2": "each option once",
        "hope:target=1": "mitigation 'hope' is not known",
    }.items():
        with pytest.raises(InputError, match=reason):
            methods([wrong])


def test_a_method_comes_once_however_its_options_are_written():
    names = ["sail", "embedding:target=3", "embedding:target=3.0", "sail:alpha=1:delta=2"]
    assert methods([*names, "sail", "sail:delta=2.0:alpha=1e0"]) == (
        "none",
        "sail",
        "embedding:target=3",
        "sail:alpha=1:delta=2",
    )


def test_a_method_of_others_that_breaks_is_told_and_the_rest_goes_on(other, monkeypatch):
    def early(model, case):
        raise ValueError("early")

    @contextmanager
    def late(model, case):
        stop = model.denoiser.register_forward_pre_hook(lambda *given: {}["late"])
        with stop:
            yield

    for method in (early, late):
        monkeypatch.setitem(MITIGATIONS, method.__name__, method)
    compare(other, ["early", "late", "neurons"], limit=1)
    caption = next(other.run.captions())
    assert "compare:neurons" in caption.results
    assert caption.failed["compare:early"] == "mitigation 'early' failed (ValueError: early)"
    assert caption.failed["compare:late"] == "mitigation 'late' failed (KeyError: 'late')"
    assert not other.model.denoiser._forward_pre_hooks
