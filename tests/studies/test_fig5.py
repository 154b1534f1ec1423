"""Figure 5: quality by the number of neurons off, and factors that neurons are scaled by."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean, stdev

import pytest
import torch
from _inception import Resizing
from _workshop import cells, real_pictures
from PIL import Image

from findnemo.edits import deactivate
from findnemo.errors import FindnemoError
from findnemo.images import generate
from findnemo.metrics import Inception, fid, kid
from findnemo.prompts import read_training
from findnemo.runs.standing import all_neurons
from findnemo.seeds import UNTOUCHED
from findnemo.studies import Bench, Reference
from findnemo.studies.fig5 import fig5a


def numbers(cell):
    return [float(part) for part in cell.split(" ± ")]


@pytest.mark.slow
def test_quality_is_against_real_pictures_over_five_seeds(work, tmp_path):
    """The prompts are the pictures' captions without memories; figures from plain generation."""
    memory = next(c.text for c in work.run.captions() if c.type)
    folder = real_pictures(tmp_path / "real", ("a tall ship", "a wide field", memory))
    torch.jit.script(Resizing()).save(str(tmp_path / "inception.pt"))
    reference = Reference(read_training(folder).pictures, tmp_path / "inception.pt")
    made = fig5a(Bench(work, (), reference=reference))
    head, rows = made.tables[0].columns, made.tables[0].rows
    assert head[2:] == ["FID (Inception)", "KID (Inception)", "CLIP-FID", "A_CLIP"]

    prompts = ["a tall ship", "a wide field"]
    pictures = [Image.open(folder / f"{k}.png") for k in range(3)]
    off = all_neurons(work.run.captions())
    look = Inception(tmp_path / "inception.pt")
    expected = []
    for seed in range(5):
        with deactivate(work.model, off):
            images = [
                generate(work.model, p, [UNTOUCHED + seed], work.plan.image_settings)[0]
                for p in prompts
            ]
        expected.append([measure(pictures, images, look) for measure in (fid, kid)])
    row = next(r for r in rows if r[:2] == ["found", len(off)])
    for cell, values in zip(row[2:], zip(*expected, strict=True), strict=False):
        mean, deviation = numbers(cell)
        assert mean == pytest.approx(fmean(values), rel=6e-3, abs=1e-5)
        assert deviation == pytest.approx(stdev(values), rel=0.06, abs=1e-5)
    assert "3 reference pictures" in made.tables[0].note

    kept = [key for key in work.run.query("SELECT key FROM meta") if "fig5a" in key[0]]
    fig5a(Bench(work, (), reference=replace(reference, inception=None)))
    more = [key for key in work.run.query("SELECT key FROM meta") if "fig5a" in key[0]]
    assert len(more) == len(kept) + 5  # what is measured otherwise stands beside it


def test_a_picture_that_cannot_be_read_is_named_before_any_image_is_made(
    work, tmp_path, monkeypatch
):
    folder = real_pictures(tmp_path / "real")
    (folder / "1.png").write_bytes(b"no picture")
    monkeypatch.setattr("findnemo.studies._quality.pictured", None)
    with pytest.raises(FindnemoError, match=r"1\.png: not an image"):
        fig5a(Bench(work, (), reference=Reference(read_training(folder).pictures)))


def test_one_picture_is_refused_before_any_image_is_made(work, tmp_path, monkeypatch):
    folder = real_pictures(tmp_path / "real")
    monkeypatch.setattr("findnemo.studies._quality.pictured", None)
    pictures = read_training(folder).pictures[:1]
    with pytest.raises(FindnemoError, match="2 or more: there is 1"):
        fig5a(Bench(work, (), reference=Reference(pictures)))


@pytest.mark.slow
def test_quality_without_a_change_is_the_floor_and_counts_are_those_off(made):
    head, *rows = cells(made.folder, "fig5a")
    counts = [int(r[1]) for r in rows if r[0] == "found"]
    assert max(counts) == len(all_neurons(made.work.run.captions()))
    assert all(
        0 < int(r[1]) <= n
        for r, n in zip((r for r in rows if r[0] == "random"), counts, strict=True)
    )
    assert rows[0][:2] == ["none", "0"]
    assert all(float(r[head.index("FID (descriptor)")].split()[0]) >= 0 for r in rows)
