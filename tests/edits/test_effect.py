"""Whatever stands in the place of a weight: every edit is that of the hook, or is refused by
name, and what is written loads in plain diffusers.
"""

import importlib
import json
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from _edited import PIPELINES, alike, edited, noise, place, put, quiet_load, selected
from _odd_layers import MADE, OTHERS, Halved, Injected
from _plain_diffusers import of_pipeline
from _tiny_files import save_file, tiny_family
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

import findnemo
from findnemo import NeuronSet, deactivate, prune, save_lora
from findnemo.edits import check_called, lora_weights, scaled
from findnemo.errors import EditError
from findnemo.export import write
from findnemo.models import Model

# weights under several names ----------------------------------------------------------------------

UP = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"


def tie(model: Model, neurons: NeuronSet) -> None:
    """A value layer outside of those that are edited computes with the weight of one that is."""
    model.denoiser.get_submodule(UP).to_v.weight = model.value_layers[
        next(iter(neurons.layers))
    ].weight


def overlap(model: Model, neurons: NeuronSet) -> None:
    layer = model.value_layers[next(iter(neurons.layers))]
    both = torch.cat([layer.weight.detach(), torch.randn(8, layer.in_features)])
    width = layer.out_features
    layer.weight = nn.Parameter(both[:width])
    model.denoiser.get_submodule(UP).to_v.weight = nn.Parameter(both[8 - 7 : width + 1])


def share(model: Model, neurons: NeuronSet) -> None:
    model.denoiser.get_submodule(UP).to_v = model.value_layers[next(iter(neurons.layers))]


@pytest.mark.first(1)
@pytest.mark.parametrize("how", [tie, overlap, share])
def test_weights_under_several_names_are_edited_where_the_hook_acts(model, neurons, tmp_path, how):
    how(model, neurons)
    plain = noise(model)
    wanted = edited(model, neurons)
    prune(model, neurons).save_pretrained(tmp_path / "clean")
    assert alike(noise(quiet_load(tmp_path / "clean")), wanted)
    assert torch.equal(noise(model), plain)
    assert not alike(plain, wanted)
    if how is share:  # as its loaders have it
        with pytest.raises(
            EditError,
            match=rf"{UP}.to_v are one module, of which LoRA loaders change the first place only",
        ):
            save_lora(model, neurons, tmp_path / "lora")
        return
    save_lora(model, neurons, tmp_path / "lora")
    model.pipeline.load_lora_weights(tmp_path / "lora")
    assert alike(noise(model), wanted)


# layers whose weight is not all of them -----------------------------------------------------------


@pytest.mark.first(3)
@pytest.mark.parametrize("how", OTHERS)
def test_the_hook_works_on_whatever_has_a_width(model, neurons, how):
    put(model, OTHERS[how])
    before = noise(model)

    def off(layer: nn.Module) -> nn.Module:
        wrapped = nn.Module()
        wrapped.layer = layer
        wrapped.out_features = layer.out_features
        scale = torch.ones(layer.out_features)
        scale[[1, 2, 3]] = 0
        wrapped.forward = lambda x: wrapped.layer(x) * scale
        return wrapped

    after = edited(model, neurons)
    for name in neurons.layers:
        place(model, name).to_v = off(model.value_layers[name])
    assert torch.equal(noise(model), after)
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.first(5)
@pytest.mark.parametrize("how", OTHERS)
def test_weights_that_are_not_all_of_a_layer_are_not_edited(model, neurons, tmp_path, how):
    put(model, OTHERS[how])
    name = next(iter(neurons.layers))
    hooks = [list(layer._forward_hooks) for layer in model.value_layers.values()]
    for edit in (prune, lora_weights, lambda m, n: save_lora(m, n, tmp_path / "lora")):
        with pytest.raises(
            EditError,
            match=rf"{name} (is quantized|is a|has a forward|carries a LoRA|does not give)",
        ) as raised:
            edit(model, neurons)
        assert any(
            way in str(raised.value)
            for way in (
                "without quantization",
                "nn.Linear",
                "del layer.forward",
                "fuse_lora",
                "remove it",
            )
        )
    assert [list(layer._forward_hooks) for layer in model.value_layers.values()] == hooks
    assert not (tmp_path / "lora").exists()


def test_a_layer_that_names_no_width_is_refused(model, neurons):
    put(model, Injected)
    for ask in (lambda *_: model.widths(), edited, prune, lora_weights):
        with pytest.raises(
            EditError,
            match=(
                r"to_v is a Injected, which does not say how many neurons it has: give it"
                r" out_features"
            ),
        ):
            ask(model, neurons)


def test_an_edit_within_an_edit_still_reads_the_layer_itself(model, neurons):
    alone = lora_weights(model, neurons)
    with deactivate(model, neurons), deactivate(model, neurons, 3.0):
        nested = lora_weights(model, neurons)
        assert noise(model) is not None
    assert all(torch.equal(alone[key], nested[key]) for key in alone)


# values computed another way ----------------------------------------------------------------------


class Bypass:
    """An attention processor that multiplies by a copy of the weights that
    it made when it was set.
    """

    def __init__(self, attn):
        self.weight = attn.to_v.weight.detach().clone()

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **options
    ):
        values = nn.functional.linear(encoder_hidden_states, self.weight).mean(1, keepdim=True)
        return attn.to_out[0](values.expand(-1, hidden_states.shape[1], -1))


def test_a_processor_that_does_not_call_the_layer_is_noticed_by_every_edit(
    model, neurons, tmp_path
):
    name = list(neurons.layers)[-1]
    attn = place(model, name)
    attn.set_processor(Bypass(attn))
    chosen = selected(tmp_path, model, neurons)
    for edit in (
        lambda: prune(model, neurons),
        lambda: save_lora(model, neurons, tmp_path / "lora"),
        lambda: edited(model, neurons),
        lambda: write("checkpoint", chosen, tmp_path / "clean", model),
        lambda: write("kohya", chosen, tmp_path / "kohya.safetensors", model),
        lambda: write("file", chosen, tmp_path / "file.safetensors", model),
    ):
        with pytest.raises(EditError, match=rf"{name} was never called"):
            edit()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_forward_that_runs_the_old_network_in_the_copy_is_noticed(model, neurons):
    """A function that was put over a forward pass goes on with the modules it was
    made of, also in a copy.
    """
    block = model.denoiser.mid_block
    own = block.forward
    block.forward = lambda *args, **kwargs: own(*args, **kwargs)
    assert not alike(edited(model, neurons), noise(model))
    with pytest.raises(EditError, match=r"mid_block\..*to_v was never called"):
        prune(model, neurons)


@pytest.mark.parametrize("what", ["denoiser", "layer"])
def test_a_compiled_forward_is_refused(model, neurons, what):
    module = (
        model.denoiser if what == "denoiser" else model.value_layers[next(iter(neurons.layers))]
    )
    module.forward = torch.compile(module.forward)
    for edit in (prune, lora_weights, edited):
        with pytest.raises(EditError, match=r"is compiled.*before torch\.compile"):
            edit(model, neurons)


def test_a_layer_or_network_that_is_exchanged_under_an_edit_is_noticed(model, neurons):
    name = next(iter(neurons.layers))
    layer = model.value_layers[name]
    unet = tiny_family("sd1").unet

    def load_a_lora() -> None:  # which calls the layer, and adds to what the hook gives
        with deactivate(model, neurons):
            place(model, name).to_v = OTHERS["a LoRA"](layer)
            noise(model)

    def exchange() -> None:
        with deactivate(model, neurons):
            model.pipeline.unet = unet
            noise(model)

    with pytest.raises(EditError, match=rf"{name} was replaced during the edit"):
        load_a_lora()
    place(model, name).to_v = layer
    with pytest.raises(EditError, match="the unet of the pipeline was replaced during the edit"):
        exchange()


# the hook on odd values ---------------------------------------------------------------------------


def test_under_autocast_the_edit_is_the_same(model, neurons):
    with torch.autocast("cpu", torch.bfloat16):
        wanted = edited(model, neurons)
        plain = noise(model)
        pruned = findnemo.load(prune(model, neurons))
        assert alike(noise(pruned).float(), wanted.float())
    assert not alike(wanted.float(), plain.float())
    assert alike(edited(model, neurons), noise(pruned))


def test_a_layer_that_runs_twice_in_a_pass_is_off_both_times(model, neurons):
    name = next(iter(neurons.layers))
    attn = place(model, name)
    layer = model.value_layers[name]
    own = attn.processor
    seen = []

    class Twice:
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **options):
            extra = attn.to_v(encoder_hidden_states.flip(1)).mean(1, keepdim=True)
            return (
                own(attn, hidden_states, encoder_hidden_states=encoder_hidden_states, **options)
                + extra
            )

    attn.set_processor(Twice())
    with deactivate(model, neurons):
        layer.register_forward_hook(lambda m, a, output: seen.append(output[..., 1:4].abs().max()))
        wanted = noise(model)
    assert len(seen) == 2
    assert not torch.stack(seen).any()
    assert alike(noise(findnemo.load(prune(model, neurons))), wanted)


def test_outputs_that_cannot_be_scaled_are_named(model, neurons):
    name = next(iter(neurons.layers))

    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), None

    place(model, name).to_v = Pair(32, 16)
    with pytest.raises(EditError, match=rf"{name} gives tuple, not one tensor with 16 neurons"):
        edited(model, neurons)
    layer = place(model, name).to_v = nn.Linear(32, 20)
    layer.out_features = 16
    with pytest.raises(
        EditError, match=rf"{name} gives \(2, 77, 20\), not one tensor with 16 neurons"
    ):
        edited(model, neurons)
    with pytest.raises(EditError, match=rf"{name} is quantized|{name} .*"):
        prune(model, neurons)


def test_masks_of_another_batch_are_not_stretched_over_it(model):
    name, layer = next(iter(model.value_layers.items()))
    with (
        pytest.raises(EditError, match=rf"3 masks do not fit {name}, which gives \(1, 77, 16\)"),
        scaled(model, {name: torch.ones(3, layer.out_features)}),
    ):
        noise(model, 1)


# what is written ----------------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize("form", ["checkpoint", "file", "lora", "kohya"])
def test_exports_of_a_parametrized_model_are_those_of_a_plain_one(model, neurons, tmp_path, form):
    for layer in model.value_layers.values():
        parametrize.register_parametrization(layer, "weight", Halved())
    wanted = edited(model, neurons)
    target = write(
        form,
        selected(tmp_path, model, neurons),
        tmp_path / ("out.safetensors" if form in ("file", "kohya") else "out"),
        model,
    )
    if form == "checkpoint":
        assert alike(noise(quiet_load(target)), wanted)
    elif form == "file":
        held = load_file(target)
        name = next(
            key
            for key in held
            if key.endswith("middle_block.1.transformer_blocks.0.attn2.to_v.weight")
        )
        layer = model.value_layers[list(neurons.layers)[-1]]
        assert torch.equal(held[name][4:], layer.weight[4:])
        assert not held[name][1:4].any()
    else:
        model.pipeline.load_lora_weights(target)
        assert alike(noise(model), wanted)


@pytest.mark.parametrize("form", ["checkpoint", "file", "lora", "kohya"])
def test_exports_of_quantized_layers_are_refused_and_leave_nothing(model, neurons, tmp_path, form):
    put(model, OTHERS["8 bits"])
    chosen = selected(tmp_path, model, neurons)
    with pytest.raises(EditError, match="is quantized"):
        write(
            form,
            chosen,
            tmp_path / ("out.safetensors" if form in ("file", "kohya") else "out"),
            model,
        )
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("fault", ["sign", "missing", "another row"])
def test_a_lora_file_is_read_again_before_it_has_its_name(
    model, neurons, tmp_path, monkeypatch, fault
):
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        key = next(key for key in tensors if key.endswith("lora_A.weight"))
        if fault == "missing":
            del tensors[key]
        else:
            tensors[key] = -tensors[key] if fault == "sign" else tensors[key].roll(1, 0)
        return tensors

    module = importlib.import_module("findnemo.edits._edits")
    write = module.write
    monkeypatch.setattr(
        module, "write", lambda path, tensors, about: write(path, change(dict(tensors)), about)
    )
    with pytest.raises(
        EditError, match=r"the edit of .*to_v \(neurons 1, 2, 3\) did not take effect: the LoRA"
    ):
        save_lora(model, neurons, tmp_path / "lora")
    assert not list((tmp_path / "lora").iterdir())


@pytest.mark.first(1)
@pytest.mark.parametrize("fault", ["not off", "another row", "other values"])
@pytest.mark.parametrize("form", ["checkpoint", "file"])
def test_what_was_written_is_compared_with_the_hook(
    model, neurons, tmp_path, monkeypatch, form, fault
):
    """Faults of the kind that a writer can make, put in after the edit."""
    chosen = selected(tmp_path, model, neurons)
    name = list(neurons.layers)[-1]
    original = model.value_layers[name].weight.detach().clone()

    def spoil(pruned):
        weight = pruned.unet.get_submodule(name).weight
        with torch.no_grad():
            if fault == "not off":
                weight[2] = original[2]
            elif fault == "another row":
                weight[7] = 0
            else:
                weight[8, 3] += 1e-6
        return pruned

    monkeypatch.setattr("findnemo.export._source.prune", lambda *args: spoil(prune(*args)))
    with pytest.raises(
        EditError, match=rf"the edit of {name} \(neurons 1, 2, 3\) did not take effect: the written"
    ):
        write(form, chosen, tmp_path / ("out.safetensors" if form == "file" else "out"), model)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_pruned_checkpoint_is_what_plain_diffusers_makes_of_it(model, neurons, tmp_path):
    """With all at once: masks, norms, ties and a module under two names."""
    first = next(iter(neurons.layers))
    share(model, neurons)
    MADE["parametrization"](model.value_layers[first])
    MADE["pruning mask"](model.value_layers[list(neurons.layers)[-1]])
    MADE["old weight norm"](model.denoiser.down_blocks[0].resnets[0].conv1)
    with deactivate(model, neurons):
        wanted = of_pipeline(model.pipeline)
    write("checkpoint", selected(tmp_path, model, neurons), tmp_path / "clean", model)
    assert (
        abs(of_pipeline(StableDiffusionPipeline.from_pretrained(tmp_path / "clean")) - wanted).max()
        < 2 / 255
    )
    assert (
        json.loads((tmp_path / "clean" / "model_index.json").read_text())["unet"][1]
        == "UNet2DConditionModel"
    )
    assert abs(of_pipeline(model.pipeline) - wanted).mean() > 0.01
    assert np.isfinite(wanted).all()


# every architecture -------------------------------------------------------------------------------


@pytest.mark.first(2)
@pytest.mark.parametrize("name", PIPELINES)
def test_a_pass_is_made_of_every_architecture(name):
    """By which an edit that nothing calls is known: a layer that no other one calls is one."""
    model = findnemo.load(PIPELINES[name]())
    check_called(model, model.value_layers)
    model.denoiser.add_module("nowhere", nn.Linear(1, 1))
    with pytest.raises(EditError, match="nowhere was never called"):
        check_called(model, [*model.value_layers, "nowhere"])


def test_a_pipeline_without_its_text_encoder_is_edited_all_the_same(model, neurons):
    wanted = edited(model, neurons)
    model.pipeline.text_encoder = None
    pruned = prune(model, neurons)
    model.pipeline.text_encoder = pruned.text_encoder = tiny_family("sd1").text_encoder
    assert alike(noise(findnemo.load(pruned)), wanted)


def test_dynamically_quantized_layers_of_pytorch_itself(model, neurons):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.pipeline.unet = torch.ao.quantization.quantize_dynamic(
            model.denoiser, {nn.Linear}, torch.qint8
        )
    before, after = noise(model), edited(model, neurons)
    assert not torch.allclose(before, after, atol=1e-3)
    for edit in (prune, lora_weights):
        with pytest.raises(
            EditError, match=r"is a torch\.ao\S+\.Linear, whose forward pass is its own"
        ):
            edit(model, neurons)


# dtypes of storage --------------------------------------------------------------------------------


def test_weights_that_are_kept_in_eight_bits_until_they_are_used(model, neurons):
    """As diffusers' layerwise casting does: the first weight's dtype is not that of passes."""
    model.denoiser.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    layer = model.value_layers[next(iter(neurons.layers))]
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert model.dtype == torch.float32
    assert not alike(edited(model, neurons), noise(model))
    for edit in (prune, lora_weights):
        with pytest.raises(EditError, match=r"is quantized \(Linear, Parameter of float8_e4m3fn\)"):
            edit(model, neurons)


def test_noise_is_not_made_of_whole_numbers_where_the_first_weight_is(model):
    conv = model.denoiser.conv_in
    codes = nn.Parameter((conv.weight.detach() * 100).to(torch.int8), requires_grad=False)
    conv._parameters = {"codes": codes, **conv._parameters}
    assert next(model.denoiser.parameters()).dtype == torch.int8
    assert model.dtype == torch.float32
    assert torch.equal(
        model.noise("a cat", [0]), findnemo.load(tiny_family("sd1")).noise("a cat", [0])
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_a_single_file_of_any_float_is_rewritten_and_checked(neurons, tmp_path, dtype, factor):
    pipeline = tiny_family("sd1")
    pipeline.save_pretrained(tmp_path / "config")
    tensors = {
        name: value.to(dtype)
        for name, value in load_file(save_file(pipeline, tmp_path / "plain.safetensors")).items()
    }
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    model = findnemo.load(tmp_path / "model.safetensors", config=tmp_path / "config")
    findnemo.export.rewrite(model, neurons, tmp_path / "clean.safetensors", factor)
    held = load_file(tmp_path / "clean.safetensors")
    name = next(
        key for key in held if key.endswith("middle_block.1.transformer_blocks.0.attn2.to_v.weight")
    )
    assert held[name].dtype == dtype
    assert torch.equal(
        held[name][1:4].float(), (tensors[name][1:4].float() * factor).to(dtype).float()
    )
    assert torch.equal(held[name][4:].float(), tensors[name][4:].float())
