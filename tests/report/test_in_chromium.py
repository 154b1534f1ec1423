"""The report as a person meets it: in a real browser, without a network, with and without
scripts, light, dark, narrow and on paper.
"""

from __future__ import annotations

import re

import pytest
from _runs import LAYERS, Told, make_run, memorized, under

from findnemo.report import write
from findnemo.runs import Run

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


def test_it_opens_from_a_file_with_all_its_pictures(visit):
    page = visit()
    assert page.title() == "Memorization audit of a model that is nowhere"
    widths = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
    assert len(widths) == 2 * (1 + 6 + 6 + 2) + 3
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
    assert not page.locator("#tools").is_visible()  # they would do nothing
    page.locator("#caption-2 summary").first.click()  # folds are the browser's own
    page.get_by_text("The whole caption").first.click()
    assert page.locator("bdi.whole").first.is_visible()


@pytest.mark.first(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_structure_have_no_known_fault(assert_no_known_fault, scheme):
    assert_no_known_fault(scheme)


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
def test_nothing_is_wider_than_the_screen_and_no_table_is_cut(visit, width):
    page = visit(width)
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.eval_on_selector_all(
        "table, svg, pre, code",
        "all => all.filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right >"
        " innerWidth).map(e => e.outerHTML.slice(0, 80))",
    )
    assert cut == []


def test_a_figure_in_a_narrow_table_stands_beside_what_it_is(visit):
    page = visit(360)
    row = page.locator(".stacked tbody tr").first
    assert not page.locator(".stacked thead").first.is_visible()
    labels = row.locator("td").evaluate_all("all => all.map(d => d.dataset.label)")
    assert labels == ["before", "after", "n", "good is", "worst after"]


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


def test_links_lead_to_captions_and_open_them(visit):
    page = visit()
    page.locator(".trouble a").first.click()
    assert page.evaluate("document.querySelector(':target').tagName") == "ARTICLE"
    page.locator(".example a").first.click()
    assert page.evaluate("document.querySelector(':target > details').open")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A report of 1,000 captions, none with pictures: 90 are gone, 2 are not."""
    told = [memorized(f"memory {k}", {MID: list(range(k % 9 + 1))}) for k in range(90)]
    told += [
        memorized(f"left {k}", {MID: [k]}, largest_after=0.9, copies_after=1.0) for k in (1, 2)
    ]
    told += [under(f"Ordinary caption {k}", score=k / 3000) for k in range(908)]
    with Run.open(make_run(tmp_path_factory.mktemp("many") / "run", told)) as run:
        return write(run)


def shown(page) -> list[str]:
    """The captions that a reader sees, from top to bottom."""
    lines = page.locator(".line").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).sort((a, b) =>"
        " a.getBoundingClientRect().top - b.getBoundingClientRect().top)"
        ".map(e => e.querySelector('.title').textContent)"
    )
    return [text.strip() for text in lines]


def test_a_thousand_captions_are_searched_and_sorted_without_a_server(browser, many):
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(many.as_uri())
    first = shown(page)
    assert first[:3] == ["left 1", "left 2", "memory 0"]
    assert len(first) == 60  # the others are folded away
    page.get_by_label("Search").fill("ORDINARY 905")
    assert shown(page) == ["Ordinary caption 905", "Ordinary caption 812"]  # the other of row 905
    assert page.get_by_role("status").text_content() == "2 of 1000"
    page.get_by_label("Search").fill("not memorized")  # how captions stand is searched too
    assert len(shown(page)) == 908
    page.get_by_label("Search").fill("")
    assert shown(page) == first
    page.get_by_label("Order").select_option("neurons off, most first")
    assert shown(page)[:2] == ["memory 8", "memory 17"]
    page.get_by_label("Order").select_option("row")
    assert shown(page)[-1] == "Ordinary caption 907"
    page.get_by_label("Order").select_option("worst first")
    assert shown(page) == first
    assert said == []
    page.close()


def test_a_link_opens_the_fold_that_its_caption_is_in(browser, many):
    page = browser.new_page()
    page.goto(f"{many.as_uri()}#caption-1000")
    assert page.locator("#caption-1000").is_visible()
    page.close()


def test_gone_captions_take_a_line_each(browser, many):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(many.as_uri())
    heights = page.locator(".line:not(:has([open]))").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).map(e => e.clientHeight)"
    )
    assert max(heights) < 60
    pages = len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(format="A4")))
    assert pages < 30  # of 1,000 captions
    page.close()


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
