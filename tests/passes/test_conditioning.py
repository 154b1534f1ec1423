"""Following a pipeline's calls: which rows carry the prompt, and at which
step, whatever the call.
"""

import pytest
import torch
from _texts import assert_equal

from findnemo.models import Model
from findnemo.passes.conditioning import following


def passes(
    model: Model, prompts: list[str], images: int, guidance: float, steps: int = 2
) -> list[tuple[int, slice]]:
    """(step, conditional rows) of each pass of a call."""
    seen = []
    with following(model) as call:
        handle = model.denoiser.register_forward_pre_hook(
            lambda m, args: seen.append((call.step, call.rows(len(args[0]))))
        )
        model.pipeline(
            prompts,
            num_images_per_prompt=images,
            guidance_scale=guidance,
            num_inference_steps=steps,
            output_type="latent",
        )
        handle.remove()
    return seen


@pytest.mark.first(1)
@pytest.mark.parametrize(("prompts", "images"), [(["a"], 1), (["a"], 3), (["a", "b"], 2)])
def test_with_guidance_the_second_half_carries_the_prompt(tiny, prompts, images):
    n = len(prompts) * images
    assert passes(tiny, prompts, images, 3.0) == [(0, slice(n, 2 * n)), (1, slice(n, 2 * n))]
    assert passes(tiny, prompts, images, 1.0) == [(0, slice(0, n)), (1, slice(0, n))]


@torch.no_grad()
def test_outside_a_pipeline_call_all_rows_carry_the_prompt(tiny):
    latents = tiny.noise("a", range(4))
    with following(tiny) as call:
        text = tiny.encode(["a"]).expand(4)
        tiny.predict_noise(latents, 981, text)
        assert (call.step, call.rows(4)) == (0, slice(0, 4))
        tiny.pipeline("a", num_inference_steps=1, output_type="latent")
        assert (call.step, call.rows(4)) == (-1, slice(0, 4))


@torch.no_grad()
def test_passes_aside_are_no_steps_of_the_call(tiny):
    latents = tiny.noise("a", [0])
    text = tiny.encode(["a"])
    seen = []
    with following(tiny) as call:

        def twice_more(module, args):
            if call.following:
                seen.append((call.step, call.rows(2)))
                with call.aside():
                    tiny.predict_noise(latents, 981, text)
                    tiny.predict_noise(latents, 981, text)

        handle = tiny.denoiser.register_forward_pre_hook(twice_more)
        tiny.pipeline("a", num_inference_steps=2, output_type="latent")
        handle.remove()
    assert seen == [(0, slice(1, 2)), (1, slice(1, 2))]


def test_a_change_of_encoding_is_undone_also_by_an_exception(tiny):
    def to_b(encode):
        return lambda prompt, *args, **kwargs: encode(["b"], *args, **kwargs)

    plain = tiny.pipeline.encode_prompt
    a = tiny.encode(["a"])
    b = tiny.encode(["b"])
    try:
        with following(tiny, to_b):
            assert_equal(tiny.encode(["a"]), b)
            raise RuntimeError("inside")
    except RuntimeError:
        assert_equal(tiny.encode(["a"]), a)
    assert "encode_prompt" not in vars(tiny.pipeline)
    assert tiny.pipeline.encode_prompt == plain


def test_arguments_come_by_name_whatever_way_they_were_given(tiny):
    seen = []

    def watched(encode):
        def encoded(**kwargs):
            seen.append(kwargs)
            return encode(**kwargs)

        return encoded

    with following(tiny, watched):
        tiny.pipeline.encode_prompt("a", "cpu", 2, True, negative_prompt="b")
    (given,) = seen
    assert given["prompt"] == "a"
    assert given["device"] == "cpu"
    assert given["num_images_per_prompt"] == 2
    assert given["do_classifier_free_guidance"] is True
    assert given["negative_prompt"] == "b"
