"""What an export switches off: neurons of captions of a run, with what the run knows about them, or
neurons that a person chose.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findnemo._version import __version__
from findnemo.errors import InputError, MismatchError
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs import (
    Caption,
    Run,
    captions_named,
    captions_of,
    neurons_of,
    points_of,
    prefix_of,
    settings_of,
    standing,
    state,
    switched_off,
)
from findnemo.runs.overview import holders
from findnemo.runs.standing import all_neurons, falls, with_joined
from findnemo.runs.tuned import training_of
from findnemo.runs.verdict import advice_of, verdict_of
from findnemo.runs.wording import count


@dataclass(frozen=True)
class Selection:
    """`neurons` to scale by `factor`, and the `captions` whose memories they hold.

    `about`: what the run says about the rest. `is_by_hand`: a person chose the neurons (`by_hand`),
    so there are no captions, and nothing was verified. `said`: of a model that is taken as it is
    (`unedited`), what its audit says.
    """

    neurons: NeuronSet
    captions: tuple[Caption, ...]
    factor: float
    about: Mapping[str, Any]
    is_by_hand: bool = False
    said: str = ""

    @property
    def fingerprint(self) -> str:
        """The model that the neurons belong to."""
        return str(self.about["settings"]["model"])

    @property
    def edit(self) -> str:
        """What is done to the neurons: `113 neurons off`, `113 neurons at 0.5`."""
        if self.factor == 1 or not self.neurons:
            return "nothing switched off"
        how = "off" if self.factor == 0 else f"at {self.factor:g}"
        return f"{count(len(self.neurons), 'neuron')} {how}"

    @property
    def checked(self) -> str:
        """A sentence that says whether the verified set is the one switched off here."""
        if self.factor == 1:
            return "This is the audited model with its memories: a factor of 1 changes nothing."
        if self.about["whole"]:
            return "It was verified as a whole: the figures are with all its neurons off together."
        alone = all(c.together is None for c in self.captions)
        off = "the neurons of each caption off" if alone else "all neurons of the audit off"
        one = self.captions[0] if len(self.captions) == 1 else None
        if alone and one is not None and self.factor == 0 and self.neurons == neurons_of(one):
            return "The figures are with its neurons off, on fresh seeds."
        return f"It was not verified as a whole: the figures are with {off}."


def select(
    run: Run,
    captions: Sequence[str] = (),
    most: int | None = None,
    factor: float = 0.0,
    neurons: int | None = None,
    reduced: bool = False,
) -> Selection:
    """The neurons of a run that an export switches off.

    By default these are the neurons of all memorized captions whose memory falls to tau; a neuron
    that several captions share counts once. Captions whose images are no copies, and captions that
    are only reduced (`runs.standing`), are left out unless named. `reduced`: include all reduced
    captions. `captions`: only these, each named by its row number, its text, or a part of the text
    that no other caption has. `most`: at most so many neurons, those shared by most captions; ties
    go by the order of layers. `factor`: multiplies their outputs; 0 switches them off. `neurons`:
    the set of this size in the price list of one caption (`Localization.points`). It need not
    remove the memory, so the caption may be out of reach; `about` then has its "point".

    Raises InputError for a caption that is missing, is ambiguous, or has nothing to switch off; for
    a run without localized neurons, a count under 1, `neurons` that were not tried or without a
    single caption, and a factor that is not finite.

        with Run.open("run") as run:
            findnemo.export.select(run, ["12", "The No Limits Business Woman Podcast"])
    """
    _check_factor(factor)
    audited = captions_of(run)
    named = [_named(audited, text) for text in dict.fromkeys(captions)]
    if neurons is not None:
        if len(named) != 1 or most is not None:
            raise InputError(
                f"a set of {count(neurons, 'neuron')} is a point of one caption's price list: name that caption, and"
                " leave --most out"
            )
        off, point = prefix_of(named[0], neurons)
        about = _about(run, audited, named) | {"point": point, "whole": False}
        return Selection(off, tuple(named), factor, about)
    wanted = {c.id for c in named or audited}
    holding = [c for c in audited if c.id in wanted and _held(c, bool(named), reduced)]
    for caption in named:
        if caption.id not in {c.id for c in holding}:
            raise InputError(
                f"row {caption.row}, {caption.text!r}: {_why_nothing(caption)}; there is nothing to"
                " switch off"
            )
    if most is None:
        off = NeuronSet.of(n for c in holding for n in with_joined(c))
    else:
        off = most_shared(holding, most)
    holding = [c for c in holding if len(with_joined(c) & off)]
    if not off:
        suspected = sum(state(c) == "suspected" for c in audited)
        less = sum(standing(c) == "reduced" for c in audited)
        hint = (
            f"; only suspected: {count(suspected, 'caption')}, name one to switch its neurons off"
        )
        more = f"; only reduced: {count(less, 'caption')}, --include-reduced switches their neurons off"
        raise InputError(
            f"{run.path} holds no localized neurons: there is nothing to switch"
            f" off{hint if suspected else ''}{more if less else ''}"
        )
    whole = bool(audited[0].unions) and factor == 0 and off == all_neurons(audited)
    return Selection(off, tuple(holding), factor, _about(run, audited, holding) | {"whole": whole})


def by_hand(
    neurons: NeuronSet | str | os.PathLike, of: Run | Model, factor: float | None = None
) -> Selection:
    """Neurons that a person chose, for an export that nothing verified.

    `neurons`: a set, or a file with one, as the app and `NeuronSet.save` write it. `of`: the model
    that they belong to, or a run of it. `factor`: multiplies their outputs; by default the "factor"
    of a JSON file, else 0.

    Raises InputError for a file without neurons, an empty set, or a factor that is not finite;
    MismatchError for neurons that name another model.

        findnemo.export.by_hand(NeuronSet({"mid_block.attentions.0.transformer_blocks.0.attn2.to_v": [3]}), model)
    """
    chosen = neurons if isinstance(neurons, NeuronSet) else NeuronSet.load(neurons)
    if factor is None:
        factor = 0.0 if isinstance(neurons, NeuronSet) else _factor_of(neurons)
    _check_factor(factor)
    if not chosen:
        raise InputError("no neurons are chosen: there is nothing to switch off")
    about = _of_run(of) if isinstance(of, Run) else _of_model(of)
    selection = Selection(NeuronSet(chosen.layers), (), factor, about, is_by_hand=True)
    if chosen.model not in (None, selection.fingerprint):
        raise MismatchError(
            f"the neurons were chosen in the model {str(chosen.model)[:12]}, and"
            f" {about['source']} is {selection.fingerprint[:12]}: in another model the same places"
            " hold other things (if you mean it, take the model out of the file)"
        )
    return selection


def unedited(run: Run, said: str = "") -> Selection:
    """No neurons: the model of a run as it is.

    In a fine-tune's audit it can be an earlier checkpoint, or a LoRA at a lower strength. `said`: what
    the audit says of it.

        with Run.open("run/variants/checkpoint-500-x-0.8-adf1") as variant:
            findnemo.export.unedited(variant)
    """
    return Selection(EMPTY, (), 0.0, _of_run(run), is_by_hand=True, said=said)


def _factor_of(file: str | os.PathLike) -> float:
    """The factor in a neuron file that was read; 0 if it has none."""
    if Path(file).suffix == ".safetensors":
        return 0.0
    text = Path(file).read_text(encoding="utf-8-sig")
    factor = json.loads(text, parse_int=float).get("factor", 0.0)  # ints of any length
    if not isinstance(factor, float):
        raise InputError(f"{file}: its factor {factor!r:.40} is not a number")
    return factor


def _check_factor(factor: float) -> None:
    if not math.isfinite(factor):
        raise InputError(
            f"factor {factor} is not a number to multiply by: give 0 to switch off, or one such as"
            " 0.5"
        )


def _of_run(run: Run) -> dict[str, Any]:
    """Facts about a run's model, which need not be loaded."""
    kept = {key: run.meta(key) for key in ("source", "versions")}
    return {**kept, "settings": settings_of(run, audit=False)}


def _of_model(model: Model) -> dict[str, Any]:
    """Facts about a model without a run."""
    return {
        "source": model.source,
        "versions": {"findnemo": __version__},
        "settings": {"model": model.fingerprint, "identity": model.identity.to_json()},
    }


def _about(run: Run, captions: Sequence[Caption], chosen: Sequence[Caption]) -> dict[str, Any]:
    """What a run says about captions other than the `chosen` ones."""
    states = Counter(state(c) for c in captions)
    ids = {c.id for c in chosen}
    return {
        **{
            key: run.meta(key)
            for key in ("source", "versions", "quality", "preprocessing", "attack")
        },
        "settings": settings_of(run),
        "audited": sum(c.detected is not None for c in captions),
        "memorized": states["memorized"],
        "suspected": states["suspected"],
        "advice": advice_of(run, captions).sentence,
        "verdict": verdict_of(run, captions).text,
        "left": [c for c in captions if state(c) == "memorized" and c.id not in ids],
        "training": training_of(run),
    }


def _held(caption: Caption, is_named: bool, reduced: bool) -> bool:
    """Whether a caption's neurons go off: as in the audit, or on request."""
    is_reduced = standing(caption) == "reduced"
    asked_for = is_named and (falls(caption) or is_reduced)
    return bool(switched_off(caption)) or asked_for or (reduced and is_reduced)


def most_shared(captions: Iterable[Caption], count: int) -> NeuronSet:
    """The `count` neurons shared by most captions. Raises InputError for a count under 1."""
    if count < 1:
        raise InputError(f"{count} is not a number of neurons: give 1 or more")
    return NeuronSet.of(list(holders(captions))[:count])


def _named(captions: Sequence[Caption], text: str) -> Caption:
    """The one caption that a row number, a text or a part of it identifies."""
    wanted = text.strip()
    fitting = captions_named(captions, wanted)
    matches = [c for c in fitting if c.text == wanted] or (fitting if wanted else [])
    if len(matches) == 1:
        return matches[0]
    if matches:
        rows = ", ".join(str(c.row) for c in matches[:5]) + (", ..." if len(matches) > 5 else "")
        raise InputError(
            f"{text!r} names {len(matches)} captions (rows {rows}): give a row number or the whole"
            " text"
        )
    raise InputError(f"no caption {text!r} in this run: give a row number or a part of a caption")


def _why_nothing(caption: Caption) -> str:
    if caption.localized is None:
        over = caption.detected is not None and caption.detected.memorized
        return "not localized" if over else "not memorized"
    if not neurons_of(caption):
        return "no neurons found"
    tried = ", ".join(str(point.neurons) for point in points_of(caption))
    hint = f" (--neurons takes one all the same: {tried})" if tried else ""
    return f"its memory is out of reach, no set that was tried removes it{hint}"
