"""The subject of the app: what is opened, and pictures from its run alone."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _asking import ME, Reader
from _captions import FIRST, HOSTILE
from PIL import Image

import findnemo
from findnemo import demo
from findnemo.app import events, open_subject
from findnemo.app.edit import NONE, Edit
from findnemo.app.subject import caption_of, confined, run_images, shipped_run, training_image
from findnemo.errors import InputError, MismatchError
from findnemo.neurons import NeuronSet
from findnemo.runs import Run, state
from findnemo.runs.standing import folder_of


def test_a_search_reads_the_run_again_only_after_it_changed(subject, tmp_path, monkeypatch):
    own = replace(subject, run=shutil.copytree(subject.run, tmp_path / "run"))
    read = []
    rows = Run.rows

    def counted(run, table, *rest):
        read.append(table)
        return rows(run, table, *rest)

    monkeypatch.setattr(Run, "rows", counted)
    found = [events.matching(own, wanted, "all", "row") for wanted in ("", "a", "zz")]
    assert found[0]
    assert read.count("results") == 1, "one window of captions, read once"
    number = found[0][0].id
    assert not found[0][0].listed
    with Run.open(own.run) as run:  # what an audit under way does
        run.set_meta("listed", [number])
    assert [c.id for c in events.matching(own, "", "all", "row") if c.listed] == [number]


@pytest.fixture
def stranger(subject, tmp_path):
    """The subject on a copy of the run whose model is not the demo, beside a
    picture that nobody may see.
    """
    shutil.copytree(subject.run, tmp_path / "copy")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    model = copy.copy(subject.model)
    model.source = "elsewhere"
    return replace(subject, run=tmp_path / "copy", model=model)


def test_pictures_come_from_the_run_directory_only(stranger, tmp_path):
    caption = next(c for c in events.captions(stranger) if c.text == HOSTILE)
    assert caption.image == "../secret.png"
    (stranger.run / "link.png").symlink_to(tmp_path / "secret.png")
    (stranger.run / "outside").symlink_to(tmp_path)
    crafted = [
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "outside/secret.png",
        "run.sqlite",
        "a\0b",
        "x" * 5000,
        ".",
    ]
    for image in crafted:
        assert training_image(stranger, HOSTILE, replace(caption, image=image)) is None
    inside = (
        Path("images")
        / next(c for c in events.captions(stranger) if c.text == FIRST).slug
        / "before-00.png"
    )
    assert (
        training_image(stranger, HOSTILE, replace(caption, image=str(inside))) is not None
    )  # the check can pass


def test_a_link_among_the_images_of_a_run_is_not_followed(stranger, tmp_path):
    first = next(c for c in events.captions(stranger) if c.text == FIRST)
    picture = stranger.run / folder_of(first) / "images" / first.slug / "before-00.png"
    assert len(run_images(stranger, first)["before"]) == 2
    picture.unlink()
    picture.symlink_to(tmp_path / "secret.png")
    assert len(run_images(stranger, first)["before"]) == 1
    assert confined(stranger.run, folder_of(first), "images", first.slug, "before-00.png") is None


def test_what_was_fetched_for_the_audit_is_the_training_image(stranger):
    from findnemo.files.originals import kept_name

    caption = events.captions(stranger)[0]
    url = "https://example.org/picture.png"
    named = replace(caption, image=url)
    assert training_image(stranger, FIRST, named) is None  # nothing is fetched
    (stranger.run / "originals").mkdir()
    Image.new("RGB", (8, 8), "blue").save(stranger.run / "originals" / kept_name(url), format="PNG")
    assert training_image(stranger, FIRST, named).getpixel((0, 0)) == (0, 0, 255)


def test_a_model_without_a_run(tiny, tmp_path):
    alone = open_subject("live", tmp_path, model=tiny)
    assert (alone.run, alone.calibration) == (None, None)
    assert events.captions(alone) == events.exportable(alone) == []
    assert "without a run" in Reader(events.welcome(alone)).text


def test_a_shipped_model_opens_on_its_shipped_run(demo_model, tmp_path):
    source = demo.ASSETS / "run"
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    assert sum(map(len, before.values())) <= 1.5e6
    opened = open_subject("demo", tmp_path, model=demo_model)
    assert opened.calibration.tau == demo.calibration("demo", "findnemo").tau
    assert Reader(events.welcome(opened)).text == "A finished audit of the model demo"
    cards = events.cards(opened, events.matching(opened, "", "all", "worst first"))
    assert cards[0].before is not None
    assert cards[0].after is not None
    memorized = [c for c in events.captions(opened) if state(c) == "memorized"]
    assert {c.text for c in memorized} == {p.text for p in demo.memorized()}
    assert all(
        len(images) == events.SAMPLES
        for c in memorized
        for images in run_images(opened, c).values()
    )
    assert opened.run.is_relative_to(tmp_path)  # a copy: the package is not written to
    assert before == {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    edit = Edit(memorized[0].localized.neurons)
    _, said = events.save(opened, ME, edit)
    assert "findnemo export demo --neurons-file" in Reader(said).text


def test_the_natural_demo_opens_on_its_shipped_run(tmp_path):
    opened = open_subject("demo-natural", tmp_path)
    memorized = [c for c in events.captions(opened) if state(c) == "memorized"]
    assert {c.text for c in memorized} <= {p.text for p in demo.memorized("demo-natural")}
    assert len(memorized) >= 8
    for caption in memorized:
        images = run_images(opened, caption)
        assert len(images["before"]) == len(images["after"]) == events.SAMPLES


def test_a_shipped_model_that_was_changed_opens_without_the_run(demo_model, tmp_path):
    neurons = NeuronSet({next(iter(demo_model.widths())): [0]})
    changed = findnemo.load(findnemo.prune(demo_model, neurons))
    changed.source = "demo"
    assert shipped_run(changed, tmp_path) is None
    assert shipped_run(demo_model, tmp_path) == tmp_path / "run"


def test_a_model_that_is_not_that_of_the_run_is_refused(run_path, tiny, tmp_path):
    with pytest.raises(MismatchError, match="not the model of"):
        open_subject(run_path, tmp_path, model=tiny)
    with pytest.raises(MismatchError):
        open_subject("demo", tmp_path, demo.ASSETS / "calibration", model=tiny)
    assert open_subject("live", tmp_path, model=tiny).calibration is None


def test_images_of_an_edit_are_kept_and_made_again_for_a_model_that_changed(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr("findnemo.app.subject.generate", lambda *asked: [asked])
    alone = open_subject("live", tmp_path, model=tiny)
    first = alone.made("a fox", range(2), NONE)
    assert alone.made("a fox", range(2), NONE) is first
    assert alone.made("a fox", range(1), NONE) is not first
    layer = next(iter(tiny.value_layers.values()))
    with torch.no_grad():
        layer.weight.mul_(2)
    assert alone.made("a fox", range(2), NONE) is not first


def test_a_caption_that_the_run_does_not_have_is_refused(tiny, tmp_path):
    alone = open_subject("live", tmp_path, model=tiny)
    for number in (0, -1, None, "1", 2**70):
        with pytest.raises(InputError, match="no such caption in this run"):
            caption_of(alone, number)
