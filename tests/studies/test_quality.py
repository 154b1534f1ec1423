"""The pictures that quality is measured against."""

from __future__ import annotations

import pytest
from _workshop import real_pictures
from PIL import Image

from findnemo import demo
from findnemo.errors import InputError
from findnemo.tasks import Studying
from findnemo.tasks.comparing import _reference


def test_the_demo_brings_reference_pictures_and_a_folder_replaces_them(tmp_path):
    own = _reference(Studying(), True)
    assert [p.caption for p in own.pictures] == list(demo.unrelated()[: len(own.pictures)])
    assert {Image.open(p.path).size for p in own.pictures} == {(64, 64)}
    given = Studying(reference=real_pictures(tmp_path / "real"), quality_captions=7)
    assert len(_reference(given, True).pictures) == 3
    assert _reference(given, False).captions == 7
    assert not _reference(Studying(), False).pictures
    with pytest.raises(InputError, match="no training pictures"):
        _reference(Studying(reference=tmp_path / "none"), False)
