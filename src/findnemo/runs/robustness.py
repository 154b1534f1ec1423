"""Is it really gone? Attempts and attacks on the edited model of a run, with their controls; a stage a caption, resumable.

What a stage found holds for one basis (neurons that are off, checkpoint, settings). Where that changed, it is done again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from findnemo import seeds
from findnemo.edits import deactivate
from findnemo.errors import FindnemoError, InputError, ModelError, StoppedError
from findnemo.files.originals import picture
from findnemo.files.secrets import hidden
from findnemo.images import save_png, sheet
from findnemo.metrics.kind import is_memory
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.robustness import ATTEMPTS, Subject, attack, closeness, cost, subject
from findnemo.robustness.controls import mirrored, scrambled
from findnemo.runs._same import require_same
from findnemo.runs._tried import (
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
from findnemo.runs.audit import Progress, Work
from findnemo.runs.standing import all_neurons, switched_off
from findnemo.runs.store import Caption
from findnemo.runs.workers import never
from findnemo.runtime.memory import named

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
NOTHING = {
    "basis": "",
    "known": False,
    "curves": {},
    "closeness": {},
    "skipped": {},
}  # of a trial that failed
NEVER = "never seen"


@dataclass(frozen=True)
class Effort:
    """How much is tried. `captions`: so many memorized captions from all over the table, and as many ordinary ones (0: all). `steps`: of the attack, after which
    images are made. `starts`: where it begins. `images`: of each attempt, and of each step. `controls`: pictures that the model never
    saw, the first for the first caption; without them the memorized ones scrambled."""

    captions: int = 5
    steps: tuple[int, ...] = (0, 5, 10, 20, 50)
    starts: tuple[str, ...] = ("caption",)
    images: int = 2
    controls: Sequence[Image.Image] = field(default=(), compare=False)


@dataclass(frozen=True)
class Trial:
    """One kind of attack: which captions, the model and what is switched off in it, and which picture is wanted of each."""

    name: str
    who: str
    model: Model
    neurons: NeuronSet
    picture: Callable[[int, Subject], Image.Image] = lambda k, subject: subject.picture
    identity: str = ""  # of a model that is not the run's own

    def context(self) -> AbstractContextManager[None]:
        return deactivate(self.model, self.neurons) if len(self.neurons) else nullcontext()


def memorized(captions: Iterable[Caption], most: int = 0) -> list[Caption]:
    """Captions whose neurons are off in the edited model, so many spread over the table; 0: all of them."""
    return spread([c for c in captions if len(switched_off(c))], most)


def ordinary(captions: Iterable[Caption], most: int = 0) -> list[Caption]:
    """Captions that are not memorized, so many spread over the table; 0: all of them. None whose type is that of a memory."""
    under = [c for c in captions if c.results.get("detect", {}).get("memorized") is False]
    return spread([c for c in under if not is_memory(c.type)], most)


def spread(found: list[T], most: int) -> list[T]:
    """So many of a list from all over it, in its order; fewer are always among more, so that asking for more does nothing again.

    >>> spread(list("abcdefgh"), 2), spread(list("abcdefgh"), 3)
    (['a', 'e'], ['a', 'c', 'e'])
    """
    bits = len(found).bit_length()
    halving = sorted(range(len(found)), key=lambda k: f"{k:0{bits}b}"[::-1])
    return [found[k] for k in sorted(halving[: most or None])]


def trials(work: Work, effort: Effort) -> list[Trial]:
    """The attacks on the edited model with their controls. All neurons of the run are off: the model as it is exported."""
    off = all_neurons(work.run.captions())
    return [
        *against(work.model, off, OFF, effort),
        Trial(UNTOUCHED, MEMORIZED, work.model, NeuronSet()),
    ]


def against(
    model: Model, off: NeuronSet, name: str, effort: Effort, identity: str = ""
) -> list[Trial]:
    """A model attacked for memorized pictures, for such that it never saw, and for mirrored images of ordinary captions."""

    def never(k: int, subject: Subject) -> Image.Image:
        return (
            effort.controls[k % len(effort.controls)]
            if effort.controls
            else scrambled(subject.picture)
        )

    return [
        Trial(name, MEMORIZED, model, off, identity=identity),
        Trial(f"{name}, {NEVER}", MEMORIZED, model, off, never, identity),
        Trial(name, ORDINARY, model, off, lambda k, subject: mirrored(subject.picture), identity),
    ]


# the work -----------------------------------------------------------------------------------------------------------------------


def try_out(
    work: Work,
    effort: Effort,
    made: Sequence[Trial] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = never,
) -> None:
    """Every attempt of `findnemo.robustness.ATTEMPTS` on memorized captions, with the neurons off and untouched, and on ordinary ones
    with the neurons off. What is answered is not done again."""
    chosen = [t for t in (trials(work, effort) if made is None else made) if NEVER not in t.name]
    _answer(work, effort, ATTEMPT, chosen, _attempts, progress, stop)
    work.run.set_meta(
        "attempts", attempts_summary(list(work.run.captions()), work.run.meta("bases"))
    )


def attack_all(
    work: Work,
    effort: Effort,
    made: Sequence[Trial] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = never,
) -> None:
    """The attack on an embedding, as curves over its steps: memorized pictures from the edited model and the untouched one, pictures that
    no model saw, and mirrored images of ordinary captions. What is answered is not done again."""
    _answer(
        work,
        effort,
        ATTACK,
        trials(work, effort) if made is None else made,
        _attack,
        progress,
        stop,
    )
    captions = list(work.run.captions())
    _draw_sheets(work, effort, memorized(captions, effort.captions))
    work.run.set_meta("attack", attack_summary(captions, work.run.meta("bases")))


Step = Callable[[Work, Effort, Trial, Caption, int, Subject], dict[str, Any]]


def _answer(
    work: Work,
    effort: Effort,
    stage: str,
    chosen: Sequence[Trial],
    step: Step,
    progress: Progress | None,
    stop: Callable[[], bool],
) -> None:
    require_same(work.run, work.model, pictures=True)
    captions = list(work.run.captions())
    groups = {
        MEMORIZED: memorized(captions, effort.captions),
        ORDINARY: ordinary(captions, effort.captions),
    }
    jobs = [
        (k, caption, trial)
        for who, group in groups.items()
        for k, caption in enumerate(group)
        for trial in chosen
        if trial.who == who
    ]
    bases = {stage + trial.name: _basis(work, effort, trial, stage) for trial in chosen}
    work.run.set_meta("bases", _still_standing(work, effort, stage) | bases)
    subjects: dict[int, Subject] = {}
    for count, (k, caption, trial) in enumerate(jobs):
        if stop():
            raise StoppedError(f"stopped after {count} of {len(jobs)}")
        if progress is not None:
            progress(stage.rstrip(":"), count, len(jobs))
        name, basis = stage + trial.name, bases[stage + trial.name]
        if caption.results.get(name, {}).get("basis") != basis:
            _record(
                work,
                caption,
                name,
                partial(_made, step, work, effort, trial, caption, k, subjects),
                basis,
            )
    if progress is not None:
        progress(stage.rstrip(":"), len(jobs), len(jobs))


def origin(work: Work, identity: str) -> str:
    """What a hardened model is (`Identity.whole`), and what it was made from: other neurons, another model."""
    return f"{identity} {sorted(all_neurons(work.run.captions()))}"


def _still_standing(work: Work, effort: Effort, stage: str) -> dict[str, str]:
    """The bases of a run without those of a hardened model that was made from other neurons, or attacked with another effort."""
    known, made_from = work.run.meta("bases") or {}, work.run.meta("hardened_from") or ""
    if made_from != origin(work, made_from.partition(" ")[0]):
        work.run.set_meta("hardened", None)
        return {name: basis for name, basis in known.items() if HARDENED not in name}
    present = {
        stage + t.name: _basis(work, effort, t, stage)
        for t in against(work.model, EMPTY, HARDENED, effort, made_from)
    }
    return {
        name: basis
        for name, basis in known.items()
        if not name.startswith(stage + HARDENED) or present.get(name) == basis
    }


def _made(
    step: Step,
    work: Work,
    effort: Effort,
    trial: Trial,
    caption: Caption,
    k: int,
    subjects: dict[int, Subject],
) -> dict[str, Any]:
    return step(work, effort, trial, caption, k, subject_of(work, caption, subjects))


def _record(
    work: Work, caption: Caption, name: str, made: Callable[[], dict[str, Any]], basis: str
) -> None:
    began = time.monotonic()
    try:
        with named(work.model.device, "a single caption"):
            payload = {"basis": basis, **made()}
    except (
        FindnemoError
    ) as problem:  # what else is known of the caption stands; on no basis, it is tried again
        payload = NOTHING | {"failed": hidden(str(problem))}
    work.run.record(caption.id, name, payload, time.monotonic() - began)


def failures(captions: Iterable[Caption]) -> list[str]:
    """A line for every reason why attempts or an attack failed: of how many captions, and why."""
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
    return [
        f"{stage} failed {n} time{'s' * (n != 1)}: {reason}"
        for (stage, reason), n in counts.items()
    ]


def _basis(work: Work, effort: Effort, trial: Trial, stage: str) -> str:
    """What a result depends on, in 16 digits."""
    asked = [effort.steps, effort.starts] if stage == ATTACK else list(ATTEMPTS)
    pictures = (
        [hashlib.sha256(p.tobytes()).hexdigest() for p in effort.controls]
        if NEVER in trial.name
        else []
    )
    told = [
        sorted(trial.neurons),
        trial.identity,
        asked,
        effort.images,
        pictures,
        work.plan.image_settings.to_json(),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def subject_of(work: Work, caption: Caption, known: dict[int, Subject]) -> Subject:
    if caption.id not in known:
        known[caption.id] = subject(
            work.model, caption.text, work.plan.image_settings, work.original(caption)
        )
    return known[caption.id]


def _attempts(
    work: Work, effort: Effort, trial: Trial, caption: Caption, k: int, told: Subject
) -> dict[str, Any]:
    """Closeness of the images of every attempt to the picture, or to what the untouched model gives for the caption."""
    samples, references = (
        range(seeds.ATTEMPTS, seeds.ATTEMPTS + effort.images),
        [told.picture, *told.others],
    )
    near: dict[str, list[float]] = {}
    skipped: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name, attempt in ATTEMPTS.items():
        try:
            with trial.context(), named(trial.model.device, "a single attempt"):
                made = attempt(trial.model, told, samples, work.plan.image_settings)
            near[name] = [
                round(v, 4) for v in closeness(made, references, work.judges.descriptor).tolist()
            ]
        except (InputError, ModelError) as problem:  # does not apply to this model or caption
            skipped[name] = str(problem)
        except FindnemoError as problem:  # NaN, or no memory left
            broken[name] = hidden(str(problem))
    return {"known": told.known, "closeness": near, "skipped": skipped, "broken": broken}


def _attack(
    work: Work, effort: Effort, trial: Trial, caption: Caption, k: int, told: Subject
) -> dict[str, Any]:
    wanted = Subject(told.prompt, trial.picture(k, told), told.others, told.known)
    folder = work.run.path / "attack" / caption.slug

    def keep(start: str, step: int, made: Sequence[Image.Image]) -> None:
        save_png(made[0], folder / f"{_file(trial.name)}-{start}-{step:04d}.png")

    save_png(wanted.picture, folder / f"{_file(trial.name)}-wanted.png")
    with trial.context():
        curves = attack(
            trial.model,
            wanted,
            work.plan.image_settings,
            effort.steps,
            effort.starts,
            effort.images,
            work.judges.descriptor,
            keep,
        )
    return {"known": told.known, "curves": curves}


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def _draw_sheets(work: Work, effort: Effort, captions: Sequence[Caption]) -> None:
    """A sheet a memorized caption: a row a trial, a column a step, the images of the attack that begins at the caption."""
    for caption in captions:
        folder, rows = work.run.path / "attack" / caption.slug, []
        for stage in caption.results:
            name = _file(stage.removeprefix(ATTACK))
            files = [folder / f"{name}-{effort.starts[0]}-{step:04d}.png" for step in effort.steps]
            if stage.startswith(ATTACK) and all(file.is_file() for file in files):
                rows.append(
                    (
                        stage.removeprefix(ATTACK),
                        [picture(file) for file in [*files, folder / f"{name}-wanted.png"]],
                    )
                )
        if rows:
            save_png(
                sheet(f"{caption.text} (steps {', '.join(map(str, effort.steps))}; wanted)", rows),
                folder.with_suffix(".png"),
            )


def evaluations(work: Work, effort: Effort, stage: str) -> int:
    """U-Net sample evaluations that are still to be spent, about."""
    captions = list(work.run.captions())
    groups = {
        MEMORIZED: memorized(captions, effort.captions),
        ORDINARY: ordinary(captions, effort.captions),
    }
    chosen = [t for t in trials(work, effort) if stage == ATTACK or NEVER not in t.name]
    left = sum(
        c.results.get(stage + t.name, {}).get("basis") != _basis(work, effort, t, stage)
        for t in chosen
        for c in groups[t.who]
    )
    settings = work.plan.image_settings
    if stage == ATTACK:
        return left * cost(effort.steps, len(effort.starts), effort.images, settings)
    return (
        left * len(ATTEMPTS) * effort.images * settings.steps * (2 if settings.guidance > 1 else 1)
    )
