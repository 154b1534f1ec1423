"""What was written is read again: an edit that is not in it, or weights that libraries cannot load,
are named.
"""

from __future__ import annotations

import pytest
import torch
from _tiny_files import as_model, loud, tiny_family
from safetensors.torch import load_file, save_file

import findnemo
from findnemo.edits import effects
from findnemo.errors import EditError
from findnemo.export import check_checkpoint, kohya_weights
from findnemo.export._checks import check_kohya, check_parts


@pytest.fixture
def written(tmp_path):
    """A model, its edit, and the file of the denoiser's weights of a checkpoint with the edit."""
    pipeline, neurons = loud(tiny_family("sd1"))
    model = as_model(pipeline)
    findnemo.prune(model, neurons).save_pretrained(tmp_path / "clean")
    file = tmp_path / "clean" / "unet" / "diffusion_pytorch_model.safetensors"
    return model, effects(model, neurons), file


def test_a_checkpoint_without_a_part_of_its_edit_is_refused_by_the_name_of_the_layer(written):
    model, wanted, file = written
    folder = file.parents[1]
    check_checkpoint(folder, model, wanted)
    tensors = load_file(file)
    layer, effect = list(wanted.items())[-1]
    row = next(iter(effect.rows))
    tensors[f"{layer}.weight"][row, 0] = 1.0
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(EditError, match=layer.replace(".", r"\.")):
        check_checkpoint(folder, model, wanted)


def test_a_checkpoint_without_a_weight_is_refused(written):
    model, wanted, file = written
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(EditError, match=r"unet.*conv_in\.weight"):
        check_checkpoint(file.parents[1], model, wanted)


def test_a_pipeline_with_a_weight_under_a_new_name_is_refused_before_it_is_written():
    pipeline = tiny_family("sd1")
    check_parts(pipeline)
    conv = pipeline.vae.decoder.conv_out
    torch.nn.utils.parametrizations.weight_norm(conv)
    with pytest.raises(EditError, match="vae"):
        check_parts(pipeline)


def test_a_lora_with_another_alpha_or_without_a_layer_does_not_carry_the_edit():
    pipeline, neurons = loud(tiny_family("sd1"))
    model = as_model(pipeline)
    tensors = kohya_weights(model, neurons)
    check_kohya(tensors, effects(model, neurons))
    name = next(name for name in tensors if name.endswith(".alpha"))
    with pytest.raises(EditError, match="the LoRA"):
        check_kohya(tensors | {name: tensors[name] / 2}, effects(model, neurons))
    layer = name.removesuffix(".alpha")
    fewer = {key: value for key, value in tensors.items() if not key.startswith(layer)}
    with pytest.raises(EditError, match="the LoRA"):
        check_kohya(fewer, effects(model, neurons))
