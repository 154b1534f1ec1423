"""The commands `compare` and `study`: NeMo beside the methods it competes with, and the paper's tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._audit import SamplerOpt, audit
from findnemo.cli._common import (
    ALONE,
    OF_RUN,
    ClipOpt,
    ColumnOpt,
    Crew,
    DescriptorOpt,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    LimitOpt,
    OutOpt,
    QuietOpt,
    RunArg,
    Source,
    TrackOpt,
    TrustOpt,
    at_work,
    bar,
    opens_model,
    plain,
    print_json,
    read_table,
    say,
    stdout,
    stoppable,
    stream_table,
    takes_workers,
)
from findnemo.cli._steps import (
    check_track,
    demo_table,
    opened,
    opened_with,
    plan_of,
    refuse_shard,
    run_stages,
    shard_of,
    tracked,
)
from findnemo.errors import FAILED, MismatchError

PAPER = ", paper"  # how heads of columns with published numbers end
PER_TYPE = 6  # captions of each type in costly studies of the demo


@opens_model
@takes_workers
def compare(
    model: Source,
    out: OutOpt = Path("findnemo-compare"),
    prompts: Annotated[
        str | None, typer.Option("--prompts", "-p", help="Captions; 'demo' brings its own.")
    ] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Hold-out captions to calibrate on; 'demo' brings its own.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", "-c", help="A calibration instead of hold-out captions."),
    ] = None,
    mitigations: Annotated[
        str | None, typer.Option(help="Names, separated by commas; default: all.")
    ] = None,
    limit: LimitOpt = None,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="With 95 % bootstrap intervals of the medians.")
    ] = False,
    images: Annotated[
        int | None,
        typer.Option(
            help="Images per caption and mitigation (4; a run that is there has its own).", min=2
        ),
    ] = None,
    sampler: SamplerOpt = None,
    descriptor: DescriptorOpt = None,
    clip: ClipOpt = None,
    column: ColumnOpt = None,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    track: TrackOpt = None,
    trust: TrustOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    crew: Crew = ALONE,
) -> None:
    """Put NeMo's neurons beside other mitigations: Table 1 of the paper for your model.

    A run that an audit has made or begun goes on with the settings and the calibration that it keeps.

    Example: `findnemo compare demo`

    Example: `findnemo compare MODEL --prompts captions.csv --holdout laion.csv --mitigations neurons,embedding --intervals --out run`
    """
    from findnemo.files.writing import written
    from findnemo.models import sampler_name
    from findnemo.report import write
    from findnemo.runs.compare import compare as api
    from findnemo.runs.compare import methods
    from findnemo.studies.table1 import table

    check_track(track)
    names = methods(
        mitigations.split(",") if mitigations else None
    )  # a wrong name is said before the work, not after
    judges = {"descriptor": descriptor, "clip": clip}
    before = True
    with suppress(typer.Exit):  # a caption that failed is no reason to leave out the others
        if begun(out):
            asked = {
                "calibration": calibration,
                "holdout": holdout,
                "images": images,
                "sampler": sampler and sampler_name(sampler),
                **judges,
            }
            go_on(
                model, out, prompts, limit, column, asked, device, dtype, quiet or json, crew, trust
            )
        else:
            also = {
                "column": column,
                "device": device,
                "dtype": dtype,
                "report": False,
                "quiet": quiet or json,
                **vars(crew),
            }
            audit(
                model,
                out,
                prompts,
                holdout,
                calibration,
                limit,
                images=images or 4,
                sampler=sampler,
                **judges,
                **also,
            )
        before = False
    refuse_shard(out)
    with (
        tracked(out, track, quiet),
        opened_with(out, model, crew, device, dtype, quiet, trust) as (work, pool),
    ):
        with stoppable() as stop, bar(quiet) as update:
            api(work, names, update, pool, stop, limit)
        made = table(work.run, intervals)
        for name, text in (("table1.md", made.markdown()), ("table1.csv", made.csv())):
            with written(out / name) as part:
                part.write_text(text, encoding="utf-8")
        report = write(work.run)
        failed = [
            c
            for c in work.run.captions()
            if any(stage.startswith("compare:") for stage in c.failed)
        ]
    if json:
        print_json([dict(zip(made.columns, row, strict=True)) for row in made.rows])
    elif not quiet:
        show(made)
        stdout.print(
            plain(
                f"table in {out / 'table1.md'}, a picture of each caption and mitigation in {out / 'compare'}, report in {report}"
            ),
            soft_wrap=True,
        )
    for caption in failed[:5]:
        reasons = "; ".join(
            f"{s.removeprefix('compare:')}: {r}"
            for s, r in caption.failed.items()
            if s.startswith("compare:")
        )
        say(f"failed: row {caption.row}: {reasons}")
    if failed or before:
        raise typer.Exit(FAILED)


@opens_model
def study(
    name: Annotated[
        str, typer.Argument(help="all, or names separated by commas: table1, fig4, ...")
    ],
    run: RunArg,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write to (default: RUN/studies).")
    ] = None,
    per_type: Annotated[
        int | None,
        typer.Option(
            help=f"Memorized captions of each type in costly studies (default: all; demo {PER_TYPE}).",
            min=1,
        ),
    ] = None,
    unrelated: Annotated[
        str | None,
        typer.Option(
            help="Captions known not to be memorized, none of them hold-out captions; those of the run without the type of a memory, where others have "
            "one, and the demo's are used anyway."
        ),
    ] = None,
    column: ColumnOpt = None,
    model: Source = OF_RUN,
    trust: TrustOpt = False,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    quiet: QuietOpt = False,
) -> None:
    """Make a table or figure of the paper from a run: Markdown, CSV and LaTeX, PNG and SVG.

    Example: `findnemo study all findnemo-demo`

    Example: `findnemo study table3,fig2a,fig10 run --out figures`
    """
    from findnemo import demo
    from findnemo.errors import FindnemoError
    from findnemo.studies import Bench, not_memorized, under_tau
    from findnemo.studies import study as api

    folder = out or run / "studies"
    with opened(run, model, device, dtype, quiet, trust) as work, bar(quiet) as update:
        own = work.model.source in demo.MODELS
        given = [p.text for p in read_table(unrelated, column, None, quiet)] if unrelated else []
        given += demo.unrelated()[:64] if own else ()
        clean, barred = not_memorized(
            work.run, given, work.calibration, demo.holdout() if own else ()
        )
        if barred:
            say(
                f"{barred} of the captions given are hold-out captions, or memories by the run's table: they are left out",
                quiet,
            )
        bench = Bench(
            work,
            clean,
            per_type or (PER_TYPE if own else None),
            update,
            under_tau(work.run.captions()),
        )
        done = api(name.split(","), bench, folder)
    failed = {n: s for n, s in done.items() if isinstance(s, FindnemoError)}
    for which, reason in failed.items():
        say(f"failed: {which}: {reason}")
    if not quiet:
        stdout.print(
            plain(
                f"{len(done) - len(failed)} studies in {folder}: begin with {folder / 'README.md'}"
            ),
            soft_wrap=True,
        )
    if failed:
        raise typer.Exit(FAILED)


def show(made: Any) -> None:
    """A table of a study in the terminal, narrow enough for 80 columns: intervals and the paper's numbers stand under ours."""
    from rich.table import Table

    heads = list(made.columns)
    own = [k for k, head in enumerate(heads) if not head.endswith(PAPER)]
    theirs = {k: heads.index(heads[k] + PAPER) for k in own if heads[k] + PAPER in heads}
    table = Table(
        title=made.title,
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        title_justify="left",
    )
    for k in own:
        table.add_column(
            heads[k],
            justify="left" if k < 2 else "right",
            max_width=22 if k == 0 else None,
            no_wrap=k > 0,
        )
    for row in made.rows:
        table.add_row(*(_cell(row[k], row[theirs[k]] if k in theirs else None) for k in own))
    stdout.print(table)
    stdout.print(
        plain(made.note)
        + (" [dim]In grey: the paper's, on Stable Diffusion v1.4.[/]" if theirs else ""),
        soft_wrap=True,
    )


def _cell(ours: Any, theirs: Any) -> str:
    """`0.96±0.02`, under it the interval if there is one, and what was published."""
    text = plain(
        ""
        if ours is None
        else str(ours).replace(" ± ", "±").replace(" [", "\n[").replace(", ", " ")
    )
    return text if theirs is None else f"{text}\n[dim]{plain(str(theirs))}[/]"


def begun(out: Path) -> bool:
    """Whether a directory holds an audit that can go on: captions, settings and a calibration."""
    return all((out / name).is_file() for name in ("run.sqlite", "calibration/calibration.json"))


def go_on(
    model: Source,
    out: Path,
    prompts: str | None,
    limit: int | None,
    column: str | None,
    asked: Mapping[str, Any],
    device: str | None,
    dtype: str | None,
    quiet: bool,
    crew: Crew = ALONE,
    trust: bool = False,
) -> None:
    """What is left of an audit that has begun, with the settings that its run keeps.

    `asked`: options that such a run cannot change any more; MismatchError names one that differs.
    """
    from findnemo.calibration import Calibration
    from findnemo.runs import Run, settings_of

    table = (
        stream_table(prompts, column, limit, quiet)
        if prompts
        else demo_table(model, limit, "--prompts")
    )
    with Run.open(out) as old:
        settings, source = settings_of(old), model.of_run(old, trust)
    made = Calibration.load(out / "calibration")
    has = {
        "images": settings["images"],
        "sampler": settings["image_settings"].get("sampler"),
        **settings["judges"],
    }
    for name, value in asked.items():
        same = (
            Calibration.load(value).same(made)
            if name == "calibration" and value
            else str(value) == str(has.get(name))
        )
        if value is not None and not same:
            raise MismatchError(
                f"{out} was made with another {name}: leave --{name} out, or give another --out"
            )
    say(f"{out} goes on with its own settings and calibration", quiet)
    stages, folder = ("detect", "localize", "verify"), Path(prompts or "").absolute().parent
    part = shard_of(settings.get("shard"))
    with at_work(source, crew, device, dtype or settings["dtype"], quiet) as pool:
        run_stages(
            pool,
            table,
            made,
            out,
            stages,
            plan_of(settings),
            False,
            False,
            quiet,
            folder,
            False,
            part,
        )
