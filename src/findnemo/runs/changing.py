"""Give an existing run other judges or other image settings.

A run holds results of one set of settings. Results that do not depend on the change stay. Verified
pictures stay if their image settings stay, and are judged again (`judging`). All other results are
put aside under the settings that they depend on (`aside@1a2b3c4d:localize`), and return when those
settings return. The change is one transaction: a process may die before or after it, and the same
call resumes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from findnemo.localization import DEFAULT
from findnemo.runs.store import Run, differences, flat
from findnemo.runs.union import OF_UNIONS
from findnemo.runs.wording import count

Settings = Mapping[str, Any]

CHANGEABLE = ("images", "image_settings", "judges")
BEGAN = "began"  # value of the run: its first settings, if they have changed since
STALE = "stale"  # value of the run: pictures of earlier settings must still be removed
PICTURED = "pictured"  # stage: a verification whose pictures wait for the judges of the run
PICTURES = ("images", "noise", "sheets", "cleaned")  # folders that verification fills
SEARCHED = tuple(f"image_settings.{name}" for name in ("steps", "guidance", "seed"))
JUDGED = ("image_settings", "judges")
# value of the run -> the settings that it depends on, as `stages_of` says for stages
VALUES = {
    "scan": SEARCHED,
    **dict.fromkeys(("quality", "quality_basis", "attempts", "attack", "hardened"), JUDGED),
}


def stages_of(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Stage, or the prefix before its colon -> the changeable settings that its results depend on.

    Verification depends on all of them and is not listed. The default search looks at pictures with
    the guidance and the number of steps of finished images, and uses no judge. In the audit of a
    fine-tune the descriptor decides which captions copy, and so what is memorized and searched.
    """
    seen = ("judges.descriptor",) if "training" in settings else ()
    searched = SEARCHED if settings.get("search") == DEFAULT else ()
    return {"detect": seen, "localize": searched + seen, "attempts": JUDGED, "attack": JUDGED}


def part_of(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    """The settings, flat as `store.flat` gives them, whose name is one of `names` or lies below
    one.

    >>> part_of({"images": 4, "judges": {"clip": "a"}, "image_settings": {"steps": 9}}, ("judges",))
    {'judges.clip': 'a'}
    """
    values = flat(settings).items()
    return {key: v for key, v in values if any(f"{key}.".startswith(f"{n}.") for n in names)}


def digest(settings: Settings, names: tuple[str, ...]) -> str:
    """A digest of a part of the settings, 8 hexadecimal digits."""
    text = json.dumps(part_of(settings, names), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def changed(earlier: Settings, settings: Settings) -> dict[str, tuple[Any, Any]]:
    """The CHANGEABLE settings that differ: name -> (earlier value, new value).

    >>> changed({"images": 4, "judges": {}}, {"images": 4, "judges": {"clip": "a"}})
    {'judges.clip': (None, 'a')}
    """
    old, new = (part_of(each, CHANGEABLE) for each in (earlier, settings))
    return {k: (old.get(k), new.get(k)) for k in {**old, **new} if old.get(k) != new.get(k)}


def again(earlier: Settings, settings: Settings) -> list[str]:
    """The stages of `stages_of` whose results become invalid."""
    return [
        stage for stage, names in stages_of(settings).items() if _differ(earlier, settings, names)
    ]


def keeps_pictures(earlier: Settings, settings: Settings) -> bool:
    """Whether verified pictures remain valid and only have to be judged again.

    They do if they are made in the same way, with the same neurons off.
    """
    sought = {"detect", "localize"} & {*again(earlier, settings)}
    return bool(earlier["images"]) and not (sought or _differ(earlier, settings, JUDGED[:1]))


def _differ(one: Settings, other: Settings, names: tuple[str, ...]) -> bool:
    return part_of(one, names) != part_of(other, names)


# the change ---------------------------------------------------------------------------------------


def change(
    run: Run, earlier: Settings, settings: Settings, tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Give a run other judges or image settings; return its settings from now on.

    Returns None and changes nothing if any other setting differs, or if the change would leave the
    run without pictures. `earlier`: the present settings. `tell`: called first with what becomes of
    the results.
    """
    same = {**settings, **{name: earlier[name] for name in CHANGEABLE}}
    if differences(dict(earlier), same) or (earlier["images"] and not settings["images"]):
        return None
    new = {**earlier, **{name: settings[name] for name in CHANGEABLE}}
    for line in sentences_on_change(run, new):
        tell(line)
    with run.transaction():
        for stage, names in stages_of(new).items():
            if _differ(earlier, new, names):
                _rename(run, stage, f"aside@{digest(earlier, names)}:{stage}")
                _rename(run, f"aside@{digest(new, names)}:{stage}", stage)
        for key, names in VALUES.items():
            if _differ(earlier, new, names):
                _put_aside(run, key, digest(earlier, names), digest(new, names))
        run.query(f"DELETE FROM results WHERE {OF_UNIONS}")
        _put(run, "union", None)
        if keeps_pictures(earlier, new):
            _rename(run, "verify", PICTURED)
        else:
            sql = "DELETE FROM results WHERE stage IN (?, ?) AND status = 'done'"
            run.query(sql, ("verify", PICTURED))
            _put(run, STALE, True)
        if run.meta(BEGAN) is None:
            _put(run, BEGAN, {name: earlier[name] for name in CHANGEABLE})
        _put(run, "settings", new)
    return new


def remove_stale(run: Run) -> None:
    """Remove pictures that belong to no result of the run any more."""
    if run.meta(STALE):
        for folder in map(run.path.joinpath, PICTURES):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
        run.set_meta(STALE, None)


def _rename(run: Run, stage: str, name: str) -> None:
    """Rename a stage, or all stages that begin with its name and a colon."""
    ours = f"WHERE (stage = ? OR substr(stage, 1, {len(stage) + 1}) = ?)"
    for caption, old, *rest in list(run.rows("results", ours, (stage, f"{stage}:"))):
        run.put_row("results", (caption, name + old.removeprefix(stage), *rest))
        run.query("DELETE FROM results WHERE caption = ? AND stage = ?", (caption, old))


def _put_aside(run: Run, key: str, was: str, now: str) -> None:
    """Keep a value of the run under the settings that it depended on, and restore the one of the
    present settings.
    """
    if (value := run.meta(key)) is not None:
        _put(run, f"{key}@{was}", value)
    _put(run, key, run.meta(f"{key}@{now}"))


def _put(run: Run, key: str, value: Any) -> None:
    run.put_row("meta", (key, json.dumps(value)))


# what is said about it ----------------------------------------------------------------------------


def sentences_on_change(run: Run, settings: Settings) -> list[str]:
    """What other settings do to the results of a run, in sentences; empty if nothing changes."""
    earlier = run.meta("settings")
    if not (what := changed(earlier, settings)):
        return []
    values = (
        f"{key.rpartition('.')[2]} {_shown(old)}, now {_shown(new)}"
        for key, (old, new) in what.items()
    )
    redone = again(earlier, settings)
    lines = [f"{run.path} goes on with other settings: {', '.join(values)}"]
    counts = {stage: _count(run, stage) for stage in ("detect", "localize", "verify")}
    counts["verify"] += _count(run, PICTURED)
    stays = []
    made = []
    for stage, (kept, lost) in _SAID.items():
        captions = count(counts[stage], "caption")
        if counts[stage] and stage in redone:
            made.append(f"{lost} of {captions}")
        elif counts[stage]:
            stays.append(f"{kept} ({captions})")
    if stays:
        lines.append(f"kept: {' and '.join(stays)}")
    keeps = keeps_pictures(earlier, settings)
    if keeps and counts["verify"]:
        few = "; those that are missing are made" if settings["images"] > earlier["images"] else ""
        lines.append(
            f"judged anew: the stored pictures of {count(counts['verify'], 'caption')}{few}"
        )
    if counts["verify"] and not keeps:
        made.append(f"the pictures of {count(counts['verify'], 'caption')}")
    if run.meta("union") is not None:
        made.append("what was seen with the neurons of all captions off")
    if run.meta("quality") is not None and _differ(earlier, settings, JUDGED):
        made.append("the quality check, whose pictures are not stored")
    if made:
        lines.append(f"made again: {', '.join(made)}")
    if tried := [s for s in ("attempts", "attack") if s in redone and _count(run, s)]:
        lines.append(f"put aside: {' and '.join(tried)}, which `findnemo verify` makes again")
    if run.query("SELECT 1 FROM results WHERE substr(stage, 1, 7) = 'compare' LIMIT 1"):
        lines.append("kept apart: comparisons of mitigations, which `findnemo compare` makes again")
    return lines


_SAID = {  # stage -> what is kept of it, and what is made again
    "detect": ("what detection found", "the detection"),
    "localize": ("the neurons that were found", "the search for neurons"),
}


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value}"


def _count(run: Run, stage: str) -> int:
    """How many captions have a result of a stage, or of stages that begin with it and a colon."""
    ours = f"status = 'done' AND (stage = ? OR substr(stage, 1, {len(stage) + 1}) = ?)"
    sql = f"SELECT COUNT(DISTINCT caption) FROM results WHERE {ours}"
    return int(run.query(sql, (stage, f"{stage}:"))[0][0])
