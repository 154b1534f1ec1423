"""The app in a real browser: it loads from this machine alone, its buttons do what they say,
hostile captions stay text.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import threading
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from _captions import FIRST, HOSTILE, SECOND
from _command import cli

import findnemo
from findnemo.app import events, open_subject

if find_spec("gradio") is None:  # it takes seconds to import, in every process that collects tests
    pytest.skip("the app needs gradio: pip install 'findnemo[app]'", allow_module_level=True)
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="pages are opened with playwright: pip install 'findnemo[dev]'"
)
expect = sync_api.expect  # waits for what it expects
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip(
        "pages are opened in Chromium, which is not installed (Debian: apt-get install chromium)",
        allow_module_level=True,
    )
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 20_000  # ms


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served):
    """The loaded page; afterwards it must have asked this machine only, and
    the console must be clean.
    """
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    requests = []
    console = []
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.on("request", lambda request: requests.append(request.url))
    page.on(
        "console", lambda message: console.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: console.append(str(error)))
    page.goto(served[1])
    page.get_by_role("tab", name="Any caption").wait_for()
    yield page
    assert page.title() == "findnemo"  # hostile captions would change it
    context.close()
    assert {
        urlsplit(url).hostname for url in requests if not url.startswith(("data:", "blob:"))
    } == {"127.0.0.1"}
    assert console == []


def tab(page, name: str):
    page.get_by_role("tab", name=name).click()


def choose(page, text: str) -> None:
    """Choose a caption of the run among the thumbnails."""
    tab(page, "Captions")
    page.locator(".cards").get_by_role("button", name=text[:30]).click()
    page.locator(".caption bdi:visible", has_text=text[:30]).wait_for()


def shown(page, line: str) -> list[str]:
    """The pictures of one line, as they stand in the page."""
    images = page.locator(f"#pictures img[alt^='{line}']")
    return images.evaluate_all("images => images.map(image => image.src)")


def switched(page, said: str) -> None:
    """Wait until the images of an edit are there."""
    page.locator("#alike").get_by_text(f"{said}.", exact=True).wait_for()
    page.locator(f"#pictures img[alt^='Now, {said}']").first.wait_for()


def cell(page, layer: int, index: int) -> dict[str, float]:
    """The middle of a neuron's cell on the map, layer and neuron as numbers from 0."""
    svg = page.locator(f"#neurons svg[data-layer='{layer}']")
    columns = int(svg.get_attribute("data-columns"))
    size = svg.bounding_box()["width"] / columns
    row, column = divmod(index, columns)
    return {"x": (column + 0.5) * size, "y": (row + 0.5) * size}


def click_cell(page, layer: int, index: int) -> None:
    place = cell(page, layer, index)
    page.locator(f"#neurons svg[data-layer='{layer}']").click(position=place)


# what is shown ------------------------------------------------------------------------------------


def test_the_first_screen_is_pictures_with_their_state(page, served):
    cards = page.locator(".cards button")
    expect(cards).to_have_count(4)
    expect(cards.locator("img")).to_have_count(4)  # two captions, before and after
    expect(cards.first).to_contain_text("gone")
    expect(cards.last).to_contain_text("not memorized")
    for name in ("before", "with the neurons off"):
        image = page.get_by_role("img", name=name).first
        expect(image).to_be_visible()
        whole = image.evaluate("e => [e.naturalWidth / e.naturalHeight, e.width / e.height]")
        assert whole[0] == pytest.approx(whole[1], rel=0.03)  # not cut to a strip


def test_captions_are_searched_filtered_and_shown(page, served):
    page.get_by_text("4 captions").wait_for()
    page.get_by_role("textbox", name="Search captions").fill("biscuit")
    page.get_by_text("1 caption", exact=True).wait_for()
    cards = page.locator(".cards").get_by_role("button")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text(SECOND[:20])
    page.get_by_role("textbox", name="Search captions").fill("")
    page.get_by_text("4 captions").wait_for()
    choose(page, FIRST)
    page.locator("#pictures img").nth(4).wait_for()
    expect(page.locator("#pictures img")).to_have_count(5)  # training image, two seeds twice
    expect(page.get_by_role("img", name="The training image")).to_be_visible()
    page.get_by_role("button", name="Figures").click()
    label = events.ticks(served[0], events.detail(served[0], 1).chosen)[0][0]
    expect(page.locator(".numbers:visible")).to_contain_text(label)


def test_no_label_touches_its_value(page):
    choose(page, FIRST)
    gaps = page.evaluate(GAPS)
    assert len(gaps) >= 4
    assert min(gaps) >= 3, gaps


GAPS = """() => [...document.querySelectorAll("label")].filter(l => l.offsetParent).flatMap(label => {
  const text = label.querySelector("span"), input = label.querySelector("input, textarea");
  if (!text || !input || !text.offsetHeight) return [];
  return [input.getBoundingClientRect().top - text.getBoundingClientRect().bottom];
})"""


# switching ----------------------------------------------------------------------------------------


def test_switching_a_neuron_changes_the_images(page):
    choose(page, FIRST)
    audited = shown(page, "Before")
    chip = page.locator(".chips button").first
    expect(chip).to_contain_text(": on")
    chip.click()
    switched(page, "1 neuron off")
    before, off = shown(page, "Before"), shown(page, "Now")
    assert len(audited) == 2
    assert len(before) == len(off) == 4
    assert all(old != new for old, new in zip(before, off, strict=True))
    expect(page.locator("#alike")).to_contain_text("Median similarity to the training image")
    expect(chip).to_contain_text(": off")
    chip.click()
    switched(page, "1 neuron times 0.5")
    assert shown(page, "Now") not in (before, off)
    chip.click()
    page.locator("#alike").get_by_text("0 neurons off.").wait_for()
    expect(page.locator("#pictures img[alt^='Now']")).to_have_count(0)
    assert shown(page, "Before") == audited  # as the audit left it
    for said in ("1 neuron times 0.5", "1 neuron off"):
        page.get_by_role("button", name="Undo").click()
        switched(page, said)
    assert shown(page, "Now") == off


@pytest.mark.slow
def test_the_slider_lets_the_copy_dissolve(page):
    choose(page, FIRST)
    slider = page.get_by_role("slider")
    slider.focus()
    frames = []
    for said in (
        "1 neuron times 0.75",
        "1 neuron times 0.5",
        "1 neuron times 0.25",
        "1 neuron off",
    ):
        page.keyboard.press("ArrowRight")
        switched(page, said)
        frames.append(tuple(shown(page, "Now")))
    assert len(set(frames)) == 4
    page.get_by_role("button", name="All on").click()
    expect(slider).to_have_value("0")


@pytest.mark.slow
def test_a_click_on_the_map_is_of_the_neuron_under_it(page, served):
    choose(page, SECOND)
    _, second, *_ = served[0].model.widths("all").values()
    off = page.get_by_role("textbox", name="Neurons off")
    click_cell(page, 0, 5)
    expect(off).to_have_value("1: 5")
    click_cell(page, 2, 40)  # of a second row
    expect(off).to_have_value("1: 5; 3: 40")
    click_cell(page, 0, 5)
    expect(off).to_have_value("3: 40")
    expect(page.get_by_role("textbox", name="Neurons scaled")).to_have_value("1: 5")
    page.locator("#neurons .layer button").nth(1).click()
    expect(off).to_have_value(f"2: 0-{second - 1}; 3: 40")
    switched(page, f"{second + 1} neurons off, 1 neuron times 0.5")


@pytest.mark.slow
def test_a_view_is_shared_by_its_address(page, browser, served):
    choose(page, SECOND)
    expect(page).to_have_url(re.compile(r"\?caption=2$"))
    click_cell(page, 0, 5)
    page.get_by_role("spinbutton", name="First seed").fill("7")
    page.keyboard.press("Enter")
    switched(page, "1 neuron off")
    page.locator("#pictures img[alt='Now, 1 neuron off, seed 10']").wait_for()
    expect(page).to_have_url(re.compile(r"\?caption=2&off=1:5&seed=7$"))
    images = shown(page, "Now")
    other = browser.new_page()
    other.goto(page.url)
    switched(other, "1 neuron off")
    assert shown(other, "Now") == images
    other.locator(".caption bdi:visible", has_text=SECOND).wait_for()
    expect(other.get_by_role("textbox", name="Neurons off")).to_have_value("1: 5")
    other.goto(f"{served[1]}?caption=1&off=1:99999")
    other.get_by_role("alert").filter(has_text="no neuron 99999").wait_for()
    other.goto(f"{served[1]}?caption=1&off=<img src=x onerror=alert(1)>")
    other.get_by_role("alert").filter(has_text="names no neurons").wait_for()
    assert other.locator("#pictures img").count() == 0
    other.close()


@pytest.mark.slow
def test_an_error_leaves_no_old_picture(page):
    choose(page, FIRST)
    page.locator(".chips button").first.click()
    switched(page, "1 neuron off")
    page.get_by_role("textbox", name="Neurons off").fill("1: 99999")
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("alert").filter(has_text="no neuron 99999").wait_for()
    switched(page, "1 neuron off")  # what is in force is shown still
    page.get_by_role("spinbutton", name="First seed").fill("99999999999")
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="seed").first.wait_for()
    expect(page.locator("#pictures img")).to_have_count(0)
    expect(page.locator("#alike")).to_have_text("")


# any caption --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_any_caption_with_progress(page):
    tab(page, "Any caption")
    page.get_by_role("textbox", name="Caption", exact=True).fill(SECOND)
    page.get_by_role("button", name="Score and find its neurons").click()
    page.get_by_text("Done.").wait_for()
    expect(page.locator(".numbers:visible")).to_contain_text("suspected")
    page.get_by_role("button", name="Switch its neurons").locator("visible=true").click()
    page.locator(".caption bdi:visible", has_text=SECOND).wait_for()
    expect(page.locator(".chips button").first).to_contain_text(": on")
    page.locator("#pictures img[alt='Before, seed 1003']").wait_for()  # no audit made them
    tab(page, "Any caption")
    page.get_by_role("textbox", name="Caption", exact=True).fill("")
    page.get_by_role("button", name="Score and find its neurons").click()
    page.get_by_role("alert").filter(has_text="no caption").wait_for()
    expect(page.get_by_text("memorization score").locator("visible=true")).to_have_count(0)


class Held:
    """Passes of the denoiser that wait, from the second on, until they are let go.

    `begun`: how many began. `heard`: that a session cancels. Limits only end a test that hangs.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.heard = threading.Event()
        self._go = threading.Event()

    def wait(self, *args: object) -> None:
        self.begun += 1
        assert self.begun == 1 or self._go.wait(PATIENCE / 1000)

    def let_go(self) -> None:
        self._go.set()


@pytest.fixture
def held(served, monkeypatch):
    held = Held()
    jobs = served[0].jobs
    cancel = jobs.cancel

    def cancelled(session: str) -> int:
        epoch = cancel(session)
        held.heard.set()
        return epoch

    monkeypatch.setattr(jobs, "cancel", cancelled)
    handle = served[0].model.denoiser.register_forward_pre_hook(held.wait)
    yield held
    held.let_go()
    handle.remove()


def cancel(page, held: Held) -> None:
    """Press Cancel, and wait until the app has heard it."""
    held.heard.clear()
    page.get_by_role("button", name="Cancel").locator("visible=true").click()
    assert held.heard.wait(PATIENCE / 1000)


def examined(page) -> None:
    """Ask for the neurons of a caption of no audit."""
    tab(page, "Any caption")
    page.get_by_role("textbox", name="Caption", exact=True).fill(
        "Brantwood Roasters first cup, a large brown ring"
    )
    page.get_by_role("button", name="Score and find its neurons").click()


@pytest.mark.slow
def test_cancelling_a_localization(page, served, held):
    subject, _ = served
    examined(page)
    page.get_by_text("U-Net evaluations").locator("visible=true").first.wait_for()  # progress
    cancel(page, held)
    held.let_go()
    page.get_by_text("Cancelled.").wait_for()
    with subject.jobs.turn("nobody", 0, subject.model, lambda done: None):
        assert held.begun == 2  # whoever has the turn is alone: the work is over
    page.get_by_role(
        "button", name="Score and find its neurons"
    ).click()  # and what is asked for now is done
    page.get_by_text("Done.").wait_for(timeout=60_000)


@pytest.mark.slow
def test_work_that_waits_in_the_queue_is_cancelled_too(page, browser, served, held):
    other = browser.new_page()
    other.goto(served[1])
    examined(other)
    other.get_by_text("U-Net evaluations").locator("visible=true").first.wait_for()
    examined(page)
    page.get_by_text("queue:").locator("visible=true").first.wait_for()
    cancel(page, held)
    held.let_go()
    other.get_by_text("Done.").wait_for(timeout=60_000)
    count = held.begun
    page.get_by_text("Cancelled.").wait_for()
    assert held.begun == count
    other.close()


def test_exports_are_downloaded(page, served):
    tab(page, "Export")
    page.get_by_role("radio", name="neurons: the neurons as JSON").check()
    page.get_by_role("button", name="Export", exact=True).click()
    button = (
        page.get_by_role("button", name="Download neurons.json")
        .or_(page.get_by_role("link", name="Download neurons.json"))
        .first
    )
    button.wait_for()
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == "neurons.json"
    kept = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert (
        {c["caption"] for c in kept["captions"]}
        == {c.text for c in events.exportable(served[0])}
        == {FIRST, SECOND}
    )


@pytest.mark.slow
def test_a_selection_by_hand_becomes_a_model_by_the_command_that_is_shown(page, served, tmp_path):
    choose(page, FIRST)
    page.get_by_role("button", name="Save these neurons").click()
    page.get_by_role("alert").filter(has_text="no neurons are chosen").wait_for()
    page.get_by_role("textbox", name="Neurons scaled").fill("1: 4 7")
    page.get_by_role("spinbutton", name="Factor").locator("visible=true").fill("0.25")
    page.get_by_role("button", name="Apply").click()
    switched(page, "2 neurons times 0.25")
    page.get_by_role("button", name="Save these neurons").click()
    page.get_by_text("2 neurons times 0.25, chosen by hand, not verified").wait_for()
    button = (
        page.get_by_role("button", name="Download neurons.json")
        .or_(page.get_by_role("link", name="Download neurons.json"))
        .locator("visible=true")
        .first
    )
    with page.expect_download() as download:
        button.click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    program, *arguments = shlex.split(page.locator(".command code").inner_text())
    assert (program, arguments[:2]) == ("findnemo", ["export", str(served[0].run)])
    with contextlib.chdir(tmp_path):
        made = cli(*arguments, "--to", "card")
    assert made.status == 0, made.err
    assert "2 neurons at 0.25 (chosen by hand, not verified): checkpoint written" in made.err
    old = served[0].model.value_layers
    new = findnemo.load(tmp_path / "clean" / "checkpoint").value_layers
    first = next(iter(old))
    for name, layer in old.items():
        scale = torch.ones(len(layer.weight), 1)
        scale[[4, 7] if name == first else []] = 0.25
        assert torch.equal(new[name].weight, (layer.weight.half() * scale.half()).float()), name
    card = (tmp_path / "clean" / "card.md").read_text(encoding="utf-8")
    assert "Chosen by hand, not verified." in card
    assert FIRST not in card


# what must not happen -----------------------------------------------------------------------------


def said(place, text: str) -> None:
    """The text of a place, letter by letter, once it is there."""
    expect(place.first).to_have_js_property("textContent", text)


@pytest.mark.slow
def test_hostile_captions_are_shown_as_text(page):
    expect(page.locator(".cards")).to_contain_text("<script>")
    choose(page, "<script>")
    said(page.locator(".caption bdi:visible"), HOSTILE)
    tab(page, "Any caption")
    page.get_by_role("textbox", name="Caption", exact=True).fill(HOSTILE)
    page.get_by_role("button", name="Score and find its neurons").click()
    page.get_by_text("Done.").wait_for()
    said(page.locator(".caption bdi:visible"), HOSTILE)
    tab(page, "One caption")
    said(page.locator(".caption bdi:visible"), HOSTILE)
    page.get_by_role("textbox", name="Neurons off").fill(HOSTILE)
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("alert").filter(has_text="names no neurons").wait_for()
    assert page.locator("img[src='x'], a[href^=javascript]").count() == 0


# for everyone -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_is_reached_by_keyboard(page):
    page.get_by_role("tab", name="Captions").focus()
    names = reached(page)
    assert {"Search captions", "Show", "Order"} <= names
    assert any(FIRST[:30] in name for name in names)
    page.locator(".cards button").first.focus()
    page.keyboard.press("Enter")
    page.locator(".chips button").first.wait_for()
    page.get_by_role("tab", name="One caption").focus()
    names = reached(page)
    assert {"First seed", "Undo", "All on", "Save these neurons", "Cancel", "Apply"} <= names
    assert {"Neurons off", "Neurons scaled", "Factor", "Link to this view"} <= names
    assert any(name.endswith(": on") for name in names)


def reached(page) -> set[str]:
    """Names of what the Tab key comes to from where the focus is."""
    found = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        found.add(page.evaluate(NAME))
    return found


NAME = """() => { const e = document.activeElement;
  return (e.ariaLabel || (e.labels && e.labels[0] && (e.labels[0].querySelector("span") || e.labels[0]).innerText) || e.innerText || "").trim() }"""

# the page is drawn, and what fades in on it is there
SETTLED = """async () => { await new Promise(drawn => requestAnimationFrame(drawn));
  const ends = document.getAnimations().filter(a => a.effect.getComputedTiming().endTime < Infinity);
  await Promise.allSettled(ends.map(a => a.finished)) }"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_accessible_by_axe(page, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()
    page.emulate_media(color_scheme=scheme)
    page.reload()

    def all_tabs() -> dict[tuple[str, str], list[str]]:
        found = {}
        for name in ("Any caption", "One caption", "Export", "Captions"):
            tab(page, name)
            page.evaluate(SETTLED)
            found |= {(name, rule): nodes for rule, nodes in violations(axe, page).items()}
        return found

    assert all_tabs() == {}
    choose(page, FIRST)
    page.locator(".chips button").first.click()
    switched(page, "1 neuron off")
    assert all_tabs() == {}
    page.evaluate(
        "Object.assign(document.querySelector('.subject').style, { color: '#777', background:"
        " '#888' })"
    )
    assert list(violations(axe, page)) == ["color-contrast"]  # the check can fail


def violations(axe, page) -> dict[str, list[str]]:
    """Rules of axe-core that are broken seriously, with the pieces of the page that break them."""
    broken = [
        v for v in axe.run(page).response["violations"] if v["impact"] in ("serious", "critical")
    ]
    return {v["id"]: [node["html"][:160] for node in v["nodes"]] for v in broken}


# without a browser --------------------------------------------------------------------------------


def test_without_a_run_there_are_no_tabs_of_one(tiny, subject, tmp_path):
    from findnemo.app.layout import build

    def tabs(shown):
        parts = build(shown).config["components"]
        return [part["props"]["label"] for part in parts if part["type"] == "tabitem"]

    assert tabs(subject) == ["Captions", "One caption", "Any caption", "Export"]
    assert tabs(open_subject("live", tmp_path, model=tiny)) == ["Any caption", "One caption"]
