"""Studies of finished images: quality against real pictures, similarity to the training image,
whole layers off.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from statistics import fmean, stdev

import pytest
import torch
from _inception import Resizing
from _workshop import Pixels
from PIL import Image

import findnemo
from findnemo import demo
from findnemo.edits import deactivate
from findnemo.errors import FindnemoError, InputError
from findnemo.images import generate
from findnemo.metrics import Inception, fid, kid
from findnemo.neurons import NeuronSet
from findnemo.prompts import read_prompts, read_training
from findnemo.runs.standing import all_neurons
from findnemo.seeds import FRESH, UNTOUCHED
from findnemo.studies import Bench, Reference, write
from findnemo.studies._making import make
from findnemo.studies.fig5 import fig5a
from findnemo.studies.fig6 import fig6
from findnemo.studies.fig9 import fig9
from findnemo.studies.fig16 import _pages, _up_blocks, fig16
from findnemo.tasks import Studying
from findnemo.tasks.comparing import reference_of
from findnemo.training.drawing import drawn


def real(folder, captions=("a tall ship", "a wide field", "a blue cup")):
    """A folder of pictures as trainers read it, with a caption beside each."""
    folder.mkdir()
    for k, caption in enumerate(captions):
        drawn([7, k], 64).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(caption, encoding="utf-8")
    return folder


def numbers(cell):
    return [float(part) for part in cell.split(" ± ")]


# quality ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quality_is_against_real_pictures_over_five_seeds(work, tmp_path):
    """The prompts are the pictures' captions without memories; figures from plain generation."""
    memory = next(c.text for c in work.run.captions() if c.type)
    folder = real(tmp_path / "real", ("a tall ship", "a wide field", memory))
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
    folder = real(tmp_path / "real")
    (folder / "1.png").write_bytes(b"no picture")
    monkeypatch.setattr("findnemo.studies._quality.pictured", None)
    with pytest.raises(FindnemoError, match=r"1\.png: not an image"):
        fig5a(Bench(work, (), reference=Reference(read_training(folder).pictures)))


def test_one_picture_is_refused_before_any_image_is_made(work, tmp_path, monkeypatch):
    folder = real(tmp_path / "real")
    monkeypatch.setattr("findnemo.studies._quality.pictured", None)
    pictures = read_training(folder).pictures[:1]
    with pytest.raises(FindnemoError, match="2 or more: there is 1"):
        fig5a(Bench(work, (), reference=Reference(pictures)))


def test_the_demo_brings_reference_pictures_and_a_folder_replaces_them(tmp_path):
    own = reference_of(Studying(), True)
    assert [p.caption for p in own.pictures] == list(demo.unrelated()[: len(own.pictures)])
    assert {Image.open(p.path).size for p in own.pictures} == {(64, 64)}
    given = Studying(reference=real(tmp_path / "real"), quality_captions=7)
    assert len(reference_of(given, True).pictures) == 3
    assert reference_of(given, False).captions == 7
    assert not reference_of(Studying(), False).pictures
    with pytest.raises(InputError, match="no training pictures"):
        reference_of(Studying(reference=tmp_path / "none"), False)


# similarity to the training image -----------------------------------------------------------------


def test_types_are_told_by_the_best_of_ten_and_read_by_other_commands(work, tmp_path):
    """One caption's training image is one of its own generations; no other's is."""
    first, *others = [c for c in work.run.captions() if c.type]
    settings = work.plan.image_settings
    images = generate(work.model, first.text, range(FRESH, FRESH + 10), settings)

    def original(caption):
        return images[9] if caption.text == first.text else work.original(caption)

    made = fig6(Bench(replace(work, original=original), ()))
    write(made, tmp_path, "fig6")
    with (tmp_path / "fig6-2.csv").open(encoding="utf-8") as file:
        told = {row["caption"]: row for row in csv.DictReader(file)}
    assert float(told[first.text]["similarity"]) == pytest.approx(1, abs=1e-3)
    similar = Pixels()(images) @ Pixels()([images[9]]).T
    over = int((similar > 0.7).sum())
    assert told[first.text]["type"] == "VM"
    for caption in others:
        best = float(told[caption.text]["similarity"])
        assert told[caption.text]["type"] == ("VM" if best > 0.7 else "TM")
    line = next(row for row in made.tables[0].rows if row[0] == first.type)
    group = [c for c in (first, *others) if c.type == first.type]
    assert line[1] == len(group)
    assert line[4] >= over / (10 * len(group))
    read = {p.text: p.type for p in read_prompts(tmp_path / "fig6-2.csv").prompts}
    assert read == {text: row["type"] for text, row in told.items()}


def test_without_descriptor_or_training_image_it_says_what_is_needed(work):
    bare = replace(work, judges=replace(work.judges, descriptor=None))
    nowhere = replace(work, original=lambda caption: None)
    for name in ("fig6", "fig9"):
        with pytest.raises(InputError, match="--descriptor"):
            make(name, Bench(bare, (), limit=1))
        with pytest.raises(InputError, match="has an available training image"):
            make(name, Bench(nowhere, (), limit=1))


def test_highly_memorized_captions_come_in_the_order_of_what_the_listing_leaves(work):
    made = fig9(Bench(work, ()))
    rows = made.tables[0].rows
    assert [row[4] for row in rows] == sorted((row[4] for row in rows), reverse=True)
    caption = next(c for c in work.run.captions() if c.text == rows[0][0])
    found = findnemo.localize(work.model, caption.text, work.calibration, "listing").neurons
    samples = range(FRESH, FRESH + 2)
    with deactivate(work.model, found):
        after = generate(work.model, caption.text, samples, work.plan.image_settings)
    one = Pixels()(after) @ Pixels()([work.original(caption)]).T
    assert rows[0][3:5] == [len(found), pytest.approx(float(one.median()), abs=2e-4)]


# whole layers -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_value_layers_of_the_up_blocks_off_are_their_neurons_off(work):
    bench = Bench(work, (), limit=1)
    rows = fig16(bench).tables[0].rows
    widths = work.model.widths("all")
    assert {row[1] for row in rows} >= {"all down", "all mid", "all up"}
    up = NeuronSet({n: range(w) for n, w in widths.items() if n.startswith("up_blocks")})
    captions = [c for c in work.run.captions() if c.type == "TM"]
    payloads = bench.off("up", {c.id: (c, up, 0.0) for c in captions})
    row = next(r for r in rows if r[:3] == ["value layer", "all up", "TM"])
    assert row[3] == len(captions) == 1
    keys = ("sscd_orig", "sscd_gen", "d_sscd", "a_clip")
    assert row[4:] == [pytest.approx(payloads[captions[0].id][key], abs=1e-3) for key in keys]


def test_pages_are_no_wider_than_ten_and_hold_every_layer_once():
    blocks = {"down": list("abcdef"), "mid": ["m"], "up": list("ghijklmno")}  # Stable Diffusion's
    pages = _pages(blocks)
    assert [len(page) for page in pages] == [8, 10]
    assert pages[0][-2:] == ["all down", "all mid"]
    assert pages[1][-1] == "all up"


def test_what_is_said_of_the_up_blocks_is_what_the_figures_show():
    def rows(value):
        line = [1, None, value, None, None]
        return [["value layer", "all down", "VM", *line[:2], 0.1, None, None],
                ["value layer", "all up", "VM", *line]]  # fmt: skip

    assert "up 0.95 (they barely matter)" in _up_blocks(rows(0.95))
    assert "up 0.20 (they do matter)" in _up_blocks(rows(0.2))
    assert _up_blocks(rows(None)) == ""
