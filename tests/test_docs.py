"""The documentation: it builds without a warning, asks nothing of other hosts, leaves nothing
out, and its numbers are counted again.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import findnemo
from findnemo.models.loading import ADAPTERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    pytest.importorskip("mkdocs", reason="the site needs findnemo[docs]")
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(out),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    return out


class Loaded(HTMLParser):
    """What a page loads by itself, other than what a reader may click on."""

    ATTRIBUTES = ("src", "srcset", "poster", "data", "background")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if value and (name in self.ATTRIBUTES or (tag == "link" and name == "href")):
                self.found.append(value)


def outside(url: str) -> bool:
    return bool(re.match(r"\s*([a-z]+:)?//", url, re.IGNORECASE))


def test_every_page_is_built_and_none_asks_anything_of_another_host(site):
    for page in PAGES:
        built = (site / page.with_suffix(".html").name).read_text(encoding="utf-8")
        parser = Loaded()
        parser.feed(built)
        assert parser.found
        assert not [url for url in parser.found if outside(url)], page
    for sheet in site.rglob("*.css"):
        assert not [
            u
            for u in re.findall(r"(?:url\(|@import\s)[\"']?([^\"')]+)", sheet.read_text("utf-8"))
            if outside(u)
        ], sheet


def test_outside_is_seen_where_it_is():
    parser = Loaded()
    parser.feed(
        '<link href="https://fonts.example/a.css"><img src=//b.example/c.png><a'
        ' href="https://d.example">d</a><img src="e.png">'
    )
    assert [url for url in parser.found if outside(url)] == [
        "https://fonts.example/a.css",
        "//b.example/c.png",
    ]


@pytest.mark.slow
def test_a_browser_asks_nothing_of_another_host(site):
    """With its scripts: the theme's own would ask for fonts, or for the stars of a repository."""
    chromium = shutil.which("chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    handler = functools.partial(Quiet, directory=str(site))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        playwright.sync_playwright() as run,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        page = run.chromium.launch(executable_path=chromium, args=arguments).new_page(
            viewport={"width": 400, "height": 800}
        )
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in (
            "index",
            "architectures",
            "api",
        ):  # pictures, a wide table, long signatures; scripts are the same in all
            page.goto(f"{home}{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                f"{name} is wider than a narrow screen"
            )
        assert len(asked) > 10
        assert not [url for url in asked if not url.startswith((home, "data:", "blob:"))]
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


def links(page: Path) -> list[str]:
    """Where the links of a Markdown file within the repository lead, outside of code."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\((?!https?://)([^)#]+)", text)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere_on_github_too(page):
    assert not [link for link in links(page) if not (page.parent / link).exists()]


def test_the_readme_links_every_page():
    assert {f"docs/{page.name}" for page in PAGES} <= set(links(ROOT / "README.md"))


def test_every_public_name_is_in_the_reference():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: findnemo\.(\w+)$", text, re.MULTILINE)
    assert set(shown) == set(findnemo.__all__) - {"__version__"}


# architectures ------------------------------------------------------------------------------------


def published(name: str):
    """A test module by file: where the published configurations are."""
    spec = importlib.util.spec_from_file_location(
        f"_{name}", ROOT / "tests" / "models" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counted() -> dict[str, tuple[int, int]]:
    """Model -> layers and neurons, of networks without weights in their published sizes."""
    from diffusers import UNet2DConditionModel

    widths = {}
    with torch.device("meta"):
        for name, (adapter, config, *_) in published("test_published_layouts").PUBLISHED.items():
            widths[name] = adapter(SimpleNamespace(unet=UNet2DConditionModel(**config))).widths()
        for name, (adapter, network, *_) in published("test_transformers").FULL.items():
            widths[name] = adapter(SimpleNamespace(transformer=network())).widths()
    return {name: (len(w), sum(w.values())) for name, w in widths.items()}


@pytest.mark.slow
def test_the_table_of_architectures_is_counted_again():
    rows = re.findall(
        r"^\| ([^|]+) \| (`\w+Pipeline`[^|]*) \| ([^|]+) \| (\d+) \| ([\d,]+) \|$",
        architectures(),
        re.MULTILINE,
    )
    assert {
        name: (int(layers), int(neurons.replace(",", ""))) for name, _, _, layers, neurons in rows
    } == counted()
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[1])} == set(ADAPTERS)


def architectures() -> str:
    return (DOCS / "architectures.md").read_text(encoding="utf-8")
