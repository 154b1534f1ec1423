"""The figures of the demo model: by hand, and that they are all reached."""

from __future__ import annotations

import math

import pytest
import torch
from rich.console import Console

from findnemo.benchmark.demo_check import CheckFigure, check_demo, figures_table, fits_better_than
from findnemo.errors import MismatchError


def test_the_share_of_captions_that_fit_worse_by_hand():
    """Of three others one fits the first image worse, and two the second; the caption itself is
    no other.
    """
    cosines = {"first": [0.5, 0.4, 0.6, 0.5], "second": [0.3, 0.2, 0.1, 0.9]}

    def alignment(images, captions):
        assert captions == ["own", "a", "b", "c"]
        (image,) = set(images)
        return torch.tensor(cosines[image])

    share = fits_better_than(alignment, ["first", "second"], "own", ["a", "own", "b", "c"])
    assert share == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_another_model_is_refused_before_anything_is_measured(tiny):
    with pytest.raises(MismatchError, match="for another model"):
        check_demo(tiny, progress=lambda *given: pytest.fail("it began"))


def test_the_table_says_which_goals_were_missed():
    figures = [
        CheckFigure("AUROC", 0.98765, ">= 0.99", False, 24),
        CheckFigure("copies", 0, "<= 1", True, 3),
    ]
    console = Console(width=80)
    with console.capture() as shown:
        console.print(figures_table(figures))
    lines = [[cell.strip() for cell in line.split("│")] for line in shown.get().splitlines()]
    assert ["AUROC", "0.988", ">= 0.99", "24", "missed"] in lines
    assert ["copies", "0.000", "<= 1", "3", "reached"] in lines


@pytest.mark.slow
def test_one_caption_is_enough_for_a_quick_look(demo_model):
    """Its image is compared with captions that are not among those asked for."""
    figures = check_demo(demo_model, limit=1)
    assert {figure.n for figure in figures if "unrelated" in figure.name} == {1}
    assert all(math.isfinite(figure.value) for figure in figures)


@pytest.mark.slow
def test_demo_check_runs_and_reports_every_figure(demo_model):
    figures = check_demo(demo_model)
    assert len(figures) >= 18
    missed = [f.name for f in figures if not f.reached]
    assert not missed
