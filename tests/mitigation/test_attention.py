"""Attention scaling: against an explicit softmax, and the rows without the prompt left alone."""

import pytest
import torch
from _mitigated import CASE, OTHER, PROMPT, call, small_model
from torch import Tensor

from findnemo.errors import EditError, InputError
from findnemo.mitigation import scaled_attention
from findnemo.mitigation.attention import text_mask
from findnemo.models import Model

ENDS = {PROMPT: 5, OTHER: 11}  # letters are tokens, between start (0) and end


@pytest.fixture
def model() -> Model:
    return small_model()


class Explicit:
    """Ren et al., word by word: for row b, logits after `ends[b]` are -inf, that of position 0
    times c; a row whose end is None is left alone, and in the `plain` first rows nothing is scaled.
    """

    def __init__(self, ends: list[int | None], c: float, plain: int = 0):
        self.ends = ends
        self.c = c
        self.plain = plain

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **options
    ) -> Tensor:
        rows = len(hidden_states)
        heads = attn.heads
        q, k, v = (
            x.view(rows, x.shape[1], heads, -1).transpose(1, 2)
            for x in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        for row, end in enumerate(self.ends):
            if end is not None:
                logits[row, :, :, end + 1 :] = -torch.inf
                logits[row, :, :, 0] *= self.c if row >= self.plain else 1
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(rows, hidden_states.shape[1], -1)
        return attn.to_out[0](mixed)


def explicitly(model: Model, ends: list[int | None], c: float, plain: int = 0, **options) -> Tensor:
    layers = [m for name, m in model.denoiser.named_modules() if name.endswith("attn2")]
    old = [layer.processor for layer in layers]
    for layer in layers:
        layer.set_processor(Explicit(ends, c, plain))
    try:
        return call(model, **options)
    finally:
        for layer, processor in zip(layers, old, strict=True):
            layer.set_processor(processor)


@pytest.mark.parametrize("c", [1.25, 3.0])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_it_equals_an_explicit_softmax(model, guidance, c):
    prompts = [PROMPT, OTHER]
    images = 2
    ends = [ENDS[p] for p in prompts for _ in range(images)]
    ends = ([None] * len(ends) if guidance > 1 else []) + ends
    expected = explicitly(model, ends, c, prompts=prompts, images=images, guidance=guidance)
    with scaled_attention(model, CASE, c):
        result = call(model, prompts, images, guidance)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    assert (result - call(model, prompts, images, guidance)).abs().max() > 0.01


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_with_both_the_rows_without_the_prompt_see_as_far_as_those_with_it(model, guidance):
    """As released: the prompt's mask in both halves, the start scaled in one."""
    prompts = [PROMPT, OTHER]
    ends = [ENDS[p] for p in prompts for _ in range(2)]
    plain = len(ends) if guidance > 1 else 0
    options = {"prompts": prompts, "images": 2, "guidance": guidance}
    expected = explicitly(model, ends * (2 if plain else 1), 1.25, plain, **options)
    with scaled_attention(model, CASE, both=True):
        result = call(model, **options)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    with scaled_attention(model, CASE):
        assert bool((call(model, **options) - result).abs().max() > 0.01) == bool(plain)


def test_the_default_is_that_of_the_paper(model):
    with scaled_attention(model, CASE, 1.25):
        expected = call(model)
    with scaled_attention(model, CASE):
        assert torch.equal(call(model), expected)


def test_the_explicit_softmax_without_a_change_is_the_model(model):
    torch.testing.assert_close(
        explicitly(model, [None] * 2, 1.0), call(model), atol=1e-4, rtol=1e-4
    )


def first_attention(model: Model, **options) -> Tensor:
    """What the first cross-attention gives in the first pass of a call."""
    outputs: list[Tensor] = []
    layer = next(m for name, m in model.denoiser.named_modules() if name.endswith("attn2"))
    handle = layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    call(model, **options)
    handle.remove()
    return outputs[0]


def test_rows_without_the_prompt_attend_as_before(model):
    options = {"images": 3, "negative_prompt": [OTHER]}
    before = first_attention(model, **options)
    with scaled_attention(model, CASE):
        after = first_attention(model, **options)
    assert len(before) == len(after) == 6
    torch.testing.assert_close(after[:3], before[:3])
    assert ((after[3:] - before[3:]).abs().flatten(1).amax(1) > 1e-3).all()


def test_all_cross_attention_layers_are_scaled_also_those_of_the_up_blocks(model):
    keys = [m for name, m in model.denoiser.named_modules() if name.endswith("attn2.to_k")]
    assert len(keys) == 4  # down, mid, and two of an up block
    ratios: list[Tensor] = []

    def compare(module, args, output: Tensor) -> None:
        ratios.append(output / torch.nn.functional.linear(args[0], module.weight))

    with scaled_attention(model, CASE, 1.5):
        handles = [key.register_forward_hook(compare) for key in keys]
        call(model, images=2)
    for handle in handles:
        handle.remove()
    assert len(ratios) == 2 * len(keys)
    for ratio in ratios:
        expected = torch.ones(4, 77, 1)
        expected[2:, 0] = 1.5
        torch.testing.assert_close(ratio, expected.expand_as(ratio), atol=1e-3, rtol=1e-3)


def test_a_text_is_shown_up_to_its_end_whatever_the_padding_token(model):
    long = "a" * 100
    for pad in (model.pipeline.tokenizer.eos_token, "!"):
        model.pipeline.tokenizer.pad_token = pad
        table = text_mask(model, [PROMPT, "", long])
        assert table.sum(1).tolist() == [ENDS[PROMPT] + 1, 2, 77]
        assert table[0].tolist() == [1] * 6 + [0] * 71


def test_a_single_text_may_be_shared_by_all_rows(model):
    latents = model.noise(PROMPT, range(3))
    with torch.no_grad(), scaled_attention(model, CASE):
        text = model.encode([PROMPT])
        together = model.predict_noise(latents, 981, text.expand(3))
        alone = torch.cat([model.predict_noise(x, 981, text) for x in latents.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_text_that_was_encoded_elsewhere_is_refused(model):
    text = model.encode([PROMPT])
    with (
        pytest.raises(EditError, match="encode the prompt inside the context"),
        scaled_attention(model, CASE),
    ):
        model.predict_noise(model.noise(PROMPT, [0]), 981, text)
    with pytest.raises(InputError, match="not prompt_embeds"), scaled_attention(model, CASE):
        model.pipeline(prompt_embeds=text.tokens, negative_prompt_embeds=text.tokens)


def test_a_custom_processor_is_refused(model):
    model.denoiser.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(
        Explicit([None], 1.0)
    )
    with (
        pytest.raises(EditError, match=r"mid_block.*attn2 uses Explicit.*set_attn_processor"),
        scaled_attention(model, CASE),
    ):
        pass
