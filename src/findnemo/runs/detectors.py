"""Detectors over a table of captions: their scores in the run store, hold-out scores beside them, and how well each tells the two kinds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from findnemo.calibration import threshold
from findnemo.detection import DETECTORS, Evaluation, evaluate
from findnemo.errors import InputError, NumericalError
from findnemo.images import ImageSettings, save_png
from findnemo.models import Model
from findnemo.prompts import Prompt
from findnemo.runs.audit import Progress, Stop, remember_source
from findnemo.runs.store import Caption, Run

STAGE, HOLDOUT = "detect:", "holdout:"  # and the name: a stage of the captions; a value of the run, caption -> score
CHUNK = 8  # hold-out captions between two commits
FOLDER = "detectors"


@dataclass(frozen=True)
class Result:
    """One detector on one table. `evaluation`: None without captions of a type. `found`: captions at or over `threshold`. `failed`: captions
    and hold-out captions without a score. `evaluations`, `seconds`: per caption, mean and median."""

    detector: str
    threshold: float
    evaluation: Evaluation | None
    captions: int
    found: int
    failed: int
    evaluations: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """Names of detectors, each once. Raises InputError naming one that is not known.

    >>> chosen(["ssim", "edges", "ssim"])
    ('ssim', 'edges')
    """
    wanted = tuple(dict.fromkeys(n.strip() for n in names))
    for name in wanted:
        if name not in DETECTORS:
            raise InputError(f"detector {name!r} is not known: use {', '.join(DETECTORS)}")
    return wanted


def start_detectors(out: str | Path, model: Model, settings: ImageSettings) -> Run:
    """Open a run directory for detectors: a new one, or any run of the same model and image settings, an audit's too.

    Raises MismatchError naming what differs.
    """
    mine = {
        "model": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "image_settings": settings.to_json(),
    }
    known: Any = None
    if (Path(out) / "run.sqlite").is_file():
        with Run.open(out) as old:
            known = old.meta("settings")
    same = known is not None and all(known.get(key) == value for key, value in mine.items())
    run = Run.create(out, known if same else mine)
    if run.meta("source") is None:
        remember_source(run, model)
    return run


def run_detectors(
    run: Run,
    model: Model,
    prompts: Iterable[Prompt],
    holdout: Sequence[str],
    names: Sequence[str],
    settings: ImageSettings,
    progress: Progress | None = None,
    stop: Stop = lambda: False,
) -> list[Caption]:
    """Score the captions and the hold-out captions with every named detector; returns the captions with their results.

    What is scored is not scored again. A caption for which the model gives NaN is marked failed, and the rest goes on. `stop` is asked
    between captions: once it says so, nothing more is begun. Raises InputError where captions and hold-out captions overlap.
    """
    prompts = list(prompts)
    both = {p.text for p in prompts}.intersection(holdout)
    if both:
        raise InputError(
            f"{len(both)} captions are hold-out captions too, such as {min(both)!r}: a threshold needs captions of its own"
        )
    ids = run.add(prompts)
    run.set_meta("detectors", list(dict.fromkeys([*(run.meta("detectors") or []), *names])))
    for name in names:
        _score_captions(run, model, ids, name, settings, progress, stop)
        _score_holdout(run, model, holdout, name, settings, progress, stop)
    return list(run.captions(ids))


def _score_captions(
    run: Run, model: Model, ids: Sequence[int], name: str, settings: ImageSettings, progress: Progress | None, stop: Stop
) -> None:
    done = run.done(STAGE + name)
    for caption in _told([c for c in run.captions(ids) if c.id not in done], name, progress, stop):
        began = time.monotonic()
        try:
            score, error = DETECTORS[name](model, caption.text, settings), None
        except NumericalError as problem:
            score, error = None, str(problem)
        seconds = time.monotonic() - began
        payload = {} if score is None else {**asdict(score), "seconds": round(seconds, 4)}
        run.record(caption.id, STAGE + name, payload, seconds, error)


def _score_holdout(
    run: Run, model: Model, holdout: Sequence[str], name: str, settings: ImageSettings, progress: Progress | None, stop: Stop
) -> None:
    scores: dict[str, float] = run.meta(HOLDOUT + name) or {}
    open_ = [text for text in holdout if text not in scores]
    try:
        for k, text in enumerate(_told(open_, f"{name}, hold-out", progress, stop), 1):
            try:
                scores[text] = DETECTORS[name](model, text, settings).value
            except NumericalError:  # left out, and tried again next time
                continue
            if k % CHUNK == 0:
                run.set_meta(HOLDOUT + name, scores)
    finally:
        run.set_meta(HOLDOUT + name, scores)


def _told(items: Sequence[Any], stage: str, progress: Progress | None, stop: Stop = lambda: False) -> Iterator[Any]:
    """The items until it is time to stop, with a word to `progress` before each and at the end."""
    for k, item in enumerate(items):
        if stop():
            return
        if progress is not None:
            progress(stage, k, len(items))
        yield item
    if progress is not None:
        progress(stage, len(items), len(items))


def results(run: Run, captions: Sequence[Caption], holdout: Sequence[str], names: Sequence[str]) -> list[Result]:
    """One result a detector, from the scores that a run holds. Raises InputError where too few hold-out captions have a score.

    Captions with a type (VM, TM) are the memorized ones, those without the others; where all have a type, every second hold-out caption
    takes the part of the others, and the threshold comes from the rest (`borrows`).
    """
    return [_result(name, captions, holdout, run.meta(HOLDOUT + name) or {}) for name in names]


def borrows(captions: Sequence[Caption]) -> bool:
    """Whether hold-out captions have to stand in for captions that are not memorized."""
    return bool(captions) and all(c.type for c in captions)


def _result(name: str, captions: Sequence[Caption], holdout: Sequence[str], known: Mapping[str, float]) -> Result:
    mine = [(c, c.results[STAGE + name]) for c in captions if STAGE + name in c.results]
    kept = [known[text] for text in holdout if text in known]
    others = [r["value"] for c, r in mine if not c.type]
    if borrows(captions):
        others, kept = kept[1::2], kept[::2]
    positive, negative, clean = map(_tensor, ([r["value"] for c, r in mine if c.type], others, kept))
    judged = evaluate(positive, negative, clean) if len(positive) and len(negative) else None
    tau = judged.threshold if judged else threshold(clean)
    return Result(
        name,
        tau,
        judged,
        captions=len(mine),
        found=sum(r["value"] >= tau for _, r in mine),
        failed=len(captions) - len(mine) + sum(text not in known for text in holdout),
        evaluations=statistics.fmean(r["evaluations"] for _, r in mine) if mine else 0.0,
        seconds=statistics.median(r["seconds"] for _, r in mine) if mine else 0.0,
    )


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pictures(
    run: Run, model: Model, captions: Sequence[Caption], settings: ImageSettings, progress: Progress | None = None
) -> list[Path]:
    """Token saliency and bright-ending mask of every caption with a type, as PNG in RUN/detectors/; what is there is not drawn again."""
    typed = [c for c in captions if c.type]
    paths = [run.path / FOLDER / f"{c.slug}-{kind}.png" for c in typed for kind in ("saliency", "mask")]
    missing = [(c, path) for c, path in zip([c for c in typed for _ in "12"], paths, strict=True) if not path.exists()]
    for caption, path in _told(missing, "pictures", progress):
        save_png(_DRAWN[path.stem.rsplit("-", 1)[1]](model, caption.text, settings), path)
    return paths


def _saliency(model: Model, caption: str, settings: ImageSettings) -> Any:
    from findnemo.detection.magnitude import saliency, saliency_picture

    return saliency_picture(saliency(model, caption, settings), "what each token weighs in the magnitude of the prompt")


def _mask(model: Model, caption: str, settings: ImageSettings) -> Any:
    from findnemo.detection.bright_ending import mask_picture, soft_masks

    images, masks = soft_masks(model, caption, settings, images=1)
    return mask_picture(images[0], masks[0, 0])


_DRAWN = {"saliency": _saliency, "mask": _mask}
