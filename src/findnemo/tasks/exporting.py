"""Export the cleaned model, the neurons, or a section for the model card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from findnemo import export as forms_of
from findnemo.errors import InputError
from findnemo.files.digests import sha256
from findnemo.neurons import NeuronSet
from findnemo.runs import Run
from findnemo.runs.export import striking
from findnemo.runs.fine_tunes import folder_of_variant
from findnemo.runs.store import DATABASE
from findnemo.runs.tuned import CLEANED, training_of, variant_told
from findnemo.runs.verdict import RELEASED, Advice, advice_of
from findnemo.runtime.notices import notices_to
from findnemo.runtime.threads import threads
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import load_model, place_of, refuse_many, source_of, without_run
from findnemo.tasks.options import Selecting, Source, Workers, Writing


def export(
    run: str | Path,
    to: Iterable[str] = ("checkpoint",),
    out: str | Path | Writing | None = None,
    selecting: Selecting = Selecting(),
    model: Any = None,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> dict[str, Path]:
    """Write the cleaned model of a run, its neurons or a model card's section.

    What `findnemo export` does. If you chose the neurons yourself (`Selecting.neurons_file`), `run`
    may be a model instead. `Selecting.take` names a model of a fine-tune audit that is written as
    it is.

    `to`: forms of `findnemo.export.FORMS`. `out`: a file or folder; with several forms a folder for
    all (default: RUN/export). Or a `Writing`, with a repository on the hub that the card goes to
    instead, or with leave to replace an earlier export. If `model` is a `Source` with a dtype, the
    written weights have that dtype. `workers`: only its number of threads. Returns form -> where it
    was written. If the audit advises no release, the listener is told so before anything is written.
    Raises InputError before anything is written.
    """
    refuse_many(workers)
    writing = out if isinstance(out, Writing) else Writing(out)
    with threads(workers.threads):
        return _export(Path(run), list(dict.fromkeys(to)), writing, selecting, model, listener)


def _export(
    path: Path,
    forms: list[str],
    writing: Writing,
    selecting: Selecting,
    model: Any,
    listener: Listener,
) -> dict[str, Path]:
    """Write the forms, on the threads that PyTorch has now."""
    out = writing.out
    push = writing.push
    force = writing.force
    dtype = model.dtype if isinstance(model, Source) else None
    if push is not None and "card" not in forms:
        raise InputError("--push puts the card's section on the hub: give --to card too")
    for form in forms:
        forms_of.check_form(form)
    forms_of.as_dtype(dtype)
    weights = any(forms_of.FORMS[form].write is not None for form in forms)
    given = replace(model, dtype=None) if isinstance(model, Source) else model
    by_hand = selecting.neurons_file is not None
    if by_hand:
        _check_file(selecting)
    chosen: Any = None
    said = ""
    advice: Advice | None = None
    if by_hand and not (path / DATABASE).is_file():
        source = given = _model_at(path, out, model)
        weights = True  # without a run, the model is opened for any form
    else:
        said = _said_of(path, selecting, forms)
        with Run.open(_folder(path, selecting)) as opened:
            chosen = _selected(opened, selecting, said)
            advice = None if said else advice_of(opened, striking(opened))
            said = said or _advised(advice)
            source = source_of(opened, given, ("model",) if weights else ())
    targets = {
        form: _target(path, out, form, len(forms) > 1)
        for form in forms
        if not (push and form == "card")
    }
    for form, target in targets.items():
        # report existing files before the model is loaded
        forms_of.check_place(form, target, place_of(source), force)
        forms_of.check_lora(form, getattr(source, "options", {}))
    opened_model: Any = _loaded(source, given, listener) if weights else None
    if chosen is None:
        chosen = forms_of.by_hand(str(selecting.neurons_file), opened_model, selecting.factor)
    for form, target in targets.items():
        forms_of.check(form, chosen, target, opened_model, force, dtype)
    if said:
        listener.say(said)
    what = selecting.take or _count(chosen)
    with notices_to(listener.warn):
        for form, target in forms_of.write_each(targets, chosen, opened_model, force, dtype):
            listener.say(f"{what}: {form} written to {target}")
            if target.is_file() and forms_of.FORMS[form].write is not None:
                listener.say(f"SHA-256 of {target}: {sha256(target)}")
            for line in forms_of.remarks(form, target, opened_model):
                listener.say(line)
    released = advice is None or advice.action in RELEASED
    if released and chosen.captions and any(c.verified is not None for c in chosen.captions):
        listener.say(chosen.checked)
    if push is not None:
        pushed = forms_of.push_card(forms_of.model_card(chosen), push)
        listener.say(f"card pushed: {pushed}")
    return targets


def check_export(
    run: str | Path,
    place: str | Path,
    selecting: Selecting = Selecting(),
    model: Any = None,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> list[str]:
    """How an exported model differs from the audited one with the neurons off, in words; empty if
    it is right.

    What `findnemo export RUN --check PLACE` does. `place`: a checkpoint, a single file, or a LoRA
    on the base of the run. `selecting`: as it was for the export. `workers`: only its number of
    threads. Raises InputError for a place without weights, MismatchError if the model is not the one
    that the run audited.
    """
    refuse_many(workers)
    with threads(workers.threads):
        return _deviations(Path(run), place, selecting, model, listener)


def _deviations(
    run: Path, place: str | Path, selecting: Selecting, model: Any, listener: Listener
) -> list[str]:
    """How an export differs, on the threads that PyTorch has now."""
    rounding = forms_of.rounding_of(place)
    given = replace(model, dtype=None) if isinstance(model, Source) else model
    said = _said_of(run, selecting)
    with Run.open(_folder(run, selecting)) as opened:
        chosen = _selected(opened, selecting, said)
        said = said or _advised(advice_of(opened, striking(opened)))
        source = source_of(opened, given)
    audited = _loaded(source, given, listener)
    forms_of.check_model(chosen, audited)
    exported = load_model(_exported(source, place, rounding is not None), listener)
    told = forms_of.deviations(audited, exported, chosen, rounding or 0.0)
    if rounding is None and (beside := forms_of.missing_beside(Path(place), audited)):
        listener.warn(f"{beside} is missing: programs read there what the file predicts")
    if not told:
        audited_one = f"the audited {selecting.take or 'model'}"
        listener.say(f"{place} is right: {audited_one} with {_count(chosen)}, all else unchanged")
        if Path(place).is_file():
            listener.say(f"SHA-256 of {place}: {sha256(Path(place))}")
    if said:
        listener.say(said)
    return told


def _exported(source: Any, place: str | Path, is_lora: bool) -> Source:
    """An export as a model to load, by the source of the audited one."""
    if not isinstance(source, Source):
        kept = getattr(source, "options", {})
        source = Source(place_of(source), config=kept.get("config"), revision=kept.get("revision"))
    if is_lora:
        return replace(source, lora=str(place))
    config = source.config or (source.place if Path(place).is_file() else None)
    return Source(str(place), config=config, device=source.device, dtype=source.dtype)


def _folder(path: Path, selecting: Selecting) -> Path:
    """The directory of the run whose model is exported: the run itself, or one of its variants."""
    return path if selecting.take is None else folder_of_variant(path, selecting.take)


def _said_of(path: Path, selecting: Selecting, forms: Iterable[str] = ()) -> str:
    """What the audit says of the variant that is chosen; empty if none is.

    Raises InputError for a variant that the run does not have, or that takes no such options.
    """
    name = selecting.take
    if name is None:
        return ""
    if given := _chosen_by(replace(selecting, take=None)):
        raise InputError(
            f"--take writes a model with no neuron off, and {given[0]} chooses what is off: give"
            " one of the two"
        )
    with Run.open(path) as run:
        about = training_of(run)
    loras = [v["name"] for v in about["variants"] if v["strength"] is not None] if about else []
    names = [one for one in loras if one != CLEANED]
    if not names:
        raise InputError(
            f"{path} is not a finished audit of a LoRA, which alone has models to take: finish the"
            " audit (the same command continues it), or leave --take out"
        )
    if name not in names:
        raise InputError(
            f"{path} has no model {name!r}: it has {', '.join(names)} (with neurons off, leave"
            " --take out)"
        )
    if other := [form for form in forms if form != "card" and not forms_of.FORMS[form].of_lora]:
        raise InputError(
            f"--take writes a LoRA as it is, which {other[0]} is not: add --to adapter,"
            " adapter-kohya or card"
        )
    return variant_told(about or {}, name)


def _selected(run: Run, selecting: Selecting, said: str) -> Any:
    """The neurons of a run to switch off; none for a variant, of which its audit says `said`."""
    if selecting.take is not None:
        return forms_of.unedited(run, said)
    if selecting.neurons_file is not None:
        return forms_of.by_hand(selecting.neurons_file, run, selecting.factor)
    return forms_of.select(
        run,
        selecting.caption or (),
        selecting.most,
        selecting.factor or 0.0,
        selecting.neurons,
        selecting.include_reduced,
    )


def _check_file(selecting: Selecting) -> None:
    """Raises InputError for a file without neurons, or if other options choose neurons too."""
    if given := _chosen_by(replace(selecting, neurons_file=None, factor=None)):
        raise InputError(
            f"--neurons-file names the neurons, and so does {given[0]}: give one of the two"
        )
    NeuronSet.load(str(selecting.neurons_file))


def _chosen_by(selecting: Selecting) -> list[str]:
    """The options that say what is off."""
    fields = ("take", "caption", "most", "neurons", "include_reduced", "neurons_file", "factor")
    values = {name: getattr(selecting, name) for name in fields}
    given = [name for name, value in values.items() if value is not None and value is not False]
    return [f"--{name.replace('_', '-')}" for name in given]


def _model_at(place: Path, out: str | Path | None, model: Any) -> Source:
    """A model without a run. Raises InputError for options that need a run."""
    source = without_run(place, model)
    if out is None:
        raise InputError(f"{place} is not a run directory, in which exports belong: give --out")
    return replace(source, dtype=None)


def _loaded(source: Any, given: Any, listener: Listener) -> Any:
    """The model of a run.

    Raises InputError with the way out if it is not where the run remembers it.
    """
    try:
        return load_model(source, listener)
    except InputError as error:
        if given is not None and not (isinstance(given, Source) and given.place is None):
            raise
        raise InputError(
            f"{error} (the run was made with it: if it is elsewhere now, give its place with"
            " --model)"
        ) from error


def _target(run: Path, out: str | Path | None, form: str, several: bool) -> Path:
    name = forms_of.FORMS[form].name
    if out is None:
        return run / "export" / name
    if not several:
        return Path(out)
    if Path(out).is_file():
        raise InputError(f"{out} is a file: give a folder for several forms")
    forms_of.check_folder(out, "an export in several forms", "give a folder's name")
    return Path(out) / name


def _advised(advice: Advice | None) -> str:
    """The advice of an audit, if it is against a release; else empty."""
    if advice is None or advice.action in RELEASED:
        return ""
    return f"the audit's advice: {advice.sentence}"


def _count(chosen: Any) -> str:
    if not chosen.neurons:
        return str(chosen.edit)
    point = chosen.about.get("point")
    told = "chosen by hand, not verified" if chosen.is_by_hand else point
    return f"{chosen.edit} ({told})" if told else str(chosen.edit)
