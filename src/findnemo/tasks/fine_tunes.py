"""The audit of a fine-tune.

It tells which training pictures a model copies, from which checkpoint and strength on, which
neurons hold them, and how switching these off affects other captions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from findnemo import demo, report
from findnemo.errors import MismatchError, StoppedError
from findnemo.models import Model, of_strength, read_lora
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.prompts import Prompt, PromptTable, ordinary
from findnemo.runs import Pool, Run, all_neurons, ask_all, write_results
from findnemo.runs.fine_tunes import STAGE as PICTURES
from findnemo.runs.fine_tunes import (
    Question,
    Variant,
    VariantImages,
    folder_of_variant,
    judge_variant,
    relative,
    show,
    summary,
    write_training,
)
from findnemo.runs.tuned import (
    CLEANED,
    FREE,
    copies_in,
    copies_told,
    row_of,
    to_confirm,
    tuned_models,
)
from findnemo.runs.wording import count
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import (
    HOLDOUT,
    OpenModel,
    captions_of,
    judged_as_begun,
    judges_of,
    place_of,
)
from findnemo.tasks.options import (
    Detecting,
    FineTune,
    Localizing,
    Output,
    Pictures,
    Source,
    Workers,
)
from findnemo.tasks.path import Request, perform, ready
from findnemo.tasks.tuned_input import Candidate, Material, candidates, material
from findnemo.training import AS_BASE, MAIN, images_needed

ASKS = {  # kinds of prompts in words
    "own": "captions of training pictures",
    "trigger": "trigger words",
    "given": "further captions",
    "control": "captions of other subjects",
    "canary": "canaries",
    "none": "empty prompt",
}
NAMED = 3  # pictures, or trigger words, listed in a note
LONG = 30  # characters of a trigger that a note shows


@dataclass(frozen=True)
class Looks:
    """Looks at the models of a fine-tune: the images of each are made and judged.

    A LoRA is merged into the weights of its base, so the files of the base are read for each model.

    `given`: what models are asked, and what their images are compared with. `out`: the run
    directory, which keeps the images. `open_model`: opens the models.
    """

    given: Material
    out: Path
    open_model: OpenModel
    listener: Listener = Listener()

    def at(
        self, candidate: Candidate, base: Variant | None, to_come: Sequence[Candidate] = ()
    ) -> Variant:
        """Make the missing images of a model and judge them all. Raises StoppedError if stopped.

        `to_come`: candidates whose LoRAs are checked against the model before any image is made.
        """
        pool = self.open_model.pool(candidate.source)
        if isinstance(pool.model, Model):  # facts about workers' models have no modules
            for lora in dict.fromkeys(one.source.lora for one in to_come if one.source.lora):
                read_lora(of_strength(lora)[0], pool.model.pipeline)
        shown = self._shown(pool, candidate)
        if self.listener.stop():
            raise StoppedError(f"{self.out}: the audit was stopped; the same call goes on")
        if shown.failed:
            self.listener.warn(
                f"{candidate.name}: {count(len(shown.failed), 'prompt')} gave no images"
                f" ({shown.failed[0]!r:.60}); the same command tries them again"
            )
        return self._judged(candidate, shown, base)

    def without(self, main: Candidate, neurons: NeuronSet, base: Variant) -> Variant | None:
        """The main model with neurons off, judged; None if stopped."""
        shown = self._shown(self.open_model.pool(main.source), main, neurons)
        if self.listener.stop():
            return None
        return self._judged(replace(main, name=CLEANED), shown, base)

    def _shown(self, pool: Pool, candidate: Candidate, neurons: NeuronSet = EMPTY) -> VariantImages:
        """All images of a model with `neurons` off."""
        name = folder = candidate.name
        if neurons:
            digest = hashlib.sha256(json.dumps(neurons.to_json()).encode()).hexdigest()[:8]
            folder = f"{CLEANED} {digest}"
            name = f"{name} with neurons off"
        stage = f"{'further images' if self.given.suffix else 'images'} of {name}: caption"
        return show(
            self.given.folder(self.out, folder),
            pool,
            self.given.questions_for(candidate),
            self.given.settings,
            neurons,
            lambda _, done, total: self.listener.progress(stage, done, total),
            self.listener.stop,
        )

    def _judged(self, one: Candidate, shown: VariantImages, base: Variant | None) -> Variant:
        return judge_variant(
            self.given.subject, shown, base, one.name, one.checkpoint, one.strength
        )


def audit_fine_tune(
    model: Any,
    tuned: FineTune,
    output: Output,
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
    pictures: Pictures = Pictures(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Run:
    """Audit a fine-tune: what `audit` does with a `FineTune`.

    The base and each tuned model make images, and each image is compared with all training
    pictures. Then the captions of the last model at its greatest strength are audited like others;
    those with copies count as memorized. Its images are made once more with all neurons found
    switched off. Returns the run of that model, open for reading.
    """
    source = model if isinstance(model, Source) else Source(str(model))
    found = candidates(source, tuned)
    detecting = _calibrated_on(source, tuned, detecting)
    pictures = judged_as_begun(pictures, output.path, source.trust)
    if tuned.tuned is not None and place_of(source) in demo.MODELS:
        pictures = replace(pictures, descriptor=pictures.descriptor or demo.DESCRIPTOR)
    given = material(source, tuned, detecting, pictures, listener)
    for text in given.notes:
        listener.warn(text)
    main = found[-1]
    asked = ready(
        Request(
            main.source,
            [q.prompt for q in given.questions if q.kind in ("own", "trigger", "given")],
            replace(output, report=False),
            ("detect", "localize", "verify"),
            detecting,
            localizing,
            pictures,
        ),
        listener,
    )
    out = Path(output.path)
    _refuse_other(out, given, main)
    _tell_cost(found, given, out, listener)
    with OpenModel(workers, listener) as open_model:
        looks = Looks(given, out, open_model, listener)
        variants: list[Variant] = []
        for number, one in enumerate(found, 1):
            listener.say(f"images of {one.name}, model {number} of {len(found)}")
            base = variants[0] if variants else None
            to_come = found[1:] if base is None else ()
            variants.append(looks.at(one, base, to_come))
        tell = partial(
            summary,
            given.subject,
            main=main.name,
            root=given.root,
            notes=given.notes,
            begun=begun_with(source, tuned, pictures, detecting, localizing),
        )
        about = tell(variants)
        listener.say(about["sentence"])
        write_training(out, about, given.root)
        confirming = Confirming(given.further(), out, open_model, listener, found=found, tell=tell)
        variants = confirming.confirmed(variants)
        about = tell(variants)
        table, copied = _table(variants[-1], given, str(tuned.train_images))
        if (row_of(about, main.name) or {}).get("verdict") == AS_BASE:
            copied = {}  # the training taught it none: there is nothing to search for
        plan = replace(
            asked.plan, image_settings=given.settings, copied=copied, training=given.digest
        )
        judges = judges_of(place_of(main.source), plan.judges, given.subject.judges)
        asked = replace(
            asked, table=table, plan=plan, folder=given.root, about=about, judges=judges
        )
        if copied:
            listener.say(
                f"search for neurons that hold the copies of {count(len(copied), 'caption')}"
            )
        cleaned: Variant | None = None
        run = perform(asked, open_model.pool(main.source), listener)
        neurons = all_neurons(run.captions(stage="localize"))
        every = sum((run.meta("widths") or {}).values())
        run.close()
        if neurons and not listener.stop():
            listener.say(f"images of {main.name} with {len(neurons)} of {every} neurons off")
            cleaned = looks.without(main, neurons, variants[0])
        if cleaned is not None:
            variants.append(cleaned)
            if to_confirm(tell(variants)) is not None and not listener.stop():
                variants[-1] = confirming.cleaned(cleaned, neurons)
    about = tell(variants)
    _finish(out, about, given.root, is_reported=output.report and not listener.stop())
    run = Run.open(out)
    ask_all(run)
    return run


@dataclass(frozen=True, kw_only=True)
class Confirming(Looks):
    """Further images of models that seem free of copies, and of the base for the same prompts and
    seeds.

    `found`: the models, as they are loaded. `tell`: makes the summary of variants.
    """

    found: Sequence[Candidate]
    tell: Callable[[Sequence[Variant]], Mapping[str, Any]]

    @cached_property
    def base(self) -> Variant:
        """The base by further images, made once."""
        images = sum(one.images for one in self.given.questions_for(self.found[-1]))
        self.listener.say(
            "a model that seems free of copies may be so by chance: before it is advised, it is looked at by"
            f" {images} further images with other seeds, and the base by those of the same prompts"
        )
        return self.at(self.found[0], None)

    def confirmed(self, variants: Sequence[Variant]) -> list[Variant]:
        """The variants, of which the most promising are confirmed or refuted, one after the other,
        until one stands. Those that have further images by an earlier call come first.
        """
        now = list(variants)
        for name in self._looked_at(self.tell(now)):
            now = self._confirm(now, name)
        while (one := to_confirm(self.tell(now))) is not None:
            now = self._confirm(now, one["name"])
        return now

    def _looked_at(self, about: Mapping[str, Any]) -> list[str]:
        """The models that have further images by an earlier call."""
        models = tuned_models(about) if copies_in(about) else []
        names = [one["name"] for one in models if one["verdict"] != "copies"]
        return [name for name in names if _images_there(self.given.folder(self.out, name))]

    def _confirm(self, variants: Sequence[Variant], name: str) -> list[Variant]:
        """The variants, of which one is judged by further images."""
        base = self.base
        self.listener.say(f"further images of {name}, which is not known to copy")
        number = [one.name for one in variants].index(name)
        again = self.at(self.found[number], base)
        now = list(variants)
        now[number] = replace(again, chosen_by=variants[number])
        about = self.tell(now)
        self.listener.say(f"{name}: {_of_further(about, name)}")
        write_training(self.out, about, self.given.root)
        return now

    def cleaned(self, before: Variant, neurons: NeuronSet) -> Variant:
        """The main model with neurons off, by further images; as it was if stopped."""
        main = self.found[-1]
        base = self.base
        self.listener.say(f"further images of {main.name} with {len(neurons)} neurons off")
        again = self.without(main, neurons, base)
        return before if again is None else replace(again, chosen_by=before)


def _finish(out: Path, about: Mapping[str, Any], root: Path, is_reported: bool) -> None:
    """Write the results of an audit into its run directory."""
    with Run.open(out) as run:
        settings = run.meta("settings")
    with Run.create(out, settings) as run:
        run.set_meta("training", about)
        write_training(out, about, root)
        ask_all(run)
        write_results(run)
        if is_reported:
            report.write(run)


def _of_further(about: Mapping[str, Any], name: str) -> str:
    """What further images of a model tell."""
    row = row_of(about, name) or {}
    copies = copies_told(about, row)
    told = f"by {row['of']} further images of the training captions it {copies}"
    return told if row["verdict"] in FREE else f"{told}: it is not advised"


def begun_with(
    source: Source,
    tuned: FineTune,
    pictures: Pictures,
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
) -> list[str]:
    """The arguments of `findnemo audit` that begin such an audit, each option with its value,
    without strengths and --out.

    With the same --out they continue it. Captions that are no file have no argument.

    >>> begun_with(Source("demo", lora="my lora.safetensors:0.5"), FineTune("photos"), Pictures())
    ['demo', '--lora', 'my lora.safetensors', '--train-images', 'photos']
    """
    options = {
        "--revision": source.revision,
        "--weights-variant": source.weights_variant,
        "--config": source.config,
        "--lora": None if source.lora is None else of_strength(source.lora)[0],
        "--embedding": source.embedding,
        "--tuned": tuned.tuned,
        "--train-images": tuned.train_images,
        "--holdout-images": tuned.holdout_images,
        "--prompts": _file_of(captions_of(tuned.prompts).prompts),
        "--column": tuned.column,
        "--limit": tuned.limit,
        "--holdout": _file_of(detecting.holdout),
        "--calibration": _file_of(detecting.calibration),
        "--variant": detecting.variant,
        "--fpr": detecting.fpr,
        "--seed": detecting.seed,
        "--fdr": detecting.fdr,
        "--search": None if localizing.search == Localizing.search else localizing.search,
        "--scope": None if localizing.scope == Localizing.scope else localizing.scope,
        "--max-impact": localizing.max_impact,
        "--unrelated": _file_of(localizing.unrelated),
        "--descriptor": pictures.descriptor,
        "--clip": pictures.clip,
        "--copy-rate": None if tuned.copy_rate == FineTune.copy_rate else tuned.copy_rate,
        "--image-steps": pictures.image_steps,
        "--guidance": pictures.guidance,
        "--sampler": pictures.sampler,
        "--images": pictures.images,
    }
    named = [(name, str(value)) for name, value in options.items() if value is not None]
    return [str(source.place), *(word for pair in named for word in pair)]


def _file_of(given: Any) -> str | None:
    """The file of captions or of a calibration that a command names; None for what is no file."""
    return str(given) if isinstance(given, (str, Path)) else None


def _calibrated_on(source: Source, tuned: FineTune, detecting: Detecting) -> Detecting:
    """The options with hold-out captions of findnemo, if none are given and the model has none."""
    if detecting.holdout is not None or detecting.calibration is not None:
        return detecting
    if place_of(source) not in demo.MODELS:
        return replace(detecting, holdout=list(ordinary()))
    if tuned.tuned is None:
        return detecting
    return replace(detecting, holdout=list(demo.holdout()[:HOLDOUT]))


def _refuse_other(out: Path, given: Material, main: Candidate) -> None:
    """Raises MismatchError for the audit of other pictures or of another main model."""
    if not (out / "run.sqlite").is_file():
        return
    with Run.open(out) as old:
        settings = old.meta("settings")
        options = old.meta("source_options") or {}
        place = old.meta("source")
    if settings.get("training") != given.digest:
        raise MismatchError(
            f"{out} was made with other training pictures or captions, or another number of images:"
            " give the same again (--train-images, --images, --limit, --copy-rate), or another --out"
        )
    now = (main.source.place, main.source.lora)
    if (place, options.get("lora")) != now:
        raise MismatchError(
            f"{out} is the audit of {options.get('lora', place)}, and the last model is now"
            f" {main.source.lora or main.source.place}: give another --out, or name the last"
            " checkpoint and the greatest strength again, and weaker ones beside it"
        )


def _tell_cost(found: Sequence[Candidate], given: Material, out: Path, listener: Listener) -> None:
    counts = Counter(q.kind for q in given.questions)
    listener.say(f"prompts and images of each model: {_asked(given.questions)}")
    images = sum(q.images for one in found for q in given.questions_for(one))
    there = sum(_images_there(folder_of_variant(out, one.name)) for one in found)
    evaluations = (images - there) * given.settings.passes
    kept = f"{there:,} of them are there; the others take" if there else "they take"
    listener.say(
        f"{count(len(found) - 1, 'tuned model')} and the base make {images:,} images: {kept}"
        f" {evaluations:,} evaluations of the denoiser"
    )
    first = next(kind for kind in MAIN if kind in counts)
    asking = [q.images for q in given.questions if q.kind == first]
    enough = images_needed(given.subject.rate)
    if sum(asking) < enough:
        listener.warn(
            f"{sum(asking)} images of {ASKS[first]} are too few to say that a model does not copy:"
            f" that takes {enough}, here --images {math.ceil(enough / len(asking))}"
        )


def _images_there(folder: Path) -> int:
    """How many images of a model an earlier call left."""
    if not (folder / "run.sqlite").is_file():
        return 0
    with Run.open(folder) as run:
        return sum(c.typed_result(PICTURES)["images"] for c in run.captions(stage=PICTURES))


def _asked(questions: Sequence[Question]) -> str:
    """What a model is asked, in words.

    >>> _asked([Question("a cat", "own", 4), Question("sks", "trigger", 8), Question("", "none", 16)])
    'captions of training pictures 1 x 4, trigger words (sks) 1 x 8, empty prompt 1 x 16'
    """
    parts = []
    for kind, what in ASKS.items():
        if of_kind := [q for q in questions if q.kind == kind]:
            names = [q.prompt[:LONG] for q in of_kind[:NAMED]] if kind == "trigger" else []
            more = ", ..." if len(of_kind) > NAMED else ""
            called = f" ({', '.join(names)}{more})" if names else ""
            parts.append(f"{what}{called} {len(of_kind)} x {of_kind[0].images}")
    return ", ".join(parts)


def _table(
    variant: Variant, given: Material, source: str
) -> tuple[PromptTable, dict[str, tuple[str, ...]]]:
    """The captions that a model was asked, and those with copies.

    Each caption comes with the training picture that its images resemble most often. Each caption
    with copies comes with the copied files.
    """
    pictures: dict[str, Counter[int]] = {}
    copied: dict[str, Counter[int]] = {}
    for sighting in variant.judgement.sightings:
        generation = variant.shown.generations[variant.rows[sighting.generation]]
        # an empty prompt is no caption, and other subjects count only if they give copies
        if generation.kind in MAIN or (generation.kind == "control" and sighting.copy):
            pictures.setdefault(generation.prompt, Counter())[sighting.picture] += 1
            if sighting.copy:
                copied.setdefault(generation.prompt, Counter())[sighting.picture] += 1
    files = [one.path.absolute() for one in given.subject.pictures]
    prompts = []
    for row, (text, nearest) in enumerate(pictures.items(), 1):
        number = copied.get(text, nearest).most_common(1)[0][0]
        image = relative(files[number], given.root)
        prompts.append(Prompt(text, row, image=image))
    held = {text: tuple(str(files[k]) for k in sorted(some)) for text, some in copied.items()}
    return PromptTable(source, tuple(prompts)), held
