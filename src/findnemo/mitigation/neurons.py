"""Switch neurons off: those found, and as many random others (Finding NeMo, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from random import Random

from findnemo.edits import deactivate, masks
from findnemo.errors import EditError
from findnemo.mitigation._case import Case, Mitigation
from findnemo.models import Model
from findnemo.neurons import NeuronSet
from findnemo.seeds import sample_seed


@contextmanager
def found_neurons(model: Model, case: Case, factor: float = 0.0) -> Iterator[None]:
    """Multiply the outputs of the found neurons by `factor` (0: switched off).

    Finding NeMo, section 3.3. Raises EditError for neurons that the model lacks.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with found_neurons(model, Case(prompt, findnemo.demo.planted()[prompt])):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    with deactivate(model, case.neurons, factor):
        yield


@contextmanager
def random_neurons(
    model: Model, case: Case, repeat: int = 1, factor: float = 0.0
) -> Iterator[None]:
    """Multiply the outputs of `drawn_neurons` neurons by `factor`: the baseline for the found neurons.

    Finding NeMo, section 4. Raises EditError as `drawn_neurons` does.

    >>> import findnemo
    >>> model, (prompt, neurons) = findnemo.load("demo"), next(iter(findnemo.demo.planted().items()))
    >>> with random_neurons(model, Case(prompt, neurons)):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    with deactivate(model, drawn_neurons(model, case, repeat), factor):
        yield


def random_draw(repeat: int) -> Mitigation:
    """`random_neurons` of one draw."""

    def context(model: Model, case: Case, factor: float = 0.0) -> AbstractContextManager[None]:
        return random_neurons(model, case, repeat, factor)

    return context


def drawn_neurons(model: Model, case: Case, repeat: int = 1, few: bool = False) -> NeuronSet:
    """As many random neurons of each layer as were found in it, none of them found.

    They are drawn from (case.seed, case.prompt, repeat). Raises EditError for a layer with too few
    others; with `few`, takes all of these instead.

    >>> import findnemo
    >>> model, (prompt, neurons) = findnemo.load("demo"), next(iter(findnemo.demo.planted().items()))
    >>> others = drawn_neurons(model, Case(prompt, neurons))
    >>> len(others) == len(neurons), len(others & neurons)
    (True, 0)
    """
    random = Random(sample_seed(case.seed, case.prompt, repeat))
    layers = {}
    # sorted: equal sets may list their layers in another order
    for name, kept in sorted(masks(model, [case.neurons]).items()):
        others = kept[0].nonzero().flatten().tolist()
        count = len(case.neurons.layers[name])
        if len(others) < count and not few:
            raise EditError(
                f"neurons of {name}: {count} found, {len(others)} others, too few to draw as many:"
                " random neurons need layers of which at most half was found"
            )
        layers[name] = random.sample(others, min(count, len(others)))
    return NeuronSet(layers)
