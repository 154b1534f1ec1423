"""Open models, tables of captions and runs for the tasks, and make plans from options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from findnemo import demo
from findnemo.calibration import Calibration
from findnemo.errors import InputError, MismatchError
from findnemo.files.originals import Originals
from findnemo.files.secrets import without_secrets
from findnemo.images import ImageSettings, usual
from findnemo.localization import check_impact, check_search
from findnemo.metrics import Alignment, Descriptor, Judges
from findnemo.models import SCOPES, Model, load, truncation_note
from findnemo.passes import compiled
from findnemo.prompts import Prompt, PromptTable, read_prompts, stream_prompts
from findnemo.runs import AuditPlan, Loader, Pool, Run, Serial, Shard, Work, settings_of, start
from findnemo.runs.results import as_stored_type
from findnemo.runs.store import COPY, DATABASE
from findnemo.runs.trust import NAMED, require
from findnemo.runtime.notices import notices_to
from findnemo.runtime.threads import suited, threads
from findnemo.tasks.listening import Listener
from findnemo.tasks.options import Captions, Detecting, Localizing, Pictures, Source, Workers

IMAGES = 4  # images of a memorized caption, before and after each
BYSTANDERS = 16  # captions on which the impact of a set is measured
LONG = 20  # overlong captions to list
ORDINARY = 24  # ordinary captions of the demo
HOLDOUT = 100  # hold-out captions of the demo


# models -------------------------------------------------------------------------------------------


def place_of(model: Any) -> str:
    """The place of a model: that of a source, or the one that a loaded model remembers."""
    if isinstance(model, (str, Path)):
        return str(model)
    return str(model.place if isinstance(model, Source) else getattr(model, "source", "live"))


@contextmanager
def at_work(
    model: Any, workers: Workers = Workers(), listener: Listener = Listener()
) -> Iterator[Pool]:
    """A pool that has the model: this process, or workers that load it.

    `model`: a place, a `Source`, a loaded `Model` or a live pipeline; the last two only for this
    process. Raises InputError if they would have to go to other processes.

    In the context PyTorch has the number of threads that `workers` names. For a model opened here
    the default is a number that suits it, unless OMP_NUM_THREADS or MKL_NUM_THREADS is set.
    """
    if workers.many:
        with _ray_pool(_loader(model), workers, listener) as pool:
            yield pool
        return
    with threads(workers.threads):
        own = load_model(model, listener)
        number = workers.threads
        if number is None and isinstance(model, (str, Path, Source)):
            number = suited(own.denoiser, own.latent_shape)
        with threads(number), passing(own, listener.passed):
            yield Serial(own)


class OpenModel:
    """Models one at a time: the one that is open is not loaded again, and is closed before another
    one is loaded, so that memory holds one of them.

    A context in which `pool` gives what `at_work` gives. PyTorch has the threads of the open model.
    """

    def __init__(self, workers: Workers = Workers(), listener: Listener = Listener()):
        self.workers = workers
        self.listener = listener
        self._at_work = ExitStack()
        self._open: tuple[Source, Pool] | None = None

    def pool(self, source: Source) -> Pool:
        """A pool that has the model of a source. Closes that of another one."""
        if self._open is None or self._open[0] != source:
            self.close()
            pool = self._at_work.enter_context(at_work(source, self.workers, self.listener))
            self._open = (source, pool)
        return self._open[1]

    def close(self) -> None:
        """Close the open model, if there is one."""
        self._open = None
        self._at_work.close()

    def __enter__(self) -> OpenModel:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def refuse_many(workers: Workers) -> None:
    """Raises InputError for several processes, for a task that only this one does."""
    if workers.many:
        raise InputError(
            "this runs in one process: leave --workers and --ray out, or use --threads"
        )


@contextmanager
def passing(model: Model, tell: Callable[[int], None] | None) -> Iterator[None]:
    """Call `tell` before every pass of the denoiser, with its number of latents.

    Compiled passes are not reported: hooks would be compiled with them.
    """
    if tell is None or model.engine is not None:
        yield
        return

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tell(len(args[0] if args else kwargs["hidden_states"]))

    with model.denoiser.register_forward_pre_hook(before, with_kwargs=True):
        yield


def load_model(model: Any, listener: Listener = Listener()) -> Model:
    """The model, loaded if necessary; notices go to `listener`."""
    if isinstance(model, Model):
        return model
    if not isinstance(model, (str, Path, Source)):
        return load(model)
    source = model if isinstance(model, Source) else Source(str(model))
    listener.say(f"loading {source}")
    with notices_to(listener.warn):
        own = load(str(source), source.device, source.dtype, **source.options)
    own.tell = listener.warn
    return compiled(own) if source.compile else own


def _loader(model: Any) -> Loader:
    if isinstance(model, Model):
        return Loader.of(model)
    source = model if isinstance(model, Source) else Source(str(model))
    if source.device is not None and ":" in source.device:
        raise InputError(
            f"--device {source.device} with several workers: each gets a device of its own, leave"
            " the number out"
        )
    return Loader(str(source), source.device, source.dtype, source.options, source.compile)


@contextmanager
def _ray_pool(loader: Loader, workers: Workers, listener: Listener) -> Iterator[Pool]:
    """Workers on this machine or a cluster; reports at the end how many had to be replaced."""
    from findnemo.runs.cluster import RayPool

    listener.say(f"loading {loader.source} in workers")
    with RayPool(loader, workers.workers, workers.ray, workers.threads or 1) as pool:
        each = "a GPU each" if pool.gpus else f"{pool.threads} CPU threads each"
        listener.say(f"{pool.size} workers, {each}")
        try:
            yield pool
        finally:
            if pool.replaced:
                listener.warn(
                    f"{pool.replaced} workers died and were replaced; {pool.alive} of {pool.size}"
                    " are alive at the end"
                )


def source_of(run: Run, model: Any = None, opens: Sequence[str] = NAMED) -> Any:
    """The given model, else the one that a run remembers, with the other options given.

    By default a source has the run's dtype. `opens`: which of the things that a run names are
    opened. Raises InputError if somebody else's run names them, unless the source says `trust`.
    """
    given = model if isinstance(model, Source) else Source()
    is_given = model is not None and not (isinstance(model, Source) and model.place is None)
    require(run, given.trust, tuple(name for name in opens if not (is_given and name == "model")))
    if is_given and not isinstance(model, Source):
        return model
    dtype = given.dtype or settings_of(run, audit=False)["dtype"]
    if is_given:
        return replace(given, dtype=dtype)
    kept = run.meta("source_options") or {}
    return replace(
        given,
        place=run.meta("source"),
        revision=given.revision or kept.get("revision"),
        weights_variant=given.weights_variant or kept.get("variant"),
        config=given.config or kept.get("config"),
        lora=given.lora or kept.get("lora"),
        embedding=given.embedding or kept.get("embedding"),
        dtype=dtype,
    )


def without_run(place: str | Path, options: Any = None) -> Source:
    """A model at a place that is no run directory, with the options of a `Source`.

    Raises InputError for another model in `options`, which only a run could have.
    """
    given = Source() if options is None else options
    if not isinstance(given, Source) or given.place is not None:
        raise InputError(
            f"{place} is not a run directory, so --model has no run to apply to: give the run, or"
            " the model alone"
        )
    return replace(given, place=str(place))


# captions -----------------------------------------------------------------------------------------


def captions_of(prompts: Any) -> Captions:
    return prompts if isinstance(prompts, Captions) else Captions(prompts)


def table_of(given: Captions, model: Any, listener: Listener) -> Any:
    """A table of captions of any length, checked from the first row to the last.

    Without a source, the captions of a shipped model.
    """
    if given.prompts is None:
        return demo_table(model, given.limit)
    if not isinstance(given.prompts, (str, Path)):
        return read_prompts(given.prompts).limit(given.limit)
    stream = stream_prompts(str(given.prompts), column=given.column)
    for text in stream.warnings():
        listener.warn(text)
    return stream.limit(given.limit)


def read_table(prompts: Any, listener: Listener) -> PromptTable:
    """Read a table of captions into memory."""
    given = captions_of(prompts)
    if isinstance(given.prompts, (list, tuple)):
        return read_prompts(given.prompts).limit(given.limit)
    table = read_prompts(given.prompts, column=given.column)
    for text in table.warnings():
        listener.warn(text)
    return table.limit(given.limit)


def folder_of(given: Captions) -> Path:
    """The folder of pictures that a table names by relative paths: its own."""
    source = given.prompts if isinstance(given.prompts, (str, Path)) else ""
    return Path(source).absolute().parent


def demo_table(model: Any, limit: int | None) -> PromptTable:
    """The captions of a shipped model: its memorized ones, and ordinary ones."""
    place = place_of(model)
    if place not in demo.MODELS:
        raise InputError(
            "give --prompts FILE, or for a fine-tune --train-images DIR: only 'demo' brings its own"
            " captions"
        )
    own = demo.memorized(place)
    others = (
        Prompt(text, row) for row, text in enumerate(demo.unrelated()[:ORDINARY], len(own) + 1)
    )
    return PromptTable(place, (*own, *others)).limit(limit)


def holdout_of(detecting: Detecting, column: str | None, model: Any, listener: Listener) -> Any:
    """The given hold-out captions, or those of a shipped model."""
    if detecting.holdout is not None:
        return read_table(Captions(detecting.holdout, column), listener)
    if place_of(model) not in demo.MODELS:
        raise InputError(
            "give --holdout FILE (captions that are not memorized) or --calibration DIR: only"
            " 'demo' brings its own"
        )
    return read_prompts(demo.holdout()[:HOLDOUT])


def warn_long(
    model: Any,
    prompts: Iterable[Any],
    listener: Listener,
    most: int | None = None,
    of: str = "",
    readers: Sequence[Any] = (),
) -> None:
    """Warn of captions that a text encoder, or another of `readers`, truncates; list the first
    rows.

    `most`: number of captions to check. `of`: text before a row's number.
    """
    many = 0
    for prompt in islice(prompts, most):
        if what := truncation_note([*model.readers, *readers], prompt.text):
            many += 1
            model.told.add(prompt.text)
            if many <= LONG:
                listener.warn(f"{of}row {prompt.row}: {what}")
    if many > LONG:
        listener.warn(f"{many - LONG} more {of}captions are longer than the encoder reads")


# plans --------------------------------------------------------------------------------------------


def images_of(model: Any, pictures: Pictures, seed: int) -> ImageSettings:
    """Settings of finished images: requested ones, else the usual ones of the model."""
    own = usual(place_of(model))
    guidance = own.guidance if pictures.guidance is None else pictures.guidance
    return ImageSettings(pictures.image_steps or own.steps, guidance, seed, pictures.sampler)


def plan_for(model: Any, localizing: Localizing, pictures: Pictures, seed: int) -> AuditPlan:
    """The plan of an audit, except what needs the calibration.

    Raises InputError for options that do not exist or do not go together.
    """
    check_search(localizing.search)
    if localizing.scope not in ("auto", *SCOPES):
        raise InputError(
            f"scope {localizing.scope!r:.40} is not known: use one of auto, {', '.join(SCOPES)}"
        )
    return AuditPlan(
        search=localizing.search,
        images=IMAGES if pictures.images is None else pictures.images,
        image_settings=images_of(model, pictures, seed),
        judges=named_judges(pictures),
        scope=localizing.scope,
        thorough=localizing.thorough,
    )


def gentle(
    plan: AuditPlan,
    localizing: Localizing,
    model: Any,
    column: str | None,
    holdout: Any,
    listener: Listener,
) -> AuditPlan:
    """The plan with the largest impact, if requested, and the captions on which it is measured.

    These are captions of a table, the hold-out captions of the same call, or the demo's own. They
    are not captions of the run itself: it is not yet known which of those are memorized, and the
    run's quality is checked on them afterwards.
    """
    most = localizing.max_impact
    unrelated = localizing.unrelated
    check_impact(most)
    if most is None:
        if unrelated is not None:
            raise InputError("--unrelated goes with --max-impact: give both, or neither")
        return plan
    if unrelated is not None:
        captions = [p.text for p in read_table(Captions(unrelated, column), listener)]
    elif place_of(model) in demo.MODELS:
        captions = list(demo.unrelated()[-BYSTANDERS:])
    elif holdout is not None:
        captions = [p.text for p in holdout]
    else:
        raise InputError(
            "--max-impact is measured on captions that are not memorized: give --unrelated FILE"
        )
    return replace(plan, max_impact=most, unrelated=tuple(captions[:BYSTANDERS]))


def with_discovery_rate(
    plan: AuditPlan, detecting: Detecting, calibration: Calibration
) -> AuditPlan:
    """The plan with the false discovery rate of a list, if requested."""
    if detecting.fdr is not None and not len(calibration.trajectories):
        raise InputError(
            "this calibration has no hold-out scores, so no p-values for --fdr: make one with"
            " `findnemo calibrate --prompts`"
        )
    return replace(plan, fdr=detecting.fdr)


def plan_of(settings: dict[str, Any]) -> AuditPlan:
    """The plan that the settings of a run describe.

    Raises InputError for settings that no plan can have.
    """
    images = ImageSettings.from_json(settings["image_settings"])
    whole = {"thorough": True, **settings, "image_settings": images}
    plan: AuditPlan = as_stored_type(AuditPlan, whole, "the settings of the run")
    return plan


def begun_settings(out: str | Path) -> dict[str, Any] | None:
    """The settings of the audit in a directory; None if none has begun.

    Raises InputError for a damaged run, or one that is no audit.
    """
    path = Path(out)
    if not (path / DATABASE).is_file():
        return None
    try:
        with Run.open(path) as old:
            return settings_of(old)
    except InputError:
        if (path / COPY).exists():
            raise
        return None  # the run stopped before it began


def as_begun(plan: AuditPlan, out: str | Path, pictures: Pictures = Pictures()) -> AuditPlan:
    """The plan for a run that may have begun: with its thoroughness, images and judges.

    `pictures`: images and judges that replace those of the run. Raises MismatchError if the plan is
    thorough and the run began with quick pictures.
    """
    if (settings := begun_settings(out)) is None:
        return plan
    own = with_pictures(plan_of(settings), pictures)
    if plan.thorough and not own.thorough:
        raise MismatchError(
            f"{out} was begun with quick pictures: leave --thorough out, or give another --out"
        )
    return replace(
        plan,
        thorough=own.thorough,
        images=own.images,
        image_settings=own.image_settings,
        judges=own.judges,
    )


def with_pictures(plan: AuditPlan, pictures: Pictures) -> AuditPlan:
    """The plan with the images and judges that `pictures` requests."""
    own = plan.image_settings
    steps = own.steps if pictures.image_steps is None else pictures.image_steps
    guidance = own.guidance if pictures.guidance is None else pictures.guidance
    return replace(
        plan,
        images=plan.images if pictures.images is None else pictures.images,
        image_settings=ImageSettings(steps, guidance, own.seed, pictures.sampler or own.sampler),
        judges={**plan.judges, **named_judges(pictures)},
    )


def named_judges(pictures: Pictures) -> dict[str, str]:
    """The requested judges: "descriptor" and "clip" -> place."""
    judges = {"descriptor": pictures.descriptor, "clip": pictures.clip}
    return {name: str(place) for name, place in judges.items() if place is not None}


def judged_as_begun(pictures: Pictures, out: str | Path, trusted: bool = False) -> Pictures:
    """`pictures` with the judges of the run in a directory, if it has any and no others are given.

    Raises InputError if somebody else's run names them, unless it is `trusted`.
    """
    if (settings := begun_settings(out)) is None:
        return pictures
    own = {n: p for n, p in settings["judges"].items() if n not in named_judges(pictures)}
    with Run.open(out) as old:
        require(old, trusted, tuple(own))
    descriptor = Path(own["descriptor"]) if "descriptor" in own else pictures.descriptor
    return replace(pictures, descriptor=descriptor, clip=own.get("clip", pictures.clip))


def shard_of(text: str | None) -> Shard | None:
    return None if text is None else Shard.of(text)


@dataclass(frozen=True)
class RunBeginning:
    """How a run was begun, as its directory keeps it.

    `part`: the part of the table, if the run is a shard.
    """

    calibration: Calibration
    plan: AuditPlan
    part: Shard | None


def beginning_of(run: str | Path) -> RunBeginning:
    """How a run was begun. Raises InputError for a directory that holds no audit."""
    with Run.open(run) as old:
        settings = settings_of(old)
    calibration = Calibration.load(Path(run) / "calibration")
    return RunBeginning(calibration, plan_of(settings), shard_of(settings.get("shard")))


# runs ---------------------------------------------------------------------------------------------


@contextmanager
def open_work(
    run: str | Path,
    model: Any = None,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Iterator[tuple[Work, Pool]]:
    """A run that is ready for more work, with the pool that has its model.

    `model`: its place, if it has moved since the run.
    """
    with Run.open(run) as old:
        source = source_of(old, model)
    with at_work(source, workers, listener) as pool, resume_work(run, pool) as work:
        yield work, pool
        warn_missing(work.original, listener)


@contextmanager
def resume_work(run: str | Path, pool: Pool, judges: Judges | None = None) -> Iterator[Work]:
    """A run, open for writing, with the settings and the calibration that it keeps.

    `judges`: those of the run, if they are open.
    """
    kept = beginning_of(run)
    with start(run, pool.model, kept.calibration, kept.plan, kept.part) as again:
        yield work_on(again, pool.model, kept.calibration, kept.plan, judges=judges)


def work_on(
    run: Run,
    model: Any,
    calibration: Calibration,
    plan: AuditPlan,
    table: Iterable[Prompt] = (),
    judges: Judges | None = None,
) -> Work:
    """A run with its judges and the source of its original images.

    A shipped model has its descriptor, CLIP and training images, used unless the plan names judges.
    Other models use the judges that the plan names, and the images that the table names by path or
    URL.
    """
    judges = judges_of(model.source, plan.judges) if judges is None else judges
    given = {"descriptor": judges.descriptor, "clip": judges.alignment}
    if plan.judges or model.source not in demo.MODELS:
        preprocessing = {name: judge.preprocessing for name, judge in given.items() if judge}
        run.set_meta("preprocessing", preprocessing)
    if model.source in demo.MODELS:

        def shipped(caption: Any) -> Any:
            return demo.training_image(caption.text, model.source)

        if run.meta("folder") is None or not run.names_pictures():
            return Work(run, model, calibration, plan, judges, shipped)
    references = [p.image for p in table if p.image and without_secrets(p.image) != p.image]
    folder = run.meta("folder") or "."
    originals = Originals(run.path / "originals", folder, references=references)
    return Work(run, model, calibration, plan, judges, originals.of_caption)


def judges_of(source: str, named: Mapping[str, str], opened: Judges | None = None) -> Judges:
    """The descriptor and the CLIP in the named files; by default those of a shipped model.

    `open_work`: judges that are open; those that are wanted are not opened again.
    """
    shipped = source in demo.MODELS
    file = named.get("descriptor") or (demo.DESCRIPTOR if shipped else None)
    clip = named.get("clip") or (demo.CLIP if shipped else None)
    descriptor = None if opened is None else opened.descriptor
    if file is None:
        descriptor = None
    elif getattr(descriptor, "path", None) != Path(file):  # a judge may be of another kind
        descriptor = Descriptor(file)
    alignment = None if opened is None else opened.alignment
    if clip is None:
        alignment = None
    elif getattr(alignment, "source", None) != str(clip):
        alignment = Alignment(clip, None if named.get("clip") else demo.MODEL / "tokenizer")
    return Judges(descriptor, alignment)


SSCD = "https://github.com/facebookresearch/sscd-copy-detection"
FILLED = {  # judge -> how to get it
    "descriptor": f"--descriptor sscd.pt, SSCD's TorchScript file from {SSCD}",
    "clip": "--clip NAME, openai/clip-vit-base-patch32 in the paper",
}
_NO_FIT = "nothing is said of how images fit their captions (A_CLIP)"
UNJUDGED = {  # task -> judge -> what the task omits without it
    "audit": {
        "descriptor": "copies are told by the correlation of pixels, which misses those that are"
        " shifted, cropped or repainted",
        "clip": _NO_FIT,
    },
    "compare": {
        "descriptor": "Table 1 leaves out SSCD_orig, SSCD_gen and D_SSCD, and copies are told by"
        " the correlation of pixels",
        "clip": "Table 1 leaves out A_CLIP",
    },
    "fine-tune": {
        "descriptor": "pixels are compared, and a copy that is moved or cropped is missed",
        "clip": "what a cure costs is told without A_CLIP",
    },
    "verify": {
        "descriptor": "copies, also those that attempts and attacks bring back, are told by the"
        " correlation of pixels",
        "clip": _NO_FIT,
    },
    "harden": {"descriptor": "what the checks give is compared by its pixels"},
    "study": {
        "descriptor": "tables go without SSCD_orig, SSCD_gen and D_SSCD, and studies that need"
        " them fail",
        "clip": "tables go without A_CLIP, and studies that need it fail",
    },
}


def warn_unjudged(task: str, source: str, named: Mapping[str, str], listener: Listener) -> None:
    """Say before the work what a task omits because a judge is missing, and how to get the judge.

    `named`: the available judges; a shipped model has both.
    """
    if source in demo.MODELS:
        return
    for name, lost in UNJUDGED[task].items():
        if name not in named:
            now = task not in ("study", "harden")  # these take the judges of a run
            how = "It can be given now or later:" if now else "`findnemo verify RUN` takes it:"
            listener.say(f"no {name}: {lost}. {how} {FILLED[name]}")


def refuse_shard(run: Run) -> None:
    """Raises InputError for a shard, where a whole run is needed."""
    if "shard" in run.meta("settings"):
        raise InputError(
            f"{run.path} is a shard of a run: join all of them with `findnemo merge` first"
        )


def warn_missing(original: Any, listener: Listener) -> None:
    """Warn of original images that are not available, with the reason."""
    failures = getattr(getattr(original, "__self__", None), "failures", {})
    for reference, reason in list(failures.items())[:5]:
        listener.warn(f"original image {reference}: {reason}")
    if len(failures) > 5:
        listener.warn(
            f"{len(failures) - 5} more original images are not available: see"
            " originals/failures.jsonl in the run directory"
        )
