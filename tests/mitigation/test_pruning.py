"""Pruning: scores by hand, masks against the paper written down anew on plain diffusers, one
weight in a hundred a row and step.
"""

import copy
from collections import defaultdict

import numpy as np
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


def test_conceptprune_leaves_what_matters_as_much_for_the_reference():
    # scores 9, 8, 3, 4
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    concept = torch.tensor([[9.0, 4.0, 1.0, 1.0]])
    for reference, mask in (
        ([1.0, 1.0, 1.0, 1.0], [True, True, False, False]),
        ([9.0, 3.0, 1.0, 1.0], [False, True, False, False]),
    ):
        assert skilled(weight, concept, torch.tensor([reference]), 0.5).tolist() == [mask]
    assert not skilled(weight, concept, concept, 0.5).any()
    assert skilled(weight, concept, None, 0.5).tolist() == [[True, True, False, False]]


def test_what_is_chosen_at_any_step_is_chosen_and_each_step_has_its_own_reference():
    weight = torch.ones(1, 3)
    concept = torch.tensor([[5.0, 4.0, 3.0], [3.0, 4.0, 5.0]])
    assert skilled(weight, concept, None, 0.4).tolist() == [[True, False, True]]
    high = torch.full((1, 3), 9.0)
    for reference in (torch.cat([high, high * 0]), torch.cat([high * 0, high])):
        only = skilled(weight, concept, reference, 0.4)
        assert only.tolist() == [[bool(reference[0, 0] == 0), False, bool(reference[1, 0] == 0)]]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(model, share):
    with (
        pytest.raises(InputError, match=r"share of .* cannot be zeroed"),
        wanda(model, CASE, share),
    ):
        pass


def test_no_steps_are_refused(model):
    for mitigation in (wanda, conceptprune):
        with pytest.raises(InputError, match="first is 0"), mitigation(model, CASE, first=0):
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


def activations(
    model: Model, prompt: str, seed: int, steps: int, guidance: float
) -> dict[str, list[np.ndarray]]:
    """What GEGLU gives in a whole call of plain diffusers: layer -> a step's (rows, tokens, in)."""
    pipeline = copy.deepcopy(model.pipeline)
    given: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, module in pipeline.unet.named_modules():
        if name.endswith("ff.net.0"):
            module.register_forward_hook(
                lambda m, args, out, n=name: given[f"{n[:-1]}2"].append(out.double().numpy())
            )
    pipeline(
        prompt,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    )
    return given


def column_norms(
    model: Model, prompts: tuple[str, ...], seed: int, steps: int, first: int, guidance: float
) -> dict[str, list[np.ndarray]]:
    """Layer -> of each of the first steps, per image, the norm of every column of the matrix of all
    unit-length tokens.
    """
    images = [activations(model, prompt, seed, steps, guidance) for prompt in prompts]
    found = {}
    for name in images[0]:
        found[name] = []
        for step in range(first):
            rows = np.concatenate([x for image in images for x in image[name][step]])
            rows /= np.sqrt((rows**2).sum(1))[:, None]
            found[name].append(np.sqrt((rows**2).sum(0) / len(prompts)))
    return found


def by_the_paper(
    model: Model, case: Case, compare: bool, share: float, steps: int, first: int, guidance: float
) -> dict[str, np.ndarray]:
    """Chavhan et al., section 3, word by word: row by row and step by step."""
    seed = sample_seed(case.seed, case.prompt, 0)
    concept = column_norms(model, (case.prompt,), seed, steps, first, guidance)
    usual = column_norms(model, case.reference or ("",), seed, steps, first, guidance)
    masks = {}
    for name, layer in feed_forward(model).items():
        weight = np.abs(layer.weight.detach().double().numpy())
        masks[name] = np.zeros(weight.shape, bool)
        for step in range(first):
            for i, row in enumerate(weight):
                score = row * concept[name][step]
                for j in np.argsort(score)[::-1][: int(share * len(row))]:
                    if not compare or score[j] > row[j] * usual[name][step][j]:
                        masks[name][i, j] = True
    return masks


@pytest.mark.first(2)
@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("mitigation", [wanda, conceptprune])
def test_the_masks_are_those_of_the_paper(model, mitigation, guidance):
    case = Case(PROMPT, seed=3, reference=("a dog", OTHER))
    options = {"share": 0.05, "steps": 6, "first": 3, "guidance": guidance}
    expected = by_the_paper(model, case, mitigation is conceptprune, **options)
    masks = off(model, mitigation, case, **options)
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert np.array_equal(mask.numpy(), expected[name])
        assert 0 < mask.sum() < 0.16 * mask.numel()


def test_the_settings_are_those_of_the_paper(model):
    options = {"share": 0.01, "steps": 50, "first": 10, "guidance": 7.5}
    expected = off(model, conceptprune, CASE, **options)
    assert all(torch.equal(m, expected[n]) for n, m in off(model, conceptprune, CASE).items())


@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_norms_are_those_of_all_rows_step_by_step(model, guidance):
    expected = column_norms(model, (PROMPT, OTHER), 5, 4, 2, guidance)
    measured = norms(model, [PROMPT, OTHER], 5, 4, 2, guidance)
    assert measured.keys() == expected.keys() == feed_forward(model).keys()
    for name, norm in measured.items():
        torch.testing.assert_close(norm, torch.tensor(np.array(expected[name])).float())


def test_sampling_ends_where_enough_is_seen(model):
    passes = []
    model.denoiser.register_forward_hook(lambda *_: passes.append(1))
    norms(model, [PROMPT, OTHER], first=3)
    assert len(passes) == 2 * 3
    whole = norms(model, [PROMPT], steps=2)  # fewer than the first ten
    assert {len(norm) for norm in whole.values()} == {2}


def test_references_may_come_in_any_order_and_number(model):
    captions = ("a dog", OTHER, "snow")
    expected = off(model, conceptprune, Case(PROMPT, reference=captions), share=0.1, steps=2)
    for other in (captions[::-1], captions * 2):
        masks = off(model, conceptprune, Case(PROMPT, reference=other), share=0.1, steps=2)
        assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())


def off(model: Model, mitigation, case: Case, **options) -> dict[str, Tensor]:
    """Which weights are zero in the context; the others must be what they were."""
    before = {n: m.weight.detach().clone() for n, m in feed_forward(model).items()}
    with mitigation(model, case, **options):
        masks = {n: m.weight.detach() != before[n] for n, m in feed_forward(model).items()}
        assert all((m.weight[masks[n]] == 0).all() for n, m in feed_forward(model).items())
    return masks


def test_wanda_zeroes_one_weight_in_a_hundred_of_every_row_and_step(model):
    for steps in (1, 3):
        for mask in off(model, wanda, CASE, steps=steps).values():
            count = max(1, mask.shape[1] // 100)
            assert count <= mask.sum(1).min() <= mask.sum(1).max() <= steps * count


def test_conceptprune_zeroes_a_part_of_them(model):
    whole = off(model, wanda, CASE, share=0.1, steps=2)
    for case in (CASE, Case(PROMPT)):
        part = off(model, conceptprune, case, share=0.1, steps=2)
        assert all((mask <= whole[name]).all() for name, mask in part.items())
        assert 0 < sum(m.sum() for m in part.values()) < sum(m.sum() for m in whole.values())
    itself = off(model, conceptprune, Case(PROMPT, reference=(PROMPT,)), steps=2)
    assert not any(mask.any() for mask in itself.values())


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
                match=r"ff\.net\.2 is recomputed before every pass.*remove_parametrizations",
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
            EditError, match=r"share one weight, so zeroing it for one zeroes it for both"
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
