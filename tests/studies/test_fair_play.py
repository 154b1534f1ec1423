"""What a table is judged by is not chosen by what it judges: captions as they come, NeMo as
published, seeds that nothing decided on.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import findnemo
from findnemo.calibration import calibrate, prompts_digest
from findnemo.errors import InputError
from findnemo.localization import localize
from findnemo.metrics.kind import is_memory
from findnemo.mitigation import MITIGATIONS
from findnemo.prompts import Prompt
from findnemo.runs import Work, audit, start
from findnemo.runs.calibrating import as_published
from findnemo.runs.compare import (
    compare,
    compared_captions,
    methods,
    nemo_of,
    samples,
    switched_off,
)
from findnemo.runs.ordinary import ordinary
from findnemo.runs.standing import neurons_of
from findnemo.runs.workers import Serial
from findnemo.studies import Bench, not_memorized, under_tau
from findnemo.studies.fig2 import fig2a
from findnemo.studies.published import DETECTOR, HOLDOUT, TABLE2, UNRELATED
from findnemo.studies.rows import judge_of
from findnemo.studies.table1 import EACH, _named, costs, each, table
from findnemo.studies.table2 import table2
from findnemo.studies.table4 import table4

OTHERS = ("a boat", "two cups", "night", "a red door")


def rows_of(made):
    return {
        tuple(map(str, row[:2])): dict(zip(made.columns, row, strict=True)) for row in made.rows
    }


def a_run(work, folder, prompts, calibration=None, plan=None):
    calibration = calibration or work.calibration
    plan = plan or work.plan
    run = start(folder, work.model, calibration, plan)
    return Work(run, work.model, calibration, plan, work.judges)


# captions as they come ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def low(work, tmp_path_factory):
    """A run at a tau that two of four ordinary captions reach: one caption has the type of a
    memory and stays under it.
    """
    scores = {
        text: findnemo.score(work.model, text, settings=work.calibration.settings)
        for text in OTHERS
    }
    order = sorted(OTHERS, key=lambda text: -scores[text])
    calibration = replace(work.calibration, tau=(scores[order[1]] + scores[order[2]]) / 2)
    kinds = {order[2]: "VM", order[0]: "none"}
    mine = a_run(work, tmp_path_factory.mktemp("low") / "run", (), calibration)
    with mine.run:
        audit(
            mine,
            [Prompt(text, row, kinds.get(text)) for row, text in enumerate(order, 1)],
            ("detect", "localize"),
        )
        yield mine, order, scores


def test_ordinary_captions_are_those_of_that_kind_whatever_detection_says(low):
    mine, order, _ = low
    assert [c.results["detect"]["memorized"] for c in mine.run.captions()] == [
        True,
        True,
        False,
        False,
    ]
    assert ordinary(mine.run) == [
        order[0],
        order[1],
        order[3],
    ]  # the memory that was missed is not among them
    assert not_memorized(mine.run, ["a new one", order[2]], mine.calibration) == (
        [order[0], order[1], order[3], "a new one"],
        1,
    )


@pytest.mark.slow
def test_table_4_counts_the_neurons_of_ordinary_captions_over_tau(low):
    mine, _, _ = low
    clean, _ = not_memorized(mine.run, [], mine.calibration)
    found = [len(localize(mine.model, text, mine.calibration, "listing").neurons) for text in clean]
    assert sum(n > 0 for n in found) == 2
    unrelated = table4(Bench(mine, clean, limit=1)).tables[1]
    ours = rows_of(unrelated)[("this run", "3")]
    assert ours["without a neuron"] == 1
    middle = sum(found) / 2
    assert ours["median neurons of the others"] == f"{middle:g} ± {abs(max(found) - middle):g}"
    assert "3 of this run, without the type of a memory" in unrelated.note
    assert unrelated.rows[1] == ["paper", 500, 442, "62 ± 27"]


def test_where_no_kind_is_known_the_count_is_left_out_in_words(work, tmp_path):
    mine = a_run(work, tmp_path / "run", ())
    with mine.run:
        captions = audit(
            mine, [Prompt(text, row) for row, text in enumerate(OTHERS, 1)], ("detect",)
        )
        assert ordinary(mine.run) == []
        bench = Bench(mine, [], limit=1, under=under_tau(captions))
        made = table4(bench).tables
        assert made[1].rows[0] == ["this run", None, None, None]
        assert "give some of which that is known, --unrelated FILE" in made[1].note
        assert "guidance in detection" in made[0].note
        assert list(bench.others) == under_tau(captions)
        assert "under tau" in bench.whence(bench.others)


def test_hold_out_captions_are_never_taken(low):
    mine, order, _ = low
    held = ["hold out a", "hold out b", "hold out c"]
    calibration = mine.calibration
    assert calibration.prompts == prompts_digest(held)
    assert not_memorized(mine.run, [*held, "more"], calibration) == (
        [order[0], order[1], order[3], "more"],
        3,
    )
    assert not_memorized(mine.run, ["x", "y"], calibration, {"y"}) == (
        [order[0], order[1], order[3], "x"],
        1,
    )
    assert (
        not_memorized(mine.run, held[:2], calibration)[1] == 0
    )  # other captions than those of the calibration


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
    mine = a_run(work, tmp_path / "run", ())
    with mine.run:
        audit(mine, [Prompt("a boat", 1, kind), Prompt("two cups", 2, "VM")], ())
        assert ordinary(mine.run) == ([] if memory else ["a boat"])


# the score as a detector --------------------------------------------------------------------------


def test_figure_2a_judges_memories_that_were_missed_too(low):
    mine, order, scores = low
    bench = Bench(mine, [order[0], order[1], order[3]])
    made = {row[0]: row[1:] for row in fig2a(bench).tables[0].rows}
    missed = scores[order[2]]
    others = [scores[t] for t in (order[0], order[1], order[3])]
    assert made["AUROC, all"][0] == pytest.approx(
        sum(missed > s for s in others) / 3
    )  # 1 of 3: two ordinary ones are above it
    tau = mine.calibration.tau
    assert made["accuracy at tau, all"][0] == pytest.approx(
        ((missed >= tau) + sum(s < tau for s in others)) / 4
    )
    assert made["accuracy at .5, VM"][0] == pytest.approx(
        ((missed >= 0.5) + sum(s < 0.5 for s in others)) / 4
    )
    assert made["AUROC, all"][0] == made["AUROC, VM"][0]
    assert [
        made[f"{name}, {kind}"][1]
        for kind in ("all", "VM")
        for name in ("AUROC", "accuracy at .5", "TPR at 1 % FPR")
    ] == [*("0.98", "0.942", "0.876"), *("0.9964", "0.9739", "0.9821")]


def test_without_other_captions_accuracy_at_tau_is_left_out(low):
    mine, _, _ = low
    (made,) = fig2a(Bench(mine, [])).tables
    assert {row[0]: row[1] for row in made.rows}["accuracy at tau, all"] is None
    assert "tau was computed from them" in made.note


def test_published_numbers():
    assert {name: tuple(row.values()) for name, row in TABLE2.items()} == {
        "Alg. 1, noise differences": (0.21, 0.18),
        "Alg. 2, out-of-distribution neurons": (0.29, 0.25),
        "Alg. 3, initial selection": (2.31, 6.09),
        "Alg. 4, refinement": (12.85, 39.37),
        "total": (15.68, 45.90),
    }
    assert (HOLDOUT, UNRELATED) == ((0.358, 0.07, 0.428), (500, 442, 62, 27))
    assert DETECTOR == {"all": (0.98, 0.942, 0.876), "VM": (0.9964, 0.9739, 0.9821)}


def test_table_2_shows_them(work):
    (made,) = table2(Bench(work, [], limit=1)).tables
    at = {head: k for k, head in enumerate(made.columns)}
    total = next(row for row in made.rows if row[0] == "total")
    assert (total[at["VM, s, paper"]], total[at["TM, s, paper"]]) == ("15.68", "45.90")
    assert "the paper's Algorithm 2 takes one" in made.note


# NeMo's row and ours ------------------------------------------------------------------------------


@pytest.fixture
def other(work, tmp_path):
    """A run whose own search found two neurons more than the listing."""
    texts = [c for c in work.run.captions() if c.type]
    mine = a_run(work, tmp_path / "run", (), plan=replace(work.plan, search="gradient"))
    with mine.run as run:
        audit(mine, [Prompt(c.text, c.row, c.type) for c in texts], ("detect", "localize"))
        for caption in run.captions():
            more = neurons_of(caption) | findnemo.NeuronSet(
                {name: [0, 1] for name in mine.model.value_layers}
            )
            found = caption.results["localize"] | {"neurons": more.to_json()}
            run.record(caption.id, "localize", found, 0.1)
        yield mine


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
        assert nemo_of(other, caption) == listed == switched_off(other, caption, "nemo")
        assert switched_off(other, caption, "neurons") == neurons_of(caption) != listed
        drawn = switched_off(other, caption, "random-1")
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
    mine = a_run(work, tmp_path / "run", (), plan=replace(work.plan, search="listing"))
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


@pytest.mark.parametrize(
    ("clip", "told"),
    [
        (
            "openai/clip-vit-base-patch32",
            "A_CLIP is with openai/clip-vit-base-patch32, as in the paper.",
        ),
        (
            "openai/clip-vit-large-patch14",
            (
                "A_CLIP is with openai/clip-vit-large-patch14, the paper's with"
                " openai/clip-vit-base-patch32"
            ),
        ),
    ],
)
def test_the_table_says_which_clip_it_used(work, tmp_path, clip, told):
    caption = next(c for c in work.run.captions() if c.type == "VM")
    mine = a_run(work, tmp_path / "run", (), plan=replace(work.plan, judges={"clip": clip}))
    with mine.run:
        audit(mine, [Prompt(caption.text, 1, "VM")], ("detect", "localize"))
        compare(mine, ["neurons"])
        shown = table(mine.run, clip=judge_of(mine.run, mine.plan.judges))
    note = shown.note
    assert told in note
    assert ("A_CLIP, paper" in shown.columns) == ("large" not in clip)
    assert ("are not comparable" in note) == ("large" in clip)


def test_memories_without_neurons_are_told(low):
    mine, _, _ = low
    told = "findnemo switches nothing off for 1 caption (row 3) with the type of a memory"
    assert told in table(mine.run).note


def test_a_note_names_the_rows_of_the_first_captions():
    captions = [SimpleNamespace(row=row) for row in range(3, 10)]
    assert _named(captions[:2]) == "2 captions (rows 3 and 4)"
    assert _named(captions) == "7 captions (rows 3, 4, 5, 6, 7 and 2 more)"


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
    mine = a_run(work, tmp_path / "run", (), own)
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


def test_a_memory_that_was_missed_is_compared_with_nothing_switched_off(low):
    mine, order, _ = low
    compare(mine, ["neurons", "embedding:iterations=1"])
    missed = next(c for c in mine.run.captions() if c.text == order[2])
    assert not missed.results["detect"]["memorized"]
    assert missed.results["compare:neurons"]["neurons"] == 0
    assert missed.results["compare:neurons"]["sscd_gen"] == pytest.approx(1, abs=1e-3)
    assert not any("compare:neurons" in c.results for c in mine.run.captions() if c != missed)
    # every image of two halves a step, and a first step three times and once without the prompt
    passes = mine.plan.image_settings.passes
    assert missed.results["compare:none"]["evaluations"] == passes
    assert missed.results["compare:neurons"]["evaluations"] == passes
    adjusted = missed.results["compare:embedding:iterations=1"]["evaluations"]
    assert passes + 4 <= adjusted <= passes + 5
    lines = {row[0]: row for row in costs(mine.run).rows}
    assert lines["Embedding adjustment (Wen et al.), iterations=1"][-2:] == ["no", "yes"]
    assert (mine.run.path / f"compare/{missed.slug}/embedding-iterations-1.png").exists()


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


def test_what_a_caption_costs_once_is_no_cost_of_its_images(low):
    mine, order, _ = low
    compare(mine, ["wanda:steps=4:first=2", "neurons"])
    missed = next(c for c in mine.run.captions() if c.text == order[2])
    found = missed.results["compare:wanda:steps=4:first=2"]
    # two steps of two halves, and not one more
    assert (found["once"], found["evaluations"]) == (4, mine.plan.image_settings.passes)
    lines = {row[0]: row for row in costs(mine.run).rows}
    once = costs(mine.run).columns.index("once")
    assert lines["Wanda pruning, steps=4, first=2"][once] == 4
    assert lines["All neurons active"][once] is None


def test_costs_of_a_run_that_searches_by_the_listing(work, tmp_path):
    caption = next(c for c in work.run.captions() if c.type == "VM")
    mine = a_run(work, tmp_path / "run", (), plan=replace(work.plan, search="listing"))
    with mine.run:
        audit(mine, [Prompt(caption.text, 1, "VM")], ("detect", "localize"))
        compare(mine, ["nemo", "neurons"])
        made = costs(mine.run)
        lines = {row[0]: dict(zip(made.columns, row, strict=True)) for row in made.rows}
    nemo, own = (lines[f"Deactivated neurons ({name})"] for name in ("NeMo", "findnemo"))
    assert nemo["once"] == own["once"] > 0
    assert nemo["gradients"] == own["gradients"] == "no"


def test_costs_tell_of_rows_of_other_captions(other):
    compare(other, ["neurons"])
    assert "not of the same captions" not in costs(other.run).note
    compare(other, ["embedding:iterations=1"], limit=1)
    made = costs(other.run)
    assert {row[1] for row in made.rows} == {1, 3}
    assert "not of the same captions" in made.note


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


def test_a_table_of_some_captions_names_them(other):
    every = compared_captions(other.run.captions())
    compare(other, ["neurons"], limit=1)
    assert f"Compared are 1 caption (row {every[0].row}) of {len(every)}." in table(other.run).note
    compare(other, ["neurons"])
    assert "Compared are" not in table(other.run).note
