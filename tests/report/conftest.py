"""A run with its report and its evidence pack, and reports in a real browser."""

from __future__ import annotations

import os
import shutil

import pytest
from _pack import made
from _page import page_of
from _runs import QUALITY, make_run, mixed

from findnemo.report import evidence, write_evidence
from findnemo.runs import Run

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The run of `mixed`; tests leave it as it is."""
    return make_run(tmp_path_factory.mktemp("mixed") / "run", mixed(), quality=QUALITY)


@pytest.fixture(scope="session")
def page(run):
    """The report of that run."""
    return page_of(run)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium, or name it in CHROMIUM")
    with sync_api.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, file):
    """Open the page `file` in a context of its own; fails at the end if it asked for anything or
    complained.
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


@pytest.fixture
def assert_no_known_fault(visit):
    """Of contrast and structure, with all folds open, in a colour scheme."""

    def check(scheme: str) -> None:
        from axe_playwright_python.sync_playwright import Axe

        page = visit(color_scheme=scheme, bypass_csp=True)
        page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
        result = Axe().run(page)
        assert result.violations_count == 0, result.generate_report()

    return check


@pytest.fixture(scope="session")
def evidence_run(tmp_path_factory):
    """The run of `told` with attempts and an attack; tests leave it as it is."""
    return made(tmp_path_factory.mktemp("evidence") / "run")


@pytest.fixture(scope="session")
def pack(evidence_run):
    """The evidence pack of that run; tests leave it as it is."""
    with Run.open(evidence_run) as opened:
        return evidence(opened, "weights", "A. Tester", "2026-01-31")


@pytest.fixture
def written(evidence_run, tmp_path):
    """A run of its own with its pack."""
    shutil.copytree(evidence_run, tmp_path / "run")
    with Run.open(tmp_path / "run") as opened:
        write_evidence(opened, release="api", by="A. Tester")
    return tmp_path / "run"
