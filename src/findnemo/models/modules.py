"""Facts about a module: where its weights are, what wraps or patches it, how wide it is."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.errors import EditError

# hooks of diffusers that do not change results: they place weights, and choose devices
HARMLESS = re.compile(
    "group_offloading|layer_execution_tracker|lazy_prefetch_group_offloading|layerwise_casting|peft_autocast_disable|cp_(in|out)put.*"
)
PATCHES = {
    "DeepCache": "helper.disable()",
    "tomesd": "tomesd.remove_patch(pipeline)",
    "hidiffusion": "remove_hidiffusion(pipeline)",
}
# parts of a pipeline that findnemo does not use
SPARE = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")
COMPUTED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# parts of a U-Net in running order; diffusers registers the mid block last
FORWARD = ("down_blocks", "mid_block", "up_blocks")


def part_of(name: str) -> int:
    """The part of a U-Net that a module is in, in running order; 0 for modules of other networks.

    >>> sorted(["up_blocks.0.attn2", "mid_block.attn2", "down_blocks.1.attn2"], key=part_of)
    ['down_blocks.1.attn2', 'mid_block.attn2', 'up_blocks.0.attn2']
    """
    first = name.partition(".")[0]
    return FORWARD.index(first) if first in FORWARD else 0


def exact(values: Tensor) -> Tensor:
    """Half precision as float32; higher precision unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def unsteady(module: nn.Module) -> str | None:
    """What makes a module's results differ from those of its weights, and the way out; None if
    nothing does.
    """
    own = vars(module)
    if "_diffusers_hook" in own:
        caches = [name for name in own["_diffusers_hook"].hooks if not HARMLESS.fullmatch(name)]
        if caches:
            return (
                f"has {caches[0]} in force, so that a pass depends on those before it: call its"
                " disable_cache() first, or load the pipeline afresh"
            )
    if own.get("b1") is not None and "resnets" in own["_modules"]:
        return (
            "has FreeU in force, which changes what the model predicts: call"
            " pipeline.disable_freeu() first"
        )
    if patch := _maker(type(module)) or _maker(own.get("forward")):
        return (
            f"is patched by {patch}, which changes what the model predicts: call {PATCHES[patch]}"
            " first"
        )
    return None


def _maker(thing: Any) -> str:
    """The package, known to patch networks, of a class or function; "" for none."""
    root = (getattr(thing, "__module__", None) or "").partition(".")[0]
    return root if root in PATCHES else ""


def width_of(name: str, layer: nn.Module) -> int:
    """Number of neurons of a value layer. Raises EditError for a module that does not state it."""
    width = getattr(layer, "out_features", None)
    if not isinstance(width, int):
        raise EditError(
            f"{name} is a {type(layer).__name__}, which does not say how many neurons it has: give"
            " it out_features, or put an nn.Linear of the weights that it comes to in its place"
        )
    return width


def networks_of(pipeline: Any) -> dict[str, nn.Module]:
    """Name -> network among a pipeline's components, without tokenizers and schedulers."""
    components = getattr(pipeline, "components", {}).items()
    return {name: part for name, part in components if isinstance(part, nn.Module)}


def offloaded(module: nn.Module) -> bool:
    """Whether accelerate, or diffusers in groups, moves weights of a module to a device and back on
    use.
    """
    return any(moves(part) for part in module.modules())


def moves(module: nn.Module) -> bool:
    """Whether weights of this module itself are moved."""
    hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", ())
    return hasattr(module, "_hf_hook") or "group_offloading" in hooks


def applied(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Call a layer alone, wherever offloading left its weights; if these are on the meta device,
    its own hook fetches them.
    """
    place = next((kept.device for kept in (*layer.parameters(), *layer.buffers())), inputs.device)
    output: Tensor = layer(inputs if place.type == "meta" else inputs.to(place))
    return output.to(inputs.device)


def unfused(tokens: Tensor) -> Tensor:
    """Embeddings (N, tokens, D) in a layout that makes a linear layer add its bias after the
    product.

    For contiguous inputs it adds the bias within the product, and rounds differently. Rows of one
    expanded prompt are never contiguous. So rows of several prompts must not be either, or a
    prompt's prediction would depend on the others in its pass.
    """
    return torch.nn.functional.pad(tokens, (0, 0, 0, 1))[:, :-1]


def a_row(timestep: float | Tensor, latents: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A timestep for each of N latents, (N,), if one is given for all."""
    given = torch.as_tensor(timestep, device=latents.device, dtype=dtype)
    return given.expand(len(latents))


def submodule(module: nn.Module, name: str) -> nn.Module | None:
    """The module of a name within another, None if there is none.

    `nn.Module.get_submodule` takes several times as long.
    """
    inner: nn.Module | None = module
    for part in name.split("."):
        inner = inner._modules.get(part) if inner is not None else None
    return inner


def is_compiled(module: nn.Module) -> bool:
    forward = vars(module).get("forward")  # module.forward = torch.compile(module.forward)
    called = getattr(module, "_compiled_call_impl", None)
    compiled = hasattr(forward, "_torchdynamo_orig_callable") and not getattr(
        forward, "_torchdynamo_disable", False
    )
    return hasattr(module, "_orig_mod") or called is not None or compiled


def is_fused(module: nn.Module) -> bool:
    # diffusers leaves `fused_projections` set after unfuse_qkv_projections(), so the processor
    # decides which projections are used. That of Flux follows the setting itself
    processor = type(getattr(module, "processor", None)).__name__
    return getattr(module, "fused_projections", False) and (
        "Fused" in processor or "Flux" in processor
    )
