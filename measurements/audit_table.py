"""The tables of `audit_cost.py`, from its rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median

from meter import STAGES, Row, read

from findnemo import NeuronSet

PROCEDURES = ("findnemo", "released", "gradient")


def tables(out: Path) -> str:
    """What was measured, in Markdown: tuned-on and held-out subjects apart, each alone and all that
    were asked alike together.
    """
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for file in sorted(out.glob("*/about.json")):
        about = json.loads(file.read_text(encoding="utf-8"))
        name = file.parent.name
        rows = [row | {"subject": name} for row in read(file.with_name("rows.jsonl"))]
        found = groups.setdefault((about["chosen"], about["images"]), {})
        found[f"{name}\n\n{about['machine']}"] = rows
    parts = []
    for (chosen, images), found in sorted(groups.items(), reverse=True):
        parts.append(f"## {chosen.capitalize()}, {images}")
        for name, rows in found.items():
            parts += [f"### {name}", once(rows), commands(rows), *section(rows)]
        if len(found) > 1:
            parts += ["### Together", *section([row for rows in found.values() for row in rows])]
    return "\n\n".join(part for part in parts if part)


def section(rows: list[Row]) -> list[str]:
    return [
        *(costs(rows, kind) for kind in ("ordinary", "memorized")),
        verdicts(rows),
        ratios(rows),
    ]


def key_of(row: Row) -> tuple[str, str]:
    """Which caption of which subject a row is of."""
    return row["subject"], row["caption"]


def of(rows: list[Row], procedure: str, kind: str | None = None) -> list[Row]:
    """Rows of captions of a procedure."""
    return [
        r
        for r in rows
        if r["procedure"] == procedure
        and r["caption"] is not None
        and kind in (None, r.get("kind"))
    ]


def whole(row: Row, key: str, stages: Iterable[str] = STAGES) -> float:
    return sum(row["stages"].get(stage, {}).get(key, 0) for stage in stages)


def costs(rows: list[Row], kind: str) -> str:
    """Evaluations and seconds of a caption by stage."""
    lines = []
    for procedure in ("findnemo", "released"):
        chosen = of(rows, procedure, kind)
        if not chosen:
            continue
        everything = sum(whole(r, "evaluations") for r in chosen)
        for stage in (*STAGES, "all"):
            stages = STAGES if stage == "all" else (stage,)
            evaluations = [whole(r, "evaluations", stages) for r in chosen]
            seconds = [whole(r, "seconds", stages) for r in chosen]
            lines.append(
                f"| {procedure} | {stage} | {median(evaluations):.1f} | {mean(evaluations):.1f} |"
                f" {100 * sum(evaluations) / max(everything, 1):.0f} % | {median(seconds):.2f} |"
                f" {mean(seconds):.2f} |"
            )
    if not lines:
        return ""
    n = len({key_of(r) for p in PROCEDURES for r in of(rows, p, kind)})
    head = (
        f"Per {kind} caption (n = {n}):\n\n| procedure | stage | evaluations, median | mean | share"
        " | seconds, median | mean |\n|---|---|---:|---:|---:|---:|---:|\n"
    )
    return head + "\n".join(lines)


def once(rows: list[Row]) -> str:
    """What findnemo spends once, on no caption, and what its audit spends in all."""
    found = [r for r in rows if r["procedure"] == "findnemo" and r["caption"] is None]
    if not found:
        return ""
    parts = [
        f"{stage} {spent['evaluations']:.0f} ({spent['seconds']:.1f} s)"
        for stage, spent in found[-1]["stages"].items()
        if spent["evaluations"] or spent["seconds"] >= 0.05
    ]
    every = [found[-1], *of(rows, "findnemo")]
    evaluations, seconds = (
        sum(whole(row, unit, row["stages"]) for row in every) for unit in ("evaluations", "seconds")
    )
    return (
        f"findnemo spends once an audit, in evaluations: {', '.join(parts)}; in all"
        f" {evaluations:.0f} ({seconds:.0f} s)."
    )


def verdicts(rows: list[Row]) -> str:
    """What both say of the same captions, and the copies that are left."""
    copied = judgements(rows)
    lines = []
    for procedure in PROCEDURES:
        memories = of(rows, procedure, "memorized")
        if not memories:
            continue
        ordinary = of(rows, procedure, "ordinary")
        called = [sum(r["memorized"] for r in part) for part in (memories, ordinary)]
        sizes = [len(NeuronSet(r["neurons"])) for r in memories if r["memorized"]]
        seen = [copied.get(key_of(r), {}) for r in memories]
        left = [shares[procedure] for shares in seen if procedure in shares]
        share = f"{mean(left):.2f}" if left else ""
        lines.append(
            f"| {procedure} | {called[0]} of {len(memories)} | {called[1]} of {len(ordinary)} |"
            f" {median(sizes) if sizes else 0:g} | {share} |"
            f" {sum(one == 0 for one in left)} of {len(left)} |"
        )
    if copied:
        share = f"{mean(shares['untouched'] for shares in copied.values()):.2f}"
        lines.append(f"| untouched | | | | {share} | |")
    said = [r["standing"] for r in of(rows, "findnemo", "memorized")]
    words = ", ".join(f"{said.count(word)} {word}" for word in dict.fromkeys(said))
    head = (
        "| procedure | memories called memorized | ordinary captions called so | neurons, median"
        " | copies among fresh pictures | memories without any |\n|---|---:|---:|---:|---:|---:|\n"
    )
    told = f"\n\nfindnemo's own words for the memories: {words}." if said else ""
    return head + "\n".join(lines) + told if lines else ""


def judgements(rows: list[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Caption -> procedure -> share of copies among the judge's pictures."""
    return {key_of(row): row["copies"] for row in rows if row["procedure"] == "judge"}


def ratios(rows: list[Row]) -> str:
    """The released procedure over findnemo, caption by caption; memories are those that both
    search. It removes one if none of the judge's pictures is a copy any more.
    """
    theirs = of(rows, "released")
    searched = [r for r in of(rows, "released", "memorized") if r["memorized"]]
    copied = judgements(rows)
    removed = [
        r
        for r in searched
        if (shares := copied.get(key_of(r)))
        and shares["untouched"] > 0 == shares.get("released", 1)  # not judged yet: not removed
    ]
    lines = [ratio("whole audit", theirs, of(rows, "findnemo"), STAGES)]
    for name, procedure, stages in (
        ("whole audit of a memory", "findnemo", STAGES),
        ("default search", "findnemo", STAGES[:2]),
        ("search by one step", "gradient", STAGES[:2]),
    ):
        ours = [r for r in of(rows, procedure) if whole(r, "evaluations", ["localize"])]
        lines.append(ratio(name, searched, ours, stages))
        lines.append(ratio(f"{name} that the released one removes", removed, ours, stages))
    head = (
        "Released over findnemo, medians of ratios and ratios of sums; last the median of what the"
        " scripts spend on these captions, which pass all seeds:\n\n| | n | evaluations | of sums"
        " | seconds | of sums | scripts |\n|---|---:|---:|---:|---:|---:|---:|\n"
    )
    return head + "\n".join(line for line in lines if line) if any(lines) else ""


def ratio(name: str, theirs: list[Row], ours: list[Row], stages: Sequence[str]) -> str:
    """A line: one procedure over the other in some stages, on the captions that both have."""
    own = {key_of(row): row for row in ours}
    pairs = [(row, own[key_of(row)]) for row in theirs if key_of(row) in own]
    if not pairs:
        return ""
    cells = []
    for unit in ("evaluations", "seconds"):
        values = [(whole(a, unit, stages), whole(b, unit, stages)) for a, b in pairs]
        cells.append(f"{median(a / b for a, b in values):.1f}")
        cells.append(f"{sum(a for a, _ in values) / sum(b for _, b in values):.1f}")
    images = [whole(a, "evaluations", stages[2:]) for a, _ in pairs]
    scripts = median(a["scripted"] + made for (a, _), made in zip(pairs, images, strict=True))
    return f"| {name} | {len(pairs)} | {' | '.join(cells)} | {scripts:.0f} |"


def commands(rows: list[Row]) -> str:
    """Whole commands in turn, and ratios of the pairs."""
    found = {(r["who"], r["round"]): r for r in rows if r["procedure"] == "command"}
    lines = []
    for who in dict.fromkeys(who for who, _ in found if who != "findnemo"):
        both = [
            (found[who, k], found["findnemo", k])
            for k in sorted(k for name, k in found if name == who)
            if ("findnemo", k) in found
        ]
        for unit in ("seconds", "processor", "evaluations") if both else ():
            values = [(a[unit], b[unit]) for a, b in both]
            ratios = [a / b for a, b in values]
            lines.append(
                f"| {who} | {len(both)} | {unit} | {median(a for a, _ in values):.0f} |"
                f" {median(b for _, b in values):.0f} | {median(ratios):.2f} |"
                f" {min(ratios):.2f} to {max(ratios):.2f} |"
            )
    head = (
        "Whole commands in turn on one thread each (processor: its seconds, whatever else"
        " runs):\n\n| against | pairs | | it | this code | ratio | of pairs |"
        "\n|---|---:|---|---:|---:|---:|---|\n"
    )
    return head + "\n".join(lines) if lines else ""
