"""Thumbnails, charts and words of the report, each by itself."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from _runs import photograph, save
from PIL import Image

from findnemo.files.html import data_uri
from findnemo.report._charts import BINS, LEFT, RIGHT, WIDTH, Axis, distribution, neuron_map, sizes
from findnemo.report._pictures import Wanted, thumbnails
from findnemo.report._text import clipped, count, number, percent, shown


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


def test_bars_hold_every_score_and_tau_lies_where_its_value_lies():
    values = [0.11, 0.12, 0.5, 0.5, 0.5, 0.98]
    chart = distribution([("a", "over", values), ("none", "under", [])], 0.55, (0.5, 0.6))
    (strip,) = chart["strips"]
    axis = Axis(0.1, 1.0)
    assert chart["tau"] == axis.at(0.55)
    assert chart["interval"] == (axis.at(0.5), axis.at(0.6))
    for value in values:
        assert any(x - 1 <= axis.at(value) <= x + width + 1 for x, _, width, _ in strip.bars)
    highest = max(strip.bars, key=lambda bar: bar[3])
    assert highest[0] <= axis.at(0.5) <= highest[0] + highest[2] + 1
    assert len(strip.bars) <= BINS
    assert all(top + height == pytest.approx(strip.base) for _, top, _, height in strip.bars)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.3, 0.4), (-0.1, 1.0), (0, 50), (0, 2000)])
def test_ticks_are_round_few_and_where_they_say(low, high):
    axis = Axis(low, high)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    for x, text in ticks:
        assert x == pytest.approx(axis.at(float(text.replace("\u2212", "-"))), abs=0.01)
        assert LEFT <= x <= WIDTH - RIGHT


def test_every_neuron_has_its_mark_in_its_layer():
    chart = neuron_map({"a": 10, "b": 100}, {("a", 0): 1, ("b", 99): 3, ("b", 50): 1})
    a, b = chart["rows"]
    assert a["length"] == pytest.approx(b["length"] / 10)
    assert [m["shared"] for m in b["marks"]] == [False, True]
    for row, index in ((a, 0), (b, 99)):
        mark = row["marks"][-1]
        middle = mark["x"] + mark["width"] / 2 - LEFT
        assert middle == pytest.approx((index + 0.5) / row["of"] * row["length"], abs=0.02)


def test_sizes_count_every_caption_once():
    counts = [1, 1, 2, 3, 4, 5, 9, 674]
    bins = sizes(counts)
    assert sum(b["captions"] for b in bins) == len(counts)
    assert max(b["share"] for b in bins) == 1
    assert sizes([]) == []


def test_words():
    assert (count(1, "memory"), count(2, "memory")) == ("1 memory", "2 memories")
    assert (number(-0.0001), number(0.12345), number(None)) == ("0.000", "0.123", "\u2013")
    assert (percent(1), percent(0.004)) == ("100 %", "0.4 %")
    assert shown("a\ud800b\x00c\n\u202e") == "a\ufffdb\ufffdc\n\u202e"
    assert clipped("abc", 3) == "abc"
