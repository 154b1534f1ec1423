"""Run detectors over a table of captions: keep their scores and those of hold-out captions in a
run, and measure how well each separates the two kinds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from findnemo.calibration import threshold
from findnemo.detection import DETECTORS, REFERENCES, Evaluation, Score, evaluate
from findnemo.detection.latent_updates import CAPTIONS
from findnemo.errors import DeviceError, InputError, NumericalError
from findnemo.files.writing import write_all
from findnemo.images import ImageSettings, png
from findnemo.metrics.kind import is_memory
from findnemo.models import Model
from findnemo.models.identity import identity_difference, kept_identity
from findnemo.prompts import Prompt
from findnemo.runs._same import require_same
from findnemo.runs.audit import remember_source
from findnemo.runs.stages import Crew, Progress, Stage, no_progress, run_stage
from findnemo.runs.store import DATABASE, Caption, Run
from findnemo.runs.table import asked_captions, enter
from findnemo.runs.work import StageAnswer, done_in
from findnemo.runs.workers import Event, Pool, Unit, never
from findnemo.runs.worklist import groups, list_open
from findnemo.runtime.memory import guarding_memory
from findnemo.runtime.plugins import answering
from findnemo.stats.roc import accuracy_of

STAGE = "detect:"  # prefix of a stage; the name of a detector follows
HOLDOUT = "holdout:"  # likewise, of a value of the run: caption -> score
REFERENCE = "reference:"  # likewise: caption -> what the detector must know about it
FOLDER = "detectors"
Ask = Callable[[Model, str], StageAnswer]  # a detector, as the step of a worker calls it
HALF = 0.5  # the threshold of Finding NeMo's appendix B.4
VERBATIM = "VM"  # the type that is also judged alone


@dataclass(frozen=True)
class Result:
    """One detector on one table.

    `evaluation`: None without captions of a type. `verbatim`: the evaluation with type VM as the
    only memories. `half`, `verbatim_half`: accuracy at a threshold of .5, for the memorization
    score alone, which has that scale (Finding NeMo, B.4). `found`: captions at or over `threshold`.
    `failed`: captions and hold-out captions without a score. `evaluations`, `seconds`: per caption,
    mean and median.
    """

    detector: str
    threshold: float
    evaluation: Evaluation | None
    captions: int
    found: int
    failed: int
    evaluations: float
    seconds: float
    half: float | None = None
    verbatim: Evaluation | None = None
    verbatim_half: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Detectors:
    """The results of detectors, the captions with their scores, and the drawn pictures."""

    results: list[Result]
    captions: list[Caption]
    pictures: list[Path]

    def to_json(self) -> dict[str, Any]:
        """The figures of every detector, and every caption with its scores."""
        stages = {result.detector: STAGE + result.detector for result in self.results}
        rows = [
            {
                "row": c.row,
                "caption": c.text,
                "type": c.type,
                "scores": {
                    n: c.typed_result(s)["value"] for n, s in stages.items() if s in c.results
                },
            }
            for c in self.captions
        ]
        return {"detectors": [r.to_json() for r in self.results], "captions": rows}


def distinct_detectors(names: Iterable[str]) -> tuple[str, ...]:
    """Names of detectors without repeats. Raises InputError naming an unknown one.

    >>> distinct_detectors(["ssim", "edges", "ssim"])
    ('ssim', 'edges')
    """
    wanted = tuple(dict.fromkeys(n.strip() for n in names))
    for name in wanted:
        DETECTORS.require(name)
    return wanted


def start_detectors(out: str | Path, model: Model, settings: ImageSettings) -> Run:
    """Open a run directory for detectors: a new one, or any run (an audit too) with the same model
    and image settings.

    Raises MismatchError naming what differs.
    """
    identity = model.identity
    mine = {
        "model": identity.fingerprint,
        "identity": identity.to_json(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "image_settings": settings.to_json(),
    }
    theirs: Any = None
    if (Path(out) / DATABASE).is_file():
        with Run.open(out) as old:
            theirs = old.meta("settings")
    run = Run.create(out, theirs if theirs is not None and _joins(theirs, mine, model) else mine)
    require_same(run, model, pictures=True)
    if run.meta("source") is None:
        remember_source(run, model)
    return run


def _joins(theirs: Mapping[str, Any], mine: Mapping[str, Any], model: Model) -> bool:
    """Whether detectors with settings `mine` may add to a run with settings `theirs`, such as an
    audit.
    """
    same = all(theirs.get(key) == mine[key] for key in ("dtype", "image_settings"))
    return same and not identity_difference(
        model, str(theirs.get("model")), kept_identity(theirs.get("identity"))
    )


def run_detectors(
    run: Run,
    prompts: Iterable[Prompt],
    holdout: Sequence[str],
    names: Sequence[str],
    settings: ImageSettings,
    pool: Pool,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = never,
) -> list[Caption]:
    """Score the captions and the hold-out captions with every named detector; return the captions
    with their results.

    Scores that the run holds are not computed again. A caption for which the model returns NaN is
    marked failed, and the work goes on. A detector that needs reference captions
    (`detection.REFERENCES`) learns from the first hold-out captions, 50 but at most half of them.
    The run keeps what it learned, and these captions no longer count as hold-out (`results`).

    `pool`: the workers. Once `stop` returns True, nothing more is begun. Raises InputError if a
    caption is also a hold-out caption.
    """
    require_same(run, pool.model, pictures=True)
    enter(run, _apart(prompts, holdout))
    run.set_meta("detectors", list(dict.fromkeys([*(run.meta("detectors") or ()), *names])))
    crew = Crew(pool, progress, stop)
    for name in names:
        learned: dict[str, Any] = {}
        if name in REFERENCES:
            usual = partial(_referred, name=name, settings=settings)
            known = run.meta(REFERENCE + name) or ()
            texts = tuple(dict.fromkeys([*known, *holdout[: max(2, len(holdout) // 2)]]))[:CAPTIONS]
            _ask_holdout(run, REFERENCE + name, f"{name}, reference", usual, texts, crew)
            learned["reference"] = list((run.meta(REFERENCE + name) or {}).values())
        score = partial(_scored, name=name, settings=settings, **learned)
        _ask_captions(run, name, score, crew)
        unseen = _unseen(run, name, holdout)
        _ask_holdout(run, HOLDOUT + name, f"{name}, hold-out", score, unseen, crew)
    return asked_captions(run)


def _apart(prompts: Iterable[Prompt], holdout: Sequence[str]) -> Iterator[Prompt]:
    """The prompts; then an InputError if some are also hold-out captions, so that none is
    entered.
    """
    held = set(holdout)
    both = set()
    for prompt in prompts:
        both |= {prompt.text} & held
        yield prompt
    if both:
        raise InputError(
            f"hold-out captions among the captions: {len(both)}, such as {min(both)!r}; a threshold"
            " needs captions of its own"
        )


def _scored(
    model: Model, text: str, name: str, settings: ImageSettings, **known: Any
) -> StageAnswer:
    """The score of a text."""
    with answering(f"detector {name!r}"):
        found = DETECTORS[name](model, text, settings, **known)
    if not isinstance(found, Score):
        raise InputError(
            f"detector {name!r} gives {found!r:.60}: a findnemo.detection.Score is needed"
        )
    return StageAnswer(asdict(found))


def _referred(model: Model, text: str, name: str, settings: ImageSettings) -> StageAnswer:
    """What a detector must know about a text."""
    return StageAnswer({"value": REFERENCES[name](model, text, settings)})


def _each(model: Model, items: Sequence[Any], ask: Ask) -> list[StageAnswer]:
    """The step: what a detector says of every caption or text, or why it does not."""
    found = []
    for item in items:
        try:
            with guarding_memory(model.device, "a single caption"):
                found.append(ask(model, item.text if isinstance(item, Caption) else item))
        except (NumericalError, DeviceError) as problem:
            found.append(StageAnswer(error=str(problem)))
    return found


def _ask_captions(run: Run, name: str, ask: Ask, crew: Crew) -> None:
    """Have a detector score the captions without a score of it."""

    def commit(events: Sequence[Event]) -> int:
        answers = done_in(events)
        for caption, score, seconds in answers:
            timed = score.payload | {"seconds": round(seconds, 4)}
            run.record(caption.id, STAGE + name, timed, seconds, score.error)
        return len(answers)

    count, _ = list_open(run, STAGE + name)
    units = (Unit(group) for group in groups(run))
    run_stage(Stage(name, partial(_each, ask=ask), units, count, commit, count), *crew)


def _ask_holdout(
    run: Run, key: str, name: str, ask: Ask, holdout: Sequence[str], crew: Crew
) -> None:
    """Have a detector answer the hold-out captions without an answer in the run's value `key`;
    failed ones are tried again next time.
    """
    scores: dict[str, Any] = run.meta(key) or {}
    open_ = [text for text in holdout if text not in scores]

    def commit(events: Sequence[Event]) -> int:
        answers = done_in(events)
        scores.update({text: a.payload["value"] for text, a, _ in answers if a.error is None})
        in_order = {text: scores[text] for text in holdout if text in scores}
        run.set_meta(key, in_order | scores)
        return len(answers)

    units = (Unit((text,)) for text in open_)
    step = partial(_each, ask=ask)
    run_stage(Stage(name, step, units, len(open_), commit, len(open_)), *crew)


def results(
    run: Run, captions: Sequence[Caption], holdout: Sequence[str], names: Sequence[str]
) -> list[Result]:
    """One result for each detector, from the scores that a run holds.

    Captions with the type of a memory (VM, TM) count as memorized, captions without it as the
    others. If all have that type, every second hold-out caption counts as one of the others, and
    the threshold comes from the rest (`borrows`). Hold-out captions from which a detector has
    learned do not count: their scores would be too typical.

    Raises InputError if too few hold-out captions have a score.
    """
    return [_result(name, captions, _unseen(run, name, holdout), run) for name in names]


def kept_detectors(run: Run) -> Detectors:
    """The results of all detectors that a run holds. Raises InputError if it holds none."""
    captions = list(run.captions())
    asked = run.meta("detectors") or []
    names = [name for name in asked if any(STAGE + name in c.results for c in captions)]
    if not names:
        raise InputError(
            f"{run.path} holds no results: neither an audit's nor those of `findnemo detect"
            " --detector`"
        )
    found = [
        result
        for name in names
        for result in results(run, captions, list(run.meta(HOLDOUT + name) or {}), [name])
    ]
    return Detectors(found, captions, [])


def _unseen(run: Run, name: str, holdout: Sequence[str]) -> list[str]:
    """The hold-out captions from which a detector has not learned."""
    seen = run.meta(REFERENCE + name) or {} if name in REFERENCES else {}
    return [text for text in holdout if text not in seen]


def borrows(captions: Sequence[Caption]) -> bool:
    """Whether hold-out captions must stand in for captions that are not memorized."""
    return bool(captions) and all(is_memory(c.type) for c in captions)


def _result(name: str, captions: Sequence[Caption], holdout: Sequence[str], run: Run) -> Result:
    known: Mapping[str, float] = run.meta(HOLDOUT + name) or {}
    mine = [(c, c.typed_result(STAGE + name)) for c in captions if STAGE + name in c.results]
    kept = [known[text] for text in holdout if text in known]
    others = [r["value"] for c, r in mine if not is_memory(c.type)]
    if borrows(captions):
        others = kept[1::2]
        kept = kept[::2]
    memories = [(c.type, r["value"]) for c, r in mine if is_memory(c.type)]
    verbatim = [value for kind, value in memories if kind == VERBATIM]
    negative = _tensor(others)
    clean = _tensor(kept)
    judged, half = _judged(name, _tensor([value for _, value in memories]), negative, clean)
    judged_verbatim, half_verbatim = _judged(name, _tensor(verbatim), negative, clean)
    tau = judged.threshold if judged else threshold(clean)
    unscored = [text for text in holdout if text not in known]
    evaluations = [r["evaluations"] for _, r in mine] or [0.0]
    seconds = [r["seconds"] for _, r in mine] or [0.0]
    return Result(
        name,
        tau,
        judged,
        captions=len(mine),
        found=sum(r["value"] >= tau for _, r in mine),
        failed=len(captions) - len(mine) + len(unscored),
        evaluations=statistics.fmean(evaluations),
        seconds=statistics.median(seconds),
        half=half,
        verbatim=judged_verbatim,
        verbatim_half=half_verbatim,
    )


def _judged(
    name: str, positive: Tensor, negative: Tensor, holdout: Tensor
) -> tuple[Evaluation | None, float | None]:
    """The evaluation of a detector on both kinds of captions, and its accuracy at .5 if it is the
    memorization score; None if one kind is missing.
    """
    if not (len(positive) and len(negative)):
        return None, None
    half = accuracy_of(positive >= HALF, negative >= HALF) if name == "ssim" else None
    return evaluate(positive, negative, holdout), half


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw_pictures(
    run: Run,
    captions: Sequence[Caption],
    settings: ImageSettings,
    pool: Pool,
    progress: Progress = no_progress,
) -> list[Path]:
    """Draw the token saliency and the bright-ending mask of every caption with a type, as PNG in
    RUN/detectors/; return the new files.

    Existing files are not drawn again. Raises DeviceError if workers die over one.
    """
    require_same(run, pool.model, pictures=True)
    memories = [caption for caption in captions if is_memory(caption.type)]
    wanted = {f"{FOLDER}/{c.slug}-{kind}.png": (c.text, kind) for c in memories for kind in _DRAWN}
    missing = {name: about for name, about in wanted.items() if not (run.path / name).exists()}

    def commit(events: Sequence[Event]) -> int:
        answers = done_in(events)
        for (name, *_), drawn, _ in answers:
            if drawn.error is not None:
                raise DeviceError(f"{name} could not be drawn: {drawn.error}")
            write_all({run.path / name: content for name, content in drawn.files.items()})
        return len(answers)

    units = (Unit(((name, *about),)) for name, about in missing.items())
    step = partial(_drawn, settings=settings)
    run_stage(Stage("pictures", step, units, len(missing), commit, len(missing)), pool, progress)
    return [run.path / name for name in wanted]


def _drawn(
    model: Model, items: Sequence[tuple[str, str, str]], settings: ImageSettings
) -> list[StageAnswer]:
    """The step: a picture for every (file, caption, kind)."""
    return [
        StageAnswer(files={name: png(_DRAWN[kind](model, text, settings))})
        for name, text, kind in items
    ]


def _saliency(model: Model, caption: str, settings: ImageSettings) -> Any:
    from findnemo.detection.magnitude import saliency, saliency_picture

    return saliency_picture(
        saliency(model, caption, settings), "what each token weighs in the magnitude of the prompt"
    )


def _mask(model: Model, caption: str, settings: ImageSettings) -> Any:
    from findnemo.detection.bright_ending import mask_picture, soft_masks

    images, masks = soft_masks(model, caption, settings, images=1)
    return mask_picture(images[0], masks[0, 0])


_DRAWN = {"saliency": _saliency, "mask": _mask}
