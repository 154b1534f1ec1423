"""Which columns hold captions, types and images, and the records of rows that have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from findnemo.errors import InputError
from findnemo.prompts._table import Record

CAPTION_COLUMNS = ("caption", "prompt", "text", "captions", "prompts")
TYPE_COLUMNS = ("type", "kind", "memorization")
IMAGE_COLUMNS = ("url", "image", "image_url", "image_path")
_MOST_COLUMNS = 10_000


def records(
    source: str, values: Iterable[Any], column: str | None, names: Sequence[str] | None = None
) -> Iterator[Record]:
    """Captions from values that are captions themselves or rows with columns (all the keys, unless `names`)."""
    if names is None:
        values = list(values)
        names = keys(values)
    plain = not names and column is None
    caption, kind, image = ("", None, None) if plain else columns_of(source, names, column)
    for value in values:
        row: dict[Any, Any] = value if isinstance(value, dict) else {caption: value}
        yield row.get(caption), row.get(kind), row.get(image)


def columns_of(
    source: str, names: Sequence[str], column: str | None, hint: str = ""
) -> tuple[str, str | None, str | None]:
    """The columns of captions, types and images. Two that could both be one of these are an error, not a guess. `hint`: what else to do
    where there are no captions."""
    found = [name for name in names if name == column] or captions_among(names, column)
    if len(found) == 1:
        return found[0], _first(source, names, TYPE_COLUMNS), _first(source, names, IMAGE_COLUMNS)
    wanted = (
        f"caption column ({', '.join(CAPTION_COLUMNS)})" if column is None else f"column {column!r}"
    )
    have = (
        f"the columns are {_few([repr(name)[:60] for name in names], 20)}"
        if names
        else "there are no columns"
    )
    way_out = (
        "choose one of them with --column" + ("" if found else hint)
        if names
        else "leave --column out"
    )
    raise InputError(f"{source}: {'more than one' if found else 'no'} {wanted}: {have}; {way_out}")


def _first(source: str, names: Sequence[str], known: Iterable[str]) -> str | None:
    """The first of `known` among the names, which must be there once."""
    found = _matches(names, known)
    if (
        len(
            same := [
                name for name in found if name.strip().casefold() == found[0].strip().casefold()
            ]
        )
        > 1
    ):
        have = _few([repr(name)[:60] for name in names], 20)
        raise InputError(
            f"{source}: more than one column {same[0].strip()[:60]!r}: the columns are {have}; keep one, or rename the others"
        )
    return found[0] if found else None


def captions_among(names: Sequence[str], column: str | None) -> list[str]:
    return _matches(names, CAPTION_COLUMNS if column is None else (column,))


def _matches(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """Those of `names` that are `known`, whatever their case, in the order of `known`."""
    return [
        name
        for want in known
        for name in names
        if name.strip().casefold() == want.strip().casefold()
    ]


def keys(values: Iterable[Any]) -> list[str]:
    names: dict[str, None] = {}
    for value in values:
        names |= dict.fromkeys(value) if isinstance(value, dict) else {}
        if len(names) > _MOST_COLUMNS:
            raise InputError(f"more than {_MOST_COLUMNS:,} columns: a table of captions has a few")
    return list(names)


def _few(items: Sequence[str], most: int = 5) -> str:
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])
