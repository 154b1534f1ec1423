"""The evidence pack: attack classes that regulators and courts name, compared with what a run
executed.

It states figures and what was not measured. It interprets no law.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from findnemo import seeds
from findnemo._version import __version__
from findnemo.calibration import Calibration
from findnemo.errors import InputError
from findnemo.files.digests import sha256
from findnemo.files.secrets import without_secrets
from findnemo.files.writing import atomic_write
from findnemo.metrics.kind import is_memory
from findnemo.models.identity import kept_identity
from findnemo.report._canonical import canonical, digest_of, of_rows, of_text
from findnemo.report._evidence_row import RunContents
from findnemo.report._evidence_rows import ROWS
from findnemo.report._sources import RELEASES, SOURCES, UNDECLARED
from findnemo.report._text import count, environment, placeless
from findnemo.report.sentences import WEIGHTS
from findnemo.runs import (
    BAD,
    Caption,
    Run,
    all_neurons,
    captions_of,
    refuse_links,
    settings_of,
    standing,
    state,
    switched_off,
)
from findnemo.runs.overview import memorized, sampler_of
from findnemo.runs.standing import unseen
from findnemo.runs.trust import MARK

KIND = "findnemo evidence"
FORMAT = 1
NAME = "evidence.html"
TEMPLATE = "evidence.html.j2"
EMBEDDED = ('<template id="evidence-json">', "</template>")  # text around the JSON in the page
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}  # keep JSON from being read as HTML
LONGEST = 200  # characters of a maker's name
LISTED = 200  # captions listed on a page; the JSON has all
ELSEWHERE = ("schema", "source", "source_options", "folder", MARK)  # no result depends on them
PICTURES = ("images", "attack")  # folders of finished images
SCALARS = (
    "dtype",
    "tau",
    "search",
    "images",
    "fdr",
    "max_impact",
    "scope",
    "grow",
    "thorough",
    "shard",
)
NOTES = (
    "A result counts only for the attacks that were tried.",
    "Figures hold for this model, these captions, seeds and settings. They say nothing of others.",
    "Intervals treat captions as independent and as drawn at random. Captions that were chosen,"
    " or resemble each other, make them too narrow.",
    "No interval is given of a median of fewer than five values, of a curve over fewer than three"
    " captions, and of an AUROC where the scores of both kinds do not overlap.",
    "This is a technical record. It is no legal advice and no verdict about law.",
    "The digest shows that the file was not changed since it was made. It does not show who made it"
    " or that it is true: it is no signature.",
    "The run keeps no dates: the date is that of this pack, not of the tests.",
)
SEEDS = {
    "search": seeds.SEARCH,
    "verification": seeds.FRESH,
    "attempts": seeds.ATTEMPTS,
    "attack": seeds.ATTACK,
}


def evidence(
    run: Run,
    release: str | None = None,
    by: str | None = None,
    on: str | None = None,
    captions: bool = False,
) -> dict[str, Any]:
    """The pack as plain values, with its digest under `digest`.

    `release`: how the model is released, "weights", "api" or "internal"; None: not declared. `by`:
    who made the pack. `on`: the day, such as 2026-01-31. `captions`: include the texts of captions
    that are memorized or suspected; otherwise they are given by row and SHA-256. The same run and
    arguments give the same pack. Every figure comes from the run's own results. Raises InputError
    for an unknown release, a name that cannot be shown or has over 200 characters, and an invalid
    day.

        with Run.open("run") as run:
            pack = findnemo.report.evidence(run, release="weights", by="A. Tester")
            pack["attacks"][0]["executed"]
    """
    _refuse(release, by, on)
    held = _held(run)
    rows = [row(held).to_json() for row in ROWS]
    pack = {
        "kind": KIND,
        "format": FORMAT,
        "made": {"by": by, "on": on, "findnemo": __version__},
        "release": {
            "declared": release,
            "means": UNDECLARED if release is None else RELEASES[release],
        },
        "model": _model(held),
        "attacks": rows,
        "residual": _residual(held, rows, release),
        "run": _provenance(held),
        "hashes": hashes(run),
        "captions": {"texts": captions, "listed": _listed(held.captions, captions)},
        "sources": [
            {
                "title": source.title,
                "date": source.date,
                "says": [{"text": text, "read": how} for text, how in source.says],
            }
            for source in SOURCES
        ],
        "notes": list(NOTES),
    }
    return pack | {"digest": digest_of(pack)}


def page_of(pack: Mapping[str, Any]) -> str:
    """A pack as an HTML page without scripts, with its canonical JSON inside as inert text."""
    text = canonical(pack)
    told = json.loads(text)  # in the order of the file
    data = text.translate(ESCAPES)
    return environment().get_template(TEMPLATE).render(pack=told, data=data, LISTED=LISTED)


def write_evidence(
    run: Run,
    path: str | Path | None = None,
    release: str | None = None,
    by: str | None = None,
    captions: bool = False,
) -> tuple[Path, Path]:
    """Write today's pack as a page and as JSON (default: `evidence.html` and `evidence.json` in the
    run directory), each whole or not at all; return their paths.

    `path`: of the page; the JSON gets the same name next to it. The other arguments are those of
    `evidence`. Raises InputError as `evidence` does, and for a path that is a directory.

        with Run.open("run") as run:
            page, data = findnemo.report.write_evidence(run, release="api")
    """
    page, data = _targets(Path(path) if path is not None else run.path / NAME)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    pack = evidence(run, release, by, today, captions)
    text = page_of(pack)
    with atomic_write(data) as data_part, atomic_write(page) as page_part:
        data_part.write_bytes(f"{canonical(pack)}\n".encode())
        page_part.write_bytes(text.encode())
    return page, data


def _targets(path: Path) -> tuple[Path, Path]:
    """The paths of the page and of the JSON next to it. Raises InputError for a directory."""
    stem = path.with_suffix("") if path.suffix in (".html", ".htm", ".json") else path
    targets = (path if path.suffix == ".htm" else Path(f"{stem}.html"), Path(f"{stem}.json"))
    for one in (path, *targets):
        if one.is_dir():
            raise InputError(f"{one} is a directory: give a file, such as {one / NAME}")
    return targets


def _refuse(release: str | None, by: str | None, on: str | None) -> None:
    """Raises InputError for arguments that a pack cannot state."""
    if release is not None and release not in tuple(RELEASES):
        raise InputError(f"release {release!r:.60} is not known: use {', '.join(RELEASES)}")
    is_name = isinstance(by, str) and by.strip() and by.isprintable() and len(by) <= LONGEST
    if by is not None and not is_name:
        raise InputError(
            f"{by!r:.60} is no name of a maker: give 1 to {LONGEST} letters that can be shown"
        )
    if on is not None:
        try:
            datetime.date.fromisoformat(on)
        except (TypeError, ValueError):
            raise InputError(f"{on!r:.60} is no day: give one such as 2026-01-31") from None


def _held(run: Run) -> RunContents:
    is_audit = (run.path / "calibration" / "calibration.json").is_file()
    return RunContents(
        run,
        captions_of(run),
        settings_of(run, is_audit),
        Calibration.load(run.path / "calibration") if is_audit else None,
    )


# the tested model ---------------------------------------------------------------------------------


def _model(held: RunContents) -> dict[str, Any]:
    """The model without its place, and how the cleaned one differs."""
    run = held.run
    identity = kept_identity(held.settings.get("identity"))
    options = run.meta("source_options") or {}
    hardened = (run.meta("hardened") or {}).get("model")
    return {
        "name": placeless(run.meta("source")),
        "opened": {name: placeless(value) for name, value in options.items()},
        "fingerprint": str(held.settings["model"]),
        "whole": None if identity is None else identity.whole,
        "parts": [] if identity is None else sorted(identity.parts),
        "neurons_off": len(all_neurons(held.captions)),
        "hardened": hardened and str(hardened)[:LONGEST],
    }


def _provenance(held: RunContents) -> dict[str, Any]:
    """Versions, settings and seeds, without paths."""
    settings = held.settings
    calibration = held.calibration
    return {
        "versions": {k: without_secrets(v) for k, v in (held.run.meta("versions") or {}).items()},
        "settings": {name: settings[name] for name in SCALARS if name in settings}
        | {
            "score": settings.get("calibration"),
            "finished_images": dict(settings["image_settings"]),
            "sampler": sampler_of(settings),
            "judges": {k: placeless(v) for k, v in (settings.get("judges") or {}).items()},
        },
        "seeds": {"base": settings["image_settings"].get("seed"), "first_sample_of": dict(SEEDS)},
        "calibration": None
        if calibration is None
        else {
            "holdout_captions": calibration.count,
            "scored": len(calibration.trajectories),
            "fpr": calibration.fpr,
            "tau": calibration.tau,
        },
        "detectors": list(held.run.meta("detectors") or []),
    }


def hashes(run: Run) -> dict[str, Any]:
    """SHA-256 of the parts of a run, with all picture files in one."""
    refuse_links(run.path)
    pictures = [
        (file.relative_to(run.path).as_posix(), sha256(file))
        for folder in PICTURES
        for file in sorted((run.path / folder).rglob("*.png"))
    ]
    calibration = sorted((run.path / "calibration").glob("calibration.*"))
    marks = ", ".join("?" * len(ELSEWHERE))
    order = "ORDER BY caption, stage"
    return {
        "model": str((run.meta("settings") or {}).get("model")),
        "captions": of_rows(run.rows("captions", "ORDER BY id")),
        "calibration": of_rows((file.name, sha256(file)) for file in calibration),
        "results": of_rows(run.rows("results", order)),
        "settings and summaries": of_rows(
            run.rows("meta", f"WHERE key NOT IN ({marks}) ORDER BY key", ELSEWHERE)
        ),
        "pictures": of_rows(pictures),
        "number of pictures": len(pictures),
    }


def _listed(captions: Sequence[Caption], texts: bool) -> list[dict[str, Any]]:
    """Captions over the threshold, by row and hash; `texts`: with their texts."""
    return [
        {
            "row": c.row,
            "sha256": of_text(c.text),
            "type": c.type if c.type in ("VM", "TM") else "other" if is_memory(c.type) else None,
            "state": state(c),
            "standing": standing(c),
            "score": None if c.score is None else round(c.score, 4),
        }
        | ({"text": c.text} if texts else {})
        for c in captions
        if state(c) in ("memorized", "suspected")
    ]


# residual risks -----------------------------------------------------------------------------------


def _residual(
    held: RunContents, rows: Sequence[Mapping[str, Any]], release: str | None
) -> list[str]:
    """Plain statements of what is not covered."""
    return [
        *(f"{row['attack']}: not executed, {row['why']}." for row in rows if not row["executed"]),
        *_left(held.captions),
        *(_of_release(release)),
        "Captions that were not in the table, and training pictures without captions, were not"
        " looked at.",
        "A caption under the threshold may be memorized all the same.",
        "Attempts and attacks took some of the captions, and hold for the neurons that were off"
        " when they were made.",
        "Quality, bias and other harms are not part of this pack.",
    ]


def _left(captions: Sequence[Caption]) -> Iterator[str]:
    """What the run itself left open: memories that are not gone, captions without a result."""
    stands = Counter(map(standing, memorized(captions)))
    not_gone = sum(stands[word] for word in BAD)
    if not_gone:
        yield (
            f"{count(not_gone, 'memory')} that were checked {'is' if not_gone == 1 else 'are'} not"
            " gone: out of reach, reduced only, back on fresh seeds, or still copied."
        )
    unchecked = sum(stands[w] for w in ("not verified", "not localized", "not replicated"))
    if unchecked:
        yield f"{count(unchecked, 'memorized caption')} could not be or were not checked."
    doubtful = [c for c in captions if state(c) == "suspected"]
    if cleared := sum(not unseen(c) for c in doubtful):
        yield (
            f"{count(cleared, 'caption')} over the threshold gave no copies on the seeds that were"
            " drawn; nothing is switched off for them."
        )
    if looked := sum(map(unseen, doubtful)):
        yield f"{count(looked, 'caption')} over the threshold: no image was looked at."
    if failed := sum(standing(c) == "failed" for c in captions):
        yield f"{count(failed, 'caption')} failed and have no whole result."
    if any(len(switched_off(c)) for c in captions):
        yield (
            "Switched-off neurons act in the cleaned model alone: the original weights give the"
            " pictures as before."
        )


def _of_release(release: str | None) -> Iterator[str]:
    if release is None:
        yield "How the model is released was not declared, so that no attack can be ruled out."
    if release in (None, "weights"):
        yield WEIGHTS
        yield "Further training of released weights was not tested; it may bring memories back."
    if release == "api":
        yield (
            "Prompts that were written to get round safeguards, and many queries of one user, were"
            " not tested as an operator would see them."
        )
