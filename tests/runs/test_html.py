"""What values show of themselves in a notebook: the figures, small pictures, and no element that a
caption, a layer or a folder could bring in.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_files import make_run
from PIL import Image

import findnemo
from findnemo import demo
from findnemo.errors import InputError
from findnemo.localization import Localization
from findnemo.localization.points import Point
from findnemo.neurons import NeuronSet
from findnemo.runs import Run
from findnemo.runs._html import BUDGET, SHOWN
from findnemo.runs.export import striking
from findnemo.runs.verdict import advice_of
from findnemo.settings import Settings

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[2J\u202e</figcaption></td> & so on",
    "https://me:secret@host/a.png",
)
KNOWN = {
    *("div", "p", "strong", "table", "caption", "tr", "th", "td"),
    *("svg", "rect", "figure", "img", "figcaption"),
}


class Page(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def pictures(self) -> list[Image.Image]:
        start = "data:image/webp;base64,"
        sources = [a["src"].removeprefix(start) for tag, a in self.elements if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(s, validate=True))) for s in sources]


def read(page: str) -> Page:
    """A page that holds nothing but what findnemo itself writes."""
    found = Page(page)
    assert {tag for tag, _ in found.elements} <= KNOWN
    attributes = {name for _, of in found.elements for name in of}
    assert attributes <= {"style", "src", "alt", "width", "height", "fill", "aria-hidden"}
    assert not re.search(r"[\x00-\x1f\u202e]", page.replace("\n", ""))
    assert "secret" not in page
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of hostile and of many captions, all memorized, with large sheets of noise."""
    place = tmp_path_factory.mktemp("html")
    model = findnemo.load(tiny_pipeline())
    name = next(iter(model.value_layers))
    texts = [*HOSTILE, *(f"caption {k}" for k in range(20))]
    make_run(place / "run", model, {text: NeuronSet({name: [3]}) for text in texts})
    calibration = findnemo.calibrate(model, ["an owl", "the sea"], settings=Settings(samples=3))
    calibration.save(place / "run" / "calibration")
    with Run.open(place / "run") as opened:
        slugs = [c.slug for c in opened.captions()]
    (place / "run" / "sheets").mkdir()
    for slug in slugs:
        noise = Image.frombytes("RGB", (900, 700), os.urandom(900 * 700 * 3))
        noise.save(place / "run" / "sheets" / f"{slug}.png", compress_level=0)
    return place / "run"


@pytest.fixture
def run(made, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "run")


def test_a_run_shows_what_to_do_its_figures_and_small_pictures(run):
    with Run.open(run) as opened:
        page = opened._repr_html_()
        sentence = advice_of(opened, list(opened.captions())).sentence
    found = read(page)
    assert sentence in found.text
    assert "All 24 memories are gone" in found.text
    assert "memories gone on fresh seeds24 of 24" in found.text
    assert "neurons off1" in found.text
    pictures = found.pictures()
    assert 1 <= len(pictures) <= SHOWN
    assert max(max(picture.size) for picture in pictures) <= 420
    assert len(page) < BUDGET + 10_000 < 300_000  # noise is the hardest to make small
    assert f"and {24 - len(pictures)} more memorized" in found.text
    assert opened._repr_html_() == page  # also once it is closed


def test_hostile_captions_are_text_in_a_notebook(run):
    with Run.open(run) as opened:
        page = read(opened._repr_html_())
    shown = [a["alt"] for tag, a in page.elements if tag == "img"]
    assert shown[0] == "<script>alert(1)</script>: gone"
    assert shown[1] == '"><img src=x onerror=alert(1)>: gone'
    assert "<script>alert(1)</script>: gone" in page.text


def test_a_run_whose_pictures_are_gone_or_broken_still_shows_its_figures(run):
    for k, file in enumerate(sorted((run / "sheets").iterdir())):
        file.write_bytes(b"no picture") if k % 2 else file.unlink()
    with Run.open(run) as opened:
        page = read(opened._repr_html_())
    assert page.pictures() == []
    assert "24 of 24" in page.text


def test_a_notebook_shows_no_picture_from_outside_of_the_run(run, tmp_path):
    file = min((run / "sheets").iterdir())
    file.rename(tmp_path / "private.png")
    file.symlink_to(tmp_path / "private.png")
    with Run.open(run) as opened, pytest.raises(InputError, match="is a link"):
        opened._repr_html_()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_localization_shows_scores_neurons_and_the_price_list(text):
    found = Localization(
        text,
        memorized=True,
        score_before=0.912,
        score_after=0.234,
        tau=0.5,
        evaluations=1234,
        neurons=NeuronSet({"<b>up</b>": [1], "down": [2, 7, 9]}),
        p=0.004,
        copy_before=0.98,
        points=(Point(2, 0.7), Point(4, -0.1)),
    )
    page = read(found._repr_html_())
    for said in ("0.912", "0.234", "tau = 0.500", "p = 0.004", "1,234", "2, 7, 9", "4 off"):
        assert said in page.text
    assert "<b>up</b>" in page.text
    widths = [float(a["width"]) for tag, a in page.elements if tag == "svg"]
    assert widths == [200, 67, 200, 143]  # 3 neurons and 1; .98 and .7, and none below 0


def test_a_localization_that_found_nothing_has_no_charts():
    page = read(Localization("a cat", False, 0.1, 0.1, 0.5)._repr_html_())
    assert "0.100, is under tau = 0.500" in page.text
    assert [tag for tag, _ in page.elements].count("table") == 1


def test_a_calibration_shows_tau_and_all_of_its_scores():
    made = demo.calibration()
    page = read(made._repr_html_())
    assert f"{made.tau:.3f}" in page.text
    counts = [int(n) for n in re.findall(r"from -?\d\.\d{3} (\d+)", page.text)]
    assert sum(counts) == len(made.scores) == 600


def test_a_calibration_of_imported_statistics_shows_no_scores():
    made = demo.calibration()
    imported = findnemo.Calibration(
        *("", "published", made.settings, 0.428, made.mean, made.std, 100),
        trajectories=torch.empty(0, 0),
    )
    page = read(imported._repr_html_())
    assert "0.428" in page.text
    assert "svg" not in dict(page.elements)


def test_a_notebook_reads_no_caption_under_the_threshold(tmp_path):
    model = findnemo.load(tiny_pipeline())
    name = next(iter(model.value_layers))
    neurons = {f"caption {k}": NeuronSet({name: [3]} if k < 2 else {}) for k in range(40)}
    run = make_run(tmp_path / "run", model, neurons)
    with Run.open(run) as opened:
        page = read(opened._repr_html_())
        assert [c.text for c in striking(opened)] == ["caption 0", "caption 1"]
    assert "captions memorized2 of 40" in page.text


def test_nothing_is_loaded_to_show_a_run(run, monkeypatch):
    monkeypatch.setattr("findnemo.models.load", lambda *a, **k: pytest.fail("a model is loaded"))
    with Run.open(run) as opened:
        assert opened._repr_html_()
