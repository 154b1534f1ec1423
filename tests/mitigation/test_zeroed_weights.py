"""Pruning: scores by hand, exactly one weight in a hundred a row, inputs measured
on the prompt's rows only.
"""

from collections import defaultdict

import pytest
import torch
from _mitigated import CASE, OTHER, PROMPT, call, small_model
from _odd_layers import MADE, OTHERS
from accelerate import cpu_offload
from torch import Tensor, nn

from findnemo.errors import EditError, InputError, ModelError
from findnemo.mitigation import Case, conceptprune, wanda
from findnemo.mitigation.pruning import largest, norms, scores, skilled, zeroed
from findnemo.models import Model
from findnemo.seeds import sample_seed


@pytest.fixture
def model() -> Model:
    return small_model()


def feed_forward(model: Model) -> dict[str, nn.Linear]:
    return {name: m for name, m in model.denoiser.named_modules() if name.endswith("ff.net.2")}


# scores and masks ---------------------------------------------------------------------------------


def test_scores_of_a_small_linear_by_hand():
    inputs = torch.tensor([[3.0, 0.0, 1.0], [4.0, 2.0, 0.0]])  # two positions: norms 5, 2, 1
    weight = torch.tensor([[1.0, -3.0, 2.0], [-0.5, 1.0, 4.0]])
    by_hand = torch.tensor([[5.0, 6.0, 2.0], [2.5, 2.0, 4.0]])
    score = scores(weight, inputs.square().sum(0).sqrt())
    assert torch.equal(score, by_hand)
    assert largest(score, 0.4).tolist() == [[False, True, False], [False, False, True]]
    assert largest(score, 0.7).tolist() == [[True, True, False], [True, False, True]]


@pytest.mark.parametrize(
    ("width", "share", "count"),
    [(1280, 0.01, 12), (5120, 0.01, 51), (100, 0.01, 1), (64, 0.01, 1), (10, 1.0, 10)],
)
def test_so_many_weights_of_every_row_are_chosen(width, share, count):
    score = torch.rand(7, width, generator=torch.Generator().manual_seed(0))
    mask = largest(score, share)
    assert mask.sum(1).tolist() == [count] * 7
    for row, chosen in zip(score, mask, strict=True):
        assert count == width or row[chosen].min() > row[~chosen].max()
    assert largest(torch.zeros(7, width), share).sum(1).tolist() == [count] * 7  # also among equals


def test_conceptprune_keeps_what_matters_as_much_for_the_reference():
    # scores 9, 8, 3, 4
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    concept = torch.tensor([9.0, 4.0, 1.0, 1.0])
    assert skilled(weight, concept, torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [
        [True, True, False, False]
    ]
    assert skilled(weight, concept, torch.tensor([9.0, 3.0, 1.0, 1.0]), 0.5).tolist() == [
        [False, True, False, False]
    ]
    assert not skilled(weight, concept, concept, 0.5).any()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(model, share):
    with (
        pytest.raises(InputError, match=r"share of .* cannot be zeroed"),
        wanda(model, CASE, share, steps=1),
    ):
        pass


def test_weights_come_back_bit_for_bit_whatever_they_are():
    odd = torch.tensor([[-0.0, torch.nan, torch.inf], [1e-45, 0.1, -3.0]])
    layer = nn.Linear(3, 2)
    mask = torch.tensor([[True, True, True], [True, False, True]])
    layer.weight.data.copy_(odd)
    with zeroed({layer: mask}):
        assert torch.equal(layer.weight.data, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]]))
    assert torch.equal(layer.weight.data.view(torch.int32), odd.view(torch.int32))


# on a model ---------------------------------------------------------------------------------------


def recorded(
    model: Model, prompt: str, guidance: float, steps: int = 2, seed: int = 0
) -> dict[str, Tensor]:
    """Inputs of the feed-forward linears, with the prompt, of all steps and
    positions: layer -> (many, in).
    """
    inputs: dict[str, list[Tensor]] = defaultdict(list)
    handles = [
        layer.register_forward_pre_hook(lambda m, args, name=name: inputs[name].append(args[0][-1]))
        for name, layer in feed_forward(model).items()
    ]
    generator = torch.Generator().manual_seed(sample_seed(seed, prompt, 0))
    model.pipeline(
        prompt,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generator,
        output_type="latent",
    )
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in inputs.items()}


@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_norms_are_those_of_the_inputs_with_the_prompt(model, guidance):
    expected = {
        n: torch.linalg.norm(a, dim=0) for n, a in recorded(model, PROMPT, guidance, seed=3).items()
    }
    measured = norms(model, [PROMPT], 3, 2, guidance)
    assert measured.keys() == expected.keys() == feed_forward(model).keys()
    for name, norm in measured.items():
        torch.testing.assert_close(norm, expected[name], rtol=1e-4, atol=1e-5)


def test_norms_of_several_captions_are_per_image(model):
    one, other = norms(model, [PROMPT], steps=2), norms(model, [OTHER], steps=2)
    for name, norm in norms(model, [PROMPT, OTHER], steps=2).items():
        torch.testing.assert_close(norm, ((one[name] ** 2 + other[name] ** 2) / 2).sqrt())
    for name, norm in norms(model, [PROMPT] * 2, steps=2).items():
        torch.testing.assert_close(norm, one[name])


def off(model: Model, mitigation, case: Case, **options) -> dict[str, Tensor]:
    """Which weights are zero in the context; the others must be what they were."""
    before = {n: m.weight.detach().clone() for n, m in feed_forward(model).items()}
    with mitigation(model, case, steps=2, **options):
        masks = {n: m.weight.detach() != before[n] for n, m in feed_forward(model).items()}
        assert all((m.weight[masks[n]] == 0).all() for n, m in feed_forward(model).items())
    return masks


def test_wanda_zeroes_the_most_important_weight_in_a_hundred_of_every_row(model):
    inputs = recorded(model, PROMPT, 7.0)
    masks = off(model, wanda, CASE)
    assert len(masks) == 4
    for name, mask in masks.items():
        score = feed_forward(model)[name].weight.abs() * torch.linalg.norm(inputs[name], dim=0)
        assert mask.sum(1).tolist() == [max(1, mask.shape[1] // 100)] * len(mask)
        assert torch.equal(mask.int().argmax(1), score.argmax(1))  # one in 64 or 128


def test_conceptprune_zeroes_a_part_of_them(model):
    for case in (CASE, Case(PROMPT)):
        part = off(model, conceptprune, case, share=0.1)
        whole = off(model, wanda, case, share=0.1)
        reference = norms(model, case.reference or [""], steps=2)
        concept = norms(model, [PROMPT], steps=2)
        for name, mask in part.items():
            assert torch.equal(mask, whole[name] & (concept[name] > reference[name]))
        assert (
            0 < sum(int(m.sum()) for m in part.values()) < sum(int(m.sum()) for m in whole.values())
        )
    assert not any(
        m.any() for m in off(model, conceptprune, Case(PROMPT, reference=(PROMPT,))).values()
    )


def test_nothing_else_is_changed(model):
    before = {name: p.detach().clone() for name, p in model.denoiser.named_parameters()}
    with wanda(model, CASE, steps=1):
        changed = {
            name
            for name, p in model.denoiser.named_parameters()
            if not torch.equal(p, before[name])
        }
    assert changed == {f"{name}.weight" for name in feed_forward(model)}


def test_a_layer_with_a_lora_is_refused(model):
    from peft import LoraConfig

    model.denoiser.add_adapter(LoraConfig(r=1, target_modules=["net.2"]))
    for mitigation in (wanda, conceptprune):
        with pytest.raises(EditError, match=r"ff\.net\.2 carries a LoRA"), mitigation(model, CASE):
            pass


def swap(model: Model, change) -> None:
    for name, layer in feed_forward(model).items():
        model.denoiser.get_submodule(name.removesuffix(".2"))[2] = change(layer)


@pytest.mark.parametrize("how", MADE)
def test_a_weight_that_is_made_anew_before_every_pass_is_refused(model, how):
    for layer in feed_forward(model).values():
        MADE[how](layer)
    for mitigation in (wanda, conceptprune):
        with (
            pytest.raises(
                EditError,
                match=r"ff\.net\.2 is made anew before every pass.*remove_parametrizations",
            ),
            mitigation(model, CASE),
        ):
            pass


@pytest.mark.parametrize("how", OTHERS)
def test_weights_that_are_not_all_of_a_layer_are_not_zeroed(model, how):
    for layer in feed_forward(model).values():
        layer.bias = None  # as the stand-ins have none
    swap(model, OTHERS[how])
    before = call(model)
    with (
        pytest.raises(
            EditError,
            match=r"ff\.net\.2 (is quantized|is a|has a forward|carries a LoRA|does not give)",
        ),
        wanda(model, CASE),
    ):
        pass
    assert torch.equal(call(model), before)


def test_offloaded_weights_are_refused(model):
    cpu_offload(model.denoiser, torch.device("cpu"))
    with pytest.raises(EditError, match=r"are offloaded.*remove_all_hooks"), wanda(model, CASE):
        pass


def test_weights_that_two_layers_share_are_refused(model):
    layers = list(feed_forward(model).values())
    other = next(layer for layer in layers[1:] if layer.weight.shape == layers[0].weight.shape)
    other.weight = layers[0].weight
    with (
        pytest.raises(
            EditError, match=r"share one weight, so what is zeroed for one would be for both"
        ),
        wanda(model, CASE),
    ):
        pass


def test_layers_that_no_pass_calls_are_named(model):
    name, layer = next(iter(feed_forward(model).items()))

    class Bypass(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.net = layers

        def forward(self, x):
            return nn.functional.linear(self.net[0](x), layer.weight, layer.bias)

    block = model.denoiser.get_submodule(name.removesuffix(".ff.net.2"))
    block.ff = Bypass(block.ff.net)
    with pytest.raises(EditError, match=rf"{name} was never called"), wanda(model, CASE, steps=1):
        pass


def test_zeros_that_do_not_reach_the_output_are_noticed_and_taken_back():
    layer = nn.Linear(3, 2)
    mask = torch.eye(2, 3).bool()
    before = layer.weight.detach().clone()

    class Restoring:
        def __call__(self, module, args):
            module.weight.data.copy_(before)

    layer.register_forward_pre_hook(Restoring())
    with pytest.raises(EditError, match="did not take effect"), zeroed({layer: mask}):
        pass
    assert torch.equal(layer.weight, before)


def test_a_model_without_feed_forward_layers_is_refused(model):
    for name in feed_forward(model):
        block = model.denoiser.get_submodule(name.removesuffix(".ff.net.2"))
        block.ff = nn.Identity()
    with pytest.raises(ModelError, match="no feed-forward layers"), wanda(model, CASE):
        pass
