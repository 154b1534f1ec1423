"""What localization says of one prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from findnemo.files.html import bars, block, facts
from findnemo.localization.points import Point, set_of_size
from findnemo.neurons import EMPTY, Neuron, NeuronSet

DEFAULT = "trajectory"
SHOWN = 12  # neurons of a layer that a notebook names


@dataclass(frozen=True)
class Further:
    """The result of a continued search, for a prompt whose copies came back.

    `neurons`: those to switch off in addition to the ones that are off. If nothing that was tried
    is enough, the set is empty, and `reached` is false. `points`: the price list, the sets that
    were tried, each a prefix of `order` (without the neurons that were off already). `evaluations`:
    U-Net sample evaluations spent.
    """

    neurons: NeuronSet = EMPTY
    reached: bool = False
    order: tuple[Neuron, ...] = ()
    points: tuple[Point, ...] = ()
    evaluations: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields, the set of neurons as layer -> indices."""
        return self.__dict__ | {"neurons": self.neurons.to_json()}


@dataclass(frozen=True)
class Localization:
    """Where the memory of a prompt sits.

    `memorized`: whether the prompt's score reached tau, the paper's definition; a run calls such a
    caption suspected until a copy is seen (`runs.state`). `neurons`: the set to deactivate, empty if
    not memorized. `candidates`: the set that refinement began with. `score_before`: memorization
    score of the untouched model (of the pairs of seeds what the settings name). `score_after`: with
    `neurons` off, the largest similarity of a replicating seed's noise difference to its own before
    (the quantity that Algorithms 3 and 4 hold at or below tau). `reached`: whether it got there.
    `theta`, `k`: where Algorithm 3 stopped. `z`: "layer:index" of every neuron found -> its
    z-score. `p`: p-value of `score_before` (`Calibration.p_value`). `evaluations`: U-Net sample
    evaluations spent.

    Of the search "trajectory" also: `copy_before`, `copy_after`, how like the pictures are to
    untouched ones of other seeds (cosine of latents, the largest of the seeds that the search
    looked at). `scope`: where neurons were sought. `points`: the price list, the sets that it
    tried, each a prefix of `order`, its neurons in the order in which they went off (`at` gives
    one). Its `reached` says whether no picture is a copy any more. For a caption whose untouched
    pictures are no copies the neurons are what "gradient" finds, which looks at one step: the trace
    of a memory, if it is one.

    Where a gentle set was asked for: `impact` of `neurons` on unrelated captions, and `max_impact`,
    which was asked for (the impact is above it where no set that removes the memory was found with
    less). `tried`: the number of sets compared.
    """

    prompt: str
    memorized: bool
    score_before: float
    score_after: float
    tau: float
    evaluations: int = 0
    neurons: NeuronSet = EMPTY
    candidates: NeuronSet = EMPTY
    reached: bool = True
    theta: float | None = None
    k: int | None = None
    search: str = DEFAULT
    z: dict[str, float] = field(default_factory=dict)
    p: float | None = None
    impact: float | None = None
    max_impact: float | None = None
    tried: int = 0
    scope: str = "paper"
    copy_before: float | None = None
    copy_after: float | None = None
    order: tuple[Neuron, ...] = ()
    points: tuple[Point, ...] = ()

    def at(self, neurons: int) -> tuple[NeuronSet, Point]:
        """A set of the price list by its size, and what is left and paid there.

        Raises InputError for a size that was not tried.
        """
        return set_of_size(self.order, self.points, neurons)

    def _repr_html_(self) -> str:
        """The result in a notebook: scores before and after, neurons by layer, the price list."""
        reaches = "reaches" if self.memorized else "is under"
        p = "" if self.p is None else f" (p = {self.p:.2g})"
        known = [
            ("memorization score", f"{self.score_before:.3f}, {reaches} tau = {self.tau:.3f}{p}"),
            ("largest similarity of a seed to itself before", f"{self.score_after:.3f}"),
            ("neurons", f"{len(self.neurons)}, by the search {self.search!r}"),
            ("U-Net evaluations", f"{self.evaluations:,}"),
        ]
        layers = sorted(self.neurons.layers.items(), key=lambda one: -len(one[1]))
        held = [
            (layer, float(len(indices)), ", ".join(map(str, indices[:SHOWN])))
            for layer, indices in layers
        ]
        start = [] if self.copy_before is None else [Point(0, self.copy_before)]
        left = [
            (f"{point.neurons} off", max(point.left, 0.0), f"{point.left:.3f}")
            for point in (*start, *self.points)
        ]
        return block(
            self.prompt,
            facts(known),
            bars("Neurons by layer", held),
            bars("Likeness to the copy", left),
        )

    def to_json(self) -> dict[str, Any]:
        """All fields, sets of neurons as layer -> indices."""
        return self.__dict__ | {
            "neurons": self.neurons.to_json(),
            "candidates": self.candidates.to_json(),
        }
