"""Studies with other images, samplers and judges than the run's own: kept apart from these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _workshop import Brightness
from PIL import Image

import findnemo
from findnemo.edits import deactivate
from findnemo.errors import InputError
from findnemo.runs.compare import apart, compare, kept_images
from findnemo.runs.standing import neurons_of
from findnemo.studies.table1 import table
from findnemo.tasks import Studying
from findnemo.tasks.comparing import as_studied


def other(bench, **changes):
    return replace(bench, work=as_studied(bench.work, Studying(**changes)))


def test_ten_images_are_the_default_and_the_runs_own_settings_are_no_others(bench):
    assert as_studied(bench.work, Studying()).plan.images == 10
    many = replace(bench.work, plan=replace(bench.work.plan, images=12))
    assert as_studied(many, Studying()).plan.images == 12
    assert apart(bench.work) == other(bench, images=2).apart == ""
    tags = {other(bench, **o).apart for o in ({"images": 3}, {"images": 3, "sampler": "ddim"})}
    assert len(tags) == 2
    assert all(tag.startswith("@") for tag in tags)


def test_a_sampler_that_the_model_lacks_is_refused(bench):
    with pytest.raises(InputError, match="sampler 'dream'"):
        other(bench, sampler="dream")


def test_results_of_other_settings_do_not_touch_the_runs_own(bench):
    run = bench.work.run
    caption = bench.memorized_captions()[0]
    cases = {"half": (caption, neurons_of(caption), 0.5)}
    own = bench.off("own", cases)
    more = other(bench, images=3).off("more", cases)
    assert (own["half"]["images"], more["half"]["images"]) == (2, 3)
    assert bench.off("own", cases) == own
    named = [
        s for s in next(c for c in run.captions() if c.id == caption.id).results if ":off:" in s
    ]
    assert any(s.startswith("study@") for s in named)


def test_figures_are_of_images_of_those_settings(bench):
    changed = other(bench, images=3, sampler="ddim")
    caption = bench.memorized_captions()[0]
    off = neurons_of(caption)
    payload = changed.off("ddim", {"off": (caption, off, 0.0)})["off"]
    settings = replace(bench.image_settings, sampler="ddim")
    samples = range(1000, 1003)
    model = bench.work.model
    before = findnemo.generate(model, caption.text, samples, settings)
    with deactivate(model, off):
        after = findnemo.generate(model, caption.text, samples, settings)
    look = bench.work.judges.descriptor
    cosines = (look(before) * look(after)).sum(1)
    assert payload["sscd_gen"] == pytest.approx(float(cosines.median()), abs=2e-4)
    kept = kept_images(changed.work, caption)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(kept, before, strict=True))
    assert "3 a caption where nothing else is said, sampler DDIM, 2 steps" in changed.made_with


def test_table_1_of_other_settings_stands_beside_that_of_the_run(bench):
    run = bench.work.run
    compare(bench.work, ["neurons"])
    own = table(run).rows
    changed = other(bench, images=3)
    compare(changed.work, ["neurons"])
    assert table(run).rows == own
    assert "3 seeds a caption" in table(run, apart=changed.apart).note
    assert "2 seeds a caption" in table(run).note
    slug = bench.memorized_captions()[0].slug
    for folder in ("compare", f"compare{changed.apart}"):
        assert Image.open(run.path / folder / slug / "neurons.png")


def test_another_clip_is_recorded_and_named(bench, monkeypatch):
    monkeypatch.setattr("findnemo.tasks.opening.Alignment", lambda place, _: Brightness())
    changed = other(bench, images=2, clip="openai/clip-vit-base-patch32")
    assert changed.apart
    assert "and openai/clip-vit-base-patch32." in changed.made_with
    assert bench.clip == "a CLIP that the run does not name"
