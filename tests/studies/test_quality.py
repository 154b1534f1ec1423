"""The pictures that quality is measured against."""

from __future__ import annotations

import pytest
from _workshop import real_pictures
from PIL import Image

from findnemo import demo
from findnemo.errors import InputError
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
