"""Decide whether a run may name things on this machine.

A run directory names a model, a TorchScript descriptor (a program), a CLIP and pictures. Findnemo
signs a run that this user made here with a key that only this user has (`key_file`). What other
runs name is opened only if the user allows it. Without the key, a run cannot pass for the user's
own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from findnemo import demo
from findnemo.errors import FindnemoError, InputError
from findnemo.files.digests import sha256
from findnemo.runs.store import Run

MARK = "vouched"
NAMED = ("model", "descriptor", "clip", "pictures in")


def key_file() -> Path:
    """The path of this user's key: `findnemo/key` in `XDG_STATE_HOME`, by default
    `~/.local/state`.
    """
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "findnemo" / "key"


def named_places(run: Run) -> dict[str, str]:
    """The things outside itself that a run names, if their origin matters."""
    settings = run.meta("settings") or {}
    pictures = run.meta("folder") if run.names_pictures() else None
    found = {"model": run.meta("source"), **_judges(settings), "pictures in": pictures}
    return {
        name: str(place)
        for name, place in found.items()
        if place is not None and place not in demo.MODELS
    }


def vouch(run: Run) -> None:
    """Sign a run as made by this user on this machine; without a place for a key, do nothing."""
    with suppress(OSError, RuntimeError):  # RuntimeError: no home
        run.set_meta(MARK, _sign(run, _key(make=True)))


def vouched(run: Run) -> bool:
    """Whether this user made the run, and nothing that it names has changed since."""
    mark = run.meta(MARK)
    with suppress(OSError, RuntimeError):
        own = _sign(run, _key())
        return isinstance(mark, str) and hmac.compare_digest(mark.encode(), own.encode())
    return False


def require(run: Run, trusted: bool = False, opens: Collection[str] = NAMED) -> None:
    """Raises InputError if somebody else's run names things to open, unless it is `trusted`.

    `opens`: what would be opened.
    """
    foreign = {name: place for name, place in named_places(run).items() if name in opens}
    if trusted:
        # the run is read-only: the user's permission holds for this time only
        with suppress(FindnemoError):
            vouch(run)
    elif foreign and not vouched(run):
        what = ", ".join(f"{name} {place!r}" for name, place in foreign.items())
        code = "; a descriptor is a program" if "descriptor" in foreign else ""
        raise InputError(
            f"{run.path} was not made by you on this machine, or was changed since, and names"
            f" {what}{code}: give --trust to open that, if you know whose run it"
            f" is{'; or give --model' if 'model' in foreign else ''}"
        )


def _sign(run: Run, key: bytes) -> str:
    judges = _judges(run.meta("settings") or {})
    descriptor = judges.get("descriptor")
    about: dict[str, Any] = {
        "source": run.meta("source"),
        "options": run.meta("source_options") or {},
        "folder": run.meta("folder"),
        "judges": judges,
        "descriptor": _digest(Path(descriptor)) if descriptor else None,
    }
    return hmac.new(key, json.dumps(about, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _judges(settings: Any) -> dict[str, str]:
    judges = settings.get("judges")
    is_sound = isinstance(judges, dict) and all(isinstance(place, str) for place in judges.values())
    return judges if is_sound else {}


def _digest(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _key(make: bool = False) -> bytes:
    path = key_file()
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".key.{os.getpid()}")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(part, path)  # if two processes link it, one wins
        except FileExistsError:
            pass
        finally:
            part.unlink()
    key = path.read_bytes()
    if len(key) != 32:
        raise OSError(f"{path} is not a key: remove it")
    return key
