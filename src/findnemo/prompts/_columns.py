"""Find the columns of captions, types and images, and make records from rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from findnemo.errors import InputError
from findnemo.prompts._table import Record

CAPTION_COLUMNS = ("caption", "prompt", "text", "captions", "prompts")
TYPE_COLUMNS = ("type", "kind", "memorization")
IMAGE_COLUMNS = ("url", "image", "image_url", "image_path", "file_name")
_MOST_COLUMNS = 10_000
_LISTED = 20  # columns that an error lists


def records(
    source: str, values: Iterable[Any], column: str | None, names: Sequence[str] | None = None
) -> Iterator[Record]:
    """Records from values that are captions themselves, or rows with columns (all the keys, unless
    `names`).
    """
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
    """The columns of captions, types and images.

    If two columns could be one of these, that is an error, not a guess. `hint`: another way out if
    there are no captions.
    """
    captions = [name for name in names if name == column] or captions_among(names, column)
    if len(captions) == 1:
        kind = _first(source, names, TYPE_COLUMNS)
        image = _first(source, names, IMAGE_COLUMNS)
        return captions[0], kind, image
    number = "more than one" if captions else "no"
    wanted = f"column {column!r}"
    if column is None:
        wanted = f"caption column ({', '.join(CAPTION_COLUMNS)})"
    if not names:
        raise InputError(f"{source}: {number} {wanted}: there are no columns; leave --column out")
    way_out = "choose one of them with --column" + ("" if captions else hint)
    raise InputError(f"{source}: {number} {wanted}: {_listed(names)}; {way_out}")


def _first(source: str, names: Sequence[str], known: Iterable[str]) -> str | None:
    """The first of `known` among the names, where it must appear once."""
    matches = _matches(names, known)
    if not matches:
        return None
    if [folded(name) for name in matches].count(folded(matches[0])) > 1:
        raise InputError(
            f"{source}: more than one column {matches[0].strip()[:60]!r}: {_listed(names)}; keep"
            " one, or rename the others"
        )
    return matches[0]


def captions_among(names: Sequence[str], column: str | None) -> list[str]:
    return _matches(names, CAPTION_COLUMNS if column is None else (column,))


def _matches(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """Those of `names` that are `known`, in any case, in the order of `known`."""
    return [name for want in known for name in names if folded(name) == folded(want)]


def folded(name: str) -> str:
    """A column's name without differences that do not matter."""
    return name.strip().casefold()


def keys(values: Iterable[Any]) -> list[str]:
    names: dict[str, None] = {}
    for value in values:
        names |= dict.fromkeys(value) if isinstance(value, dict) else {}
        if len(names) > _MOST_COLUMNS:
            raise InputError(f"more than {_MOST_COLUMNS:,} columns: a table of captions has a few")
    return list(names)


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return f"the columns are {', '.join([*(repr(name)[:60] for name in names[:_LISTED]), *more])}"
