"""The report as a person meets it: in a real browser, without a network, with and without
scripts, light, dark, narrow and on paper.
"""

from __future__ import annotations

import os
import shutil

import pytest
from _runs import LAYERS, Told, make_run, memorized, under

from findnemo.report import write
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
FIRST, SECOND, MID = LAYERS
COMPARED = {
    f"compare:{name}": {"images": 2, "sscd_gen": 0.5, "a_clip": 0.4}
    for name in ("none", "neurons", "wanda")
}
ATTACK = {
    **{"x": "steps", "y": "SSCD_orig", "n": 5, "known": 4},
    "curves": {"attacked": [[0, 0.1], [50, 0.9]], "control": [[0, 0.1], [50, 0.4]]},
    "bands": {
        "attacked": [[0, -0.1, 0.3], [50, 0.8, 1.0]],
        "control": [[0, 0.0, 0.2], [50, 0.2, 0.6]],
    },
    "gaps": {"neurons off: memorized less never seen": [[0, 0.0, -0.2, 0.2], [50, 0.5, 0.3, 0.7]]},
}
CELL = {"images": 0.0, "captions": 0, "n": 5, "low": 0.0, "high": 0.43}
ATTEMPTS = {
    "columns": ["untouched", "neurons off"],
    "table": {"seeds: fresh": {"untouched": CELL, "neurons off": CELL}},
}
QUALITY = {
    "prompts": 1,
    "failed": 0,
    "neurons": 2,
    "pixel_change": 0.02,
    "each": [{"pixel_change": 0.02}],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A report with every section, and captions that are long, hostile and
    written from right to left.
    """
    gone = memorized("gone one", {FIRST: [1, 2, 3, 4, 5, 6, 7], MID: [1, 2, 3]}, pictures=3)
    told = [
        Told(gone.text, gone.results | COMPARED, "VM", 3),
        memorized("x" * 10_000, {FIRST: [1]}, pictures=3),
        memorized(
            "\u202e<script>document.title = 'stolen'</script> \u05e9\u05dc\u05d5\u05dd",
            {SECOND: [2]},
            copies_after=0.5,
        ),
        memorized("beyond reach", {MID: [30]}, reached=False),
        Told("it failed", {"detect": "the noise prediction holds NaN"}),
        under("an ordinary one"),
    ]
    path = make_run(
        tmp_path_factory.mktemp("chromium") / "run",
        told,
        quality=QUALITY,
        attack=ATTACK,
        attempts=ATTEMPTS,
    )
    with Run.open(path) as run:
        return write(run)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, file):
    """Open the report in a context of its own; gives the page, and fails at the end if it asked
    for anything or complained.
    """
    contexts = []
    asked = []
    said = []

    def opened(width: int = 1100, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert said == []


def test_it_opens_from_a_file_with_all_its_pictures(visit):
    page = visit()
    assert page.title() == "Memorization audit of a model that is nowhere"
    widths = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
    assert len(widths) == 2 * (1 + 6 + 6) + 7
    assert min(widths) > 0


def test_without_scripts_everything_is_there(visit):
    page = visit(java_script_enabled=False)
    for text in (
        "out of reach",
        "gone one",
        "Beside other mitigations",
        "Is it really gone?",
        "What this does not prove",
    ):
        assert page.get_by_text(text).first.is_visible()
    page.get_by_text("The whole caption").first.click()  # folds are the browser's own
    assert page.locator("bdi.whole").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_structure_have_no_known_fault(visit, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(color_scheme=scheme, bypass_csp=True)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


def test_dark_mode_is_dark_and_charts_follow(visit):
    colours = {}
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        of = "(s, p) => getComputedStyle(document.querySelector(s))[p]"
        colours[scheme] = [
            sum(
                map(
                    int,
                    page.evaluate(f"([s, p]) => ({of})(s, p)", [where, what])
                    .strip("rgb()")
                    .split(","),
                )
            )
            for where, what in (
                ("body", "backgroundColor"),
                ("body", "color"),
                ("svg text:not(.soft)", "fill"),
            )
        ]
    paper, ink, label = colours["light"]
    dark, light, dark_label = colours["dark"]
    assert paper > 600 > 300 > max(ink, label)
    assert dark < 150 < 600 < min(light, dark_label)


@pytest.mark.parametrize("width", [360, 1100])
def test_nothing_is_wider_than_the_screen(visit, width):
    page = visit(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_goes_through_the_page_in_its_order(visit):
    page = visit()
    places = []
    shown = []
    for _ in range(30):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e); return e ==="
            " document.body ? null : [[...document.querySelectorAll('*')].indexOf(e),"
            " s.outlineStyle, e.textContent.trim()] }"
        )
        if at is None:
            break
        places.append(at[0])
        shown.append(at)
    assert shown[0][2] == "Skip to the findings"
    assert len(places) > 20
    assert places == sorted(places)
    assert all(style != "none" for _, style, _ in shown)


def test_links_lead_to_captions(visit):
    page = visit()
    page.locator(".trouble a").first.click()
    assert page.evaluate("document.querySelector(':target').tagName") == "ARTICLE"


def test_it_prints_with_its_folds_open(visit, tmp_path):
    page = visit()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    box = page.get_by_text(
        "an ordinary one"
    ).bounding_box()  # in a fold that is closed on the screen
    assert box is not None
    assert box["height"] > 0
    pdf = page.pdf(path=tmp_path / "report.pdf")
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 10_000
