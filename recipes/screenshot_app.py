"""docs/images/app.png: the app on a run of the demo model, with the neurons of a caption off.

    python recipes/screenshot_app.py demo docs/images/app.png

Needs Chromium and playwright; the picture is reduced to a palette, which keeps it small.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image
from screenshots import chromium, save, seen

from findnemo.app import open_subject, serve


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
    print(f"{asked.out}: {taken.width} x {taken.height}, {save(taken, asked.out)} bytes")


def screenshot(url: str, caption: str) -> Image.Image:
    """The page once a caption has been chosen and its neurons have been switched off."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(url)
        page.locator(".cards").get_by_role("button", name=caption).click()
        page.get_by_role("button", name=": on").first.click()
        page.locator("#pictures img[alt^='Now']").last.wait_for()
        page.wait_for_timeout(500)
        return seen(page)


if __name__ == "__main__":
    main()
