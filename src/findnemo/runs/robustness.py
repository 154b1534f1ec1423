"""Attempts and attacks on the edited model of a run, with their controls: is the memory really
gone?

Each caption is a stage of its own, so the work can be resumed. A result holds for one basis
(neurons that are off, checkpoint, settings). If the basis changes, the work is done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from findnemo import seeds
from findnemo.edits import deactivate
from findnemo.errors import FindnemoError, InputError, ModelError, StoppedError
from findnemo.files.originals import picture
from findnemo.files.secrets import without_secrets
from findnemo.images import ImageSettings, generate, png, save_png, sheet
from findnemo.metrics.kind import is_memory
from findnemo.models import Model, load
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.spending import counting
from findnemo.robustness import ATTEMPTS, AttackedCaption, attack, closeness, cost, subject
from findnemo.robustness.attack import optimized, starting, uninformed
from findnemo.robustness.controls import mirrored, scrambled
from findnemo.runs._same import require_same
from findnemo.runs.evidence import (
    ATTACK,
    ATTEMPT,
    HARDENED,
    MEMORIZED,
    OFF,
    ORDINARY,
    UNTOUCHED,
    attack_summary,
    attempts_summary,
)
from findnemo.runs.stages import Crew, Progress, Stage, no_progress, run_stage
from findnemo.runs.standing import all_neurons, switched_off
from findnemo.runs.store import Caption
from findnemo.runs.wording import count
from findnemo.runs.work import Item, StageAnswer, Tools, Work, done_in, each, keep
from findnemo.runs.workers import Event, Pool, Serial, Unit, answer_of, never
from findnemo.runtime.memory import guarding_memory

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
# of a trial that failed
NOTHING = {"basis": "", "known": False, "curves": {}, "closeness": {}, "skipped": {}}
NEVER = "never seen"


@dataclass(frozen=True)
class Effort:
    """How much to try.

    `captions`: number of captions with neurons off, spread over the table, and of ordinary ones
    (0: all).
    `steps`: steps of the attack after which images are made. `starts`: where the attack begins.
    `images`: images of each attempt, and of each step. `controls`: pictures that the model never
    saw, one for each caption in order; without them, the wanted pictures scrambled.
    """

    captions: int = 5
    steps: tuple[int, ...] = (0, 5, 10, 20, 50)
    starts: tuple[str, ...] = ("caption",)
    images: int = 2
    controls: Sequence[Image.Image] = field(default=(), compare=False)


@dataclass(frozen=True)
class Saved:
    """A model in a `folder` that workers can read. `identity`: that of the model."""

    folder: str
    identity: str

    def beside(self, model: Model) -> Model:
        """The model on the device and in the dtype of another one."""
        return _opened(self, model.device, model.dtype)


@lru_cache(maxsize=1)  # a worker opens it once for attacks and attempts
def _opened(saved: Saved, device: torch.device, dtype: torch.dtype) -> Model:
    return load(saved.folder, str(device), dtype)


@dataclass(frozen=True)
class Trial:
    """One kind of attack: the captions, the neurons that are off, and the wanted picture (one of
    WANTED).

    `model`: a model other than the run's own, with its `identity`. It is tried in this process, or
    by workers if it is `Saved`.
    """

    name: str
    who: str
    neurons: NeuronSet
    wanted: str = "own"
    model: Model | Saved | None = None
    identity: str = ""


# the wanted picture of a subject, given a picture that no model saw, if there is one
WANTED: dict[str, Callable[[AttackedCaption, Image.Image | None], Image.Image]] = {
    "own": lambda subject, control: subject.picture,
    NEVER: lambda subject, control: control or scrambled(subject.picture),
    "mirrored": lambda subject, control: mirrored(subject.picture),
}


def edited_captions(captions: Iterable[Caption], most: int = 0) -> list[Caption]:
    """Captions whose neurons are off in the edited model, `most` of them spread over the table (0:
    all).
    """
    return spread([c for c in captions if len(switched_off(c))], most)


def ordinary(captions: Iterable[Caption], most: int = 0) -> list[Caption]:
    """Captions under the threshold, `most` of them spread over the table (0: all).

    Captions whose type is that of a memory are left out.
    """
    under = [c for c in captions if c.detected is not None and not c.detected.memorized]
    return spread([c for c in under if not is_memory(c.type)], most)


def spread(found: list[T], most: int) -> list[T]:
    """`most` items from all over a list, in its order.

    A smaller choice is always part of a larger one, so a larger choice repeats no work.

    >>> spread(list("abcdefgh"), 2), spread(list("abcdefgh"), 3)
    (['a', 'e'], ['a', 'c', 'e'])
    """
    bits = len(found).bit_length()
    halving = sorted(range(len(found)), key=lambda k: f"{k:0{bits}b}"[::-1])
    return [found[k] for k in sorted(halving[: most or None])]


def trials(work: Work) -> list[Trial]:
    """The attacks on the edited model with their controls, the untouched model last.

    A trial that gives no copy on the untouched model tells nothing (`evidence.verdict`). The edited
    model has all neurons of the run off, as exported. The untouched model has none off, so its
    results stay valid when the run's neurons change.
    """
    off = all_neurons(work.run.captions())
    return [*against(off, OFF), Trial(UNTOUCHED, MEMORIZED, EMPTY)]


def against(
    off: NeuronSet, name: str, model: Model | Saved | None = None, identity: str = ""
) -> list[Trial]:
    """Trials on a model: the captions' own pictures, pictures that it never saw, and mirrored
    images of ordinary captions.
    """
    return [
        Trial(name, MEMORIZED, off, model=model, identity=identity),
        Trial(f"{name}, {NEVER}", MEMORIZED, off, NEVER, model, identity),
        Trial(name, ORDINARY, off, "mirrored", model, identity),
    ]


# the work -----------------------------------------------------------------------------------------


def try_out(
    work: Work,
    effort: Effort,
    pool: Pool | None = None,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = never,
    made: Sequence[Trial] | None = None,
) -> None:
    """Try every attempt of `findnemo.robustness.ATTEMPTS`, and record the results.

    Captions with neurons off are tried with all neurons off and untouched, ordinary ones with all
    neurons off. Results that the run holds are not made again.
    """
    chosen = [t for t in (trials(work) if made is None else made) if t.wanted != NEVER]
    crew = Crew(pool or Serial(work.model), progress, stop)
    _answer(work, effort, ATTEMPT, chosen, crew)
    bases = work.run.meta("bases")
    work.run.set_meta("attempts", attempts_summary(list(work.run.captions()), bases))


def attack_all(
    work: Work,
    effort: Effort,
    pool: Pool | None = None,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = never,
    made: Sequence[Trial] | None = None,
) -> None:
    """Attack the embeddings of captions, and record curves over the steps of the attack.

    Attacked are the pictures of captions with neurons off, on the edited and on the untouched model, pictures that no model
    saw, and mirrored images of ordinary captions. Results that the run holds are not made again.
    """
    chosen = trials(work) if made is None else made
    _answer(work, effort, ATTACK, chosen, Crew(pool or Serial(work.model), progress, stop))
    captions = list(work.run.captions())
    draw_sheets(work, effort, edited_captions(captions, effort.captions))
    work.run.set_meta("attack", attack_summary(captions, work.run.meta("bases")))


def _answer(work: Work, effort: Effort, stage: str, chosen: Sequence[Trial], crew: Crew) -> None:
    """Do the open trials: those of a model that only this process has here, the others in the
    pool.
    """
    run = work.run
    require_same(run, work.model, pictures=True)
    bases = _bases(work, effort, stage, chosen)
    run.set_meta("bases", _valid_bases(work, effort, stage) | bases)
    open_, total = _jobs(work, effort, stage, chosen)
    done = total - len(open_)
    others = {id(job.trial.model): job.trial.model for job in open_ if job.trial.model is not None}
    for model in (None, *others.values()):
        mine = [job for job in open_ if job.trial.model is model]
        do = partial(
            _tried, stage=stage, effort=replace(effort, controls=()), other=model, subjects={}
        )
        step = partial(each, do=do, alone=True, **work.tools)
        units = (Unit((_item(work, effort, job),)) for job in mine)
        commit = partial(_commit, work, stage, bases)
        hands = crew._replace(pool=Serial(work.model)) if isinstance(model, Model) else crew
        whole = Stage(stage.rstrip(":"), step, units, len(mine), commit, total, done)
        done = run_stage(whole, *hands)
    if done < total:
        raise StoppedError(f"stopped after {done} of {total}")


class _Job(NamedTuple):
    """The `number`-th caption of its kind in a trial."""

    number: int
    caption: Caption
    trial: Trial


def _jobs(
    work: Work, effort: Effort, stage: str, chosen: Sequence[Trial]
) -> tuple[list[_Job], int]:
    """The open jobs of a stage, and the number of all: one for each trial on each caption of its
    kind. A job is done if the run holds its result on the present basis.
    """
    captions = list(work.run.captions())
    bases = _bases(work, effort, stage, chosen)
    groups = {
        MEMORIZED: edited_captions(captions, effort.captions),
        ORDINARY: ordinary(captions, effort.captions),
    }
    jobs = [
        (_Job(k, caption, trial), stage + trial.name)
        for who, group in groups.items()
        for k, caption in enumerate(group)
        for trial in chosen
        if trial.who == who
    ]
    open_ = [
        job for job, name in jobs if job.caption.results.get(name, {}).get("basis") != bases[name]
    ]
    return open_, len(jobs)


def _item(work: Work, effort: Effort, job: _Job) -> Item:
    """A job for a worker; the last part is a picture that no model saw, if given."""
    controls = effort.controls
    control = controls[job.number % len(controls)] if controls else None
    return job.caption, work.originals(job.caption), replace(job.trial, model=None), control


def _commit(work: Work, stage: str, bases: Mapping[str, str], events: Sequence[Event]) -> int:
    answers = []
    for (caption, _, trial, _), found, seconds in done_in(events):
        name = stage + trial.name
        if found.error is not None:
            # a failure stands on no basis, and is tried again
            found = StageAnswer(NOTHING | {"failed": without_secrets(found.error)})
        else:
            found = replace(found, payload={"basis": bases[name]} | found.payload)
        answers.append((caption, name, found, seconds))
    return keep(work.run, answers)


def origin(work: Work, identity: str) -> str:
    """A digest of a hardened model (`Identity.whole`) and of the neurons and the model that it was
    made from.
    """
    return f"{identity} {sorted(all_neurons(work.run.captions()))}"


def _valid_bases(work: Work, effort: Effort, stage: str) -> dict[str, str]:
    """The bases of a run, without those of a hardened model that was made from other neurons or
    attacked with another effort.
    """
    bases = work.run.meta("bases") or {}
    source = work.run.meta("hardened_from") or ""
    if source != origin(work, source.partition(" ")[0]):
        work.run.set_meta("hardened", None)
        return {name: basis for name, basis in bases.items() if HARDENED not in name}
    present = _bases(work, effort, stage, against(EMPTY, HARDENED, identity=source))
    return {
        name: basis
        for name, basis in bases.items()
        if not name.startswith(stage + HARDENED) or present.get(name) == basis
    }


def _tried(
    tools: Tools,
    caption: Caption,
    trial: Trial,
    control: Image.Image | None,
    stage: str,
    effort: Effort,
    other: Model | Saved | None,
    subjects: dict[int, AttackedCaption],
) -> StageAnswer:
    """The result of a trial on a caption.

    `tools`: with the untouched model. `other`: the tried model, if it is another one. `subjects`:
    those of captions that this process has met; they do not depend on who makes them.
    """
    tried = tools if other is None else replace(tools, model=_beside(other, tools.model))
    if caption.id not in subjects:
        subjects[caption.id] = subject_of(tools, caption)
    target = subjects[caption.id]
    if stage == ATTEMPT:
        return _attempts(tried, trial, target, effort)
    wanted = replace(target, picture=WANTED[trial.wanted](target, control))
    return _attack(tried, f"attack/{caption.slug}/{_file(trial.name)}", trial, wanted, effort)


def _beside(other: Model | Saved, model: Model) -> Model:
    return other.beside(model) if isinstance(other, Saved) else other


def failures(captions: Iterable[Caption]) -> list[str]:
    """A line for every reason why attempts or an attack failed, with the number of captions."""
    tried = [
        (stage.partition(":")[0], payload)
        for caption in captions
        for stage, payload in caption.results.items()
        if stage.startswith((ATTACK, ATTEMPT))
    ]
    counts = Counter((kind, payload["failed"]) for kind, payload in tried if "failed" in payload)
    counts += Counter(
        (f"{kind}, {name!r},", why)
        for kind, p in tried
        for name, why in p.get("broken", {}).items()
    )
    return [f"{stage} failed {count(n, 'time')}: {reason}" for (stage, reason), n in counts.items()]


def _bases(work: Work, effort: Effort, stage: str, chosen: Iterable[Trial]) -> dict[str, str]:
    """Name of a result -> its present basis, for some trials."""
    return {stage + trial.name: _basis(work, effort, trial, stage) for trial in chosen}


def _basis(work: Work, effort: Effort, trial: Trial, stage: str) -> str:
    """A digest of what a result depends on, 16 hexadecimal digits."""
    asked = [effort.steps, _starts(effort, trial.name)] if stage == ATTACK else list(ATTEMPTS)
    controls = effort.controls if NEVER in trial.name else ()
    pictures = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in controls]
    settings = work.plan.image_settings.to_json()
    basis = [sorted(trial.neurons), trial.identity, asked, effort.images, pictures, settings]
    return hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]


def _starts(effort: Effort, trial: str) -> tuple[str, ...]:
    """Where the attack begins in a trial.

    On the untouched model the caption's own embedding gives the picture before any step. It would
    be no control of the search, so there the attack begins at the other starts, or at random.
    """
    if trial != UNTOUCHED:
        return effort.starts
    return uninformed(effort.starts) or ("random",)


def subject_of(work: Work | Tools, caption: Caption) -> AttackedCaption:
    return subject(work.model, caption.text, work.plan.image_settings, work.original(caption))


def _switched(model: Model, trial: Trial) -> AbstractContextManager[None]:
    return deactivate(model, trial.neurons) if len(trial.neurons) else nullcontext()


def _attempts(tools: Tools, trial: Trial, target: AttackedCaption, effort: Effort) -> StageAnswer:
    """How close the images of every attempt come to the picture, or to what the untouched model
    gives for the caption.
    """
    model = tools.model
    samples = range(seeds.ATTEMPTS, seeds.ATTEMPTS + effort.images)
    references = [target.picture, *target.others]
    near: dict[str, list[float]] = {}
    skipped: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name, attempt in ATTEMPTS.items():
        try:
            with _switched(model, trial), guarding_memory(model.device, "a single attempt"):
                images = attempt(model, target, samples, tools.plan.image_settings)
            values = closeness(images, references, tools.judges.descriptor).tolist()
            near[name] = [round(v, 4) for v in values]
        except (InputError, ModelError) as problem:  # it does not apply to this model or caption
            skipped[name] = str(problem)
        except FindnemoError as problem:  # NaN, or no memory left
            broken[name] = without_secrets(str(problem))
    return StageAnswer(
        {"known": target.known, "closeness": near, "skipped": skipped, "broken": broken}
    )


def _attack(
    tools: Tools, stem: str, trial: Trial, wanted: AttackedCaption, effort: Effort
) -> StageAnswer:
    """Curves of the attack for the wanted picture, and the first image of each step.

    `stem`: how the paths of its pictures in the run begin.
    """
    files = {f"{stem}-wanted.png": png(wanted.picture)}

    def keep(start: str, step: int, images: Sequence[Image.Image]) -> None:
        files[f"{stem}-{start}-{step:04d}.png"] = png(images[0])

    with _switched(tools.model, trial):
        curves = attack(
            tools.model,
            wanted,
            tools.plan.image_settings,
            effort.steps,
            _starts(effort, trial.name),
            effort.images,
            tools.judges.descriptor,
            keep,
        )
    return StageAnswer({"known": wanted.known, "curves": curves}, files)


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def draw_sheets(work: Work, effort: Effort, captions: Sequence[Caption]) -> None:
    """Draw a sheet for each attacked caption: a row a trial, a column a step, the images of the
    attack from its first start.
    """
    title = f"(steps {', '.join(map(str, effort.steps))}; wanted)"
    for caption in captions:
        folder = work.run.path / "attack" / caption.slug
        rows = []
        for stage in caption.results:
            trial = stage.removeprefix(ATTACK)
            stem = f"{folder}/{_file(trial)}"
            start = _starts(effort, trial)[0]
            files = [Path(f"{stem}-{start}-{step:04d}.png") for step in effort.steps]
            if stage.startswith(ATTACK) and all(file.is_file() for file in files):
                rows.append(
                    (trial, [picture(file) for file in (*files, Path(f"{stem}-wanted.png"))])
                )
        if rows:
            save_png(sheet(f"{caption.text} {title}", rows), folder.with_suffix(".png"))


def evaluations(work: Work, effort: Effort, stage: str) -> int:
    """About how many U-Net sample evaluations a stage still needs."""
    chosen = [trial for trial in trials(work) if stage == ATTACK or trial.wanted != NEVER]
    settings = work.plan.image_settings

    def spent(trial: Trial) -> int:
        if stage == ATTACK:
            starts = _starts(effort, trial.name)
            return cost(effort.steps, len(starts), effort.images, settings)
        return len(ATTEMPTS) * effort.images * settings.passes

    open_, _ = _jobs(work, effort, stage, chosen)
    return sum(spent(job.trial) for job in open_)


def pace(work: Work, stages: Sequence[str], pool: Pool | None = None) -> dict[str, float]:
    """Stage -> seconds for each of its U-Net sample evaluations with this model.

    It is measured on two images in two steps, or on one step of the attack, after a warm-up of the
    same size. A stage that fails is left out.
    """
    pool = pool or Serial(work.model)
    prompt = edited_captions(work.run.captions(), 1)[0].text
    settings = replace(work.plan.image_settings, steps=2)
    do = partial(_paced, prompt=prompt, settings=settings)
    found: dict[str, float] = {}
    for stage in stages:
        with suppress(FindnemoError):  # the stage itself will report it
            found[stage] = answer_of(pool, do, stage, "pace") / pool.size
    return found


def _paced(model: Model, stage: str, prompt: str, settings: ImageSettings) -> float:
    """Seconds for an evaluation of a stage."""

    def images() -> None:
        generate(model, prompt, (seeds.ATTACK, seeds.ATTACK + 1), settings)

    def descent() -> None:
        clean = torch.zeros(1, *model.latent_shape, device=model.device, dtype=model.dtype)
        optimized(model, clean, starting(model, prompt, "caption"), (1,))

    do = descent if stage == ATTACK else images
    do()
    began = time.monotonic()
    with counting(model) as spent:
        do()
    return (time.monotonic() - began) / spent.evaluations
