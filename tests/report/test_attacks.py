"""Attempts, attacks and hardening on the page."""

from __future__ import annotations

from _page import page_of
from _runs import LAYERS, make_run, memorized

from findnemo.report._attacks import attempts, hardened

FIRST, SECOND, MID = LAYERS


def test_attack_curves_are_shown_if_the_run_holds_them(tmp_path, page):
    assert "attack" not in page.by_id
    attack = {
        "x": "steps",
        "y": "SSCD",
        "n": 3,
        "curves": {"attacked <b>": [[0, 0.1], [50, 0.9]], "control": [[0, 0.0], [50, 0.3]]},
    }
    other = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], attack=attack))
    assert "SSCD over steps, n = 3" in other.text
    assert "curve 0 50 attacked <b> 0.100 0.900 control 0.000 0.300" in other.text
    lines = [a["points"].split() for t, a in other.tags if t == "polyline"]
    heights = [[float(p.split(",")[1]) for p in line] for line in lines]
    assert [h[0] > h[1] for h in heights] == [True, True]  # both rise, the attack more
    assert heights[0][1] < heights[1][1]


def test_a_cell_of_attempts_is_a_count_a_dash_or_tells_nothing():
    """An edited model counts on the captions on which an attempt works: on one of two, or none."""
    works = {"n": 2, "works": 1, "back": 1, "beyond": 0, "low": 0.21, "high": 1.0}
    mute = works | {"works": 0, "back": 0}
    plain = {"captions": 1, "n": 2, "low": 0.09, "high": 0.91}
    table = {
        "works": {"untouched": plain, "neurons off": plain | {"told": works}},
        "mute": {"untouched": plain, "neurons off": plain | {"told": mute}},
        "untried": {"untouched": plain},
    }
    found = attempts({"columns": ["untouched", "neurons off"], "table": table})
    one = ("1 of 2", "9 % to 91 %")
    assert found["rows"] == [
        ("works", [one, ("1 of 1", "21 % to 100 %")]),
        ("mute", [one, ("tells nothing", "")]),
        ("untried", [one, ("\u2013", "")]),
    ]
    assert attempts({"columns": ["untouched"], "table": {}}) is attempts(None) is None


def test_hardening_has_a_row_for_each_figure_that_some_model_has():
    quality = {
        "untouched": {"pixel_change": [0.0]},
        "hardened": {"pixel_change": [0.0421, 0.03, 0.05], "kid": [-0.5, -0.75, -0.25]},
    }
    found = hardened({"quality": quality, "prompts": 8, "images": 2})
    assert found["models"] == ["untouched", "hardened"]
    assert [cells for _, cells in found["rows"]] == [
        [("0", ""), ("0.0421", "0.030 to 0.050")],
        [("\u2013", ""), ("\u22120.5", "\u22120.750 to \u22120.250")],
    ]
