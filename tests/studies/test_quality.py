"""The pictures that quality is measured against."""

from __future__ import annotations

import shutil

import pytest
import torch
from _workshop import Brightness, Pixels, real_pictures
from PIL import Image

from findnemo import demo
from findnemo.errors import InputError
from findnemo.metrics import Judges
from findnemo.prompts import read_training
from findnemo.studies import Reference
from findnemo.tasks import Studying
from findnemo.tasks.comparing import reference_of


def test_the_demo_brings_reference_pictures_and_a_folder_replaces_them(tmp_path):
    own = reference_of(Studying(), True)
    assert [p.caption for p in own.pictures] == list(demo.unrelated()[: len(own.pictures)])
    assert {Image.open(p.path).size for p in own.pictures} == {(64, 64)}
    given = Studying(reference=real_pictures(tmp_path / "real"), quality_captions=7)
    assert len(reference_of(given, True).pictures) == 3
    assert reference_of(given, False).captions == 7
    assert not reference_of(Studying(), False).pictures
    with pytest.raises(InputError, match="no training pictures"):
        reference_of(Studying(reference=tmp_path / "none"), False)


def test_pictures_that_are_read_in_groups_have_the_features_of_all(tmp_path, monkeypatch):
    judges = Judges(Pixels(), Brightness())
    reference = Reference(read_training(real_pictures(tmp_path / "real")).pictures)
    images = [Image.open(tmp_path / "real" / f"{k}.png") for k in range(3)]
    monkeypatch.setattr("findnemo.studies._quality.GROUP", 2)
    found = reference.features(judges)
    assert set(found) == {"look", "clip"}
    assert torch.equal(found["look"], judges.descriptor(images))
    assert set(reference.features(Judges(Pixels()))) == {"look"}


def test_what_figures_depend_on_changes_with_a_picture_and_not_with_its_place(tmp_path):
    judges = Judges(Pixels(), Brightness())

    def facts(folder):
        return Reference(read_training(folder).pictures).facts(judges)

    before = facts(real_pictures(tmp_path / "real"))
    shutil.copytree(tmp_path / "real", tmp_path / "moved")
    assert facts(tmp_path / "moved") == before
    Image.new("RGB", (64, 64)).save(tmp_path / "moved" / "1.png")
    after = facts(tmp_path / "moved")
    assert {key for key in before if before[key] != after[key]} == {"pictures_sha256"}
    assert Reference().facts(judges)["pictures_sha256"] is None
