"""The evidence pack in a real browser: it asks for nothing, runs nothing, fits any screen."""

from __future__ import annotations

import os
import shutil

import pytest
from _runs import LAYERS, make_run, memorized, under

from findnemo.report import write_evidence
from findnemo.runs import Run

pytest.importorskip("playwright", reason="playwright is not installed: pip install '.[dev]'")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="chromium is not installed: apt-get install chromium, or name it in CHROMIUM",
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, file):
    """Open the page; fails at the end if it asked for anything or complained."""
    contexts = []
    asked = []
    said = []

    def opened(width: int = 1000, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert said == []


def test_nothing_runs_and_the_data_are_inert(visit):
    page = visit()
    assert page.title() == "Evidence on memorization: a model that is nowhere"
    inside = "document.getElementById('evidence-json').content"
    assert page.evaluate(f"{inside}.childNodes.length") == 1
    assert page.evaluate(f"JSON.parse({inside}.textContent).kind") == "findnemo evidence"
    assert page.evaluate("document.scripts.length") == 0


@pytest.mark.first(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_structure_have_no_known_fault(visit, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(color_scheme=scheme, bypass_csp=True)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


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
