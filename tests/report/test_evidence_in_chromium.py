"""The evidence pack in a real browser: it asks for nothing, runs nothing, fits any screen."""

from __future__ import annotations

import pytest
from _runs import LAYERS, make_run, memorized, under

from findnemo.report import write_evidence
from findnemo.runs import Run

FIRST = next(iter(LAYERS))
HOSTILE = "\u202e</template><script>document.title = 'stolen'</script><img src=http://x.example>"
CELL = {"images": 0.0, "captions": 0, "n": 5, "low": 0.0, "high": 0.43}
ATTEMPTS = {
    "columns": ["untouched", "neurons off"],
    "table": {f"seeds: {k}": {"untouched": CELL, "neurons off": CELL} for k in range(8)},
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    captions = [memorized(HOSTILE, {FIRST: [1]}), memorized("x" * 5000, {FIRST: [2]})]
    path = make_run(
        tmp_path_factory.mktemp("chromium") / "run", [*captions, under("c")], attempts=ATTEMPTS
    )
    with Run.open(path) as run:
        page, _ = write_evidence(run, release="weights", by="x" * 200, captions=True)
    return page


def test_nothing_runs_and_the_data_are_inert(visit):
    page = visit()
    assert page.title() == "Evidence on memorization: a model that is nowhere"
    inside = "document.getElementById('evidence-json').content"
    assert page.evaluate(f"{inside}.childNodes.length") == 1
    assert page.evaluate(f"JSON.parse({inside}.textContent).kind") == "findnemo evidence"
    assert page.evaluate("document.scripts.length") == 0


@pytest.mark.first(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_structure_have_no_known_fault(assert_no_known_fault, scheme):
    assert_no_known_fault(scheme)


@pytest.mark.parametrize("width", [360, 400, 1000])
def test_nothing_is_wider_than_the_screen(visit, width):
    page = visit(width)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints_on_a4_with_its_folds_open(visit, tmp_path):
    page = visit()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    box = page.get_by_text("seeds: 7; untouched").bounding_box()  # in a fold, on the screen
    assert box is not None
    assert box["height"] > 0
    pdf = page.pdf(path=tmp_path / "evidence.pdf", prefer_css_page_size=True)
    assert b"/MediaBox [0 0 594.9" in pdf or b"/MediaBox [0 0 595" in pdf
