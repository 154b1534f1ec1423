"""What a stage of an audit works with and what it answers: plan, tools, answers, and how answers
become part of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from findnemo.calibration import Calibration
from findnemo.errors import FindnemoError
from findnemo.files.originals import picture
from findnemo.files.writing import write_all
from findnemo.images import ImageSettings, check_images, png, sheet
from findnemo.localization import DEFAULT, Scan, scan
from findnemo.metrics import Judges
from findnemo.models import Model
from findnemo.neurons import NeuronSet
from findnemo.passes import side_by_side
from findnemo.runs.stages import Progress
from findnemo.runs.standing import STAGES, treated_as_memory
from findnemo.runs.store import Caption, Run
from findnemo.runs.union import forget
from findnemo.runs.wording import count
from findnemo.runs.workers import Event, Pool, answer_of
from findnemo.runs.worklist import on_list
from findnemo.runtime.memory import guarding_memory
from findnemo.verification import Look, Verification, verify

if TYPE_CHECKING:
    from PIL import Image

# memorized captions at most that are scanned for the layers that carry copies
SCANNED = 12


@dataclass(frozen=True)
class AuditPlan:
    """What an audit does besides the calibration's settings.

    `fdr`: false discovery rate of the list of captions; all captions are then scored with all
    seeds. `miss`: share of memories that may be lost because detection ends early
    (`detection.detect`), None if it does not end early. `judges`: sources of the copy descriptor
    ("descriptor") and of the CLIP ("clip"). `quality_prompts`: unrelated captions for the quality
    check. `max_impact`: among the sets that remove a memory, prefer one that changes the captions
    `unrelated` by no more than this. `scope`: value layers in which neurons are searched, "paper",
    "all", or "auto", which follows a scan of the model (`localization.scope`). `copied`: captions
    whose finished images are copies of training pictures, each with the files of those pictures;
    they are memorized whatever their score is. `training`: digest of the training pictures and of
    the copies seen. `thorough`: all pictures that decide are made in all steps, as in runs whose
    settings do not mention it.
    """

    search: str = DEFAULT
    images: int = 4
    image_settings: ImageSettings = field(default_factory=ImageSettings)
    judges: Mapping[str, str] = field(default_factory=dict)
    quality_prompts: int = 16
    fdr: float | None = None
    miss: float | None = None
    max_impact: float | None = None
    unrelated: tuple[str, ...] = ()
    scope: str = "auto"
    copied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    training: str | None = None
    thorough: bool = False

    def settings(self, model: Model, calibration: Calibration) -> dict[str, Any]:
        """Everything that a result depends on; a run directory holds results of one such set only.

        Without images the settings name no part that makes pictures.
        """
        if self.images:
            check_images(model, self.image_settings)
        identity = model.identity
        settings = {
            "model": identity.fingerprint,
            "identity": identity.to_json(pictures=bool(self.images)),
            "dtype": str(model.dtype).removeprefix("torch."),
            "calibration": calibration.settings.to_json(),
            "tau": calibration.tau,
            "search": self.search,
            "images": self.images,
            "image_settings": self.image_settings.to_json(),
            "judges": dict(self.judges),
        }
        if self.search == DEFAULT:
            settings["scope"] = self.scope
        if not self.thorough:
            settings["thorough"] = False
        for name in ("fdr", "miss", "training"):
            if (value := getattr(self, name)) is not None:
                settings[name] = value
        if self.max_impact is not None:
            settings |= {"max_impact": self.max_impact, "unrelated": list(self.unrelated)}
        return settings


@dataclass(frozen=True)
class Tools:
    """What a stage needs to answer: model, calibration, plan, judges and known training images.

    There is no run: workers have none. `originals`: id of a caption -> its training images
    (`originals_of`).
    """

    model: Model
    calibration: Calibration
    plan: AuditPlan
    judges: Judges = field(default_factory=Judges)
    originals: Mapping[int, Sequence[Image.Image]] = field(default_factory=dict)

    def original(self, caption: Caption) -> Image.Image | None:
        return next(iter(self.originals.get(caption.id, ())), None)


@dataclass(frozen=True)
class Work:
    """What a driver needs: the tools, and the run that only the driver writes to.

    `model`: the model, or facts about the models of the workers (`Pool.model`).
    """

    run: Run
    model: Model
    calibration: Calibration
    plan: AuditPlan
    judges: Judges = field(default_factory=Judges)
    original: Callable[[Caption], Image.Image | None] = lambda caption: None

    @property
    def tools(self) -> dict[str, Any]:
        """What `Tools` are made of in a worker, which has the model."""
        return {"calibration": self.calibration, "plan": self.plan, "judges": self.judges}

    def originals(self, caption: Caption) -> tuple[Image.Image, ...]:
        """The training image of a caption, if there is one, as `Tools` take it."""
        original = self.original(caption)
        return () if original is None else (original,)


@dataclass(frozen=True)
class StageAnswer:
    """What a stage answers for a caption: a JSON payload and files, or why it failed.

    `files`: path in the run directory -> content.
    """

    payload: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    error: str | None = None


class Done(NamedTuple):
    """An item of a stage, its answer, and its share of the seconds that its unit took."""

    item: Any
    answer: Any
    seconds: float


def scope_of(work: Work, pool: Pool, progress: Progress) -> str:
    """The value layers to search: those of the plan, or those that a scan of the first captions
    over tau names. The run keeps the result of the scan.
    """
    run = work.run
    plan = work.plan
    if plan.scope != "auto":
        return plan.scope
    if plan.search != DEFAULT:
        return "all"
    if (kept := run.meta("scan")) is None:
        found = (c.text for c in run.captions(stage="detect") if treated_as_memory(c))
        texts = tuple(islice(found, SCANNED))
        if not texts:
            return "all"
        scanning = partial(
            scan,
            images=plan.image_settings,
            seed=work.calibration.settings.seed,
            thorough=plan.thorough,
        )
        kept = answer_of(pool, scanning, texts, "scan of layers", progress).to_json()
        run.set_meta("scan", kept)
    return Scan.from_json(kept).scope


def originals_of(work: Work, stage: str, caption: Caption) -> tuple[Image.Image, ...]:
    """The training images of a caption that a stage looks at; workers cannot read the run."""
    if stage == "localize":
        return tuple(picture(file) for file in work.plan.copied.get(caption.text, ()))
    return work.originals(caption) if stage == "verify" and work.plan.images else ()


def commit(run: Run, stage: str, events: Sequence[Event]) -> int:
    """Write what became known at one time, files first, in one transaction; return how many listed
    captions it answers.

    A group is computed whole even if the run holds answers for a part of it. Its captions then
    share the same passes as in an undisturbed audit, so the results are the same to the last bit.
    Only the open answers are committed.
    """
    known = caption_answers(stage, events)
    open_ = on_list(run, [caption for caption, *_ in known])
    if stage in STAGES:
        forget(run)
    return keep(run, [found for found in known if found[0].id in open_])


def done_in(events: Sequence[Event]) -> list[Done]:
    """Every item of the events with its answer; of an item that was set aside, the reason."""
    found = []
    for event in events:
        items = event.unit.items
        answers = [StageAnswer(error=event.aside)] * len(items) if event.aside else event.answers
        seconds = event.seconds / len(items)
        found += [Done(*pair, seconds) for pair in zip(items, answers, strict=True)]
    return found


def caption_answers(
    stage: str, events: Sequence[Event]
) -> list[tuple[Caption, str, StageAnswer, float]]:
    """The answer for every caption of the events, as arguments of `keep`."""
    return [(item[0], stage, answer, seconds) for item, answer, seconds in done_in(events)]


def keep(run: Run, answers: Sequence[tuple[Caption, str, StageAnswer, float]]) -> int:
    """Write answers, files first, in one transaction; return how many there are.

    `answers`: caption, stage, answer and seconds of each.
    """
    write_all(
        {
            run.path / file: data
            for _, _, answer, _ in answers
            for file, data in answer.files.items()
        }
    )
    run.record_all(
        (caption.id, stage, answer.payload, seconds, answer.error)
        for caption, stage, answer, seconds in answers
    )
    return len(answers)


def attempted(model: Model, do: Callable[[], StageAnswer]) -> StageAnswer:
    """The answer of `do` for one caption, or its error as an answer."""
    try:
        with guarding_memory(model.device, "a single caption"):
            return do()
    except FindnemoError as problem:
        return StageAnswer(error=str(problem))


Item = tuple[Any, ...]  # a caption, its training images as far as they are known, and more


def each(
    model: Model,
    items: Sequence[Item],
    do: Callable[..., StageAnswer],
    alone: bool = False,
    **known: Any,
) -> list[StageAnswer]:
    """The step of a worker: `do(tools, caption, *more)` for every item.

    Items share passes, unless `alone`. `known`: `Work.tools`.
    """
    steps = []
    for caption, originals, *more in items:
        tools = Tools(model, originals={caption.id: originals}, **known)
        steps.append(partial(attempted, model, partial(do, tools, caption, *more)))
    return [step() for step in steps] if alone else side_by_side(model, steps)


def verify_with(tools: Tools, caption: Caption, neurons: NeuronSet, look: Look) -> Verification:
    plan = tools.plan
    return verify(
        tools.model,
        caption.text,
        neurons,
        tools.calibration.settings,
        plan.images,
        plan.image_settings,
        replace(tools.judges, original=tools.original(caption)),
        replace(look, thorough=plan.thorough, tau=tools.calibration.tau),
    )


def pictures_of(
    caption: Caption, result: Verification, neurons: int, original: Image.Image | None
) -> dict[str, bytes]:
    """The files of a verification: finished images, noise differences, training image and a sheet.

    There are none without images. Names of quick images begin with `quick-`
    (`quick-before-00.png`). Images that were made again in all steps have the usual names.
    """
    if not result.before:
        return {}
    images = f"images/{caption.slug}"
    noise = f"noise/{caption.slug}"
    looked = result.looked
    kind = "" if looked.steps is None else "quick-"
    files = _numbered(images, **{f"{kind}before": result.before, f"{kind}after": result.after})
    for (when, seed), image in looked.whole.items():
        files[f"{images}/{when}-{seed:02d}.png"] = png(image)
    files |= _numbered(noise, before=result.noise_before, after=result.noise_after)
    if original is not None:
        small = original.copy()
        small.thumbnail(result.before[0].size)
        files[f"{images}/original.png"] = png(small)
    after = f"after: {count(neurons, 'neuron')} off"
    steps = "" if looked.steps is None else f", in {looked.steps} steps"
    rows = [(f"before{steps}", result.before), (f"{after}{steps}", result.after)]
    for when in ("before", "after"):
        if whole := [image for (one, _), image in looked.whole.items() if one == when]:
            rows.append((f"{when}, in all steps", whole))
    return files | {f"sheets/{caption.slug}.png": png(sheet(caption.text, rows, original))}


def _numbered(folder: str, **rows: Sequence[Image.Image]) -> dict[str, bytes]:
    """Pictures as `name-00.png`, `name-01.png`, ..."""
    return {
        f"{folder}/{name}-{k:02d}.png": png(one)
        for name, pictures in rows.items()
        for k, one in enumerate(pictures)
    }
