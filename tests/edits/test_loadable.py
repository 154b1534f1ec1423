"""A part that plain libraries could not load whole is refused, by the weight to blame."""

import re

import pytest
import torch
from _edited import selected
from _odd_layers import OTHERS, Halved
from _tiny_files import loud, save_file, tiny_family
from torch import nn
from torch.nn.utils import parametrize

import findnemo
from findnemo import prune
from findnemo.edits import check_part
from findnemo.errors import EditError
from findnemo.export import FORMS, write


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


def test_a_plain_part_may_be_loaded_and_one_without_a_weight_may_not(model):
    unet = model.denoiser
    held = dict(unet.state_dict())
    check_part("unet", unet, held)
    name = "mid_block.attentions.0.proj_in.weight"
    value = held.pop(name)
    shape = rf"{re.escape(name)} \({', '.join(map(str, value.shape))}\)"
    with pytest.raises(
        EditError, match=rf"the unet would not load: it wants {shape}, which is not"
    ):
        check_part("unet", unet, held)
    with pytest.raises(EditError, match=r"would hold a\.weight_orig, which no plain"):
        check_part("unet", unet, {name: value, "a.weight_orig": value})


def test_a_part_of_another_library_is_known_by_no_name_of_its_own(model):
    encoder = model.pipeline.text_encoder
    check_part("text_encoder", encoder, {"new_in_the_next_version": torch.ones(2)})
    with pytest.raises(EditError, match=r"the text_encoder would hold x\.parametrizations\.y"):
        check_part("text_encoder", encoder, {"x.parametrizations.y": torch.ones(2)})
