"""The verdict on a run in a few sentences, and what to do now.

Memories that are not gone come first.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from findnemo.calibration import Calibration
from findnemo.runs import tuned
from findnemo.runs.evidence import EMBEDDING, OFF, prompts_of, verdicts
from findnemo.runs.overview import memorized, value_layers
from findnemo.runs.standing import (
    BAD,
    WORDS,
    all_neurons,
    copies,
    failures,
    gives_copies,
    standing,
    state,
    switched_off,
    unseen,
    verification_of,
)
from findnemo.runs.store import Caption, Run
from findnemo.runs.truth import KINDS
from findnemo.runs.wording import count, word_list
from findnemo.stats.rates import holdout_needed
from findnemo.training import AS_BASE

TROUBLE = [word for word, entry in WORDS.items() if entry.clause]
ALL = "SELECT id FROM captions"
_DETECTED = "SELECT caption FROM results WHERE stage = 'detect' AND status = 'done'"
# a p-value that counts as evidence; too few hold-out captions to reach it are mentioned
RATE = 0.01
HOW = "docs/fine-tunes.md, How to get rid of copies"
SELDOM = 0.1  # share of the images of a caption
WEAKER = (0.4, 0.6, 0.8)  # strengths to look at next, as shares of the weakest so far
WEAKEST = 0.2  # strength of a LoRA under which there is little of it to look at
RELEASED = ("release", "release edited")  # actions of `Advice` that let a model go
LEFT = (*BAD, "no neurons")  # standings of memories that are still there
UNCHECKED = ("not localized", "not verified", "not replicated")
ON = "{audit} --out {run}"  # continues the run
PICTURES = "{other} --images 4 --out {run}"
VERIFY = "findnemo verify {run} --no-attempts --no-attack"
AGAIN = "{audit} --thorough --scope all --out {run}-thorough"
CARRIERS = "findnemo inspect {run}"  # says what else carries a memory
NEXT = {  # reason of a decision -> the command to run next
    "open": ON,
    "out of reach": "{again}",
    "reduced": "{again}",
    "copies": "{again}",
    "no neurons": "{again}",
    "back": PICTURES,
    "not localized": ON,
    "not verified": VERIFY,
    "not replicated": PICTURES,
    "unseen": PICTURES,
    "apart": VERIFY,
    "other prompts": "findnemo harden {run} --out hardened",
    "gone": "findnemo export {run} {form}",
    "more images": "{other} --images {images} --out {run}-more-images",
    "weaker": "{audit} --lora-scale {strengths} --out {run}",
    "cleaned": "findnemo export {run} --to adapter --out clean.safetensors",
    "check cleaned": "findnemo export {run} --check clean.safetensors",
    "instead": "findnemo export {run} --to adapter --take {variant} --out instead.safetensors",
    "check": "findnemo export {run} --take {variant} --check instead.safetensors",
    "not confirmed": "{audit}{scales} --out {run}",
}


class Verdict(NamedTuple):
    """The verdict as text. `tone`: "good", "mixed", "bad" or "open"."""

    tone: str
    text: str


def verdict_of(run: Run, captions: Sequence[Caption], of: str = ALL) -> Verdict:
    """The verdict on some captions of a run.

    `captions`: at least those over the threshold. `of`: SQL for the ids of the captions that count.

        with Run.open("run") as run:
            print(verdict_of(run, list(run.captions())).text)
    """
    audited, rest = audited_counts(run, of)
    if (run.path / "calibration" / "calibration.json").is_file():
        holdout = len(Calibration.load(run.path / "calibration").trajectories)
        neurons = sum(value_layers(run, captions).values())
    else:  # an older findnemo made it, or it was moved without its calibration
        holdout = 0
        neurons = sum((run.meta("widths") or {}).values())
    return verdict(captions, neurons, holdout, audited, rest)


def audited_counts(run: Run, of: str) -> tuple[int, int]:
    """How many of a run's captions (`of`: SQL for their ids) were looked at, and how many were
    not.
    """
    ((total, audited),) = run.query(
        f"SELECT (SELECT COUNT(*) FROM ({of})), (SELECT COUNT(*) FROM ({_DETECTED} INTERSECT {of}))"
    )
    return audited, total - audited


def verdict(
    captions: Sequence[Caption], neurons: int, holdout: int, audited: int, rest: int = 0
) -> Verdict:
    """The verdict on captions, of which `audited` were looked at; `rest` more failed or are open.

    `captions`: those over the threshold, and possibly others. `neurons`: number in the value layers
    shown. `holdout`: number of scores that p-values come from; 0 if there are none.

    >>> under = {"memorized": False, "score": 0.1, "tau": 0.4}
    >>> verdict([Caption(1, "a cat", 1, None, None, {"detect": under}, {}, 0.1)], 8, 99, 1).text
    'None of the 1 caption looked at reaches the threshold on the seeds that were tried.'
    """
    memories = memorized(captions)
    if not audited:
        return Verdict("open", "No caption has been looked at yet.")
    doubts = _doubts(captions, holdout)
    if not memories:
        return _without_memories(captions, audited, rest, doubts)
    kinds = Counter(map(standing, memories))
    gone = kinds["gone"]
    bad = [f"{n} {WORDS[kind].clause}" for kind in TROUBLE if (n := kinds[kind])]
    of = f" of {neurons:,}" if neurons else ""
    price = f"with {len(all_neurons(captions)):,}{of} neurons switched off"
    if not bad:
        what = f"All {gone} memories are" if gone > 1 else "The one memory found is"
        lines = (f"{what} gone on the fresh seeds that were tried, {price}.", *doubts)
        return Verdict("good", " ".join(lines))
    start = f"Of {count(len(memories), 'memorized caption')}, {word_list(bad)}"
    if not gone:
        return Verdict("bad", " ".join((f"{start}.", *doubts)))
    end = f"{count(gone, 'memory')} {_is(gone)} gone on the fresh seeds that were tried"
    return Verdict("mixed", " ".join((f"{start}. {end}, {price}.", *doubts)))


def _without_memories(
    captions: Sequence[Caption], audited: int, rest: int, doubts: Sequence[str]
) -> Verdict:
    more = f" ({rest} more failed or are open)" if rest else ""
    if any(unseen(c) for c in captions):
        start = f"None of the {count(audited, 'caption')} looked at is known to be a memory{more}."
        return Verdict("open", " ".join((start, *doubts)))
    none = (
        "is memorized as far as its images tell"
        if doubts
        else "reaches the threshold on the seeds that were tried"
    )
    start = f"None of the {count(audited, 'caption')} looked at {none}{more}."
    return Verdict("open" if rest else "good", " ".join((start, *doubts)))


def _doubts(captions: Sequence[Caption], holdout: int) -> list[str]:
    """Sentences on captions over the threshold without a seen copy: those whose images are no
    copies, and those without a looked-at image.
    """
    suspected = [c for c in captions if state(c) == "suspected"]
    cleared = [c for c in suspected if gives_copies(c) is False]
    open_ = [c for c in suspected if unseen(c)]
    lines = []
    if cleared:
        are, their, them = ("is", "its", "it") if len(cleared) == 1 else ("are", "their", "them")
        lines.append(
            f"{len(cleared)} {are} over the threshold and only suspected{_p(cleared)}: {their}"
            f" images are no copies, and nothing is switched off for {them}."
        )
    if open_:
        are, their = ("is", "its") if len(open_) == 1 else ("are", "their")
        lines.append(
            f"{len(open_)} {are} over the threshold and suspected{_p(open_)}: none of {their}"
            " images was looked at."
        )
        lines += _of_scores(open_)
    if suspected and 0 < holdout < holdout_needed(1, RATE):
        lines.append(f"With {holdout} hold-out captions no p-value is under 1/{holdout + 1}.")
    return lines


def _of_scores(captions: Sequence[Caption]) -> list[str]:
    """What happened to the scores of captions whose neurons are off without a looked-at image."""
    off = [c for c in captions if len(switched_off(c))]
    if not off:
        return []
    back = sum(standing(c) == "back" for c in off)
    checked = [c for c in off if (v := verification_of(c)) is not None and v.same_seed is not None]
    number = len(all_neurons(off))
    text = (
        f"{count(number, 'neuron')} {_is(number)} switched off for {len(off)} of them all the same"
    )
    if checked:
        text += (
            f"; on fresh seeds the noise differences of {back} of {len(checked)} still resemble"
            " those before"
        )
    return [f"{text}."]


class Advice(NamedTuple):
    """What to do now.

    `action`: "release", "release edited", "hold" (a memory is still there) or "go on" (more has to
    be looked at first). `sentence`: the action in one sentence. `because`: the verdict behind it.
    `next_commands`: the commands to run next, in order.
    """

    action: str
    sentence: str
    because: str
    next_commands: tuple[str, ...] = ()


def advice_of(
    run: Run, captions: Sequence[Caption], of: str = ALL, place: str | None = None
) -> Advice:
    """What to do now, by the audit of the captions `of` a run; `captions` as for `verdict_of`.

    `place`: what the commands call the run directory, by default its name.

        with Run.open("run") as run:
            print(advice_of(run, list(run.captions()), place="run").sentence)
    """
    place = run.path.resolve().name if place is None else place
    training = tuned.training_of(run)
    decision = training and of_training(training, len(all_neurons(captions)))
    because = training["sentence"] if training else ""
    if training and decision and decision.action == "hold":
        because = f"{because}\n{what_helps(training)}"
    if not decision:
        returned = _returned(captions, run.meta("bases") or {})
        decision = advice(captions, *audited_counts(run, of), returned)
        because = f"{because} {verdict_of(run, captions, of).text}".lstrip()
    if decision.action == "release edited":
        because += "".join(f" {line}" for line in _limits(run, captions))
    if decision.action in RELEASED:
        because += f" {_reach(audited_counts(run, of)[0])}"
    names = {
        "run": shlex.quote(place),
        "audit": _audit_of(run, place, training),
        "other": _audit_of(run, place, training, is_without_images=True),
        "form": _form(run),
    }
    if training:
        best = tuned.choice(training)
        names |= {
            "images": str(2 * tuned.images_each(training)),
            "scales": _scales(training),
            "strengths": _listed(strengths(training)),
            "variant": shlex.quote(best["name"]) if best else "",
        }
    settings = run.meta("settings")
    is_exhausted = settings.get("thorough", True) and settings.get("scope") == "all"
    names["again"] = (CARRIERS if is_exhausted else AGAIN).format(**names)
    commands = dict.fromkeys(NEXT[why].format(**names) for why in decision.why)
    return Advice(decision.action, decision.sentence, because, tuple(commands))


UNTRIED = {  # (attempts made, attack made) -> what to say
    (False, False): "Other prompts and attacks were not tried (findnemo verify does that).",
    (False, True): "Other prompts were not tried (findnemo verify does that).",
    (True, False): "The attack on the text embedding was not tried (findnemo verify does that).",
}


def _limits(run: Run, captions: Sequence[Caption]) -> Iterator[str]:
    """What was not tried on the model with its neurons off, and what brings a copy back."""
    made = tuple(bool(run.meta(name)) for name in ("attempts", "attack"))
    if made in UNTRIED:
        yield UNTRIED[made]
    bases = run.meta("bases") or {}
    tried = (verdicts(c, bases).get(OFF, {}).get(EMBEDDING) for c in captions)
    attacks = [one for one in tried if one is not None]
    back = sum(one.word == "back" for one in attacks)
    if back:
        of = f"{back} of {count(len(attacks), 'caption')} attacked"
        yield f"An optimized text embedding, which takes the weights, still gives a copy of {of}."
    if not (run.meta("quality") or {}).get("prompts"):
        yield "The effect on other captions was not measured."


def _reach(audited: int) -> str:
    """
    >>> _reach(2)
    'All this is known of the 2 captions that were looked at; others can be memorized too.'
    """
    which, are = ("caption", "was") if audited == 1 else (f"{audited:,} captions", "were")
    return f"All this is known of the {which} that {are} looked at; others can be memorized too."


def _form(run: Run) -> str:
    """The options of an export in the form in which the model of a run was given."""
    if "lora" in (run.meta("source_options") or {}):
        return "--to adapter --out clean.safetensors"
    is_file = str(run.meta("source")).endswith(".safetensors")
    return "--to file --out clean.safetensors" if is_file else "--out clean"


def _audit_of(
    run: Run, place: str, training: Mapping[str, Any] | None, is_without_images: bool = False
) -> str:
    """The command that begins the audit of a run, as far as the run knows how it was started.

    `training`: what the run keeps about training pictures, None without any. `is_without_images`:
    whether --images is left out.
    """
    if training is not None:
        begun = training.get("begun") or ["MODEL", "--lora", "LORA", "--train-images", "FOLDER"]
        model, *options = begun
        pairs = zip(options[::2], options[1::2], strict=True)
        left = [pair for pair in pairs if not (is_without_images and pair[0] == "--images")]
        return f"findnemo audit {shlex.join([model, *(word for pair in left for word in pair)])}"
    source = run.meta("source")
    is_shipped = source in KINDS and not run.meta("source_options")
    given = source if is_shipped else "MODEL --prompts FILE"
    return f"findnemo audit {given} --calibration {shlex.quote(place)}/calibration"


class Decision(NamedTuple):
    """An action of `Advice`, its sentence, and `why`, its keys of NEXT."""

    action: str
    sentence: str
    why: tuple[str, ...] = ()


def advice(captions: Sequence[Caption], audited: int, rest: int = 0, returned: int = 0) -> Decision:
    """What the standings of captions advise; `captions`, `audited` and `rest` as for `verdict`.

    `returned`: number of memories of which another prompt brought back a copy.

    >>> advice([], 8).sentence
    'Nothing to switch off: release it as it is.'
    """
    in_the_way = next(_in_the_way(captions, audited, rest, returned), None)
    if in_the_way is not None:
        return in_the_way
    number = len(all_neurons(captions))
    if not memorized(captions):
        return Decision("release", "Nothing to switch off: release it as it is.")
    return Decision("release edited", f"Release it with {_these(number)} off.", ("gone",))


def _in_the_way(
    captions: Sequence[Caption], audited: int, rest: int, returned: int
) -> Iterator[Decision]:
    """Reasons against a release, the worst first."""
    memories = memorized(captions)
    stand = Counter(map(standing, memories))
    left = tuple(word for word in WORDS if word in LEFT and stand[word])
    if left:
        number = sum(stand[word] for word in left)
        there = f"{_of(number, memories)} {_is(number)} still there"
        yield Decision("hold", f"Do not release yet: {there}.", left)
    if returned:
        back = f"other prompts bring back {_of(returned, memories)}"
        yield Decision("hold", f"Do not release yet: {back}.", ("other prompts",))
    if not audited:
        yield Decision("go on", "Not decided yet: no caption was looked at.", ("open",))
    broken = rest + sum(bool(failures(c)) and c.detected is not None for c in captions)
    if broken:
        which = f"{count(broken, 'caption')} failed or {_is(broken)} open"
        yield Decision("go on", f"Not decided yet: {which}.", ("open",))
    unchecked = tuple(word for word in UNCHECKED if stand[word])
    if unchecked:
        number = sum(stand[word] for word in unchecked)
        which = f"{_of(number, memories)} {_is(number)} not verified"
        yield Decision("go on", f"Not decided yet: {which}.", unchecked)
    blind = sum(map(_is_unpictured, captions))
    if blind:
        which = f"no image of {count(blind, 'caption')} over the threshold was looked at"
        yield Decision("go on", f"Not decided yet: {which}.", ("unseen",))
    off = len(all_neurons(captions))
    if any(c.together is None and 0 < len(switched_off(c)) < off for c in captions):
        which = f"{_these(off)} were not checked all together"
        yield Decision("go on", f"Not decided yet: {which}.", ("apart",))


def of_training(about: Mapping[str, Any], neurons: int) -> Decision | None:
    """What the copies of a fine-tune advise; None if no copies were seen: then its captions decide.

    `about`: the run's value `training`. `neurons`: number that are off in its cleaned model.
    """
    main = tuned.main_of(about)
    best = tuned.choice(about)
    if main["verdict"] == "does not copy":
        return None
    if main["verdict"] == AS_BASE:
        said = "Release it as it is: it copies no more than the base, which never saw the pictures."
        return Decision("release", said)
    if main["verdict"] != "copies":
        said = "Not decided yet: its images do not tell whether it copies."
        return Decision("go on", said, ("more images",))
    copied = f"it copies {main['copied']} of {count(tuned.different(about), 'training picture')}"
    if 0 < (known := len(main.get("taught", {}))) < main["copied"]:
        copied += f" (the training taught it {known} of them)"
    if best is not None and best["name"] == tuned.CLEANED:
        said = f"Do not release it as it is: {copied}. Release it with {_these(neurons)} off."
        return Decision("release edited", said, ("cleaned", "check cleaned"))
    if tuned.astray(about):
        copied += f", and with {_these(neurons)} off its images no longer follow the captions"
    instead = ""
    why: tuple[str, ...] = ("weaker",) if strengths(about) else ()
    if best is not None:
        instead = f"; release {best['name']} instead"
        why = ("instead", "check") if best["strength"] is not None else ()
    elif (open_ := tuned.to_confirm(about)) is not None:
        instead = f"; further images have to confirm {open_['name']}"
        why = ("not confirmed",)
    return Decision("hold", f"Do not release it: {copied}{instead}.", why)


def strengths(about: Mapping[str, Any]) -> list[float]:
    """The strengths at which to look at LoRAs next: weaker ones, then those of the audit, whose images
    are there. Empty for models without a strength, once the weakest is WEAKEST or less, and if the
    weakest show nothing of the subject any more.

    >>> strengths({"main": "a", "variants": [{"name": "a", "checkpoint": None, "strength": 1.0}]})
    [0.4, 0.6, 0.8, 1.0]
    >>> strengths({"main": "a", "variants": [{"name": "a", "checkpoint": None, "strength": 0.4}]})
    [0.16, 0.24, 0.32, 0.4]
    """
    known = _strengths_of(about)
    if not known or known[0] <= WEAKEST:
        return []
    weakest = [one for one in tuned.tuned_models(about) if one["strength"] == known[0]]
    if any(tuned.is_forgotten(about, one) for one in weakest):
        return []
    return [*(round(share * known[0], 3) for share in WEAKER), *known]


def _strengths_of(about: Mapping[str, Any]) -> list[float]:
    """The strengths of the audit, the weakest first; empty for models without a strength."""
    return sorted({one["strength"] for one in tuned.tuned_models(about) if one["strength"]})


def _scales(about: Mapping[str, Any]) -> str:
    """The option for the strengths that were looked at, if they are not 1 alone."""
    known = _strengths_of(about)
    return "" if known in ([], [1]) else f" --lora-scale {_listed(known)}"


def _listed(known: Sequence[float]) -> str:
    return ",".join(f"{strength:g}" for strength in known)


def what_helps(about: Mapping[str, Any]) -> str:
    """What helps against the copies of a fine-tune, as far as it was not tried in vain."""
    refuting = "".join(
        f"{one['name']} was not known to copy; by {one['of']} further images it"
        f" {tuned.copies_told(about, one)}. "
        for one in tuned.refuted_models(about)
    )
    best = tuned.choice(about)
    if best is not None and best["name"] != tuned.CLEANED:
        return f"{refuting}{_may_do(about, best)}"
    if (open_ := tuned.to_confirm(about)) is not None:
        return (
            f"{refuting}{open_['name']} may do instead: further images have to confirm it (the same"
            " command goes on)."
        )
    models = tuned.tuned_models(about)
    text = refuting
    if lost := [
        v["name"] for v in models if v["verdict"] in tuned.FREE and tuned.is_forgotten(about, v)
    ]:
        show = "shows" if len(lost) == 1 else "show"
        text += f"{word_list(lost)} {show} no more of the subject than the base. "
    known = _strengths_of(about)
    checkpoints = list(dict.fromkeys(one["checkpoint"] for one in models))
    helps = []
    if strengths(about):
        helps.append(f"a strength under {known[0]:g}" if known[1:] else "a lower strength")
    else:
        text += "No model of this audit can be published. "
    before = f"a checkpoint before {checkpoints[0]}" if checkpoints[1:] else "an earlier checkpoint"
    helps += [before, "or training again with fewer steps and without repeats"]
    return f"{text}What helps is {', '.join(helps)} ({HOW})."


def _may_do(about: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """That a confirmed model may be released instead of the main one, and what it keeps."""
    is_whole = best["strength"] in (None, 1)
    written = "" if is_whole else ", with its strength written into the file"
    text = (
        f"You may release {best['name']} instead{written}: by {best['of']} further images of the"
        f" training captions, by which it was not chosen, it {tuned.copies_told(about, best)}."
        f"{tuned.kept_told(about, best)}"
    )
    if "subject_low" in best and not tuned.tells_subject(about):
        text += " The similarity tells no model from the base: look at models.png for what is left"
        text += " of the subject."
    text += _missed_told(about, best)
    if any(one["name"] == tuned.CLEANED for one in tuned.confirmed_models(about)):
        text += " With its neurons off the last model may be released, too (findnemo export --to"
        text += " adapter): look at both in models.png."
    return text


def _missed_told(about: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """How often as many further images as the least of any caption miss a picture that is copied now
    and then: a single copy is no proof.

    >>> row = {"name": "a", "of": 384, "chosen_by": {"of": 96}}
    >>> _missed_told({"pictures": [{"ways": {"own": [0, 8]}}, {"ways": {"own": [0, 4]}}]}, row)
    ' A picture that it copies in one image of ten is missed by 16 images of its caption in 51 % of cases.'
    """
    own = (one.get("ways", {}).get("own") for one in about["pictures"])
    first = min((found[1] for found in own if found), default=0)
    if not first:
        return ""
    each = first * best["of"] // max(best["chosen_by"]["of"], 1)
    share = (1 - SELDOM) ** each + each * SELDOM * (1 - SELDOM) ** (each - 1)
    return (
        f" A picture that it copies in one image of ten is missed by {each} images of its caption in"
        f" {100 * share:.0f} % of cases."
    )


def _returned(captions: Sequence[Caption], bases: Mapping[str, str]) -> int:
    """Number of memories of which an attempt that is not given the picture brought back a copy."""
    tried = (verdicts(c, bases).get(OFF, {}) for c in memorized(captions))
    return sum(any(one.word == "back" for one in prompts_of(found)) for found in tried)


def _is_unpictured(caption: Caption) -> bool:
    """Whether a caption is treated as a memory without any judged image."""
    checked = verification_of(caption)
    return unseen(caption) or (
        state(caption) == "memorized" and checked is not None and copies(checked, "before") is None
    )


def _these(neurons: int) -> str:
    return f"these {neurons:,} neurons" if neurons != 1 else "this one neuron"


def _of(number: int, memories: Sequence[Caption]) -> str:
    """
    >>> _of(1, ["a", "b"]), _of(1, ["a"])
    ('1 of 2 memories', 'the one memory')
    """
    many = len(memories)
    return f"{number:,} of {many:,} memories" if many > 1 else "the one memory"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _p(captions: Sequence[Caption]) -> str:
    """The p-values of captions, in brackets; empty where there are none."""
    values = sorted(c.p for c in captions if c.p is not None)
    if not values:
        return ""
    low, high = f"{values[0]:.2g}", f"{values[-1]:.2g}"
    return f" (p = {low})" if low == high else f" (p = {low} to {high})"
