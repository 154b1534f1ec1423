"""Whatever stands in the place of a weight: every edit is that of the hook, or is refused by
name, and what is written loads in plain diffusers.
"""

import copy
import importlib
import json
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from _odd_layers import MADE, OTHERS, Halved, Injected
from _plain_diffusers import of_pipeline
from _tiny import tiny_pipeline
from _tiny_files import as_model, loud, make_run, save_file, tiny_family
from _tiny_transformers import PIPELINES as TRANSFORMERS
from _tiny_transformers import quiet
from _tiny_unets import PIPELINES as UNETS
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as pruning

import findnemo
from findnemo import NeuronSet, deactivate, prune, save_lora
from findnemo.edits import check_called, lora_weights, scaled
from findnemo.errors import EditError, InputError
from findnemo.export import FORMS, select, write
from findnemo.models import Model
from findnemo.runs import Run

PIPELINES = {"sd": tiny_pipeline, **UNETS, **TRANSFORMERS}


@pytest.fixture
def model() -> Model:
    return as_model(loud(tiny_family("sd1"))[0])


@pytest.fixture
def neurons(model) -> NeuronSet:
    return loud(tiny_family("sd1"))[1]


def place(model: Model, name: str) -> nn.Module:
    return model.denoiser.get_submodule(name.rpartition(".")[0])


def put(model: Model, change) -> None:
    """Something else in the place of every value layer."""
    for name, layer in model.value_layers.items():
        place(model, name).to_v = change(layer)


@torch.no_grad()
def noise(model: Model, samples: int = 2) -> Tensor:
    return model.predict_noise(
        model.noise("a cat", range(samples)), 501, model.encode(["a cat"]).expand(samples)
    )


def edited(model: Model, neurons: NeuronSet, factor: float = 0.0) -> Tensor:
    with deactivate(model, neurons, factor):
        return noise(model)


def alike(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=2e-5, rtol=1e-4)


def quiet_load(folder) -> Model:
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return findnemo.load(pipeline)


def selected(folder, model: Model, neurons: NeuronSet, factor: float = 0.0):
    with Run.open(make_run(folder / "run", model, {"a red fox": neurons})) as run:
        return select(run, factor=factor)


# weights that are made before every pass ----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.0, -0.5])
@pytest.mark.parametrize("how", MADE)
def test_what_makes_a_weight_is_worked_into_it(model, neurons, tmp_path, how, factor):
    for layer in model.value_layers.values():
        MADE[how](layer)
    plain = noise(model)
    wanted = edited(model, neurons, factor)
    state = copy.deepcopy(model.denoiser.state_dict())
    assert not torch.allclose(plain, wanted, atol=1e-3)
    pruned = prune(model, neurons, factor)
    assert alike(noise(findnemo.load(pruned)), wanted)
    assert not [
        key for key in pruned.unet.state_dict() if "parametrizations" in key or "weight_" in key
    ]
    pruned.save_pretrained(tmp_path / "clean")
    assert alike(noise(quiet_load(tmp_path / "clean")), wanted)
    assert torch.equal(noise(model), plain)
    assert all(torch.equal(value, state[key]) for key, value in model.denoiser.state_dict().items())

    save_lora(model, neurons, tmp_path / "lora", factor)
    model.pipeline.load_lora_weights(tmp_path / "lora")
    assert alike(noise(model), wanted)


@pytest.mark.parametrize("how", ["parametrization", "old weight norm", "pruning mask"])
def test_weights_made_elsewhere_in_the_network_are_worked_in_too(model, neurons, tmp_path, how):
    for name in (
        "down_blocks.0.resnets.0.conv1",
        "up_blocks.0.resnets.0.conv2",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    ):
        MADE[how](model.denoiser.get_submodule(name))
    wanted = edited(model, neurons)
    prune(model, neurons).save_pretrained(tmp_path)
    assert alike(noise(quiet_load(tmp_path)), wanted)


def test_a_bias_that_is_made_is_worked_in(neurons):
    model = as_model(loud(tiny_family("sd1"))[0])
    for name in neurons.layers:
        layer = model.value_layers[name]
        layer.bias = nn.Parameter(torch.randn(layer.out_features))
        parametrize.register_parametrization(layer, "bias", Halved())
    wanted = edited(model, neurons)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no plain U-Net has this bias
        assert alike(noise(findnemo.load(prune(model, neurons))), wanted)
    tensors = lora_weights(model, neurons)
    name, indices = next(iter(neurons.layers.items()))
    assert torch.equal(
        -tensors[f"unet.{name}.lora_B.bias"][list(indices)],
        model.value_layers[name].bias[list(indices)],
    )


def test_a_mask_under_which_nobody_trained_is_no_hindrance_to_gradients(model, neurons):
    """PyTorch refuses to copy a weight that gradients flow through."""
    with torch.enable_grad():
        for layer in model.value_layers.values():
            pruning.random_unstructured(layer, "weight", 0.5)
        next(iter(model.value_layers.values()))(torch.ones(1, 32)).sum().backward()
    assert (
        not prune(model, neurons).unet.get_submodule(next(iter(neurons.layers))).weight[1:4].any()
    )


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


def test_a_module_named_twice_is_scaled_once(tiny):
    first, second = (
        f"down_blocks.0.attentions.{k}.transformer_blocks.0.attn2.to_v" for k in (0, 1)
    )
    place(tiny, second).to_v = tiny.value_layers[first]
    both = NeuronSet({first: [1, 2], second: [2, 3]})
    one = NeuronSet({first: [1, 2, 3]})
    assert torch.equal(edited(tiny, both, 0.5), edited(tiny, one, 0.5))
    a, b = (prune(tiny, n, 0.5).unet.state_dict() for n in (both, one))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(a[f"{second}.weight"], a[f"{first}.weight"])


def test_what_fused_projections_leave_behind_is_not_written(model, neurons, tmp_path):
    wanted = edited(model, neurons)
    model.pipeline.fuse_qkv_projections()
    model.pipeline.unfuse_qkv_projections()
    prune(model, neurons).save_pretrained(tmp_path)
    held = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert held.keys() == tiny_family("sd1").unet.state_dict().keys()
    assert alike(noise(quiet_load(tmp_path)), wanted)


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


@pytest.mark.parametrize("how", ["8 bits", "a LoRA", "a subclass", "another tensor"])
def test_quantized_or_adapted_layers_elsewhere_leave_no_checkpoint_that_does_not_load(
    model, neurons, how
):
    block = model.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1
    block.to_q = OTHERS[how](block.to_q)
    if how == "a subclass":
        prune(model, neurons)  # whose names are those of a plain one
        return
    with pytest.raises(EditError, match=r"attn1\.to_q.*(without quantization|fuse_lora)"):
        prune(model, neurons)


def test_a_layer_that_the_configuration_does_not_know_is_refused(model, neurons):
    block = model.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1
    block.to_q = nn.Sequential(block.to_q)
    with pytest.raises(
        EditError, match=r"it wants .*attn1\.to_q\.weight \(32, 32\), which is not there"
    ):
        prune(model, neurons)
    with torch.no_grad():
        block.to_q = nn.Linear(32, 64)
    with pytest.raises(
        EditError,
        match=r"wants .*attn1\.to_q\.weight \(32, 32\), which is Tensor float32 \(64, 32\)",
    ):
        prune(model, neurons)


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


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_factor_zero_is_off_whatever_the_neuron_gives(model, neurons, value):
    name = next(iter(neurons.layers))
    seen = []
    layer = model.value_layers[name]
    with torch.no_grad():
        layer.weight[1] = value
    with deactivate(model, neurons), deactivate(model, neurons, 0.0):
        handle = layer.register_forward_hook(lambda m, a, output: seen.append(output))
        assert noise(model).isfinite().all()
        handle.remove()
    assert not seen[0][..., 1:4].any()
    assert noise(findnemo.load(prune(model, neurons))).isfinite().all()


def test_in_half_precision_a_neuron_that_overflows_is_off(neurons):
    model = as_model(loud(tiny_family("sd1"))[0].to(dtype=torch.float16))
    with torch.no_grad():
        for name in neurons.layers:
            weight = model.value_layers[name].weight
            weight[1:4] = 6e4 * weight[1:4].sign()
    assert not noise(model).isfinite().all()
    off = edited(model, neurons)
    assert off.isfinite().all()
    assert alike(off.float(), noise(findnemo.load(prune(model, neurons))).float())


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("factor", [0.0, 0.3, -1.7])
def test_every_dtype_is_edited_within_its_rounding(neurons, dtype, factor, tmp_path):
    model = as_model(loud(tiny_family("sd1"))[0].to(dtype=dtype))
    wanted = edited(model, neurons, factor)
    plain = noise(model)
    assert wanted.dtype == dtype
    gap = (noise(findnemo.load(prune(model, neurons, factor))) - wanted).abs().max()
    assert gap <= 0.1 * (plain - wanted).abs().max()
    save_lora(model, neurons, tmp_path, factor)
    model.pipeline.load_lora_weights(tmp_path)
    assert (noise(model) - wanted).abs().max() <= 0.1 * (plain - wanted).abs().max()


def test_a_factor_is_not_rounded_to_the_layers_dtype():
    scale = torch.tensor([0.3, 1.0])
    model = as_model(loud(tiny_family("sd1"))[0].to(dtype=torch.bfloat16))
    name, layer = next(iter(model.value_layers.items()))
    x = torch.randn(1, 5, layer.in_features).to(torch.bfloat16)
    with scaled(model, {name: scale.repeat(8)}):
        output = layer(x)
    assert torch.equal(output, (layer(x).double() * scale.repeat(8)).to(torch.bfloat16))


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


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf"), "0", None, 1e39])
def test_a_factor_that_is_none_is_refused(model, neurons, factor):
    for edit in (prune, lora_weights, edited):
        with pytest.raises(InputError, match=r"is not a factor for neurons: give a finite number"):
            edit(model, neurons, factor)


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


@pytest.mark.parametrize("form", ["checkpoint", "file"])
@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_checkpoint_with_another_part_that_would_not_load_is_refused(
    model, neurons, tmp_path, part, form
):
    """What `prune` shares it leaves as it is, and says so."""
    module = next(m for m in getattr(model.pipeline, part).modules() if isinstance(m, nn.Linear))
    parametrize.register_parametrization(module, "weight", Halved())
    chosen = selected(tmp_path, model, neurons)
    with pytest.warns(
        UserWarning,
        match=rf"a checkpoint of the {part} would hold \S+parametrizations\S+, which no plain",
    ):
        prune(model, neurons)
    with (
        pytest.raises(
            EditError,
            match=rf"a checkpoint of the {part} would hold \S+parametrizations\S+, which no plain",
        ),
        pytest.warns(UserWarning, match="would hold"),
    ):
        write(form, chosen, tmp_path / f"out{FORMS[form].suffix}", model)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_checkpoint_of_which_diffusers_would_leave_something_out_is_refused(
    model, neurons, tmp_path
):
    layer = model.value_layers[next(iter(neurons.layers))]
    layer.bias = nn.Parameter(torch.zeros(layer.out_features))
    with pytest.warns(UserWarning, match=r"has no .*to_v\.bias: diffusers leaves it out"):
        prune(model, neurons)
    with (
        pytest.raises(EditError, match=r"has no .*to_v\.bias: diffusers leaves it out"),
        pytest.warns(UserWarning, match="leaves it out"),
    ):
        write("checkpoint", selected(tmp_path, model, neurons), tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


def test_a_single_file_under_a_lora_elsewhere_is_not_rewritten_without_it(neurons, tmp_path):
    pipeline = loud(tiny_family("sd1"))[0]
    pipeline.save_pretrained(tmp_path / "config")
    model = findnemo.load(
        save_file(pipeline, tmp_path / "model.safetensors"), config=tmp_path / "config"
    )
    block = model.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1
    block.to_q = OTHERS["a LoRA"](block.to_q)
    with pytest.raises(EditError, match=r"unet would hold \S*to_q\S*"):
        findnemo.export.rewrite(model, neurons, tmp_path / "clean.safetensors")
    assert not (tmp_path / "clean.safetensors").exists()


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


@pytest.mark.first(1)
@pytest.mark.parametrize("name", PIPELINES)
def test_made_weights_and_biases_of_every_architecture_are_worked_in(name):
    model = findnemo.load(PIPELINES[name]())
    layers = list(model.value_layers)
    neurons = NeuronSet({layers[0]: [0, 3], layers[-1]: [1, 2]})
    for layer in neurons.layers:
        for end, value in list(model.value_layers[layer].named_parameters()):
            value.data.normal_()
            parametrize.register_parametrization(model.value_layers[layer], end, Halved())
    with deactivate(model, neurons):
        wanted = noise(model)
    assert not torch.allclose(noise(model), wanted, atol=1e-4)
    pruned = findnemo.load(quiet(prune(model, neurons)))
    assert alike(noise(pruned), wanted)
    assert all(type(layer) is nn.Linear for layer in pruned.value_layers.values())
    assert type(model.value_layers[layers[0]]) is not nn.Linear


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
