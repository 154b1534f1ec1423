"""How figures look: colours that can be told apart, on light pages and on dark ones."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from findnemo.studies.figure import BLUE, COLOURS, GREEN, GREY, RED, figure, ink, page, picture_grid

# what is left of a linear colour for those who lack a kind of cone (Machado, Oliveira and Fernandes
# 2009, severity 1)
SEEN = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def linear(color):
    """sRGB -> linear light."""
    value = np.array(to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(light):
    """CIE L*a*b* of linear sRGB, white point D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.array(to_xyz) @ np.clip(light, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colors, seen):
    """The least distance of two colours, in units of L*a*b*."""
    places = [lab(np.array(SEEN[seen]) @ linear(color)) for color in colors]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(places, 2))


def contrast(one, other):
    """The contrast ratio of WCAG 2.1."""
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] + 0.05 for c in (one, other))
    return high / low


@pytest.mark.parametrize("seen", SEEN)
def test_colour_blind_readers_tell_the_groups_apart(seen):
    assert nearest((BLUE, RED, GREEN, GREY), seen) > 15
    assert nearest(("#b00000", "#5c5c00"), seen) < 15  # a dark red and an olive: hard to tell apart


@pytest.mark.parametrize("name", COLOURS)
def test_text_and_groups_stand_out_from_the_page(name):
    ground = COLOURS[name][0]
    with page(name):
        assert contrast(ink(), ground) >= 7
    assert min(contrast(color, ground) for color in (BLUE, RED, GREEN, GREY)) >= 3


def test_a_figure_has_the_colours_of_its_page_and_the_next_one_those_of_the_usual():
    with page("dark"):
        with figure() as (dark, (axis,)):
            axis.set(xlabel="score")
        grid = picture_grid([("all on", [np.zeros((2, 2, 3))])])
    with figure() as (light, _):
        pass
    ground, text, _ = COLOURS["dark"]
    for made in (dark, grid):
        assert to_rgb(made.get_facecolor()[:3]) == to_rgb(ground)
    assert to_rgb(axis.xaxis.label.get_color()) == to_rgb(text)
    assert to_rgb(light.get_facecolor()[:3]) == to_rgb(COLOURS["light"][0])
