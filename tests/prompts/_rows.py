"""A table of captions written to a file and read again."""

from __future__ import annotations

from pathlib import Path

from findnemo.prompts import Prompt, read_prompts, stream_prompts


def read(path: Path, content: str | bytes, column: str | None = None) -> list[Prompt]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read_prompts(path, column)
    assert [p for p in stream_prompts(path, column) if p in table.prompts] == list(table)
    return list(table)


def texts(prompts: list[Prompt]) -> list[str]:
    return [p.text for p in prompts]
