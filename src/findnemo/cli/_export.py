"""The command `export`: the cleaned model in the forms that others read, the neurons, and a section for the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._common import (
    OF_RUN,
    DeviceOpt,
    QuietOpt,
    RunArg,
    Source,
    TrustOpt,
    load_model,
    opens_model,
    say,
    warn,
)
from findnemo.errors import InputError


@opens_model
def export(
    run: RunArg,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="checkpoint (the default), file, lora, kohya, neurons or card; may be given several times."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where to write: with several forms, a folder for all (default: RUN/export).",
        ),
    ] = None,
    caption: Annotated[
        list[str] | None,
        typer.Option(
            help="Only neurons of this caption, by row number or text; may be given several times."
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option(help="Only the N neurons that most captions share.", min=1)
    ] = None,
    neurons: Annotated[
        int | None,
        typer.Option(
            help="Of one caption the set with N neurons of its price list (`findnemo inspect RUN ROW`).",
            min=1,
        ),
    ] = None,
    factor: Annotated[
        float, typer.Option(help="Multiply the neurons by this instead of switching them off.")
    ] = 0.0,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="REPO_ID",
            help="With --to card: write the section into the model card of this repository on the hub, not to a file.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    model: Source = OF_RUN,
    trust: TrustOpt = False,
    device: DeviceOpt = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float16 or bfloat16, of the written weights; default: as the model's files keep them, whatever the run "
            "computed in (LoRAs: float32)."
        ),
    ] = None,
    quiet: QuietOpt = False,
) -> None:
    """Write the cleaned model, for diffusers or user interfaces, as checkpoint or LoRA; the neurons; or a model card's section.

    Example: `findnemo export findnemo-demo --out clean`

    Example: `findnemo export run --to file --out clean.safetensors`

    Example: `findnemo export run --to kohya --to card --caption 12 --caption "Living in the Light" --out exports`

    Example: `findnemo export run --caption 12 --neurons 16 --out milder`

    Example: `findnemo export run --to card --push me/my-model`
    """
    from findnemo import export as api
    from findnemo.runs import Run, settings_of
    from findnemo.runtime.notices import told_to

    forms = list(dict.fromkeys(to or ["checkpoint"]))
    if push is not None and "card" not in forms:
        raise InputError("--push puts the card's section on the hub: give --to card beside it")
    for form in forms:
        api.check_form(form)
    api.check_dtype(dtype)
    weights = any(api.FORMS[form].write is not None for form in forms)
    with Run.open(run) as opened:
        chosen = api.select(opened, caption or (), most, factor, neurons)
        settings, source = (
            settings_of(opened),
            model.of_run(opened, trust, ("model",) if weights else ()),
        )
    targets = {
        form: _target(run, out, form, len(forms) > 1)
        for form in forms
        if not (push and form == "card")
    }
    for form, target in targets.items():  # what is there already is said before the model is loaded
        api.check_place(form, target, str(source), force)
    loaded: Any = (
        _loaded(source, model.place is None, device, settings["dtype"], quiet) if weights else None
    )
    for form, target in targets.items():
        api.check(form, chosen, target, loaded, force, dtype)
    for form, target in targets.items():
        with told_to(warn):
            api.write(form, chosen, target, loaded, force, dtype)
        say(f"{_count(chosen)}: {form} written to {target}", quiet)
    if push is not None:
        say(f"card pushed: {api.push_card(api.model_card(chosen), push)}", quiet)


def _loaded(source: Source, of_run: bool, device: str | None, dtype: str, quiet: bool) -> Any:
    """The model of a run. Raises InputError with the way out where the place that the run remembers has none."""
    try:
        return load_model(source, device, dtype, quiet)
    except InputError as error:
        if not of_run:
            raise
        raise InputError(
            f"{error} (the run was made of it: if it is elsewhere now, name its place with --model)"
        ) from error


def _target(run: Path, out: Path | None, form: str, several: bool) -> Path:
    from findnemo.export import FORMS

    if out is None or not several:
        return out or run / "export" / FORMS[form].name
    if out.is_file():
        raise InputError(f"{out} is a file: give a folder for several forms")
    return out / FORMS[form].name


def _count(chosen: Any) -> str:
    how = "off" if chosen.factor == 0 else f"at {chosen.factor:g}"
    point = chosen.about.get("point")
    return f"{len(chosen.neurons)} neuron{'s' * (len(chosen.neurons) != 1)} {how}" + (
        f" ({point})" if point else ""
    )
