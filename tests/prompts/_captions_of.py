"""Captions of every kind, and tables that hold them."""

import csv
import io
from pathlib import Path

from findnemo.prompts import PromptTable

CAPTIONS = [
    'Two "friendly" foxes; one, red | one grey',
    "first line\nsecond line",
    "The No Limits &amp; Business <b>Woman</b> Podcast",
    "東京タワー 🗼 в тумане",
    "line\u2028separator, next\x85line and \x07 bell",
    "nan",
    "'single' \\ back\\slash",
]

ONE_LINE = [caption for caption in CAPTIONS if "\n" not in caption]


def texts(table: PromptTable) -> list[str]:
    return [prompt.text for prompt in table]


def written_csv(captions: list[str], delimiter: str, columns: int = 3, **options) -> str:
    """A table with the captions between an index without name and a URL, or in a lone column."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, **options)
    writer.writerow(["", "Caption", "URL"] if columns == 3 else ["Caption"])
    writer.writerows(
        [n, text, f"https://x.org/{n}"] if columns == 3 else [text]
        for n, text in enumerate(captions)
    )
    return file.getvalue()


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
