"""Verify that an evidence pack is unchanged, and that a run still agrees with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findnemo._version import __version__
from findnemo.errors import FindnemoError, InputError
from findnemo.files.sizes import within_size
from findnemo.report._canonical import canonical, digest_of
from findnemo.report._evidence import EMBEDDED, FORMAT, KIND, evidence, hashes, page_of
from findnemo.runs import Run
from findnemo.runs.store import DATABASE

MOST = 64 << 20  # largest file, in bytes
DEEPEST = 32  # deepest nesting of lists and objects; a pack has less
# keys that depend on the place of files, or on the pack itself
APART = ("digest", "model.name", "model.opened", "run.settings.judges")


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    `digest`: that of the content. `run`: the run compared with, None without one. `differences`:
    one line each; empty if all agrees. `notes`: what could not be compared.
    """

    digest: str
    run: Path | None
    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()


def run_of_evidence(path: str | Path) -> Path | None:
    """The run that holds a pack: the directory of its file, if that is a run; else None."""
    folder = Path(path).parent
    return folder if (folder / DATABASE).is_file() else None


def verify_evidence(path: str | Path, run: Run | None = None) -> Checked:
    """Check a pack, `evidence.json` or `evidence.html`.

    Its digest must fit its content, and a page must show its data. With `run`, the run's captions,
    calibration, results, settings and pictures must still have the hashes in the pack, and the
    pack's figures must be those of the run. A digest is no signature: whoever changes a file can
    make a new one. Raises InputError for a file that is no pack, is larger than 64 MiB, or is
    nested too deeply.

        with Run.open("run") as run:
            findnemo.report.verify_evidence("run/evidence.json", run).differences
    """
    file = within_size(path, MOST)
    text = _text(file)
    is_page = text.lstrip()[:1] == "<"
    pack = _parsed(_embedded(text, file) if is_page else text, file)
    digest = digest_of(pack)
    differences = []
    if pack.get("digest") != digest:
        differences.append(
            f"digest: the file says {_short(pack.get('digest'))}, its content gives"
            f" {_short(digest)}: it was changed after it was made"
        )
    notes: list[str] = []
    version = _part(pack, "made").get("findnemo")
    same = version == __version__
    if is_page and same and text != _page(pack):
        differences.append("page: it shows something else than the data in it say")
    if not same:
        notes.append(
            f"made by findnemo {version!r:.40}, this is {__version__}: figures"
            f"{' and page' if is_page else ''} cannot be made again to compare"
        )
    if run is not None:
        differences += _against(pack, run, same)
    return Checked(digest, None if run is None else run.path, tuple(differences), tuple(notes))


# reading ------------------------------------------------------------------------------------------


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_pack(file, f"it is no text ({error.reason})") from None


def _embedded(page: str, file: Path) -> str:
    """The JSON in a page. Raises InputError unless there is exactly one."""
    start, end = EMBEDDED
    _, found, rest = page.partition(start)
    if not found or start in rest or end not in rest:
        raise _no_pack(file, "the page holds no data of one")
    return rest.partition(end)[0]


def _parsed(text: str, file: Path) -> dict[str, Any]:
    """The pack in a text. Raises InputError saying why there is none."""
    try:
        pack = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
        canonical(pack)  # refuse infinity and other values without canonical JSON
    except RecursionError:
        raise _no_pack(file, "it is nested too deeply") from None
    except ValueError as error:
        raise _no_pack(file, f"broken JSON ({error!s:.100})") from None
    if _depth(pack) > DEEPEST:
        raise _no_pack(file, "it is nested too deeply")
    if not isinstance(pack, dict) or pack.get("kind") != KIND:
        raise _no_pack(file, f"its kind is not {KIND!r}")
    if pack.get("format") != FORMAT:
        raise InputError(
            f"{file} has evidence format {pack.get('format')!r:.20}, this findnemo reads {FORMAT}:"
            " update it"
        )
    return pack


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Raises ValueError for a repeated name, for which readers would see different
    values.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name is there twice in an object")
    return values


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _depth(value: Any) -> int:
    """The nesting depth of lists and objects, computed without recursion."""
    depth = 0
    level = [value]
    while level := [v for v in level if isinstance(v, (dict, list))]:
        depth += 1
        level = [one for v in level for one in (v.values() if isinstance(v, dict) else v)]
    return depth


def _no_pack(file: Path, why: str) -> InputError:
    return InputError(
        f"{file} is no evidence pack: {why}; make one with `findnemo report RUN --evidence`"
    )


# comparing ----------------------------------------------------------------------------------------


def _part(pack: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object in a pack of unknown origin; empty if there is none of that name."""
    value = pack.get(name)
    return value if isinstance(value, dict) else {}


def _page(pack: Mapping[str, Any]) -> str | None:
    """The page of a pack; None if its shape allows none."""
    from jinja2 import TemplateError

    try:
        return page_of(pack)
    except (TemplateError, TypeError, ValueError, AttributeError, KeyError, ArithmeticError):
        return None


def _against(pack: Mapping[str, Any], run: Run, same: bool) -> Iterator[str]:
    """How a run differs from a pack: hashes first, then figures, if the `same` findnemo made
    them.
    """
    said = _part(pack, "hashes")
    now = hashes(run)
    changed = [name for name in {**now, **said} if said.get(name) != now.get(name)]
    for name in changed:
        yield (
            f"{name}: the pack says {_short(said.get(name))}, {run.path} gives"
            f" {_short(now.get(name))}"
        )
    if not same or changed:
        return
    try:
        theirs = _leaves(evidence(run, **_declared(pack)))
    except FindnemoError as error:
        yield f"declared: {error}"
        return
    mine = _leaves(pack)
    for name in {**theirs, **mine}:
        if not name.startswith(APART) and mine.get(name, _short) != theirs.get(name, _short):
            yield (
                f"{name}: the pack says {_short(mine.get(name))}, the run gives"
                f" {_short(theirs.get(name))}"
            )


def _declared(pack: Mapping[str, Any]) -> dict[str, Any]:
    """What the maker of a pack declared, none of which comes from the run."""
    made = _part(pack, "made")
    return {
        "release": _part(pack, "release").get("declared"),
        "by": made.get("by"),
        "on": made.get("on"),
        "captions": _part(pack, "captions").get("texts") is True,
    }


def _leaves(value: Any, name: str = "") -> dict[str, str]:
    """Path -> value as canonical JSON, for every value that is no list or object, and for empty
    ones.

    >>> _leaves({"a": [1, {"b": None}]})
    {'a.0': '1', 'a.1.b': 'null'}
    """
    if isinstance(value, (dict, list)) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {
            path: leaf
            for key, one in pairs
            for path, leaf in _leaves(one, f"{name}.{key}" if name else str(key)).items()
        }
    return {name: canonical(value)}


def _short(value: Any) -> str:
    """A value of unknown origin, abbreviated."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
