"""Take the pictures of the report that the pages show:

`python recipes/screenshots.py RUN` (a finished run of the demo).

Needs Chromium and playwright (`pip install '.[dev]'`). Writes docs/images/report.png, at most 300
kB.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from findnemo.report import write
from findnemo.runs import Run

DOCS = Path(__file__).parents[1] / "docs" / "images"
MOST = 300_000  # bytes
WIDTH, HEIGHT = 1040, 940
COLOURS = (256, 192, 128, 96, 64)  # fewer until the file is small enough


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser while the context lasts."""
    program = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    with sync_playwright() as tool:
        browser = tool.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def seen(page: Page) -> Image.Image:
    """A page as its browser shows it."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def taken(page_file: Path) -> Image.Image:
    """The head of a page."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_file.as_uri())
        return seen(page)


def save(picture: Image.Image, file: Path) -> int:
    """Write a PNG of at most MOST bytes, with a palette; returns its size."""
    for colours in COLOURS:
        picture.quantize(colours, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size <= MOST:
            return file.stat().st_size
    raise SystemExit(
        f"{file} has {file.stat().st_size} bytes even with {COLOURS[-1]} colours: take a smaller"
        " part of the page"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    with tempfile.TemporaryDirectory() as folder, Run.open(parser.parse_args().run) as run:
        page = write(run, Path(folder) / "report.html")
        print(f"{DOCS / 'report.png'}: {save(taken(page), DOCS / 'report.png')} bytes")


if __name__ == "__main__":
    main()
