"""The audit of a table of captions in a run directory: detect, localize, verify.

Every step resumes where it stopped.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo._version import __version__
from findnemo.calibration import Calibration
from findnemo.detection import Detection, detect_many
from findnemo.errors import FindnemoError
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import picture
from findnemo.files.writing import write_all
from findnemo.images import ImageSettings, check_images, png, sheet
from findnemo.localization import (
    DEFAULT,
    Bystanders,
    Scan,
    bystanders,
    check_score,
    diagnose,
    localize,
    localize_copies,
    localize_further,
    scan,
)
from findnemo.metrics import Judges
from findnemo.metrics.copies import copies_in
from findnemo.metrics.kind import is_memory
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import group_size, search_group, side_by_side
from findnemo.prompts import Prompt
from findnemo.runs._same import require_same
from findnemo.runs.changing import change, remove_stale
from findnemo.runs.discoveries import keep_list
from findnemo.runs.finished import finish_first
from findnemo.runs.results import Together
from findnemo.runs.stages import Progress, Stage, no_progress, run_stage
from findnemo.runs.standing import STAGES, all_neurons, cleaned, image_name, neurons_of, treated
from findnemo.runs.store import Caption, Run
from findnemo.runs.table import Shard, asked, enter
from findnemo.runs.trust import vouch
from findnemo.runs.union import Union, digest_of, first_sample, forget, grouped, settle
from findnemo.runs.wording import count
from findnemo.runs.workers import Event, Pool, Serial, Step, Unit, answer_of, never
from findnemo.runs.worklist import groups, list_open, on_list
from findnemo.runtime.memory import named
from findnemo.runtime.plugins import packages
from findnemo.seeds import FRESH
from findnemo.verification import RANDOM, Look, Verification, copying_seeds, quality, verify

if TYPE_CHECKING:
    from PIL import Image

# memorized captions at most that are scanned for the layers that carry copies
SCANNED = 12


@dataclass(frozen=True)
class Plan:
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
        if self.fdr is not None:
            settings["fdr"] = self.fdr
        if self.miss is not None:
            settings["miss"] = self.miss
        if self.training is not None:
            settings["training"] = self.training
        if self.max_impact is not None:
            settings |= {"max_impact": self.max_impact, "unrelated": list(self.unrelated)}
        return settings


@dataclass(frozen=True)
class Tools:
    """What a stage needs to answer: model, calibration, plan, judges and known training images.

    There is no run: workers have none. `copied`: the training images that a caption was seen to
    reproduce. `made`: the stored pictures of the caption.
    """

    model: Model
    calibration: Calibration
    plan: Plan
    judges: Judges = field(default_factory=Judges)
    original: Callable[[Caption], Image.Image | None] = lambda caption: None
    copied: Callable[[Caption], Sequence[Image.Image]] = lambda caption: ()
    made: Callable[[Caption], Look] = lambda caption: Look()

    @property
    def bystanders(self) -> Bystanders | tuple[()]:
        """The captions on which the impact of a set is measured; empty without
        `Plan.max_impact`.
        """
        if self.plan.max_impact is None:
            return ()
        return bystanders(self.model, self.plan.unrelated, self.calibration.settings)


@dataclass(frozen=True)
class Work:
    """What a driver needs: the tools, and the run that only the driver writes to.

    `model`: the model, or facts about the models of the workers (`Pool.model`).
    """

    run: Run
    model: Model
    calibration: Calibration
    plan: Plan
    judges: Judges = field(default_factory=Judges)
    original: Callable[[Caption], Image.Image | None] = lambda caption: None


@dataclass(frozen=True)
class Answer:
    """What a stage answers for a caption: a JSON payload and files, or why it failed.

    `files`: path in the run directory -> content.
    """

    payload: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    error: str | None = None


def start(
    out: str | Path,
    model: Model,
    calibration: Calibration,
    plan: Plan,
    shard: Shard | None = None,
    wait: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """Open the run directory for writing, keep the calibration in it, and return the run.

    `shard`: the part of the table that this run answers. `wait`: wait for another process that
    writes to the run. `tell`: called with what becomes of earlier results (`changing`) if the plan
    gives an existing run other image settings or judges. Without `tell` such a plan is refused.
    """
    calibration.check(model)
    check_score(plan.search, calibration)
    part = {} if shard is None else {"shard": str(shard)}
    settings = plan.settings(model, calibration) | part
    run = Run.create(out, settings, wait, tell and partial(change, tell=tell))
    try:
        remove_stale(run)
        if not (run.path / "calibration" / "calibration.json").exists():
            calibration.save(run.path / "calibration")
        remember_source(run, model)
        run.set_meta("versions", _versions(model))
        if run.meta("widths") is None:
            run.set_meta("widths", model.widths("all"))
    except BaseException:
        run.close()
        raise
    return run


def remember_source(run: Run, model: Model) -> None:
    """Keep where the model was last found, and how it was opened; no result depends on it."""
    run.set_meta("source", model.source)
    run.set_meta("source_options", model.options)
    vouch(run)


def audit(
    work: Work,
    prompts: Iterable[Prompt],
    stages: Sequence[str] = STAGES,
    progress: Progress = no_progress,
    pool: Pool | None = None,
    stop: Callable[[], bool] = never,
) -> list[Caption]:
    """Run the stages over the captions and return the captions with their results.

    Answers that the run already holds are not computed again. A caption on which a stage fails (the
    model returns NaN, say) is marked failed with the reason, and the audit goes on.

    `pool`: the workers that answer; without one, this process answers with the model of `work`.
    `stop`: called between captions, or between groups that share passes. Once it returns True,
    nothing more is begun, and the results so far are returned.

    Raises StorageError where nothing can be written; the same call resumes once there is room. For
    tables that do not fit in memory use `table.enter` and `answer`.
    """
    enter(work.run, prompts)
    answer(work, stages, progress, pool, stop)
    return asked(work.run)


def answer(
    work: Work,
    stages: Sequence[str] = STAGES,
    progress: Progress = no_progress,
    pool: Pool | None = None,
    stop: Callable[[], bool] = never,
) -> bool:
    """Run the stages over the requested captions (`table.enter`, `table.ask_all`).

    Returns whether everything was done before `stop()`. Answers are the same to the last bit
    whoever computes them: the ids of captions decide which of them share passes. Memory is constant
    in the number of captions. Raises MismatchError if the model is no longer the one with which the
    run was begun.
    """
    pool = pool or Serial(work.model)
    for stage in stages:
        require_same(work.run, work.model, pictures=stage == "verify" and bool(work.plan.images))
        if stage == "localize":
            work = replace(work, plan=replace(work.plan, scope=_scope(work, pool, progress)))
        _answer_stage(work, stage, pool, progress, stop)
        if stage == "detect":
            keep_list(work.run)
        if stop():
            return False
    if "verify" in stages and "shard" not in work.run.meta("settings"):
        if not check_union(work, pool, progress, stop):
            return False
        check_quality(work, pool, progress)
        if work.plan.images:
            finish_first(work.run, work.plan.image_settings, pool, progress)
    return True


def _scope(work: Work, pool: Pool, progress: Progress) -> str:
    """The value layers to search: those of the plan, or those that a scan of the first captions
    over tau names. The run keeps the result of the scan.
    """
    run = work.run
    plan = work.plan
    if plan.scope != "auto" or plan.search != DEFAULT:
        return plan.scope
    if (kept := run.meta("scan")) is None:
        found = (c.text for c in run.captions(stage="detect") if treated(c))
        texts = tuple(islice(found, SCANNED))
        if not texts:
            return "all"
        step = partial(
            _scanned,
            settings=plan.image_settings,
            seed=work.calibration.settings.seed,
            thorough=plan.thorough,
        )
        kept = answer_of(pool, step, texts, "scan of layers", progress)
        run.set_meta("scan", kept)
    return Scan.from_json(kept).scope


def _scanned(
    model: Model, items: Sequence[Sequence[str]], settings: ImageSettings, seed: int, thorough: bool
) -> list[dict[str, Any]]:
    return [scan(model, prompts, settings, seed, thorough).to_json() for prompts in items]


def _answer_stage(
    work: Work, stage: str, pool: Pool, progress: Progress, stop: Callable[[], bool]
) -> None:
    block = group_size(work.model)  # no shard divides a group
    size, within = (block, None) if stage == "detect" else (search_group(work.model), block)
    captions, count = list_open(work.run, stage, size=size, within=within)
    units = (
        Unit(tuple((c, _originals(work, stage, c)) for c in group))
        for group in groups(work.run, size)
    )
    step = partial(
        answers, stage=stage, calibration=work.calibration, plan=work.plan, judges=work.judges
    )
    write = partial(commit, work.run, stage)
    run_stage(Stage(stage, step, units, count, write, captions), pool, progress, stop)


def _originals(work: Work, stage: str, caption: Caption) -> tuple[Image.Image, ...]:
    """The training images of a caption that a stage looks at; workers cannot read the run."""
    if stage == "localize":
        return tuple(picture(file) for file in work.plan.copied.get(caption.text, ()))
    original = work.original(caption) if stage == "verify" and work.plan.images else None
    return () if original is None else (original,)


def commit(run: Run, stage: str, events: Sequence[Event]) -> int:
    """Write what became known at one time, files first, in one transaction; return how many listed
    captions it answers.

    A group is computed whole even if the run holds answers for a part of it. Its captions then
    share the same passes as in an undisturbed audit, so the results are the same to the last bit.
    Only the open answers are committed.
    """
    known = _answered(stage, events)
    open_ = on_list(run, [caption for caption, *_ in known])
    if stage in STAGES:
        forget(run)
    return keep(run, [found for found in known if found[0].id in open_])


def _answered(stage: str, events: Sequence[Event]) -> list[tuple[Caption, str, Answer, float]]:
    """The answer for every caption of the events, as arguments of `keep`."""
    return [
        (caption, stage, answer, event.seconds / len(event.unit.items))
        for event in events
        for (caption, _), answer in zip(event.unit.items, _answers_of(event), strict=True)
    ]


def _answers_of(event: Event) -> list[Answer]:
    """One answer for every item of a unit."""
    return [Answer(error=event.aside)] * len(event.unit.items) if event.aside else event.answers


def keep(run: Run, answers: Sequence[tuple[Caption, str, Answer, float]]) -> int:
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


def attempted(model: Model, do: Callable[[], Answer]) -> Answer:
    """The answer of `do` for one caption, or its error as an answer."""
    try:
        with named(model.device, "a single caption"):
            return do()
    except FindnemoError as problem:
        return Answer(error=str(problem))


Item = tuple[Caption, tuple["Image.Image", ...]]
# training images of a caption, and its known pictures
Seen = tuple[tuple["Image.Image", ...], Look]


def answers(
    model: Model,
    items: Sequence[Item],
    stage: str,
    calibration: Calibration,
    plan: Plan,
    judges: Judges,
) -> list[Answer]:
    """Answer a stage for captions that share passes: the step of a worker.

    Each item is a caption with its training images, as far as they are known.
    """
    known = {caption.id: originals for caption, originals in items}
    tools = Tools(
        model,
        calibration,
        plan,
        judges,
        lambda caption: next(iter(known[caption.id]), None),
        lambda caption: known[caption.id],
    )
    try:
        with named(model.device, "a single caption"):
            return _STEPS[stage](tools, [caption for caption, _ in items])
    except FindnemoError as problem:  # fails the whole group, such as a device out of memory
        return [Answer(error=str(problem))] * len(items)


def _detect(tools: Tools, group: Sequence[Caption]) -> list[Answer]:
    plan = tools.plan
    texts = [caption.text for caption in group]
    all_seeds = plan.fdr is not None
    found = detect_many(tools.model, texts, tools.calibration, all_seeds, plan.miss)
    return [
        Answer(one.to_json() | _seen(plan, text))
        if isinstance(one, Detection)
        else Answer(error=str(one))
        for text, one in zip(texts, found, strict=True)
    ]


def _seen(plan: Plan, caption: str) -> dict[str, Any]:
    """The part of a detection that comes from finished images, not from the score."""
    return {"memorized": True, "copies": True} if caption in plan.copied else {}


def _localize(tools: Tools, caption: Caption) -> Answer:
    plan = tools.plan
    about = (tools.model, caption.text, tools.calibration)
    scope = "all" if plan.scope == "auto" else plan.scope
    if originals := tools.copied(caption):
        found = localize_copies(*about, originals, plan.image_settings, scope, plan.thorough)
    else:
        found = localize(
            *about,
            plan.search,
            plan.max_impact,
            tools.bystanders,
            plan.image_settings,
            scope,
            plan.thorough,
        )
    ordinary = tools.calibration.ordinary
    if not found.points or found.reached or not ordinary:
        return Answer(found.to_json())
    # there is nothing to switch off: say what carries the memory
    seed = tools.calibration.settings.seed
    carrier = diagnose(tools.model, caption.text, ordinary, plan.image_settings, seed)
    return Answer(found.to_json() | {"diagnosis": carrier.to_json()})


def verified(tools: Tools, caption: Caption) -> Answer:
    """Verify a caption with its own neurons off; the answer holds its pictures."""
    neurons = neurons_of(caption)
    original = tools.original(caption)
    tools.calibration.check(tools.model)
    # `check_union` settles doubt about pictures with neurons off, for all neurons together
    look = replace(tools.made(caption), confirm=False)
    result = _verified(tools, caption, neurons, look)
    return Answer(result.values, _pictures(caption, result, len(neurons), original))


def _verified(tools: Tools, caption: Caption, neurons: NeuronSet, look: Look) -> Verification:
    plan = tools.plan
    return verify(
        tools.model,
        caption.text,
        neurons,
        tools.calibration.settings,
        plan.images,
        plan.image_settings,
        replace(tools.judges, original=tools.original(caption)),
        tools.calibration.tau,
        plan.thorough,
        look,
    )


def _pictures(
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


def _sharing(
    one: Callable[[Tools, Caption], Answer], tools: Tools, group: Sequence[Caption]
) -> list[Answer]:
    """Answers for the captions of a group, computed in shared passes."""
    steps = [partial(attempted, tools.model, partial(one, tools, caption)) for caption in group]
    return side_by_side(tools.model, steps)


_STEPS: dict[str, Callable[[Tools, Sequence[Caption]], list[Answer]]] = {
    "detect": _detect,
    "localize": partial(_sharing, _localize),
    "verify": partial(_sharing, verified),
}


# all neurons together -----------------------------------------------------------------------------

UNION_STAGES = {  # kind of stage -> what progress calls it
    "glance": "verify, all neurons together",
    "union": "confirm, all neurons together",
    "further": "localize, captions that came back",
}


def check_union(
    work: Work,
    pool: Pool | None = None,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = never,
) -> bool:
    """Look at every memorized caption with the neurons of all captions off together, and search
    further for captions that copy again (`union.settle`).

    Returns whether everything was done before `stop()`. The images of verification serve as
    untouched ones. Results are committed as they come.
    """
    run = work.run
    pool = pool or Serial(work.model)
    run.backup()

    def look(union: Union, captions: Sequence[Caption], glance: bool) -> bool:
        if all(union.looked in caption.results for caption in captions):
            return not stop()
        # one image, or all steps from the start, leave nothing to confirm
        glance = glance and work.plan.images > 1 and not work.plan.thorough
        stage = union.glanced if glance else union.looked
        step = partial(
            _looked,
            neurons=union.neurons,
            calibration=work.calibration,
            plan=work.plan,
            judges=work.judges,
        )

        def about(caption: Caption) -> Seen:
            known = replace(_look(work, union, caption), glance=glance)
            return _originals(work, "verify", caption), known

        return _answer_of_union(work, pool, stage, step, captions, about, progress, stop)

    def go_on(union: Union, captions: Sequence[Caption]) -> bool:
        if work.plan.search != DEFAULT:  # a published procedure stays unchanged
            return True
        scope = _scope(work, pool, progress)
        step = partial(
            _further,
            neurons=union.neurons,
            calibration=work.calibration,
            plan=replace(work.plan, scope=scope),
        )
        about = partial(_originals, work, "localize")
        return _answer_of_union(work, pool, union.further, step, captions, about, progress, stop)

    return settle(run, look, go_on)


def _look(work: Work, union: Union, caption: Caption) -> Look:
    """How to look at a caption: the samples, and the images of them that a glance made, or else
    verification.

    Images with neurons off are reused if verification had the same neurons off.
    """
    first = first_sample(caption, work.plan.images)
    positions = range(work.plan.images)
    glance: Together | None = caption.decoded(union.glanced)
    own = caption.verified if first == FRESH else None
    seen = glance or own
    if seen is None or not positions:
        return Look(first)
    folder, stage = work.run.path, "verify"
    whens = ["before", *["after"] * (glance is not None or neurons_of(caption) == union.neurons)]
    whole = {(when, k): folder for when in whens for k in positions} if own is not None else {}
    if glance is not None:
        folder, stage = folder / cleaned(union.digests[-1]), union.glanced
        whole = {one: at for one, at in whole.items() if one[0] == "before"}
        whole |= dict.fromkeys(glance.whole, folder)
    images = Path("images") / caption.slug
    try:
        made = {
            when: [
                picture(folder / images / f"{image_name(caption, when, stage)}-{k:02d}.png")
                for k in positions
            ]
            for when in whens
        }
        known = {
            (when, k): picture(file)
            for (when, k), at in whole.items()
            if (file := at / images / f"{when}-{k:02d}.png").exists()
        }
    except RefusedError:  # a picture is lost or damaged: make them again
        return Look(first)
    quick = {} if seen.steps is None else made
    spent = {} if glance is None else {"evaluations": glance.evaluations or 0}
    return Look(first, quick=quick, steps=seen.steps, whole=known, values=spent)


def _looked(
    model: Model,
    items: Sequence[tuple[Caption, Seen]],
    neurons: NeuronSet,
    calibration: Calibration,
    plan: Plan,
    judges: Judges,
) -> list[Answer]:
    """What captions that share passes look like with `neurons` off: the step of a worker."""
    known = {caption.id: originals for caption, (originals, _) in items}
    tools = Tools(model, calibration, plan, judges, lambda c: next(iter(known[c.id]), None))

    def one(caption: Caption, look: Look) -> Answer:
        result = _verified(tools, caption, neurons, look)
        about: dict[str, Any] = {"first": look.first}
        if look.glance:
            about["whole"] = sorted(result.looked.whole)
        if copies_in(result.values, "after"):
            about["back"] = [look.first + k for k in copying_seeds(result.looked)]
        files = _pictures(caption, result, len(neurons), tools.original(caption))
        place = cleaned(digest_of(neurons))
        return Answer(
            result.values | about, {f"{place}/{file}": data for file, data in files.items()}
        )

    steps = [partial(attempted, model, partial(one, caption, look)) for caption, (_, look) in items]
    return side_by_side(model, steps)


def _further(
    model: Model, items: Sequence[Item], neurons: NeuronSet, calibration: Calibration, plan: Plan
) -> list[Answer]:
    """Search further for captions that share passes, with `neurons` off: the step of a worker."""

    def one(caption: Caption, originals: Sequence[Image.Image]) -> Answer:
        failed = () if caption.together is None else caption.together.back
        scope = "all" if plan.scope == "auto" else plan.scope
        about = (model, caption.text, calibration, neurons, failed)
        return Answer(
            localize_further(*about, plan.image_settings, scope, plan.thorough, originals).to_json()
        )

    return side_by_side(model, [partial(attempted, model, partial(one, *item)) for item in items])


def _answer_of_union(
    work: Work,
    pool: Pool,
    stage: str,
    step: Step,
    captions: Sequence[Caption],
    about: Callable[[Caption], Any],
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """Answer a stage for the captions that have no answer yet; return whether all was done before
    `stop()`.

    Captions are grouped to share passes, and groups are computed whole.
    """
    open_ = {c.id for c in captions if stage not in c.results}
    shared = grouped(captions, search_group(work.model), group_size(work.model))
    groups = [group for group in shared if open_ & {c.id for c in group}]
    units = (Unit(tuple((c, about(c)) for c in group)) for group in groups)

    def write(events: Sequence[Event]) -> int:
        return keep(work.run, [one for one in _answered(stage, events) if one[0].id in open_])

    name = UNION_STAGES[stage.partition(":")[0]]
    if groups:
        run_stage(Stage(name, step, units, len(groups), write, len(open_)), pool, progress, stop)
    return not stop()


def check_quality(work: Work, pool: Pool | None = None, progress: Progress = no_progress) -> None:
    """Compare images of captions that are not memorized before and after all neurons of the run are
    off; the run keeps it as `quality`.
    """
    run = work.run
    plan = work.plan
    neurons = all_neurons(run.captions(stage="localize"))
    clean = not_memorized(run, plan.quality_prompts)
    basis = {"neurons": neurons.to_json(), "prompts": clean}
    if neurons == EMPTY and run.meta("quality") is not None:  # no neurons are off any more
        run.set_meta("quality", None)
        run.set_meta("quality_basis", None)
    if plan.images and neurons != EMPTY and clean and run.meta("quality_basis") != basis:
        step = partial(
            _quality,
            neurons=neurons,
            settings=plan.image_settings,
            judges=work.judges,
            thorough=plan.thorough,
        )
        pool = pool or Serial(work.model)
        result = answer_of(pool, step, tuple(clean), "check of other captions", progress)
        run.set_meta("quality", result)
        # failed checks are tried again
        run.set_meta("quality_basis", None if result["failed"] else basis)


def _quality(
    model: Model,
    items: Sequence[Sequence[str]],
    neurons: NeuronSet,
    settings: ImageSettings,
    judges: Judges,
    thorough: bool,
) -> list[dict[str, Any]]:
    return [
        quality(model, prompts, neurons, settings, judges, RANDOM, thorough) for prompts in items
    ]


def not_memorized(run: Run, most: int) -> list[str]:
    """The first captions of a run that are not memorized, at most `most`.

    Captions over tau whose images are no copies count too: a selection by the score alone would be
    biased. Captions whose type says that they are memories do not count, since detection may have
    missed them.
    """
    others = (
        c.text for c in run.captions(stage="detect") if not treated(c) and not is_memory(c.type)
    )
    return list(islice(others, most))


def _versions(model: Model) -> dict[str, str]:
    """Versions with which the run was last worked on, and the number of threads, on which the last
    bits of results depend.
    """
    import diffusers
    import torch
    import transformers

    modules = {"torch": torch, "diffusers": diffusers, "transformers": transformers}
    return (
        {"findnemo": __version__, "python": platform.python_version()}
        | {n: m.__version__ for n, m in modules.items()}
        | {"threads": str(getattr(model, "threads", torch.get_num_threads()))}
        | packages()
    )
