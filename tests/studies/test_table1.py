"""Table 1: mitigations compared, their costs, and what its notes tell."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from _workshop import a_run, cells
from PIL import Image

import findnemo
from findnemo.edits import deactivate
from findnemo.prompts import Prompt
from findnemo.runs import audit
from findnemo.runs.compare import compare, compared_captions
from findnemo.runs.compare import methods as compared
from findnemo.runs.standing import neurons_of
from findnemo.studies.rows import judge_of
from findnemo.studies.table1 import costs, table
from findnemo.studies.table1 import rows as methods_by_label


@pytest.mark.slow
def test_table_1_has_every_mitigation_and_medians_of_what_was_recorded(made):
    head, *rows = cells(made.folder, "table1-1")
    methods = methods_by_label(compared())
    assert [r[0] for r in rows if r[1] == "VM"] == list(methods)
    column = head.index("SSCD_gen")
    for label, names in methods.items():
        stages = [
            (c.id, f"compare:{name}")
            for c in made.work.run.captions()
            for name in names
            if c.type == "VM"
        ]
        values = [
            p["sscd_gen"] for stage in stages if (p := made.work.run.result(*stage)) is not None
        ]
        middle = median(values)
        row = next(r for r in rows if r[:2] == [label, "VM"])
        assert row[column] == f"{middle:.2f} ± {median(abs(v - middle) for v in values):.2f}"
        assert row[2] == str(len(values))
    assert (
        next(r for r in rows if r[0] == "All neurons active" and r[1] == "VM")[column]
        == "1.00 ± 0.00"
    )


@pytest.mark.slow
def test_the_comparison_is_of_the_images_that_the_mitigation_gives(made):
    work = made.work
    caption = next(c for c in work.run.captions() if c.type == "TM")
    settings = work.plan.image_settings
    samples = range(1000, 1002)
    before = findnemo.generate(work.model, caption.text, samples, settings)
    with deactivate(work.model, neurons_of(caption)):
        after = findnemo.generate(work.model, caption.text, samples, settings)
    one, other = work.judges.descriptor(before), work.judges.descriptor(after)
    payload = work.run.result(caption.id, "compare:neurons")
    assert payload["sscd_gen"] == pytest.approx(float((one * other).sum(1).median()), abs=2e-4)
    kept = np.asarray(Image.open(work.run.path / "compare" / caption.slug / "neurons.png"))
    assert (kept == np.asarray(after[0])).all()


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
    mine = a_run(work, tmp_path / "run", plan=replace(work.plan, judges={"clip": clip}))
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


def test_a_note_names_the_rows_of_the_first_captions(work, tmp_path):
    mine = a_run(work, tmp_path / "run")
    with mine.run:
        captions = audit(mine, [Prompt(f"a boat {row}", row, "VM") for row in range(3, 11)], ())
        for compared_so_far, named in (
            (2, "2 captions (rows 3 and 4) of 8."),
            (7, "7 captions (rows 3, 4, 5, 6, 7 and 2 more) of 8."),
        ):
            for caption in captions[:compared_so_far]:
                mine.run.record(caption.id, "compare:none", {"images": 2, "neurons": 0}, 0.1)
            assert f"Compared are {named}" in table(mine.run).note


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
    mine = a_run(work, tmp_path / "run", plan=replace(work.plan, search="listing"))
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


def test_a_table_of_some_captions_names_them(other):
    every = compared_captions(other.run.captions())
    compare(other, ["neurons"], limit=1)
    assert f"Compared are 1 caption (row {every[0].row}) of {len(every)}." in table(other.run).note
    compare(other, ["neurons"])
    assert "Compared are" not in table(other.run).note
