"""The gentlest of the sets that suffice: which of them changes ordinary captions least.

The memory goes first. Only sets that bring it down to tau are compared, and where none is gentle
enough the gentlest one found is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from findnemo.calibration import layer_activations
from findnemo.errors import InputError, MismatchError, NumericalError
from findnemo.models import Model, captions_in
from findnemo.neurons import Neuron, NeuronSet
from findnemo.passes import Rows, unpaid
from findnemo.scores import fault
from findnemo.settings import PAPER, Settings

if TYPE_CHECKING:
    from findnemo.localization.search import Found
    from findnemo.localization.trajectory import Trail

F = TypeVar("F", bound="Found | Trail")

# neurons of a set that are measured one by one: of a larger set those that ordinary captions drive
# most
WEIGHED = 8
WITNESSES = 4  # captions on which that is done
# impact on a caption of which the edit leaves nothing finite: no similarity is lower than -1
WORST = 2.0


class Bystanders:
    """Captions that are not memorized, and how much they change when neurons are switched off.

    The impact of a set is the mean over the captions of 1 - similarity (SSIM, or what `settings`
    names) of a caption's noise difference with the set off to its own without, on the same seed: 0
    where nothing changes, 1 where nothing is alike, 2 at most. One seed a caption (sample number
    0). The untouched pass is made once, for all searches; each set costs one U-Net evaluation a
    caption. Raises InputError for no captions, NumericalError naming one that gives NaN.

    >>> import findnemo
    >>> from findnemo.passes import spending
    >>> model = findnemo.load("demo")
    >>> bystanders = Bystanders(model, ["a red star", "a blue ring at night"])
    >>> with spending() as spent:
    ...     bystanders.impacts([NeuronSet()])
    [0.0]
    >>> spent.evaluations
    2
    """

    def __init__(self, model: Model, prompts: Sequence[str], settings: Settings = PAPER):
        if not prompts:
            raise InputError(
                "no unrelated captions: an impact is measured on captions that are not memorized,"
                " give one or more"
            )
        self.prompts = tuple(captions_in(prompts))
        self._made_with = model.identity
        text = model.encode(list(self.prompts))
        self._rows = Rows(model, [(prompt, 0) for prompt in self.prompts], settings, text)
        with unpaid():
            self._untouched = self._rows.deltas()
        for prompt, delta in zip(self.prompts, self._untouched, strict=True):
            if (reason := fault(delta)) is not None:
                raise NumericalError(f"unrelated caption {prompt!r}: {reason}")
        rows = layer_activations(model, list(self.prompts), text)
        self._driven = {
            name: r.mean(0) / r.mean().clamp(min=torch.finfo(r.dtype).tiny)
            for name, r in rows.items()
        }

    def check(self, model: Model) -> None:
        """Raises MismatchError where a model is not the one that the untouched passes were made
        with, or is no longer what it was then.
        """
        if told := model.identity.differences(self._made_with, pictures=False):
            raise MismatchError(
                f"these unrelated captions were measured on another model: {'; '.join(told)}; make"
                " the Bystanders again"
            )

    def impacts(self, sets: Sequence[NeuronSet], but: str | None = None) -> list[float]:
        """The impact of each set.

        `but`: a caption that does not count, for it is the one whose memory goes. Raises InputError
        if no other is left.
        """
        values: list[float] = self.changes(sets, but).mean(1).tolist()
        return values

    def changes(
        self, sets: Sequence[NeuronSet], but: str | None = None, most: int | None = None
    ) -> Tensor:
        """1 - similarity with each set off, for every caption (the first `most`):

        (sets, captions).
        """
        keep = [k for k, prompt in enumerate(self.prompts) if prompt != but][:most]
        if not keep:
            raise InputError(
                f"{but!r} is the only unrelated caption, and the one to be localized: give others"
            )
        similarity = self._rows.similarities(self._untouched, sets, keep).double()
        return (1 - similarity).nan_to_num(nan=WORST).clamp(min=0)

    def heaviest(self, neurons: NeuronSet, but: str | None = None) -> Neuron:
        """The neuron of a set with the largest impact by itself, on 4 of the captions.

        Of more than 8 neurons those 8 are measured whose mean |activation| on the captions is
        largest within their layer. A single one is not measured.
        """
        driven = sorted(neurons, key=lambda n: -float(self._driven[n[0]][n[1]]))[:WEIGHED]
        if len(driven) == 1:
            return driven[0]
        return driven[
            int(self.changes([NeuronSet.of([n]) for n in driven], but, WITNESSES).mean(1).argmax())
        ]


def bystanders(model: Model, captions: tuple[str, ...], settings: Settings) -> Bystanders:
    """`Bystanders` kept from memory to memory as long as the model is what it was: their
    untouched passes are made once a process.
    """
    return _kept(model, model.fingerprint, captions, settings)


@lru_cache(maxsize=2)
def _kept(
    model: Model, fingerprint: str, captions: tuple[str, ...], settings: Settings
) -> Bystanders:
    return Bystanders(model, captions, settings)


@dataclass(frozen=True)
class Choice(Generic[F]):
    """`found`: the chosen set; `impact`: its impact; `tried`: how many
    sufficient sets were measured.
    """

    found: F
    impact: float
    tried: int


def gentlest(sets: Iterable[F], most: float, impact: Callable[[NeuronSet], float]) -> Choice[F]:
    """The first of some sets with an impact of at most `most`; if there is none, the one
    with the smallest impact.

    A set with which the memory is gone goes before one with which it is not.

    >>> from findnemo.localization import Found
    >>> impacts = {("a", 1): 0.5, ("a", 2): 0.1, ("a", 3): 0.0}
    >>> sets = [Found(NeuronSet.of([n]), NeuronSet()) for n in impacts]
    >>> chosen = gentlest(sets, 0.2, lambda neurons: impacts[next(iter(neurons))])
    >>> chosen.found.neurons, chosen.impact, chosen.tried
    (NeuronSet({'a': (2,)}), 0.1, 2)
    """
    tried = 0
    best = None
    for tried, found in enumerate(sets, 1):
        choice = Choice(found, impact(found.neurons), tried)
        if best is None or (found.gone, -choice.impact) > (best.found.gone, -best.impact):
            best = choice
        if best.impact <= most:
            break
    assert best is not None
    return replace(best, tried=tried)
