"""Facts about modules: what is in force on them, which part they are in, how wide they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _tiny import tiny_pipeline
from accelerate import cpu_offload
from torch import nn

import findnemo
from findnemo import ImageSettings, Settings
from findnemo.errors import EditError
from findnemo.models.modules import applied, exact, offloaded, submodule, unfused, width_of

PAIR = Settings(samples=2)
IMAGES = ImageSettings(steps=2, guidance=2.0)


def with_freeu(pipeline: Any) -> Any:
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.4, b2=1.6)
    return pipeline


def with_cache(pipeline: Any) -> Any:
    from diffusers.hooks import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast

    config = PyramidAttentionBroadcastConfig(
        cross_attention_block_skip_range=2,
        current_timestep_callback=lambda: 500,
        cross_attention_block_identifiers=("blocks", "attentions"),
    )
    apply_pyramid_attention_broadcast(pipeline.unet, config)
    return pipeline


def patched(package: str, how: str) -> Any:
    """A network patched as DeepCache (another forward) and tomesd (another class) patch it."""

    def patch(pipeline: Any) -> Any:
        block = pipeline.unet.mid_block
        if how == "forward":
            block.forward = _from(package, block.forward)
        else:
            block.__class__ = type("Patched", (type(block),), {"__module__": f"{package}.patch"})
        return pipeline

    return patch


def _from(package: str, forward: Any) -> Any:
    def wrapped(*args: Any, **options: Any) -> Any:
        return forward(*args, **options)

    wrapped.__module__ = f"{package}.extension"
    return wrapped


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_freeu, r"up_blocks\.\d of UNet2DConditionModel has FreeU in force.*disable_freeu"),
        (with_cache, r"pyramid_attention_broadcast in force.*afresh"),
        (
            patched("DeepCache", "forward"),
            r"mid_block of UNet2DConditionModel is patched by DeepCache.*helper\.disable",
        ),
        (patched("tomesd", "class"), r"patched by tomesd.*remove_patch"),
    ],
    ids=["FreeU", "cache", "DeepCache", "tomesd"],
)
def test_what_makes_passes_others_than_those_of_the_weights_is_refused_by_name(change, named):
    model = findnemo.load(change(tiny_pipeline()))
    for ask in (
        lambda: findnemo.score(model, "a cat", settings=PAIR),
        lambda: findnemo.calibrate(model, ["a cat", "snow"], settings=PAIR),
        lambda: findnemo.generate(model, "a cat", [0], IMAGES),
    ):
        with pytest.raises(EditError, match=named):
            ask()


def test_freeu_that_was_switched_off_again_is_no_obstacle():
    pipeline = with_freeu(tiny_pipeline())
    pipeline.disable_freeu()
    expected = findnemo.score(findnemo.load(tiny_pipeline()), "a cat", settings=PAIR)
    assert findnemo.score(findnemo.load(pipeline), "a cat", settings=PAIR) == expected


def test_a_layer_that_does_not_say_how_many_neurons_it_has_is_named():
    assert width_of("attn2.to_v", nn.Linear(3, 5)) == 5
    with pytest.raises(EditError, match=r"attn2.to_v is a Identity, .*give it out_features"):
        width_of("attn2.to_v", nn.Identity())


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_widened_and_nothing_else(dtype, wide):
    values = torch.tensor([0.1, -3.0]).to(dtype)
    assert exact(values).dtype == wide
    assert torch.equal(exact(values).to(dtype), values)


@torch.no_grad()
def test_several_prompts_are_projected_as_one_that_is_repeated():
    torch.manual_seed(0)
    layer = nn.Linear(320, 24)
    tokens = torch.randn(1, 77, 320)
    batch = torch.cat([tokens, torch.randn(2, 77, 320)])
    repeated = tokens.expand(3, -1, -1)
    assert torch.equal(unfused(batch), batch)
    assert not unfused(batch).is_contiguous()
    assert torch.equal(layer(unfused(batch))[0], layer(repeated)[0])


def test_a_module_is_found_by_its_name_and_none_by_another():
    network = nn.ModuleDict({"a": nn.Sequential(nn.ReLU(), nn.Linear(2, 2))})
    assert submodule(network, "a.1") is network.get_submodule("a.1")
    assert submodule(network, "a.2") is None
    assert submodule(network, "b.1.weight") is None


def test_a_layer_answers_from_wherever_offloading_keeps_its_weights():
    layer = nn.Linear(4, 3)
    inputs = torch.randn(2, 4)
    expected = layer(inputs)
    assert not offloaded(layer)
    cpu_offload(layer, torch.device("cpu"))
    assert layer.weight.is_meta
    assert offloaded(nn.Sequential(layer))
    assert torch.equal(applied(layer, inputs), expected)
