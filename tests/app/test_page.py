"""The app in a real browser: it loads from this machine alone, its buttons do what they say, hostile captions stay text."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

import pytest

from findnemo.app import open_subject, serve

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'findnemo[app]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="pages are opened with playwright: pip install 'findnemo[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip(
        "pages are opened in Chromium, which is not installed (Debian: apt-get install chromium)", allow_module_level=True
    )
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 20_000  # ms


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(run_path, demo_model, tmp_path_factory):
    """The subject, and the address at which the app shows it."""
    subject = open_subject(run_path, tmp_path_factory.mktemp("served"), model=demo_model)
    page, url = serve(subject)
    yield subject, url
    page.close(verbose=False)


@pytest.fixture
def page(browser, served):
    """The loaded page; afterwards it must have asked this machine only, and the console must be clean."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    page, requests, console = context.new_page(), [], []
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: console.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: console.append(str(error)))
    page.goto(served[1])
    page.get_by_role("tab", name="Any caption").wait_for()
    yield page
    assert page.title() == "findnemo"  # hostile captions would change it
    context.close()
    assert {urlsplit(url).hostname for url in requests if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
    assert console == []


def tab(page, name: str):
    page.get_by_role("tab", name=name).click()


def panel(page):
    return page.locator("[role=tabpanel]:visible")


def choose(page, text: str) -> None:
    """Choose a caption of the run from the list."""
    listed = page.get_by_role("listbox", name="Caption", exact=True)
    listed.fill(text[:30])
    page.get_by_role("option", name=text[:30]).first.click()
    page.locator(".caption bdi:visible", has_text=text[:30]).wait_for()


def picture(page, name: str) -> bytes:
    """The bytes of the picture that is shown before or after an edit."""
    source = page.locator(f"#{name} img").get_attribute("src")
    return page.request.get(source).body()
