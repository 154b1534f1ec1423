"""Captions on the page: their lines, cards, pictures and prices."""

from __future__ import annotations

import re

import pytest
from _page import page_html, page_of
from _priced import DIAGNOSIS, priced
from _runs import LAYERS, Told, make_run, memorized, under

from findnemo.errors import InputError
from findnemo.report import render
from findnemo.report._captions import folded, ordered, thumbs
from findnemo.runs import Run, standing

FIRST, SECOND, MID = LAYERS


def test_a_caption_shows_its_scores_neurons_and_pictures(page):
    card = page.of("caption-2")
    for fact in (
        "gone two",
        "gone on fresh seeds",
        "type TM",
        "layer 1, #1 11.0",
        "layer 3, #5 15.0",
        "0.800 0.300",
        "20 U-Net evaluations",
    ):
        assert fact in card, fact
    start = next(
        k for k, (t, a) in enumerate(page.tags) if t == "article" and a["id"] == "caption-2"
    )
    end = next(
        (k for k in range(start + 1, len(page.tags)) if page.tags[k][0] == "article"),
        len(page.tags),
    )
    alts = [a["alt"] for t, a in page.tags[start:end] if t == "img"]
    assert alts == [
        "", "",  # small ones in its line, shown again below
        "training image", "before, seed 1 of 2", "before, seed 2 of 2", "after, seed 1 of 2", "after, seed 2 of 2",
        "noise difference before, seed 1 of 2", "noise difference before, seed 2 of 2",
        "noise difference after, seed 1 of 2", "noise difference after, seed 2 of 2",
    ]  # fmt: skip


def test_prices_are_a_table_and_a_chart_where_there_is_something_to_choose_and_a_line_elsewhere(
    tmp_path,
):
    cheap = priced("cheap", [[1, 0.8, 0.001], [3, 0.2, 0.02]])
    dear = priced("dear", [[1, 0.8, 0.01], [2, 0.6, None], [3, 0.2, 0.06]])
    far = priced("far", [[1, 0.9, 0.001], [3, 0.7, 0.002]], reached=False, diagnosis=DIAGNOSIS)
    with Run.open(
        make_run(tmp_path / "run", [cheap, dear, far, memorized("older", {MID: [1]})])
    ) as run:
        html = render(run)
    of = {
        text: html.split(f"<bdi>{text}</bdi></h3>")[1].split("</article>")[0]
        for text in ("cheap", "dear", "far", "older")
    }
    assert (
        "Sets tried: 1, 3 neurons; with the last one off ordinary captions change by 0.020"
        in of["cheap"]
    )
    assert "<svg" not in of["cheap"]
    for text in ("dear", "far"):
        assert "What it costs" in of[text]
        assert of[text].count("<polyline") == 2
        assert "export RUN --caption" in of[text]
    rows = re.findall(
        r'<tr><td class="n">(.*?)</td><td class="n">(.*?)</td><td class="n">(.*?)</td></tr>',
        of["dear"],
    )
    assert rows == [("1", "0.800", "0.010"), ("2", "0.600", "\u2013"), ("3", "0.200", "0.060")]
    assert "Sets tried" not in of["older"]
    assert "What it costs" not in of["older"]
    assert "What carries it: &lt;b&gt;all&lt;/b&gt; key layers." in of["far"]
    assert "&lt;i&gt;a" in of["far"]
    assert "What carries it" not in of["dear"]


@pytest.mark.parametrize(
    "damage",
    [
        {"points": [[1, 0.9]]},
        {"points": [["1", 0.9, None]]},
        {"order": [["a", -1]]},
        {"diagnosis": {"sentence": 3}},
    ],
)
def test_prices_of_another_shape_are_damage(tmp_path, damage):
    run = make_run(tmp_path / "run", [priced("far", **({"points": [[1, 0.9, None]]} | damage))])
    with pytest.raises(InputError, match="is damaged or not made by findnemo"):
        page_of(run)


def test_the_picture_at_the_head_is_of_what_is_advised(tmp_path):
    gone = memorized("gone", {FIRST: [1]}, pictures=1)
    left = memorized("left", {FIRST: [2]}, pictures=1, copies_after=1.0)
    other = memorized("other", {FIRST: [3]}, pictures=1)
    for captions, want in ([[gone, other], "gone"], [[gone, left], "left"]):
        html = page_html(make_run(tmp_path / want, captions))
        head = html.split('class="example"')[1].split("</section>")[0]
        assert f"<bdi>{want}</bdi>" in head


def test_broken_pictures_are_left_out_and_said(tmp_path):
    path = make_run(tmp_path / "run", [memorized("a", {FIRST: [1]}, pictures=2)])
    broken = next((path / "images").glob("*/after-01.png"))
    broken.write_bytes(b"not a picture")
    page = page_of(path)
    assert "Some pictures are not in this file" in page.of("caption-1")
    assert "1 picture would make this file too large, or cannot be read" in page.text


def test_the_two_small_pictures_are_of_one_seed(tmp_path):
    path = make_run(tmp_path / "run", [memorized("a", {FIRST: [1]}, pictures=3)])
    with Run.open(path) as run:
        (caption,) = run.captions()
    images = path / "images" / caption.slug
    assert [one.file.name for one in thumbs(path, caption)] == ["before-00.png", "after-00.png"]
    (images / "before-00.png").unlink()
    (images / "after-01.png").unlink()
    assert [one.file.name for one in thumbs(path, caption)] == ["before-02.png", "after-02.png"]
    (images / "after-02.png").unlink()
    assert thumbs(path, caption) == []


def test_captions_under_tau_are_ordered_by_score_and_folded_with_their_number(tmp_path):
    scores = {"low": 0.1, "high": 0.3, "middle": 0.2}
    told = [memorized("a", {FIRST: [1]}), *(under(text, score) for text, score in scores.items())]
    with Run.open(make_run(tmp_path / "run", [*told, Told("nothing yet")])) as run:
        lines = [{"caption": one, "standing": standing(one)} for one in ordered([*run.captions()])]
    assert [one["caption"].text for one in lines[:1]] == ["a"]
    (first, shown), (said, rest) = folded(lines)
    assert (first, [one["caption"].text for one in shown]) == ("", ["a"])
    assert said == "3 captions not memorized, 1 not looked at yet"
    texts = [one["caption"].text for one in rest if one["standing"] == "not memorized"]
    assert texts == ["high", "middle", "low"]
