"""Embedding adjustment: the magnitude falls to the target, row by row, and
nothing else is touched.
"""

import pytest
import torch
from _mitigated import CASE, OTHER, PROMPT, call, small_model
from torch import Tensor

from findnemo.errors import EditError
from findnemo.mitigation import adjusted_embedding
from findnemo.mitigation.embedding import adjust, adjusted
from findnemo.models import Model, Text

T = 981


@pytest.fixture
def model() -> Model:
    return small_model()


@torch.no_grad()
def magnitudes(model: Model, latents: Tensor, text: Text) -> Tensor:
    """|| eps(x, y) - eps(x, empty) ||_2 of each image, in one batch."""
    empty = model.encode([""]).expand(len(latents))
    return (
        (model.predict_noise(latents, T, text) - model.predict_noise(latents, T, empty))
        .flatten(1)
        .norm(dim=1)
    )


def inputs(model: Model, images: int = 3) -> tuple[Tensor, Text, Text]:
    text = model.encode([PROMPT, OTHER, "x"])[:images]
    return model.noise(PROMPT, range(images)), text, model.encode([""])


def counted(model: Model, run) -> int:
    """Passes of the denoiser."""
    passes = []
    handle = model.denoiser.register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    try:
        run()
    finally:
        handle.remove()
    return len(passes)


@pytest.mark.first(1)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_magnitude_of_every_image_falls_to_the_target(prediction_type):
    model = small_model(prediction_type)
    latents, text, empty = inputs(model)
    before = magnitudes(model, latents, text)
    goal = float(before.min()) * 0.8
    after = adjusted(
        model, latents, T, text, empty, target=goal * 4, iterations=50
    )  # 1024 entries: a quarter of the target
    assert (magnitudes(model, latents, after) <= goal * 1.001).all()
    assert (magnitudes(model, latents, after) > 0.2 * goal).all()  # it stops there


def test_a_target_out_of_reach_takes_ten_iterations(model):
    latents, text, empty = inputs(model, 2)
    assert counted(model, lambda: adjusted(model, latents, T, text, empty, target=0.0)) == 2 * (
        1 + 10
    )
    after = adjusted(model, latents, T, text, empty, target=0.0)
    assert (after.tokens - text.tokens)[:, 1:].abs().max() > 0.05


def test_the_target_grows_with_the_root_of_the_entries(model):
    """4 x 16 x 16 latents have a sixteenth of the entries of 4 x 64 x 64: the norm of each image
    is compared with a quarter.
    """
    latents, text, empty = inputs(model, 1)
    target = 4 * float(magnitudes(model, latents, text))
    under = adjusted(model, latents, T, text, empty, target=target * 1.001)
    over = adjusted(model, latents, T, text, empty, target=target * 0.999)
    assert torch.equal(under.tokens, text.tokens)
    assert not torch.equal(over.tokens, text.tokens)


def test_rows_are_adjusted_each_for_itself_and_stop_for_themselves(model):
    latents, text, empty = inputs(model)
    middle = (
        4 * float(magnitudes(model, latents, text).median()) * 1.001
    )  # one has to change, two do not
    together = adjusted(model, latents, T, text, empty, target=middle)
    alone = [
        adjusted(model, latents[k : k + 1], T, text[k : k + 1], empty, target=middle)
        for k in range(3)
    ]
    assert torch.equal(together.tokens, Text.cat(alone).tokens)
    changed = (together.tokens != text.tokens).flatten(1).any(1)
    assert changed.tolist() == (magnitudes(model, latents, text) > middle / 4).tolist()
    assert changed.sum() == 1


def test_the_steps_are_those_of_adamw():
    """Against its formulas: learning rate .05, betas .9 and .999, decay .01, for
    the norm of a linear map.
    """
    torch.manual_seed(0)
    matrix = torch.randn(5, 5)
    text = torch.randn(1, 4, 5)
    base = torch.randn(1, 4, 5)
    x = text.clone()
    m = torch.zeros(1, 4, 5)
    v = torch.zeros(1, 4, 5)
    for step in range(1, 11):
        gap = x @ matrix - base
        gradient = gap @ matrix.T / gap.norm()
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        change = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        x[:, 1:] = (x * (1 - 0.05 * 0.01) - 0.05 * change)[:, 1:]
    torch.testing.assert_close(adjust(lambda y: y @ matrix, text, base, target=0.0), x)


def seen(model: Model, **options: object) -> list[Tensor]:
    """The embeddings that the passes of a mitigated call get."""
    texts: list[Tensor] = []
    with adjusted_embedding(model, CASE, target=0.0, iterations=2):
        handle = model.denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: texts.append(kwargs["encoder_hidden_states"]),
            with_kwargs=True,
        )
        call(model, **options)
        handle.remove()
    return [t for t in texts if len(t) > 1]  # the optimization's own passes have one row


@pytest.mark.parametrize("negative", [None, OTHER])
def test_rows_without_the_prompt_and_the_start_of_text_stay_as_they_are(model, negative):
    plain = model.encode([PROMPT]).tokens
    empty = model.encode([negative or ""]).tokens
    first, second, third = seen(
        model, images=2, num_inference_steps=3, negative_prompt=negative and [negative]
    )
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert torch.equal(first[:2], empty.expand(2, -1, -1))
    assert torch.equal(first[2:, 0], plain[:, 0].expand(2, -1))
    assert ((first[2:, 1:] - plain[:, 1:]).abs().flatten(1).mean(1) > 0.01).all()
    assert not torch.allclose(first[2], first[3], atol=1e-3)  # each image has its own


def test_without_guidance_all_rows_are_adjusted(model):
    first, _ = seen(model, images=3, guidance=1.0)
    assert (first != model.encode([PROMPT]).tokens).flatten(1).any(1).tolist() == [True] * 3


def test_a_prompt_under_the_target_is_not_changed(model):
    expected = call(model, images=2)
    with adjusted_embedding(model, CASE, target=1e6):
        assert torch.equal(call(model, images=2), expected)


def test_a_pass_of_another_size_in_the_midst_of_a_call_is_refused(model):
    latents, text, _ = inputs(model)
    with torch.no_grad(), adjusted_embedding(model, CASE):
        model.predict_noise(latents, T, text)
        with pytest.raises(EditError, match="images in this pass: 2, in the first step: 3"):
            model.predict_noise(latents[:2], T, text[:2])
