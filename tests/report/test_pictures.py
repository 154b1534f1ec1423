"""Thumbnails: small, whole, and as large as fit."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from _runs import photograph, save
from PIL import Image

from findnemo.files.html import data_uri
from findnemo.report._pictures import Wanted, thumbnails


def decoded(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.fixture
def files(tmp_path):
    made = []
    for k in range(6):
        made.append(tmp_path / f"{k}.png")
        save(photograph(200, k), made[-1])
    return made


def test_thumbnails_are_small_but_never_enlarged_and_look_like_the_picture(files, tmp_path):
    save(photograph(40, 0), tmp_path / "little.png")
    made = thumbnails([*(Wanted(f) for f in files), Wanted(tmp_path / "little.png")])
    assert [decoded(uri).size for uri in made.values()] == [(128, 128)] * 6 + [(40, 40)]
    whole = np.asarray(Image.open(files[0]).resize((128, 128), Image.Resampling.LANCZOS), float)
    assert (
        np.abs(np.asarray(decoded(made[Wanted(files[0])]).convert("RGB"), float) - whole).mean() < 8
    )


def test_thumbnails_shrink_until_all_fit(files):
    wanted = [Wanted(f) for f in files]
    full = sum(map(len, thumbnails(wanted).values()))
    tight = thumbnails(wanted, full // 2)
    assert list(tight) == wanted
    assert sum(map(len, tight.values())) <= full // 2
    assert {decoded(uri).width for uri in tight.values()} < set(range(50, 128))


def test_where_not_even_the_smallest_fit_the_first_ones_are_kept(files):
    wanted = [Wanted(f) for f in files]
    smallest = [len(data_uri(Image.open(f), 51, 40)) for f in files]
    kept = thumbnails(wanted, round(2.5 * max(smallest)))
    assert list(kept) == wanted[:2]
    assert 3 * min(smallest) > 2.5 * max(
        smallest
    )  # pictures alike, so that two fit and three do not


def test_missing_and_broken_files_are_left_out(files, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    made = thumbnails(
        [Wanted(tmp_path / "no.png"), Wanted(tmp_path / "broken.png"), Wanted(files[0])]
    )
    assert list(made) == [Wanted(files[0])]
