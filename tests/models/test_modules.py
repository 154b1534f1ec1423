"""Facts about modules: what is in force on them, which part they are in, how wide they are."""

from __future__ import annotations

from typing import Any

import pytest
from _tiny import tiny_pipeline

import findnemo
from findnemo import ImageSettings, Settings
from findnemo.errors import EditError

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
