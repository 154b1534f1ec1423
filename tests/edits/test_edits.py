"""One edit, three ways: as a hook, as weights and as a LoRA it gives the same images, and
it leaves nothing behind.
"""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

import findnemo
from findnemo import NeuronSet, deactivate, prune, save_lora
from findnemo.edits import muted, scaled
from findnemo.errors import EditError, InputError
from findnemo.models import Model

DOWN = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_v"
MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
NEURONS = NeuronSet({MID: [0, 3, 5, 9], DOWN: [2, 7]})
ONE, OTHER = NeuronSet({MID: [0, 3]}), NeuronSet({MID: [5, 9], DOWN: [2, 7]})


@pytest.fixture
def model(tiny) -> Model:
    """A tiny model on which NEURONS have a strong effect."""
    with torch.no_grad():
        for name, indices in NEURONS.layers.items():
            tiny.value_layers[name].weight[list(indices)] *= 200
    return tiny


def images(pipeline: StableDiffusionPipeline) -> np.ndarray:
    """A whole call, with guidance and two images per prompt: (2, H, W, 3), 0 to 255."""
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    result = pipeline(
        "a cat",
        num_images_per_prompt=2,
        num_inference_steps=2,
        guidance_scale=7.0,
        generator=generators,
    )
    return np.stack([np.asarray(image) for image in result.images]).astype(int)


def edited_images(model: Model, neurons: NeuronSet = NEURONS, factor: float = 0.0) -> np.ndarray:
    with deactivate(model, neurons, factor):
        return images(model.pipeline)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and abs(a - b).max() <= 1


def different(a: np.ndarray, b: np.ndarray) -> bool:
    return abs(a - b).mean() > 3


@torch.no_grad()
def noise(model: Model, samples: int = 2) -> Tensor:
    latents = model.noise("a cat", range(samples))
    return model.predict_noise(latents, 981, model.encode(["a cat"]).expand(samples))


def hooks(pipeline: StableDiffusionPipeline) -> list:
    return [
        h
        for m in pipeline.unet.modules()
        for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    ]


# the three ways -----------------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_hook_weights_and_lora_give_the_same_images(model, tmp_path, factor):
    expected = edited_images(model, NEURONS, factor)
    assert different(expected, images(model.pipeline))
    assert different(expected[0], expected[1])

    assert same(images(prune(model, NEURONS, factor)), expected)

    save_lora(model, NEURONS, tmp_path, factor)
    fresh = copy.deepcopy(model.pipeline)
    fresh.load_lora_weights(tmp_path)
    assert same(images(fresh), expected)


def test_a_pruned_checkpoint_is_an_ordinary_one(model, tmp_path):
    prune(model, NEURONS).save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert same(images(loaded), edited_images(model))
    assert (
        json.loads((tmp_path / "model_index.json").read_text())["_class_name"]
        == "StableDiffusionPipeline"
    )
    assert not list(tmp_path.rglob("*.bin"))


def test_prune_leaves_the_old_pipeline_alone(model):
    before = images(model.pipeline)
    weights = copy.deepcopy(model.denoiser.state_dict())
    pruned = prune(model, NEURONS)
    assert pruned is not model.pipeline
    assert pruned.unet is not model.pipeline.unet
    assert pruned.vae is model.pipeline.vae
    assert all(
        torch.equal(value, weights[name]) for name, value in model.denoiser.state_dict().items()
    )
    assert np.array_equal(images(model.pipeline), before)


def test_prune_changes_the_rows_of_the_neurons_and_nothing_else(model):
    old, new = model.denoiser.state_dict(), prune(model, NEURONS).unet.state_dict()
    assert list(old) == list(new)
    for name in old:
        rows = list(NEURONS.layers.get(name.removesuffix(".weight"), ()))
        changed = old[name].clone()
        changed[rows] = 0
        assert torch.equal(new[name], changed)


def test_prune_within_an_edit_carries_the_weights_but_no_hook(model):
    with deactivate(model, OTHER):
        pruned = prune(model, ONE)
        assert not hooks(pruned)
        assert hooks(model.pipeline)
    assert same(images(pruned), edited_images(model, ONE))


def test_a_bias_is_switched_off_too(model, tmp_path):
    block = model.denoiser.mid_block.attentions[0].transformer_blocks[0].attn2
    weight = block.to_v.weight
    block.to_v = nn.Linear(32, 32, bias=True)
    block.to_v.weight = weight
    expected = edited_images(model)
    assert different(expected, images(model.pipeline))
    assert same(images(prune(model, NEURONS)), expected)
    save_lora(model, NEURONS, tmp_path)
    model.pipeline.load_lora_weights(tmp_path)
    assert same(images(model.pipeline), expected)


def test_a_pipeline_with_a_lora_is_edited_as_a_whole_or_refused(model, tmp_path):
    save_lora(model, ONE, tmp_path, factor=0.5)
    model.pipeline.load_lora_weights(tmp_path)
    with pytest.raises(EditError, match=r"carries a LoRA.*fuse_lora"):
        prune(model, NEURONS)
    with pytest.raises(EditError, match=r"carries a LoRA.*fuse_lora"):
        save_lora(model, NEURONS, tmp_path / "second")
    expected = edited_images(model, ONE, 2.0)
    model.pipeline.fuse_lora()
    model.pipeline.unload_lora_weights()
    assert same(images(prune(model, ONE, 2.0)), expected)


# the context --------------------------------------------------------------------------------------


def assert_as_before(model: Model, weights: dict, output: Tensor) -> None:
    state = model.denoiser.state_dict()
    assert list(state) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in state.items())
    assert not hooks(model.pipeline)
    assert torch.equal(noise(model), output)


def test_leaving_the_context_restores_the_model_bit_for_bit(model):
    weights = copy.deepcopy(model.denoiser.state_dict())
    output = noise(model)
    with deactivate(model, NEURONS):
        assert not torch.allclose(noise(model), output, atol=1e-2)
    assert_as_before(model, weights, output)


def test_an_exception_restores_the_model_too(model):
    weights = copy.deepcopy(model.denoiser.state_dict())
    output = noise(model)
    with (
        pytest.raises(RuntimeError, match="shape"),
        deactivate(model, NEURONS),
        deactivate(model, ONE, 0.5),
    ):
        model.denoiser(torch.zeros(1, 4, 16, 16), 981, torch.zeros(1, 77, 5))
    assert_as_before(model, weights, output)


def test_an_empty_edit_changes_nothing(model):
    output = noise(model)
    with deactivate(model, NeuronSet()):
        assert torch.equal(noise(model), output)
    assert np.array_equal(images(prune(model, NeuronSet())), images(model.pipeline))


def test_muted_modules_give_zeros_and_are_what_they_were_afterwards(model):
    names = [
        "down_blocks.0.resnets.0.conv2",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    ]
    latents = model.noise("a cat", [0])
    text = model.encode(["a cat"])
    with torch.no_grad():
        before = model.output(latents, 500, text)
        with muted(model, names):
            off = model.output(latents, 500, text)
        with pytest.raises(KeyboardInterrupt), muted(model, names):
            raise KeyboardInterrupt
        assert torch.equal(model.output(latents, 500, text), before)
        assert not torch.equal(off, before)
        network = copy.deepcopy(model.denoiser)
        for name in names:
            layer = network.get_submodule(name)
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()
        assert torch.equal(network(latents, 500, encoder_hidden_states=text.tokens).sample, off)
    with (
        pytest.raises(EditError, match="no module 'nowhere' in the unet"),
        muted(model, ["nowhere"]),
    ):
        pass
    model.denoiser.never = torch.nn.Linear(2, 2)
    with pytest.raises(EditError, match="never"), muted(model, ["never"]):
        model.output(latents, 500, text)


def test_nested_edits_are_their_union(model):
    with deactivate(model, ONE), deactivate(model, OTHER):
        nested = noise(model)
    with deactivate(model, ONE | OTHER):
        assert torch.equal(noise(model), nested)


def test_nested_factors_multiply(model):
    with deactivate(model, NEURONS, 0.5), deactivate(model, NEURONS, 0.5):
        nested = noise(model)
    with deactivate(model, NEURONS, 0.25):
        torch.testing.assert_close(noise(model), nested)
    with deactivate(model, NEURONS, 0.5):
        assert not torch.allclose(noise(model), nested, atol=1e-2)


def test_one_mask_per_sample_equals_one_pass_per_mask(model):
    sets = [NeuronSet(), ONE, OTHER, NEURONS]
    masks = {name: torch.ones(len(sets), model.widths()[name]) for name in NEURONS.layers}
    for k, neurons in enumerate(sets):
        for name, indices in neurons.layers.items():
            masks[name][k, list(indices)] = 0
    with scaled(model, masks):
        together = noise(model, len(sets))
    for k, neurons in enumerate(sets):
        with deactivate(model, neurons):
            torch.testing.assert_close(
                together[k], noise(model, len(sets))[k], atol=1e-5, rtol=1e-5
            )
    assert not torch.allclose(together, noise(model, len(sets)), atol=1e-2)


# what is refused ----------------------------------------------------------------------------------

EDITS = [
    lambda model, neurons, folder: deactivate(model, neurons).__enter__(),
    lambda model, neurons, folder: prune(model, neurons),
    lambda model, neurons, folder: save_lora(model, neurons, folder),
]


def test_a_file_is_to_the_byte_the_same_each_time(model, tmp_path):
    """Its hash is evidence.

    With two keys of metadata or more an order by chance would show in ten times.
    """
    loras = {save_lora(model, NEURONS, tmp_path).read_bytes() for _ in range(10)}
    file = tmp_path / "neurons.safetensors"
    neurons = set()
    for _ in range(10):
        NeuronSet(NEURONS.layers, "abc").save(file)
        neurons.add(file.read_bytes())
    assert (len(loras), len(neurons)) == (1, 1)
    assert NeuronSet.load(file) == NEURONS


@pytest.mark.parametrize("edit", EDITS, ids=["deactivate", "prune", "save_lora"])
@pytest.mark.parametrize(
    ("neurons", "error", "message"),
    [
        (
            NeuronSet({MID: [0], "mid.attn9.to_v": [0]}),
            EditError,
            f"no value layer 'mid.attn9.to_v'.*{MID}",
        ),
        (NeuronSet({MID: [0, 32]}), EditError, rf"no neuron 32 in {MID}: it has 32 \(0 to 31\)"),
        ({MID: [0]}, InputError, "must be a NeuronSet, not dict"),
    ],
)
def test_neurons_that_the_model_lacks_are_named_and_nothing_is_done(
    tiny, tmp_path, edit, neurons, error, message
):
    with pytest.raises(error, match=message):
        edit(tiny, neurons, tmp_path / "lora")
    assert not hooks(tiny.pipeline)
    assert not (tmp_path / "lora").exists()


def test_an_empty_lora_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="nothing to write as a LoRA"):
        save_lora(tiny, NeuronSet(), tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_a_scale_of_the_wrong_width_or_for_no_layer_is_refused_before_anything_is_changed(tiny):
    with (
        pytest.raises(EditError, match=f"31 values does not fit {MID} with 32"),
        scaled(tiny, {MID: torch.ones(31)}),
    ):
        pass
    with (
        pytest.raises(EditError, match="no value layer 'nowhere'"),
        scaled(tiny, {MID: torch.ones(32), "nowhere": torch.ones(32)}),
    ):
        pass
    assert not hooks(tiny.pipeline)


@pytest.mark.parametrize("edit", EDITS, ids=["deactivate", "prune", "save_lora"])
def test_fused_projections_are_refused_until_they_are_unfused(model, tmp_path, edit):
    expected = edited_images(model)
    model.pipeline.fuse_qkv_projections()
    with pytest.raises(EditError, match=r"fused.*unfuse_qkv_projections"):
        edit(model, NEURONS, tmp_path)
    with pytest.raises(EditError, match="fused"):
        findnemo.load(model.pipeline)
    model.pipeline.unfuse_qkv_projections()
    assert same(edited_images(findnemo.load(model.pipeline)), expected)


def wrap(pipeline: StableDiffusionPipeline) -> None:
    pipeline.unet = torch.compile(pipeline.unet)


def compile_in_place(pipeline: StableDiffusionPipeline) -> None:
    pipeline.unet.compile()


def compile_a_block(pipeline: StableDiffusionPipeline) -> None:
    pipeline.unet.mid_block = torch.compile(pipeline.unet.mid_block)


@pytest.mark.parametrize("compile_it", [wrap, compile_in_place, compile_a_block])
@pytest.mark.parametrize("edit", EDITS, ids=["deactivate", "prune", "save_lora"])
def test_a_compiled_unet_is_refused(tiny, tmp_path, edit, compile_it):
    compile_it(tiny.pipeline)
    with pytest.raises(EditError, match=r"is compiled.*before torch.compile"):
        edit(tiny, NEURONS, tmp_path)
    with pytest.raises(EditError, match="is compiled"):
        findnemo.load(tiny.pipeline)


class Bypass:
    """An attention processor that multiplies by the weights of `to_v` without calling it."""

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **options
    ):
        values = F.linear(encoder_hidden_states, attn.to_v.weight).mean(1, keepdim=True)
        return attn.to_out[0](values.expand(-1, hidden_states.shape[1], -1))


def test_an_edit_that_a_custom_processor_bypasses_is_detected(model):
    model.denoiser.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(Bypass())
    with (
        pytest.raises(EditError, match=rf"{MID} was never called.*set_attn_processor"),
        deactivate(model, NEURONS),
    ):
        noise(model)
    assert not hooks(model.pipeline)
    model.denoiser.set_attn_processor(AttnProcessor2_0())
    with deactivate(model, NEURONS):
        noise(model)


def test_a_context_in_which_the_model_did_not_run_is_no_silent_edit(model):
    with deactivate(model, NEURONS):
        pass
