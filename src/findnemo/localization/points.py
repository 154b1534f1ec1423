"""What a memory costs: the nested sets that a search tried, each with what is left of the copy
and what ordinary captions pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from findnemo.calibration import Calibration
from findnemo.errors import InputError
from findnemo.localization.gentle import bystanders
from findnemo.models import Model
from findnemo.neurons import EMPTY, Neuron, NeuronSet

CAPTIONS = 4  # ordinary ones on which a set's price is measured, of those that a calibration keeps
FEW_NEURONS = 2  # sets of so many cost little: half as many captions tell
# change of ordinary captions from which a set costs more than usual: they are kept at .95 at least,
# or there is something to choose
DEAR = 0.05


class Point(NamedTuple):
    """A set that a search tried: the first `neurons` of its order.

    `left`: the largest likeness of a picture to an untouched one of another seed (cosine of
    latents, of the seeds that were asked). `change`: of ordinary captions, mean 1 - same-seed SSIM
    of noise differences; None if there were none.

    >>> print(Point(12, 0.31, 0.02))
    likeness left 0.310, ordinary captions changed by 0.020
    """

    neurons: int
    left: float
    change: float | None = None

    def __str__(self) -> str:
        paid = "" if self.change is None else f", ordinary captions changed by {self.change:.3f}"
        return f"likeness left {self.left:.3f}{paid}"


def priced(
    model: Model,
    calibration: Calibration,
    prompt: str,
    order: Sequence[Neuron],
    tried: Sequence[tuple[int, float]],
    off: NeuronSet = EMPTY,
) -> tuple[Point, ...]:
    """The points of a search.

    `off`: neurons that were off already, which are paid for too. Their prices cost one evaluation a set and caption, all sets batched.
    """
    most = CAPTIONS if len(order) + len(off) > FEW_NEURONS else CAPTIONS // 2
    captions = tuple(caption for caption in calibration.ordinary if caption != prompt)[:most]
    if not captions:
        return tuple(Point(*point) for point in tried)
    others = bystanders(model, captions, calibration.settings)
    changes = others.impacts([NeuronSet.of(order[:count]) | off for count, _ in tried])
    return tuple(
        Point(count, left, round(change, 4))
        for (count, left), change in zip(tried, changes, strict=True)
    )


def set_of_size(
    order: Sequence[Neuron], points: Sequence[Point], neurons: int
) -> tuple[NeuronSet, Point]:
    """The first `neurons` of an order, and what is known of them.

    Raises InputError for a number that was not tried, naming those that were.

    >>> set_of_size([("a", 3), ("a", 1)], [Point(1, 0.9, 0.0), Point(2, 0.3, 0.02)], 2)
    (NeuronSet({'a': (1, 3)}), Point(neurons=2, left=0.3, change=0.02))
    """
    known = {point.neurons: point for point in points}
    if neurons not in known:
        tried = (
            f"those that were: {', '.join(map(str, known))}"
            if known
            else "the search left no list of sets; localize it again"
        )
        raise InputError(f"a set of {neurons} neurons was not tried; {tried}")
    return NeuronSet.of(order[:neurons]), known[neurons]
