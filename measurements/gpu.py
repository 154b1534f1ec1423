"""What findnemo costs on one GPU, at the sizes of Stable Diffusion v1.4, XL and FLUX.1-dev:

`python measurements/gpu.py [--parts rate,sd14] [--out build/gpu] [--minutes 9]` (`make gpu`).

Everything is made on the card: networks of the published configurations with random weights, and
memories planted in them (`geometry.plant`). Nothing is downloaded. Each part runs in a process of
its own, writes `PART.json` row by row, and is gone on with by the same call; what did not fit into
its time, or failed, is told in the table with its reason. `--rehearse` does the same with small
networks, on a machine without a GPU too.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PARTS = {  # part -> seconds that it may take
    "rate": 40,
    "sd14-float16": 240,
    "xl-float16": 270,
    "flux-bfloat16": 480,
    "sd14-bfloat16": 120,
    "xl-bfloat16": 120,
    "emergence": 150,
}
REHEARSED = ("rate", "sd14-float32", "xl-bfloat16", "flux-bfloat16", "emergence")
REHEARSAL = 60  # seconds of a part
LEAST = 30  # seconds under which no part is begun
NAMES = {"sd14": "Stable Diffusion v1.4", "xl": "Stable Diffusion XL", "flux": "FLUX.1-dev"}
GOALS = {"VM": 0.1, "TM": 0.5}  # seconds of a search by one step, of Stable Diffusion v1.4's size
SHARE = 0.5  # of the matrix rate
FASTER = 20  # times, the audit of a memorized caption than the released procedure
SEEDS = 10  # images that the released scripts make of a caption, before and after each

IDLE = ("polars",)  # reads tables, of which there is none here
PROJECT = Path(__file__).parents[1] / "pyproject.toml"

Row = Mapping[str, Any]


def lacking() -> list[str]:
    """What findnemo needs and this interpreter does not have."""
    section = PROJECT.read_text(encoding="utf-8").partition("\ndependencies = [")[2]
    needed = re.findall(r'"([\w-]+)', section.partition("\n]")[0])
    return [name for name in needed if name not in IDLE and not _installed(name)]


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def chosen(asked: str | None, all_: Sequence[str]) -> list[str]:
    """Parts by their names or how these begin.

    >>> chosen("sd14,rate", ["rate", "sd14-float16", "xl-float16"])
    ['rate', 'sd14-float16']
    """
    begins = asked.split(",") if asked else [""]
    for name in begins:
        if not any(part.startswith(name) for part in all_):
            raise SystemExit(f"no part is called {name!r}: there are {', '.join(all_)}")
    return [part for part in all_ if part.startswith(tuple(begins))]


def run_part(part: str, file: Path, seconds: float, rehearse: bool) -> None:
    """A part in its own process, which is ended where it does not end by itself."""
    program = Path(__file__).with_name("gpu_parts.py")
    command = [sys.executable, str(program), part, str(file), f"{seconds:.0f}"]
    try:
        ended = subprocess.run(
            command + ["--rehearse"] * rehearse, timeout=seconds + LEAST
        ).returncode
    except subprocess.TimeoutExpired:
        ended = "no end"
    if ended != 0:
        print(f"{part} ended early ({ended})", flush=True)


def records(out: Path) -> dict[str, Row]:
    """Part -> what its file says, in the order of `PARTS`."""
    order = [*PARTS, *REHEARSED]
    files = sorted(out.glob("*.json"), key=lambda f: order.index(f.stem))
    return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in files}


# the table ----------------------------------------------------------------------------------------


def table(parts: Mapping[str, Row], rehearsed: bool) -> str:
    """Everything that is known, as Markdown."""
    cards = {record.get("card", "?") for record in parts.values()}
    lines = [f"### {', '.join(sorted(cards)) or 'no part has run'}", ""]
    if rehearsed:
        lines += ["**Rehearsal with small networks: the figures mean nothing.**", ""]
    if "rate" in parts:
        rates = parts["rate"]["rows"].items()
        cells = (f"{name} {_told(row) or _tera(row['rate'])}" for name, row in rates)
        lines += [f"Matrix rate, TFLOP/s: {', '.join(cells)}.", ""]
    models = {n: p["rows"] for n, p in parts.items() if n.partition("-")[0] in NAMES}
    for heads, rows in (
        (MODEL, map(_model, models.items())),
        (PASS, (line for part in models.items() for line in _passes(part))),
        (SEARCH, (line for part in models.items() for line in _searches(part))),
        (AUDIT, (line for part in models.items() for line in _audit(part))),
        (GOAL, (line for part in models.items() for line in _goals(part))),
    ):
        lines += [*_markdown(heads, list(rows)), ""]
    if "emergence" in parts:
        for row in parts["emergence"]["rows"].values():
            lines += [f"Emergence, {row['seconds']:.0f} s: {_told(row)}", "", row.get("table", "")]
    return (
        "\n".join(lines + list(_untold(parts, REHEARSED if rehearsed else PARTS))).rstrip() + "\n"
    )


MODEL = (
    "model",
    "weights, billions",
    "GFLOP a latent",
    "made, s",
    "planted, s",
    "hashed, s",
    "tau",
    "scores of the memories",
)
PASS = ("model", "latents", "ms a pass", "ms a latent", "share of the matrix rate", "GiB", "")
SEARCH = (
    "model",
    "memory",
    "search",
    "s",
    "evaluations",
    "neurons",
    "of them planted",
    "gone",
    "GiB",
    "",
)
AUDIT = ("model", "stage", "s a caption", "evaluations a caption", "share", "")
GOAL = ("model", "goal", "reached", "")


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _name(part: str) -> str:
    size, _, dtype = part.partition("-")
    return f"{NAMES[size]}, {dtype}"


def _told(row: Row) -> str:
    """Why a row has no figures, or not all."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    return f"cut off after {row['seconds']:.0f} s" if row.get("cut") else ""


def _tera(rate: float) -> str:
    return f"{rate / 1e12:.3g}"


def _gib(row: Row) -> str:
    return f"{row['gib']:.1f}" if "gib" in row else "-"


def _model(part: tuple[str, Mapping[str, Row]]) -> list[object]:
    name, rows = part
    if "failed" in rows.get("build", {}):
        return [_name(name), rows["build"]["failed"], *[""] * 6]
    identity = rows["identity"]
    calibrated = rows.get("calibrate", {})
    return [
        _name(name),
        f"{identity['billions']:.3g}",
        f"{identity['flop'] / 1e9:,.1f}",
        *(f"{rows[key]['seconds']:.1f}" for key in ("build", "plant", "identity")),
        f"{calibrated['tau']:.3f}" if "tau" in calibrated else _told(calibrated),
        ", ".join(f"{score:.2f}" for score in calibrated.get("scores", ())),
    ]


def _passes(part: tuple[str, Mapping[str, Row]]) -> Iterator[list[object]]:
    name, rows = part
    for key, row in rows.items():
        kind, *mode = key.split()
        if kind not in ("pass", "compiled"):
            continue
        about = "" if kind == "pass" else f"compiled, {mode[0]}; first {row.get('first', 0):.0f} s"
        if "split" in row:
            about += f"memory allows {row['split']} at once"
        figures = ["-"] * 3
        if "pass" in row:
            ms = 1e3 * row["pass"]
            figures = [f"{ms:,.1f}", f"{ms / row['latents']:,.2f}", f"{row['share']:.0%}"]
        yield [_name(name), mode[-1], *figures, _gib(row), " ".join([about, _told(row)]).strip()]


def _searches(part: tuple[str, Mapping[str, Row]]) -> Iterator[list[object]]:
    name, rows = part
    for key, row in rows.items():
        memory, _, search = key.partition(" ")
        if memory in GOALS:
            found = [row.get(k, "-") for k in ("neurons", "planted")]
            gone = {True: "yes", False: "no"}.get(row.get("reached"), "-")
            if row.get("memorized") is False:
                gone = "not detected"
            yield [
                _name(name),
                memory,
                search,
                f"{row['seconds']:.2f}",
                row["evaluations"],
                *found,
                gone,
                _gib(row),
                _told(row),
            ]


def released(rows: Mapping[str, Row], kind: str) -> tuple[float, float, bool] | None:
    """Seconds and evaluations of a memorized caption as the published scripts go about it
    (detection and search, then ten images before and ten after), and whether its search was cut
    off, so that they are a lower bound.
    """
    search = rows.get(f"{kind} literal", {"failed": ""})
    image = rows.get("image", {"cut": True})
    if "failed" in search or "failed" in image or "cut" in image:
        return None
    times = 2 * SEEDS / image["images"]
    seconds, evaluations = (search[k] + times * image[k] for k in ("seconds", "evaluations"))
    return seconds, evaluations, bool(search.get("cut"))


def own(rows: Mapping[str, Row]) -> tuple[float, float] | None:
    """Seconds and evaluations of a memorized caption in findnemo's audit, all stages."""
    row = rows.get("audit", {})
    if not (row.get("answered") and row["memorized"]):
        return None  # cut off before all captions were verified, or nothing was detected
    sums = [sum(each[k] for _, each in _stages(row)) for k in (0, 1)]
    return sums[0], sums[1]


def _stages(row: Row) -> Iterator[tuple[str, list[float]]]:
    """What a memorized caption costs in each stage: its share of detection, which asks all
    captions, and of the stages that ask memories alone.
    """
    for stage, figures in row.get("stages", {}).items():
        captions = row.get("memorized") or 1
        if stage == "detect":
            captions += row.get("ordinary", 0)
        if stage in ("detect", "localize", "verify"):
            yield stage, [figure / captions for figure in figures]


def _audit(part: tuple[str, Mapping[str, Row]]) -> Iterator[list[object]]:
    name, rows = part
    row = rows.get("audit")
    if row is None:
        return
    stages = list(_stages(row))
    total = sum(seconds for _, (seconds, _) in stages) or 1
    for stage, (seconds, evaluations) in stages:
        yield [
            _name(name),
            stage,
            f"{seconds:.2f}",
            f"{evaluations:,.1f}",
            f"{seconds / total:.0%}",
            _told(row),
        ]
    if ends := row.get("stages", {}).get("quality and report"):
        yield [_name(name), "quality and report, once", f"{ends[0]:.2f}", f"{ends[1]:,.0f}", "", ""]
    for kind in GOALS:
        whole = released(rows, kind)
        figures = (f"{whole[0]:.2f}", f"{whole[1]:,.0f}") if whole else ("-", "-")
        about = "its search was cut off: a lower bound" if whole and whole[2] else ""
        if f"{kind} literal" in rows:
            yield [_name(name), f"released procedure, {kind}", *figures, "", about]


def _goals(part: tuple[str, Mapping[str, Row]]) -> Iterator[list[object]]:
    name, rows = part
    if name.startswith("sd14"):
        for kind, goal in GOALS.items():
            row = rows.get(f"{kind} gradient", {"cut": True, "seconds": 0})
            seconds = None if _told(row) or not row["reached"] else row["seconds"]
            yield [
                _name(name),
                f"search of a {kind} caption in {goal} s",
                *_reached(seconds, seconds is not None and seconds <= goal, " s"),
            ]
    shares = [
        row["share"] for key, row in rows.items() if key.startswith("pass") and "share" in row
    ]
    best = max(shares, default=None)
    yield [
        _name(name),
        f"{SHARE:.0%} of the matrix rate",
        *_reached(best, (best or 0) >= SHARE, ""),
    ]
    ours = own(rows)
    for kind in GOALS:
        if f"{kind} literal" not in rows:
            continue
        theirs = released(rows, kind)
        times = theirs[0] / ours[0] if theirs and ours else None
        reached = _reached(times, (times or 0) >= FASTER, " times")
        if theirs and theirs[2] and times is not None:
            reached = f"at least {reached[0]}", "yes" if times >= FASTER else "not settled"
        yield [_name(name), f"audit {FASTER} times faster, {kind}", *reached]


def _reached(value: float | None, good: bool, unit: str) -> tuple[str, str]:
    if value is None:
        return "-", "not measured"
    return f"{value:.2f}{unit}", "yes" if good else "no"


def _untold(parts: Mapping[str, Row], all_: Iterable[str]) -> Iterator[str]:
    """What is still to be done."""
    missing = [part for part in all_ if part not in parts]
    partly = [part for part, record in parts.items() if not record.get("whole")]
    if missing:
        yield f"Not begun: {', '.join(missing)}."
    if partly:
        yield f"Not ended: {', '.join(partly)}."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", help=f"of {', '.join(PARTS)}, or how these begin")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--minutes", type=float, default=25, help="of this call, all parts")
    parser.add_argument("--rehearse", action="store_true", help="small networks")
    parser.add_argument("--again", action="store_true", help="forget rows that failed or were cut")
    args = parser.parse_args(arguments)
    ends = time.monotonic() + 60 * args.minutes
    if names := lacking():
        raise SystemExit(
            f"{sys.executable} lacks {', '.join(names)}: install them beside its PyTorch"
        )
    import torch

    if not (args.rehearse or torch.cuda.is_available()):
        print("no CUDA device: a rehearsal with small networks", flush=True)
        args.rehearse = True
    parts = chosen(args.parts, REHEARSED if args.rehearse else list(PARTS))
    if args.rehearse:
        args.out = args.out / "rehearsal"
        shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        file = args.out / f"{part}.json"
        if args.again and file.exists():
            forget(file)
        if file.exists() and json.loads(file.read_text(encoding="utf-8")).get("whole"):
            continue
        seconds = min(PARTS.get(part, REHEARSAL), ends - time.monotonic())
        if seconds >= LEAST:
            run_part(part, file, seconds, args.rehearse)
        (args.out / "table.md").write_text(
            table(records(args.out), args.rehearse), encoding="utf-8"
        )
    print((args.out / "table.md").read_text(encoding="utf-8"))


def forget(file: Path) -> None:
    """Take rows without all their figures out of a part's file, to be made again."""
    record = json.loads(file.read_text(encoding="utf-8"))
    kept = {name: row for name, row in record["rows"].items() if not _told({"seconds": 0} | row)}
    if kept != record["rows"]:
        file.write_text(json.dumps(record | {"rows": kept, "whole": False}), encoding="utf-8")


if __name__ == "__main__":
    main()
