"""LoRA files: whatever form, they do what peft does; what would be passed over is refused by its name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_sd3
from _tiny_unets import tiny_sdxl
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import findnemo
from findnemo import NeuronSet
from findnemo.errors import InputError, ModelError
from findnemo.models import read_lora
from findnemo.models.lora import of_strength
from findnemo.models.unet_names import unet_name

RANK, ALPHA = 3, 6.0
MAKERS: dict[str, Callable[[], Any]] = {
    "sd": tiny_pipeline,
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def denoiser(pipeline: Any) -> tuple[str, Any]:
    return (
        ("unet", pipeline.unet)
        if hasattr(pipeline, "unet")
        else ("transformer", pipeline.transformer)
    )


def layers(network: Any, ends: tuple[str, ...] = ATTENTION) -> dict[str, torch.nn.Linear]:
    return {n: m for n, m in network.named_modules() if n.endswith(ends) and hasattr(m, "weight")}


def pairs(
    network: Any, ends: tuple[str, ...] = ATTENTION
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A random down and up matrix of every layer."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: (
            torch.randn(RANK, layer.weight.shape[1], generator=generator),
            torch.randn(layer.weight.shape[0], RANK, generator=generator),
        )
        for name, layer in layers(network, ends).items()
    }


def merged(pipeline: Any, file: Path, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights of the denoiser with a file on it; the pipeline stays what it is."""
    component, network = denoiser(pipeline)
    own = copy.deepcopy(network)
    kept = getattr(pipeline, component)
    setattr(pipeline, component, own)
    try:
        read_lora(file, pipeline).merge(pipeline, scale)
    finally:
        setattr(pipeline, component, kept)
    return own.state_dict()


def by_hand(network: Any, changes: dict[str, tuple[torch.Tensor, torch.Tensor]], factor: float):
    """W + factor up down, layer by layer."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, (down, up) in changes.items():
        state[f"{name}.weight"] += factor * (up @ down)
    return state


def assert_same(found: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module", params=MAKERS)
def pipeline(request) -> Any:
    return MAKERS[request.param]()


@pytest.fixture(scope="module")
def sd() -> Any:
    return tiny_pipeline()


# forms ----------------------------------------------------------------------------------------------


@pytest.mark.first(1)
def test_what_peft_trains_and_diffusers_writes_is_what_their_own_loader_makes_of_it(
    pipeline, tmp_path
):
    """Trained by peft with alpha twice the rank, written by diffusers, against diffusers' fusing."""
    component, network = denoiser(pipeline)
    trained = copy.deepcopy(network)
    trained.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(ATTENTION)))
    generator = torch.Generator().manual_seed(2)
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    state = get_peft_model_state_dict(trained)
    config = trained.peft_config["default"]
    metadata = {f"{component}_lora_adapter_metadata": {**config.to_dict(), "task_type": None}}
    for values in metadata.values():
        values["target_modules"] = sorted(values["target_modules"])
    type(pipeline).save_lora_weights(tmp_path, **{f"{component}_lora_layers": state}, **metadata)
    plain = copy.deepcopy(pipeline)
    plain.load_lora_weights(tmp_path)
    plain.fuse_lora(components=[component], lora_scale=0.7)
    plain.unload_lora_weights()
    want = getattr(plain, component).state_dict()
    assert_same(merged(pipeline, tmp_path, 0.7), want)


FORMS: dict[str, Callable[[str, str], tuple[str, str, str | None]]] = {
    "peft": lambda c, n: (f"{c}.{n}.lora_A.weight", f"{c}.{n}.lora_B.weight", None),
    "peft with alpha": lambda c, n: (
        f"{c}.{n}.lora_A.weight",
        f"{c}.{n}.lora_B.weight",
        f"{c}.{n}.alpha",
    ),
    "without prefix": lambda c, n: (f"{n}.lora_A.weight", f"{n}.lora_B.weight", None),
    "of a peft model": lambda c, n: (
        f"base_model.model.{n}.lora_A.weight",
        f"base_model.model.{n}.lora_B.weight",
        None,
    ),
    "diffusers": lambda c, n: (f"{c}.{n}.lora.down.weight", f"{c}.{n}.lora.up.weight", None),
    "kohya": lambda c, n: (
        f"lora_unet_{n.replace('.', '_')}.lora_down.weight",
        f"lora_unet_{n.replace('.', '_')}.lora_up.weight",
        f"lora_unet_{n.replace('.', '_')}.alpha",
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_makes_the_same_weights(pipeline, tmp_path, form):
    component, network = denoiser(pipeline)
    changes = pairs(network)
    tensors: dict[str, torch.Tensor] = {}
    alphas = False
    for name, (down, up) in changes.items():
        low, high, alpha = FORMS[form](component, name)
        tensors |= {low: down, high: up}
        if alpha is not None:
            tensors[alpha] = torch.tensor(ALPHA)
            alphas = True
    save_file(tensors, tmp_path / "lora.safetensors")
    factor = ALPHA / RANK if alphas else 1.0
    assert_same(
        merged(pipeline, tmp_path / "lora.safetensors", 0.5),
        by_hand(network, changes, 0.5 * factor),
    )


def test_the_oldest_form_of_diffusers(sd, tmp_path):
    changes = pairs(sd.unet)
    tensors = {}
    for name, (down, up) in changes.items():
        attention, _, layer = name.removesuffix(".0").rpartition(".")
        tensors[f"unet.{attention}.processor.{layer}_lora.down.weight"] = down
        tensors[f"unet.{attention}.processor.{layer}_lora.up.weight"] = up
    save_file(tensors, tmp_path / "lora.safetensors")
    assert_same(merged(sd, tmp_path / "lora.safetensors"), by_hand(sd.unet, changes, 1.0))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_kohyas_names_of_the_original_layout(kind, tmp_path):
    """As trainers of SDXL write them; against diffusers' own conversion."""
    pipeline = MAKERS[kind]()
    config = pipeline.unet.config
    attended = frozenset(k for k, name in enumerate(config.up_block_types) if "Attn" in name)
    changes = pairs(pipeline.unet)
    tensors = {}
    for name, (down, up) in changes.items():
        original = unet_name(f"{name}.weight", config.layers_per_block, attended)
        stem = "lora_unet_" + original.removesuffix(".weight").replace(".", "_")
        tensors |= {
            f"{stem}.lora_down.weight": down,
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": torch.tensor(ALPHA),
        }
    save_file(tensors, tmp_path / "lora.safetensors")
    found = merged(pipeline, tmp_path / "lora.safetensors")
    assert_same(found, by_hand(pipeline.unet, changes, ALPHA / RANK))


FUSED = "lora_unet_single_blocks_0_linear1"  # diffusers' conversion knows its published width only


def test_flux_in_its_original_layout_is_what_diffusers_makes_of_it(tmp_path):
    """One matrix of the file holds the rows of several layers."""
    pipeline = tiny_flux()
    network = pipeline.transformer
    double, single = network.transformer_blocks[0], network.single_transformer_blocks[0]
    width = double.attn.to_q.weight.shape[0]
    shapes = {
        "double_blocks_0_img_attn_qkv": (3 * width, width),
        "double_blocks_0_txt_attn_qkv": (3 * width, width),
        "double_blocks_0_img_attn_proj": (width, width),
        "double_blocks_0_txt_mlp_2": tuple(double.ff_context.net[2].weight.shape),
        "double_blocks_0_img_mod_lin": tuple(double.norm1.linear.weight.shape),
        "single_blocks_0_linear2": tuple(single.proj_out.weight.shape),
        "single_blocks_0_modulation_lin": tuple(single.norm.linear.weight.shape),
    }
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        tensors |= matrices(f"lora_unet_{name}", shape)
    save_file(tensors, tmp_path / "lora.safetensors")
    found = merged(pipeline, tmp_path / "lora.safetensors", 0.8)
    plain = copy.deepcopy(pipeline)
    plain.load_lora_weights(tmp_path / "lora.safetensors")
    plain.fuse_lora(components=["transformer"], lora_scale=0.8)
    plain.unload_lora_weights()
    assert_same(found, plain.transformer.state_dict())
    assert not torch.equal(found["transformer_blocks.0.attn.to_k.weight"], double.attn.to_k.weight)


def test_queries_keys_values_and_the_mlp_of_flux_in_one_matrix(tmp_path):
    pipeline = tiny_flux()
    block = pipeline.transformer.single_transformer_blocks[0]
    layers = {
        n: block.get_submodule(n) for n in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    }
    rows = [layer.weight.shape[0] for layer in layers.values()]
    tensors = matrices(FUSED, (sum(rows), block.attn.to_q.weight.shape[1]))
    save_file(tensors, tmp_path / "lora.safetensors")
    found = merged(pipeline, tmp_path / "lora.safetensors")
    change = (
        ALPHA / RANK * tensors[f"{FUSED}.lora_up.weight"] @ tensors[f"{FUSED}.lora_down.weight"]
    )
    for (name, layer), part in zip(layers.items(), change.split(rows), strict=True):
        want = layer.weight + part
        torch.testing.assert_close(found[f"single_transformer_blocks.0.{name}.weight"], want)


def matrices(stem: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """A random LoRA of one weight in kohya's form."""
    generator = torch.Generator().manual_seed(len(stem))
    return {
        f"{stem}.lora_down.weight": torch.randn(RANK, shape[1], generator=generator),
        f"{stem}.lora_up.weight": torch.randn(shape[0], RANK, generator=generator),
        f"{stem}.alpha": torch.tensor(ALPHA),
    }


def test_sd3_in_its_original_layout(tmp_path):
    pipeline = tiny_sd3()
    block = pipeline.transformer.transformer_blocks[0]
    width = block.attn.to_q.weight.shape[0]
    down, up = torch.randn(RANK, width), torch.randn(3 * width, RANK)
    stem = "lora_unet_joint_blocks_0_x_block_attn_qkv"
    save_file(
        {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up},
        tmp_path / "lora.safetensors",
    )
    found = merged(pipeline, tmp_path / "lora.safetensors")
    change = up @ down
    for k, name in enumerate(("to_q", "to_k", "to_v")):
        want = getattr(block.attn, name).weight + change[k * width : (k + 1) * width]
        torch.testing.assert_close(found[f"transformer_blocks.0.attn.{name}.weight"], want)


@pytest.mark.parametrize("prefix", ["lora_te_text_model_", "lora_te1_text_model_", "lora_te_"])
def test_text_encoders_change_too(sd, tmp_path, prefix):
    pipeline = copy.deepcopy(sd)
    name, layer = next(
        (n, m) for n, m in pipeline.text_encoder.named_modules() if n.endswith("q_proj")
    )
    before = layer.weight.clone()
    down, up = torch.randn(RANK, before.shape[1]), torch.randn(before.shape[0], RANK)
    stem = prefix + name.replace(".", "_")
    save_file(
        {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up},
        tmp_path / "lora.safetensors",
    )
    read_lora(tmp_path / "lora.safetensors", pipeline).merge(pipeline)
    torch.testing.assert_close(layer.weight, before + up @ down)


def test_convolutions_in_two_steps_and_in_three(sd, tmp_path):
    """LyCORIS' LoRA of a convolution, against convolutions one after the other."""
    layer = sd.unet.down_blocks[0].resnets[0].conv1
    out, into, *kernel = layer.weight.shape
    generator = torch.Generator().manual_seed(5)
    down3 = torch.randn(RANK, into, *kernel, generator=generator)
    down1 = torch.randn(RANK, into, 1, 1, generator=generator)
    mid = torch.randn(RANK, RANK, *kernel, generator=generator)
    up = torch.randn(out, RANK, 1, 1, generator=generator)
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    x = torch.randn(1, into, 6, 6, generator=generator)
    conv = torch.nn.functional.conv2d
    ways = {
        "two": ({"lora_down": down3, "lora_up": up}, conv(conv(x, down3, padding=1), up)),
        "three": (
            {"lora_down": down1, "lora_mid": mid, "lora_up": up},
            conv(conv(conv(x, down1), mid, padding=1), up),
        ),
    }
    for name, (parts, want) in ways.items():
        file = tmp_path / f"{name}.safetensors"
        save_file({f"{stem}.{part}.weight": value for part, value in parts.items()}, file)
        change = merged(sd, file)["down_blocks.0.resnets.0.conv1.weight"] - layer.weight
        torch.testing.assert_close(conv(x, change, padding=1), want, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_and_eighth_precision_are_read(sd, tmp_path, dtype):
    changes = {name: (down.to(dtype), up.to(dtype)) for name, (down, up) in pairs(sd.unet).items()}
    tensors = {}
    for name, (down, up) in changes.items():
        tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "lora.safetensors")
    floats = {name: (down.float(), up.float()) for name, (down, up) in changes.items()}
    assert_same(merged(sd, tmp_path / "lora.safetensors"), by_hand(sd.unet, floats, 1.0))


def test_strength_nothing_changes_nothing(sd, tmp_path):
    file = written(sd, tmp_path)
    assert_same(merged(sd, file, 0.0), sd.unet.state_dict())


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_beside_a_file_of_peft(sd, tmp_path, rslora):
    changes = pairs(sd.unet)
    tensors = {}
    for name, (down, up) in changes.items():
        stem = f"base_model.model.{name}"
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    first = next(iter(changes))
    config = {
        "r": RANK,
        "lora_alpha": ALPHA,
        "use_rslora": rslora,
        "alpha_pattern": {first: 2 * ALPHA},
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    under = RANK**0.5 if rslora else RANK
    want = by_hand(sd.unet, changes, ALPHA / under)
    want = by_hand_more(want, {first: changes[first]}, ALPHA / under)
    assert_same(merged(sd, tmp_path), want)


def by_hand_more(state, changes, factor):
    for name, (down, up) in changes.items():
        state[f"{name}.weight"] = state[f"{name}.weight"] + factor * (up @ down)
    return state


# what is refused ------------------------------------------------------------------------------------


def written(pipeline: Any, folder: Path, **more: torch.Tensor) -> Path:
    """A whole LoRA of the denoiser in kohya's form, with tensors added, or left out where None."""
    tensors: dict[str, Any] = {}
    for name, (down, up) in pairs(denoiser(pipeline)[1]).items():
        stem = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    tensors |= more
    file = folder / "lora.safetensors"
    save_file({name: value for name, value in tensors.items() if value is not None}, file)
    return file


STEM = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another layer": (
        {"lora_unet_mid_block_attentions_7_to_v.lora_down.weight": torch.zeros(3, 32)},
        r"changes lora_unet_mid_block_attentions_7_to_v.*another base model",
    ),
    "LoHa": ({f"{STEM}.hada_w1_a": torch.zeros(3, 3)}, r"another method than LoRA, LoHa"),
    "LoKr": ({f"{STEM}.lokr_w1": torch.zeros(3, 3)}, r"another method than LoRA, LoKr"),
    "DoRA": ({f"{STEM}.dora_scale": torch.zeros(3)}, r"another method than LoRA, DoRA"),
    "something else": (
        {"emb_params": torch.zeros(3)},
        r"a key that does not belong to a LoRA: emb_params",
    ),
    "no up": ({f"{STEM}.lora_up.weight": None}, rf"has no up of {STEM}"),
    "no down": ({f"{STEM}.lora_down.weight": None}, rf"has no down of {STEM}"),
    "a rank that is cut": (
        {f"{STEM}.lora_up.weight": torch.zeros(32, 2)},
        r"rank 3 in its down matrix and 2 in its up",
    ),
    "another width": (
        {f"{STEM}.lora_down.weight": torch.zeros(3, 7)},
        r"for a layer of \d+ outputs and 7 inputs.*another base model",
    ),
    "other outputs": (
        {f"{STEM}.lora_up.weight": torch.zeros(5, 3)},
        r"for a layer of 5 outputs.*another base model",
    ),
    "not finite": (
        {f"{STEM}.lora_up.weight": torch.full((32, 3), torch.nan)},
        rf"up of {STEM} in .* is not finite",
    ),
    "an alpha that is none": (
        {f"{STEM}.alpha": torch.tensor(torch.inf)},
        r"alpha of unet.* is inf",
    ),
    "one layer under two names": (
        {
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight": torch.zeros(
                3, 32
            ),
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.lora_B.weight": torch.zeros(
                32, 3
            ),
        },
        r"under two names",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_passed_over(sd, tmp_path, case):
    more, said = REFUSED[case]
    shape = sd.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_v.weight.shape
    more = {
        name: torch.full((shape[0], 3), float(value[0, 0]))
        if value is not None and value.shape == (32, 3)
        else value[:, : shape[1]].new_zeros(3, shape[1])
        if value is not None and value.shape == (3, 32)
        else value
        for name, value in more.items()
    }
    before = {name: value.clone() for name, value in sd.unet.state_dict().items()}
    with pytest.raises(ModelError, match=said):
        read_lora(written(sd, tmp_path, **more), sd)
    assert_same(sd.unet.state_dict(), before)


ODD_SHAPES: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "whole numbers": ({"lora_up": torch.ones(8, 3, dtype=torch.int8)}, "as I8: quantized"),
    "a dtype that PyTorch's files rarely have": (
        {"lora_up": torch.ones(8, 3).to(torch.uint16)},
        "as U16: quantized",
    ),
    "an up matrix with a kernel": ({"lora_up": torch.ones(8, 3, 3, 3)}, "of other shapes"),
    "a middle that is none": ({"lora_mid": torch.ones(3, 3)}, "of other shapes"),
    "a middle of one dimension": ({"lora_mid": torch.ones(3)}, "of other shapes"),
}


@pytest.mark.parametrize("case", ODD_SHAPES)
def test_matrices_of_other_shapes_and_kinds_are_refused_before_any_is_merged(sd, tmp_path, case):
    more, said = ODD_SHAPES[case]
    named = {f"{STEM}.{name}.weight": value for name, value in more.items()}
    with pytest.raises(ModelError, match=said):
        read_lora(written(sd, tmp_path, **named), sd)


@pytest.mark.parametrize(("of", "on"), [("sdxl", "sd"), ("flux", "sd"), ("sd", "flux")])
def test_a_lora_of_another_architecture_is_named_as_such(tmp_path, of, on):
    file = written(MAKERS[of](), tmp_path)
    with pytest.raises(ModelError, match="LoRA for another base model"):
        read_lora(file, MAKERS[on]())


def test_files_that_are_none(sd, tmp_path):
    with pytest.raises(InputError, match=r"no LoRA .*missing"):
        read_lora(tmp_path / "missing.safetensors", sd)
    with pytest.raises(InputError, match=r"holds 0 \.safetensors files"):
        read_lora(tmp_path, sd)
    pickle = tmp_path / "lora.pt"
    torch.save({"a": torch.zeros(1)}, pickle)
    with pytest.raises(ModelError, match="is a pickle"):
        read_lora(pickle, sd)
    text = tmp_path / "lora.txt"
    text.write_text("words", encoding="utf-8")
    with pytest.raises(InputError, match=r"is not a \.safetensors file"):
        read_lora(text, sd)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(written(sd, tmp_path).read_bytes()[:-7])
    with pytest.raises(InputError, match="not a whole one"):
        read_lora(cut, sd)
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(InputError, match="holds no tensors"):
        read_lora(tmp_path / "empty.safetensors", sd)


def test_a_directory_with_several_files_asks_which(sd, tmp_path):
    file = written(sd, tmp_path)
    assert read_lora(tmp_path, sd).deltas.keys() == read_lora(file, sd).deltas.keys()
    save_file(load_file(file), tmp_path / "second.safetensors")
    with pytest.raises(InputError, match=r"holds 2 \.safetensors files.*name the LoRA's file"):
        read_lora(tmp_path, sd)


# loading --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(sd, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    sd.save_pretrained(folder)
    return folder


@pytest.mark.first(1)
@pytest.mark.parametrize(("name", "scale"), [("{}", 1.0), ("{}:0.25", 0.25), ("{}:-1", -1.0)])
def test_a_model_is_loaded_with_a_lora_at_a_strength(sd, base, tmp_path, name, scale):
    file = written(sd, tmp_path)
    model = findnemo.load(base, lora=name.format(file))
    want = by_hand(sd.unet, pairs(sd.unet), scale)
    assert_same(model.denoiser.state_dict(), want)
    assert model.options == {"lora": name.format(file)}
    assert model.fingerprint != findnemo.load(base).fingerprint


def test_what_findnemo_itself_writes_is_read(base, tmp_path):
    """Neurons off as a LoRA: the model that carries it gives nothing there."""
    model = findnemo.load(base)
    name = next(iter(model.value_layers))
    neurons = NeuronSet({name: [1, 2]})
    findnemo.save_lora(model, neurons, tmp_path)
    edited = findnemo.load(base, lora=tmp_path)
    weight = edited.value_layers[name].weight
    torch.testing.assert_close(weight[[1, 2]], torch.zeros_like(weight[[1, 2]]))


def test_a_lora_for_what_is_not_loaded_here_is_refused(sd, tmp_path):
    file = written(sd, tmp_path)
    with pytest.raises(
        InputError, match=r"lora .* changes a model that is loaded here, and this is"
    ):
        findnemo.load(sd, lora=file)
    with pytest.raises(InputError, match=r"\+inf is not a strength of a LoRA"):
        findnemo.load("demo", lora=f"{file}:+inf")


def test_a_path_with_a_colon_is_a_path(tmp_path):
    odd = tmp_path / "a:1"
    odd.write_bytes(b"")
    assert of_strength(str(odd)) == (str(odd), 1.0)
    assert of_strength("C:adapter") == ("C:adapter", 1.0)
