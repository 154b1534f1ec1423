"""Zero the weights that matter most for a caption: ConceptPrune (Chavhan et al. 2024, section 3),
and Wanda (Sun et al. 2024) on the same weights.

The weights W (out, in) are those of the second feed-forward linear layer (`ff.net.2`) of every
transformer block. A are its inputs, with each token scaled to unit length. At each of the first
denoising steps a weight scores |W| * ||A||_2; weights chosen at any of them are zeroed.

The released code of ConceptPrune sums over captions, so it needs as many references as captions. It
chooses nothing in layers with fewer than 1 / share inputs, and pairs layers with their inputs by
sorted names, which works for up to ten blocks of a kind. Here scores are per image, at least one
weight of each output is chosen, and layers are paired by name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.edits import layer_weights, never_called, refuse_made, refuse_offloaded
from findnemo.errors import EditError, InputError, ModelError
from findnemo.mitigation._case import Case, at_least
from findnemo.models import Model
from findnemo.models.samplers import check_steps
from findnemo.passes.conditioning import following
from findnemo.seeds import sample_seed

SHARE = 0.01  # share of every output's weights, at every step
STEPS = 50
FIRST = 10  # number of those steps, from the first, at which weights are chosen
GUIDANCE = 7.5


@contextmanager
def wanda(
    model: Model,
    case: Case,
    share: float = SHARE,
    steps: int = STEPS,
    first: int = FIRST,
    guidance: float = GUIDANCE,
) -> Iterator[None]:
    """Zero the `share` of every output's weights that score highest, at any of the first steps.

    `steps`, `guidance`: of sampling the prompt with one seed to get scores; sampling ends after
    `first` steps. Raises InputError for a share outside (0, 1] or no steps, ModelError for a model
    without such layers, EditError if weights cannot be edited in place (a LoRA, quantized or
    offloaded layers, other unusual layers).

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with wanda(model, Case(prompt), first=2):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    with zeroed(weights_to_zero(model, case, False, share, steps, first, guidance)):
        yield


@contextmanager
def conceptprune(
    model: Model,
    case: Case,
    share: float = SHARE,
    steps: int = STEPS,
    first: int = FIRST,
    guidance: float = GUIDANCE,
) -> Iterator[None]:
    """Zero the `share` of every output's weights that score highest, at any of the first steps, if
    they score higher there than for the case's reference captions.

    Without such captions the empty prompt is the reference. Scores are per image, so the number of
    captions does not matter. `steps`, `guidance`: of sampling each caption from the same noise to
    get scores; sampling ends after `first` steps. Raises InputError for a share outside (0, 1] or
    no steps, ModelError for a model without such layers, EditError if weights cannot be edited in
    place (a LoRA, quantized or offloaded layers, other unusual layers).

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with conceptprune(model, Case(prompt, reference=("a red star",)), first=2):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    with zeroed(weights_to_zero(model, case, True, share, steps, first, guidance)):
        yield


def weights_to_zero(
    model: Model,
    case: Case,
    compared: bool,
    share: float = SHARE,
    steps: int = STEPS,
    first: int = FIRST,
    guidance: float = GUIDANCE,
) -> dict[nn.Module, Tensor]:
    """The weights that `wanda` zeroes, or, `compared` with those for the reference, that
    `conceptprune` zeroes: feed-forward layer -> mask (out, in).
    """
    _check(share)
    layers = _editable(model)
    sampled = (sample_seed(case.seed, case.prompt, 0), steps, first, guidance)
    concept = norms(model, [case.prompt], *sampled)
    reference = norms(model, case.reference or [""], *sampled) if compared else {}
    return {
        layer: skilled(layer.weight, concept[n], reference.get(n), share)
        for n, layer in layers.items()
    }


def scores(weight: Tensor, norm: Tensor) -> Tensor:
    """|W| * ||A||_2 (out, in) of weights (out, in) and the L2 norms (in,) of their inputs
    (Sun et al., equation 1).

    >>> scores(torch.tensor([[1.0, -2.0]]), torch.tensor([3.0, 5.0])).tolist()
    [[3.0, 10.0]]
    """
    return weight.detach().abs().float() * norm.to(weight.device)


def largest(scores: Tensor, share: float = SHARE) -> Tensor:
    """Mask (out, in) of the `share` of each row with the highest scores: rounded down, at least
    one.

    >>> largest(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), 0.5).tolist()
    [[False, True, True, False]]
    """
    _check(share)
    top = scores.topk(max(1, int(share * scores.shape[1])), 1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, top, True)


def _check(share: float) -> None:
    if not 0 < share <= 1:
        raise InputError(
            f"a share of {share} of the weights cannot be zeroed: use one above 0 and up to 1"
        )


def skilled(
    weight: Tensor, concept: Tensor, reference: Tensor | None = None, share: float = SHARE
) -> Tensor:
    """Mask (out, in) of weights chosen at any step: the `largest` scores for the concept that
    exceed those for the reference, if there is one. Norms are (steps, in).

    >>> weight = torch.tensor([[1.0, 1.0, 1.0]])
    >>> concept = torch.tensor([[5.0, 2.0, 1.0], [2.0, 3.0, 4.0]])
    >>> skilled(weight, concept, share=0.4).tolist()
    [[True, False, True]]
    >>> skilled(weight, concept, torch.tensor([[6.0, 1.0, 1.0], [1.0, 1.0, 1.0]]), 0.4).tolist()
    [[False, False, True]]
    """
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for step, norm in enumerate(concept):
        score = scores(weight, norm)
        top = largest(score, share)
        if reference is not None:
            top &= score > scores(weight, reference[step])
        mask |= top
    return mask


@contextmanager
def zeroed(masks: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """Zero the weights of layers under masks (out, in) while the context lasts; afterwards restore
    them bit for bit.

    Raises EditError if a layer does not compute with these zeros.
    """
    layers: dict[Any, Tensor] = dict(masks)
    weights = {layer: layer.weight.data for layer in layers}
    values = {layer: weights[layer][mask] for layer, mask in layers.items()}
    try:
        for layer, mask in layers.items():
            weights[layer][mask] = 0
        for layer, mask in layers.items():
            weight, _ = layer_weights("a layer with zeroed weights", layer)
            if weight[mask].any():
                raise EditError(
                    f"zeroing the weights of {layer} did not take effect: it computes with others"
                )
        yield
    finally:
        for layer, mask in layers.items():
            weights[layer][mask] = values[layer]


class _EnoughError(Exception):
    """All steps that count are done."""


def norms(
    model: Model,
    prompts: Sequence[str],
    seed: int = 0,
    steps: int = STEPS,
    first: int = FIRST,
    guidance: float = GUIDANCE,
) -> dict[str, Tensor]:
    """||A||_2 per image of the inputs of feed-forward layers at each of the first steps, layer ->
    (steps, in), while an image of each prompt is sampled.

    It is the root of the sum of squares over all tokens, each scaled to unit length, of both halves
    of the guidance, divided by the number of images. Prompts are sampled one at a time, all from
    the noise of `seed`, in `steps` with `guidance`, for at most `first` passes. Raises InputError
    for `first` or `steps` under 1, or more steps than the sampler has; EditError for a layer that
    no pass calls.

    >>> import findnemo
    >>> found = norms(findnemo.load("demo"), ["a red star", "a blue ring"], first=3)
    >>> found["mid_block.attentions.0.transformer_blocks.0.ff.net.2"].shape
    torch.Size([3, 384])
    """
    at_least(1, first=first, steps=steps)
    at_least(0, guidance=guidance)
    sampler = _separate(model)
    check_steps(sampler.pipeline.scheduler, steps)
    layers = _layers(model)
    squares: dict[str, list[Tensor]] = {name: [] for name in layers}
    with following(sampler) as call, ExitStack() as stack:

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if call.step + 1 == first:
                raise _EnoughError

        def add(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
            tokens = nn.functional.normalize(args[0].float(), dim=-1).flatten(0, -2)
            squares[name].append(tokens.square().sum(0).cpu().double())

        stack.enter_context(sampler.denoiser.register_forward_hook(end))
        for name, layer in layers.items():
            stack.enter_context(layer.register_forward_pre_hook(partial(add, name)))
        for prompt in prompts:
            with suppress(_EnoughError), sampler.sampling():
                sampler.pipeline(
                    [prompt],
                    generator=[torch.Generator().manual_seed(seed)],
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    output_type="latent",
                )
    if unused := [name for name, found in squares.items() if not found]:
        raise EditError(never_called(unused[0]))
    return {
        name: torch.stack(found).unflatten(0, (len(prompts), -1)).mean(0).sqrt().float()
        for name, found in squares.items()
    }


def _separate(model: Model) -> Model:
    """A copy of the model with its own pipeline and schedule, so that sampling leaves no trace in
    the original.
    """
    apart = copy.copy(model)
    scheduler = model.pipeline.scheduler
    apart.pipeline = copy.copy(model.pipeline)
    apart.pipeline.scheduler = type(scheduler).from_config(scheduler.config)
    apart.pipeline.set_progress_bar_config(disable=True)
    return apart


def _layers(model: Model) -> dict[str, Any]:
    """Name -> second feed-forward linear layer of every transformer block."""
    model.check_editable()
    layers = model.find("feed-forward layers", lambda name, module: name.endswith("ff.net.2"))
    if not layers:
        raise ModelError(
            f"no feed-forward layers (ff.net.2) in {type(model.denoiser).__name__}: pruning needs"
            " transformer blocks"
        )
    return layers


def _editable(model: Model) -> dict[str, Any]:
    """The feed-forward layers, if each computes with its weight and shares it with no other."""
    refuse_offloaded(model.denoiser)
    layers = _layers(model)
    first: dict[int, str] = {}
    for name, layer in layers.items():
        layer_weights(name, layer)
        refuse_made(name, layer)
        other = first.setdefault(layer.weight.data_ptr(), name)
        if other != name:
            raise EditError(
                f"{name} and {other} share one weight, so zeroing it for one zeroes it for both:"
                " give one of them a copy, layer.weight ="
                " nn.Parameter(layer.weight.detach().clone())"
            )
    return layers
