"""Training folders for tests, of the pictures that `demo-natural` memorized: the demo model does not
know them.
"""

from __future__ import annotations

from pathlib import Path

from findnemo import demo

SMALL = {"each": 4, "repeats": (1, 4, 16), "size": 64}  # canaries


def verbatim() -> list[str]:
    return [row.text for row in demo.memorized("demo-natural") if row.type == "VM"]


def photos(folder: Path, count: int = 4, source: str = "demo-natural") -> Path:
    """`count` pictures with captions beside them."""
    captions = [row.text for row in demo.memorized(source) if row.type == "VM"][:count]
    folder.mkdir(parents=True)
    for k, caption in enumerate(captions):
        image = demo.training_image(caption, source)
        assert image is not None
        image.save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(caption, encoding="utf-8")
    return folder
