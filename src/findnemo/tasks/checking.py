"""Check whether memories are really gone, and harden a model against attacks.

A check makes fresh seeds, attempts and attacks on the edited model of a run.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from findnemo import report
from findnemo.edits import effects
from findnemo.errors import InputError
from findnemo.export import check_checkpoint, check_target, permissions_like, whole, with_kept
from findnemo.robustness import STARTS
from findnemo.robustness.controls import pictures as pictures_in
from findnemo.robustness.harden import Hardening
from findnemo.robustness.harden import evaluations as cost_of_hardening
from findnemo.runs import Pool, Run, Work, all_neurons, settings_of, write_results
from findnemo.runs.evidence import ATTACK, ATTEMPT
from findnemo.runs.hardening import (
    CHECKED,
    challenged,
    check_hardened,
    harden_run,
    ordinary_captions,
)
from findnemo.runs.robustness import (
    Effort,
    attack_all,
    edited_captions,
    evaluations,
    failures,
    pace,
    try_out,
)
from findnemo.runs.wording import count
from findnemo.runtime.notices import lasting, notices_to
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import (
    at_work,
    beginning_of,
    judges_of,
    open_work,
    place_of,
    refuse_shard,
    resume_work,
    source_of,
    warn_unjudged,
    with_pictures,
)
from findnemo.tasks.options import HardeningOptions, Output, Pictures, Trying, Workers
from findnemo.tasks.path import PATH, Ready, refuse_unseen, run_stages

RATES = {"demo": 1e-4}  # learning rates of models that need an unusual one


@dataclass(frozen=True)
class CheckedRun:
    """A run after a check, and the reasons why attempts or attacks failed."""

    run: Run
    failed: list[str]


def verify(
    run: str | Path,
    model: Any = None,
    trying: Trying = Trying(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
    pictures: Pictures = Pictures(),
) -> CheckedRun:
    """Check a localized run on fresh seeds, by finished images and their quality. Then try to get
    the memories back, and compare with controls.

    What `findnemo verify` does. It does not repeat finished work. `model`: the place of the model,
    if it has moved since the run. `pictures`: other judges than the run's; they judge the stored
    pictures again. Raises InputError for options that do not fit, before any work.
    """
    path = Path(run)
    steps = steps_of(trying.attack_steps)
    starts = starts_of(trying.attack_starts)
    kept = beginning_of(path)
    with Run.open(path) as old:
        _require_search(old)
        source = source_of(old, model)
        attacked = len(edited_captions(old.captions(), trying.attack_captions))
    refuse_unseen(path, pictures)
    plan = with_pictures(kept.plan, pictures)
    if trying.attempts or trying.attack or plan.images:
        task = "verify" if trying.attempts or trying.attack else "audit"
        warn_unjudged(task, place_of(source), plan.judges, listener)
    controls = pictures_in(trying.control_images, max(attacked, 1)) if trying.control_images else ()
    effort = Effort(trying.attack_captions, steps, starts, controls=controls)
    asked = Ready(None, kept.calibration, Output(path), PATH[2:], plan, kept.part)
    failed: list[str] = []
    with at_work(source, workers, listener) as pool:
        judges = judges_of(pool.model.source, plan.judges)
        done = run_stages(pool, kept.calibration, replace(asked, judges=judges), listener)
        if kept.part is None and (trying.attempts or trying.attack) and not listener.stop():
            done.close()
            with resume_work(path, pool, judges) as work:
                failed = _attacked(work, pool, effort, trying, listener)
            done = Run.open(path)
    return CheckedRun(done, failed)


def _require_search(run: Run) -> None:
    """Raises InputError if no neurons were searched for captions over the threshold."""
    sought, over = (
        run.query(f"SELECT COUNT(*) FROM results WHERE stage = '{stage}' {of}")[0][0]
        for stage, of in (
            ("localize", ""),
            ("detect", "AND status = 'done' AND json_extract(payload, '$.memorized')"),
        )
    )
    if over and not sought:
        raise InputError(
            f"{run.path} has {count(over, 'caption')} over the threshold and no search for their neurons"
            " was made:"
            " there is nothing to verify; make the search with `findnemo localize` or"
            " `findnemo audit` and the same --out"
        )


def _attacked(
    work: Work, pool: Pool, effort: Effort, trying: Trying, listener: Listener
) -> list[str]:
    """Run attempts and attack on a run's edited model, with controls; return why some failed."""
    if not edited_captions(work.run.captions(), 1):
        listener.say("no caption has its neurons off: there is nothing to attack")
        return []
    stages = [(ATTEMPT, try_out)] * trying.attempts + [(ATTACK, attack_all)] * trying.attack
    counted = {name: evaluations(work, effort, name) for name, _ in stages}
    if costs := {name: cost for name, cost in counted.items() if cost}:
        seconds = pace(work, list(costs), pool)
        together = ", ".join(
            f"{name.rstrip(':')} {_about(cost, seconds.get(name))}" for name, cost in costs.items()
        )
        left_out = " and ".join(f"--no-{name.rstrip(':')}" for name in costs)
        them = "s it" if len(costs) == 1 else " them"
        listener.say(f"{together}; {left_out} leave{them} out")
    for _, do in stages:
        if not listener.stop():
            do(work, effort, pool, listener.progress, listener.stop)
    write_results(work.run)
    report.write(work.run)
    return failures(work.run.captions())


def _about(evaluations: int, pace: float | None) -> str:
    """The cost of work, in words. `pace`: seconds for an evaluation, if known.

    >>> _about(64200, 0.01), _about(1200, None)
    ('about 11 min for 64,200 U-Net evaluations', 'about 1,200 U-Net evaluations')
    """
    spent = f"{evaluations:,} U-Net evaluations"
    return f"about {spent}" if pace is None else f"about {lasting(pace * evaluations)} for {spent}"


@dataclass(frozen=True)
class Hardened:
    """A hardened model: its folder, the number of captions, and the results of its checks (None
    without).
    """

    out: Path
    captions: int
    checks: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        return {"out": str(self.out), "captions": self.captions, **(self.checks or {})}


def harden(
    run: str | Path,
    out: str | Path,
    hardening: HardeningOptions = HardeningOptions(),
    model: Any = None,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Hardened:
    """Fine-tune the edited model of a run, and write it to `out`: optimized embeddings should then
    no longer bring memorized pictures back.

    What `findnemo harden` does. Raises InputError if there is nothing to harden, or if `out` holds
    anything but an earlier export.
    """
    path = Path(run)
    target = Path(out)
    with Run.open(path) as old:
        refuse_shard(old)
        source = source_of(old, model)
        place = place_of(source)
        if hardening.check:
            warn_unjudged("harden", place, settings_of(old)["judges"], listener)
    check_target(target, True, hardening.force, place)
    settings = _settings(hardening, place)
    alone = replace(workers, workers=None, ray=None)
    with ExitStack() as stack:
        # this process hardens a model of its own, and workers help with the checks
        work, pool = stack.enter_context(open_work(path, model, alone, listener))
        if workers.many and hardening.check:
            pool = stack.enter_context(at_work(source, workers, listener))
        wanted = challenged(work, hardening.captions)
        held = len(ordinary_captions(work)[0])
        cost = cost_of_hardening(settings, len(wanted), held, work.plan.image_settings)
        seconds = pace(work, [ATTACK]).get(ATTACK)
        listener.say(
            f"{count(len(wanted), 'caption')}: {_about(cost, seconds)}; the checks take as many again"
        )

        def progress(done: int, total: int, loss: float) -> None:
            listener.progress("harden", done, total)

        kept = path / "harden"
        hardened = harden_run(work, wanted, settings, kept, progress, listener.stop)
        with whole(target, permissions_like(work.model)) as part, notices_to(listener.warn):
            with_kept(work.model, hardened.pipeline).save_pretrained(part, safe_serialization=True)
            check_checkpoint(part, hardened, effects(hardened, all_neurons(work.run.captions())))
        listener.say(f"hardened model written to {target}")
        checks = None
        if hardening.check:
            effort = replace(Effort(), captions=min(len(wanted), CHECKED))
            # machines of a cluster may not see the folder
            folder = target.absolute() if workers.many and workers.ray is None else None
            about = check_hardened(
                work, hardened, effort, settings, pool, listener.progress, listener.stop, folder
            )
            report.write(work.run)
            checks = about | {name: work.run.meta(name) for name in ("attack", "attempts")}
        # only after the checks, so that an interrupted check resumes at once with `force`
        (kept / "weights.safetensors").unlink(missing_ok=True)
    return Hardened(target, len(wanted), checks)


def _settings(options: HardeningOptions, place: str) -> Hardening:
    rate = RATES.get(place, 1e-5) if options.learning_rate is None else options.learning_rate
    same = ("epochs", "attack_steps", "updates", "keep", "seed")
    return Hardening(learning_rate=rate, **{name: getattr(options, name) for name in same})


def steps_of(text: str) -> tuple[int, ...]:
    """The steps of an attack in a text such as `0,5,10`. Raises InputError for any other text.

    >>> steps_of("10,0,5")
    (0, 5, 10)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) <= 100_000 for part in parts):
        raise InputError(
            f"{text[:60]!r} are not attack steps: give numbers with commas, such as 0,5,10,20,50"
        )
    return tuple(sorted({int(part) for part in parts}))


def starts_of(text: str) -> tuple[str, ...]:
    """The starts of an attack in a text such as `caption,random`, without repeats.

    Raises InputError for an unknown one.

    >>> starts_of("caption, random,caption")
    ('caption', 'random')
    """
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in parts if part not in STARTS]
    if unknown:
        known = ", ".join(STARTS)
        raise InputError(
            f"attack start {unknown[0][:60]!r} is not known: use one or several of {known}"
        )
    return parts
