"""docs/images/app.png: the app on a run of the demo model, with the neurons of a caption off.

    python recipes/screenshot_app.py demo docs/images/app.png

Needs Chromium and playwright; the picture is reduced to a palette, which keeps it small.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from findnemo.app import open_subject, serve

LARGEST = 300_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run directory or a shipped model")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--caption", default="Commander Ilse Varga", help="part of the caption to show"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page, url = serve(open_subject(asked.run, folder))
        try:
            taken = screenshot(url, asked.caption)
        finally:
            page.close(verbose=False)
    image = Image.open(io.BytesIO(taken)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(asked.out, optimize=True)
    size = asked.out.stat().st_size
    print(f"{asked.out}: {image.width} x {image.height}, {size} bytes")
    if size > LARGEST:
        raise SystemExit(f"more than {LARGEST} bytes")


def screenshot(url: str, caption: str) -> bytes:
    """PNG of the page once a caption has been chosen and its neurons have been switched off."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(url)
        page.locator(".cards").get_by_role("button", name=caption).click()
        page.get_by_role("button", name=": on").first.click()
        page.locator("#pictures img[alt^='Now']").last.wait_for()
        page.wait_for_timeout(500)
        taken: bytes = page.screenshot()
        browser.close()
    return taken


if __name__ == "__main__":
    main()
