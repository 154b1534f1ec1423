"""A run of a LoRA as that LoRA without the copies: on the untouched base, in plain diffusers, it
is the model whose neurons are off.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from _command import cli
from _makers import MAKERS
from _tiny import tiny_pipeline
from _tiny_files import make_run
from _tiny_files import save_file as save_single_file
from _tiny_transformers import tiny_flux
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import findnemo
from findnemo import NeuronSet
from findnemo.errors import EditError, InputError, ModelError
from findnemo.export import FORMS, select, unedited, write
from findnemo.models import Model
from findnemo.runs import Run
from findnemo.runtime.notices import notices_to

RANK = 4
NOISE = 5e-5  # rounding of a network in float32 whose LoRA is not merged, relative
CAPTION = "a red fox"
UNET = ("attn1.to_q", "attn2.to_q", "ff.net.2")  # the value layers are left alone
VALUES = ("attn2.to_v", "attn2.to_q")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")  # all that kohya's trainer takes


def network(pipeline: Any) -> tuple[str, Any]:
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    return name, getattr(pipeline, name)


def pair(layer: Any, rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A down and an up matrix, of the size of a LoRA that changes a lot."""
    out, into, *kernel = layer.weight.shape
    down = torch.randn(rank, into, *kernel, generator=generator) / into**0.5
    up = torch.randn(out, rank, *[1] * len(kernel), generator=generator) / rank**0.5
    return down, up * layer.weight.detach().std() * into**0.5


def lora(
    folder: Path,
    pipeline: Any,
    ends: dict[str, tuple[str, ...]],
    alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
    more: dict[str, torch.Tensor] | None = None,
) -> Path:
    """A LoRA of the layers of components whose names end so, in kohya's form with an alpha, else
    in diffusers'.
    """
    generator = torch.Generator().manual_seed(1)
    tensors = dict(more or {})
    for component, wanted in ends.items():
        for name, layer in getattr(pipeline, component).named_modules():
            if not name.endswith(wanted):
                continue
            down, up = pair(layer, RANK, generator)
            if alpha is None:
                stem = f"{component}.{name}"
                tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            else:
                name = name.removeprefix("text_model.")
                stem = f"{PREFIX[component]}{name.replace('.', '_')}"
                tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
                tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    assert tensors
    file = folder / "trained.safetensors"
    save_file({name: value.to(dtype) for name, value in tensors.items()}, file)
    return file


PREFIX = {
    "unet": "lora_unet_",
    "text_encoder": "lora_te1_text_model_",
    "text_encoder_2": "lora_te2_text_model_",
}


def neurons_of(model: Model) -> NeuronSet:
    """Three neurons of the first value layer, and one of the last."""
    first, *_, last = model.value_layers
    return NeuronSet({first: [1, 2, 5], last: [3]})


def exported(
    form: str, folder: Path, model: Model, factor: float = 0.0, dtype: str | None = None
) -> Path:
    neurons = neurons_of(model)
    with Run.open(make_run(folder / "run", model, {CAPTION: neurons})) as run:
        chosen = select(run, factor=factor)
    return write(form, chosen, folder / FORMS[form].name, model, dtype=dtype)


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    """All weights that a LoRA may change, of a plain pipeline."""
    return {
        f"{name}.{key}": value.double()
        for name in ("unet", "transformer", "text_encoder", "text_encoder_2")
        if hasattr(getattr(pipeline, name, None), "state_dict")
        for key, value in getattr(pipeline, name).state_dict().items()
        if value.is_floating_point()
    }


def edited(model: Model, factor: float) -> dict[str, torch.Tensor]:
    """By hand: the rows of the neurons multiplied."""
    found = weights(model.pipeline)
    for layer, rows in neurons_of(model).layers.items():
        for end in ("weight", "bias"):
            if (key := f"{model.component}.{layer}.{end}") in found:
                found[key] = found[key].clone()
                found[key][list(rows)] *= factor
    return found


def in_plain_diffusers(base: Path, file: Path) -> Any:
    plain = DiffusionPipeline.from_pretrained(base, use_safetensors=True)
    plain.set_progress_bar_config(disable=True)
    plain.load_lora_weights(str(file))
    return plain


def fused(plain: Any, strength: float = 1.0) -> Any:
    """What a loaded LoRA makes of the weights, by diffusers' own fusing, at a strength."""
    adapted = [
        name
        for name in ("unet", "transformer", "text_encoder", "text_encoder_2")
        if getattr(getattr(plain, name, None), "peft_config", None)
    ]
    plain.fuse_lora(components=adapted, lora_scale=strength)
    plain.unload_lora_weights()
    return plain


def noise(pipeline: Any) -> torch.Tensor:
    """What a U-Net or transformer gives for one latent and caption, by its pipeline alone."""
    caught = []
    _, own = network(pipeline)
    hook = own.register_forward_hook(lambda m, a, out: caught.append(out[0]))
    try:
        pipeline(
            CAPTION,
            num_inference_steps=1,
            output_type="latent",
            height=32,
            width=32,
            generator=torch.Generator().manual_seed(3),
        )
    finally:
        hook.remove()
    return caught[0].double()


def assert_close(
    found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], rounding: float
) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        size = float(value.abs().max()) or 1.0
        assert float((found[name] - value).abs().max()) <= rounding * size, name


# name -> kind of model, layers of the LoRA, strength, and options of `lora`
CASES: dict[str, tuple[str, dict[str, tuple[str, ...]], str, dict[str, Any]]] = {
    "values": ("sd", {"unet": VALUES}, "", {}),
    "values at a strength": ("sd", {"unet": VALUES}, ":0.8", {}),
    "values left alone": ("sd", {"unet": UNET}, ":0.8", {}),
    "alpha": ("sd", {"unet": VALUES}, ":0.8", {"alpha": 6.0}),
    "text encoder": ("sd", {"unet": VALUES, "text_encoder": TEXT}, ":0.8", {"alpha": 3.0}),
    "text encoder alone": ("sd", {"text_encoder": TEXT}, "", {}),
    "sdxl": (
        "sdxl",
        {"unet": VALUES, "text_encoder": TEXT, "text_encoder_2": TEXT},
        ":0.8",
        {"alpha": 6.0},
    ),
    "a strength under zero": ("sd", {"unet": VALUES}, ":-0.5", {}),
}


ALWAYS = [  # the others take a minute together
    ("values", 0.0, "adapter"),
    ("values left alone", 0.0, "adapter"),
    ("text encoder", 0.0, "adapter-kohya"),
    ("sdxl", 0.0, "adapter-kohya"),
    ("alpha", 0.5, "adapter"),
]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("case", "factor", "form"),
    [
        pytest.param(*one, marks=() if one in ALWAYS else pytest.mark.slow)
        for one in product(CASES, (0.0, 0.5), ("adapter", "adapter-kohya"))
    ],
)
def test_plain_diffusers_makes_the_edited_model_of_the_base(bases, tmp_path, case, factor, form):
    kind, ends, strength, options = CASES[case]
    base = bases(kind)
    file = lora(tmp_path, MAKERS[kind](), ends, **options)
    model = findnemo.load(base, lora=f"{file}{strength}")
    out = exported(form, tmp_path, model, factor)
    plain = in_plain_diffusers(base, out)
    before = noise(model.pipeline)
    with findnemo.deactivate(model, neurons_of(model), factor):
        wanted = noise(model.pipeline)
    found = noise(plain)
    size = float(wanted.abs().max())
    assert float((wanted - before).abs().max()) > 1e-3 * size  # the edit is seen
    assert float((found - wanted).abs().max()) < NOISE * size
    assert_close(weights(fused(plain)), edited(model, factor), 1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize("ends", [VALUES, UNET], ids=["values", "values left alone"])
def test_rows_that_are_switched_off_are_zero_to_the_bit(bases, tmp_path, ends):
    file = lora(tmp_path, tiny_pipeline(), {"unet": ends})
    model = findnemo.load(bases("sd"), lora=f"{file}:0.8")
    plain = fused(in_plain_diffusers(bases("sd"), exported("adapter", tmp_path, model)))
    for layer, rows in neurons_of(model).layers.items():
        assert not plain.unet.get_submodule(layer).weight[list(rows)].any()


def lycoris(pipeline: Any) -> dict[str, torch.Tensor]:
    """Of one convolution in three steps, of another in two, of a third with a kernel of 1."""
    generator = torch.Generator().manual_seed(5)
    block = "down_blocks.0.resnets.0"
    tensors = {}
    for name in (f"{block}.conv1", f"{block}.conv2", "down_blocks.1.resnets.0.conv_shortcut"):
        layer = pipeline.unet.get_submodule(name)
        stem = f"lora_unet_{name.replace('.', '_')}"
        down, up = pair(layer, RANK, generator)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        if name.endswith("conv1"):
            mid = torch.randn(RANK, RANK + 2, 3, 3, generator=generator) / 9
            down = torch.randn(RANK + 2, down.shape[1], 1, 1, generator=generator)
            tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_mid.weight": mid}
            tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    return tensors


@pytest.mark.first(1)
@pytest.mark.parametrize("form", ["adapter", "adapter-kohya"])
def test_convolutions_in_three_steps_become_such_of_two(bases, tmp_path, form):
    pipeline = tiny_pipeline()
    more = lycoris(pipeline)
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    square = {
        f"{stem}.lora_down.weight": more[f"{stem}.lora_down.weight"][:RANK].contiguous(),
        f"{stem}.lora_mid.weight": more[f"{stem}.lora_mid.weight"][:, :RANK].contiguous(),
    }
    file = lora(tmp_path, pipeline, {"unet": VALUES}, alpha=3.0, more=more | square)
    model = findnemo.load(bases("sd"), lora=f"{file}:0.8")
    out = exported(form, tmp_path, model)
    assert not [name for name in load_file(out) if "lora_mid" in name]
    plain = in_plain_diffusers(bases("sd"), out)
    with findnemo.deactivate(model, neurons_of(model)):
        wanted = noise(model.pipeline)
    torch.testing.assert_close(noise(plain), wanted, rtol=0, atol=NOISE * float(wanted.abs().max()))
    assert_close(weights(fused(plain)), edited(model, 0.0), 1e-6)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_transformers_whose_value_layers_have_biases(bases, tmp_path, kind):
    pipeline = MAKERS[kind]()
    file = lora(
        tmp_path, pipeline, {"transformer": ("attn.to_v", "attn.to_q"), "text_encoder": TEXT}
    )
    model = findnemo.load(bases(kind), lora=f"{file}:0.8")
    plain = in_plain_diffusers(bases(kind), exported("adapter", tmp_path, model, 0.25))
    with findnemo.deactivate(model, neurons_of(model), 0.25):
        wanted = noise(model.pipeline)
    torch.testing.assert_close(noise(plain), wanted, rtol=0, atol=NOISE * float(wanted.abs().max()))
    with pytest.raises(ModelError, match=r"a LoRA in kohya's form is of StableDiffusionPipeline"):
        exported("adapter-kohya", tmp_path / "two", model)


@pytest.mark.slow
def test_biases_of_a_lora_go_along(bases, tmp_path):
    pipeline = tiny_pipeline()
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    layer = pipeline.unet.get_submodule(name)
    more = {f"unet.{name}.lora_B.bias": torch.randn(len(layer.weight))}
    file = lora(tmp_path, pipeline, {"unet": ("attn2.to_v", "attn2.to_out.0")}, more=more)
    model = findnemo.load(bases("sd"), lora=f"{file}:0.8")
    plain = in_plain_diffusers(bases("sd"), exported("adapter", tmp_path, model))
    with findnemo.deactivate(model, neurons_of(model)):
        wanted = noise(model.pipeline)
    torch.testing.assert_close(noise(plain), wanted, rtol=0, atol=NOISE * float(wanted.abs().max()))
    with pytest.raises(EditError, match="biases of unet, which kohya's form does not carry"):
        exported("adapter-kohya", tmp_path / "two", model)


# dtypes ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
def test_a_lora_is_written_in_its_own_dtype_and_what_that_leaves_is_said(bases, tmp_path, dtype):
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES}, dtype=dtype)
    model = findnemo.load(bases("sd"), lora=f"{file}:0.8")
    told: list[str] = []
    with notices_to(told.append):
        out = exported("adapter", tmp_path, model)
    assert {value.dtype for value in load_file(out).values()} == {dtype}
    name = str(dtype).removeprefix("torch.")
    assert len(told) == 1
    assert f"the LoRA is written in {name}, in which the neurons' weights are off by" in told[0]
    plain = fused(in_plain_diffusers(bases("sd"), out))
    assert_close(weights(plain), edited(model, 0.0), 4 * torch.finfo(dtype).eps)
    told.clear()
    (tmp_path / "wide").mkdir()
    with notices_to(told.append):
        wide = exported("adapter", tmp_path / "wide", model, dtype="float32")
    assert told == []
    assert {value.dtype for value in load_file(wide).values()} == {torch.float32}
    assert_close(weights(fused(in_plain_diffusers(bases("sd"), wide))), edited(model, 0.0), 1e-6)


def test_a_half_precision_base_loses_nothing_in_a_half_precision_file(bases, tmp_path):
    """What is taken away is then exactly what the base holds."""
    tiny_pipeline().to(torch.float16).save_pretrained(tmp_path / "base")
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES}, dtype=torch.float16)
    model = findnemo.load(tmp_path / "base", lora=str(file))
    told: list[str] = []
    with notices_to(told.append):
        out = exported("adapter", tmp_path, model)
    assert told == []
    plain = fused(in_plain_diffusers(tmp_path / "base", out))
    for layer, rows in neurons_of(model).layers.items():
        assert not plain.unet.get_submodule(layer).weight[list(rows)].any()


@pytest.mark.slow
def test_what_a_run_computed_in_is_not_in_the_file(bases, tmp_path):
    """A run in bfloat16 of a float32 base: the file is that of a run in float32."""
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES, "text_encoder": TEXT})
    narrow = findnemo.load(bases("sd"), dtype="bfloat16", lora=f"{file}:0.8")
    wide = findnemo.load(bases("sd"), lora=f"{file}:0.8")
    one = load_file(exported("adapter", tmp_path / "narrow", narrow))
    two = load_file(exported("adapter", tmp_path / "wide", wide))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_dtype_narrows_is_said(bases, tmp_path):
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES})
    model = findnemo.load(bases("sd"), lora=str(file))
    told: list[str] = []
    with notices_to(told.append):
        exported("adapter", tmp_path, model, dtype="float16")
    assert told[0] == "narrowed to float16, as asked: the LoRA from float32"


def test_values_that_a_dtype_does_not_hold_are_refused(bases, tmp_path):
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES})
    huge = {k: v * 1e5 if "lora_B" in k else v * 1e-5 for k, v in load_file(file).items()}
    save_file(huge, file)
    model = findnemo.load(bases("sd"), lora=str(file))
    with pytest.raises(EditError, match=r"the change of unet\..* is too large for float16"):
        exported("adapter", tmp_path, model, dtype="float16")
    assert not (tmp_path / "adapter.safetensors").exists()


# what a file says, and what is refused --------------------------------------------------------------


def test_a_file_says_what_it_is_and_has_one_rank(bases, tmp_path):
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES, "text_encoder": TEXT})
    model = findnemo.load(bases("sd"), lora=f"{file}:0.8")
    out = exported("adapter-kohya", tmp_path, model)
    with safe_open(out, "pt") as opened:
        about = opened.metadata()
    assert about["made_by"] == "findnemo"
    assert about["lora"] == "trained.safetensors:0.8"
    assert about["model"] == model.fingerprint
    assert about["ss_network_dim"] == about["ss_network_alpha"] == str(RANK + 3)
    assert about["ss_base_model_version"] == "sd_v1"
    tensors = load_file(out)
    ranks = {
        (name.startswith("lora_unet_"), len(value))
        for name, value in tensors.items()
        if name.endswith("lora_down.weight")
    }
    assert ranks == {(True, RANK + 3), (False, RANK)}
    assert {name.split("_text")[0] for name in tensors if "_te" in name} == {"lora_te"}


def test_a_run_without_a_lora_is_refused(bases, tmp_path):
    model = findnemo.load(bases("sd"))
    for form, alone in {"adapter": "lora", "adapter-kohya": "kohya"}.items():
        with pytest.raises(
            InputError, match=rf"{form} is the LoRA of a run .* --to {alone} writes"
        ):
            exported(form, tmp_path / form, model)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.first(2)
@pytest.mark.parametrize("form", ["adapter", "adapter-kohya"])
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_weaker_lora_is_the_lora_at_that_strength(bases, tmp_path, alpha, form):
    """In plain diffusers the file at strength 1 is the trained one at its own."""
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES}, alpha)
    model = findnemo.load(bases("sd"), lora=f"{file}:0.4")
    with Run.open(make_run(tmp_path / "run", model, {})) as run:
        written = write(form, unedited(run), tmp_path / "weaker.safetensors", model)
    weaker, wanted, full = (
        weights(fused(in_plain_diffusers(bases("sd"), path), strength))
        for path, strength in ((written, 1.0), (file, 0.4), (file, 1.0))
    )
    assert_close(weaker, wanted, 1e-6)
    assert any(not torch.allclose(full[name], wanted[name], atol=1e-3) for name in wanted)


def test_by_the_command_line(bases, tmp_path):
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES})
    model = findnemo.load(bases("sd"), lora=f"{file}:0.8")
    run = make_run(tmp_path / "run", model, {CAPTION: neurons_of(model)})
    out = tmp_path / "clean.safetensors"
    result = cli("export", run, "--to", "adapter", "--out", out)
    assert (result.status, result.out) == (0, "")
    assert f"4 neurons off: adapter written to {out}" in result.err
    plain = fused(in_plain_diffusers(bases("sd"), out))
    assert_close(weights(plain), edited(model, 0.0), 1e-6)
    bare = make_run(tmp_path / "bare", findnemo.load(bases("sd")), {CAPTION: neurons_of(model)})
    result = cli("export", bare, "--to", "adapter", "--out", tmp_path / "none.safetensors")
    assert result.status == 2
    assert "this run was made without one (--lora): --to lora writes the edit alone" in " ".join(
        result.err.split()
    )
    assert not (tmp_path / "none.safetensors").exists()


def test_a_lora_beside_a_textual_inversion(bases, tmp_path):
    """The base of the adapter is then the one with the token."""
    token = tmp_path / "token.safetensors"
    save_file({"<mine>": torch.randn(2, 32)}, token)
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES, "text_encoder": TEXT})
    model = findnemo.load(bases("sd"), lora=f"{file}:0.8", embedding=token)
    out = exported("adapter", tmp_path, model)
    plain = DiffusionPipeline.from_pretrained(bases("sd"), use_safetensors=True)
    plain.load_textual_inversion(str(token))
    plain.load_lora_weights(str(out))
    assert_close(weights(fused(plain)), edited(model, 0.0), 1e-6)


@pytest.mark.slow
def test_a_single_file_as_base(bases, tmp_path):
    """Its exports as a file carry the LoRA as well, which the file that was loaded has not."""
    single = save_single_file(tiny_pipeline(), tmp_path / "base.safetensors")
    file = lora(tmp_path, tiny_pipeline(), {"unet": UNET})
    model = findnemo.load(single, config=bases("sd"), lora=f"{file}:0.8")
    plain = in_plain_diffusers(bases("sd"), exported("adapter", tmp_path, model))
    wanted = edited(model, 0.0)
    assert_close(weights(fused(plain)), wanted, 1e-6)
    clean = exported("file", tmp_path / "two", model)
    loaded = StableDiffusionPipeline.from_single_file(
        str(clean), config=str(bases("sd")), local_files_only=True
    )
    assert_close(weights(loaded), wanted, 1e-6)


def test_a_model_that_changed_since_is_refused(bases, tmp_path):
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES})
    model = findnemo.load(bases("sd"), lora=str(file))
    with torch.no_grad():
        model.denoiser.conv_in.weight[0] += 1
    with pytest.raises(EditError, match=r"unet is not what .* make .*: export a checkpoint"):
        exported("adapter", tmp_path, model)
    assert not (tmp_path / "adapter.safetensors").exists()


def test_a_lora_where_diffusers_loads_none_is_refused(bases, tmp_path):
    """FLUX.1's second text encoder: the file would be loaded without it, and nothing said."""
    file = lora(tmp_path, tiny_flux(), {"text_encoder_2": ("SelfAttention.q",)})
    model = findnemo.load(bases("flux"), lora=str(file))
    with pytest.raises(EditError, match="changes text_encoder_2, where diffusers loads no LoRA"):
        exported("adapter", tmp_path, model)


def test_a_base_or_lora_that_is_gone_is_named(bases, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "base")
    file = lora(tmp_path, tiny_pipeline(), {"unet": VALUES})
    model = findnemo.load(tmp_path / "base", lora=str(file))
    file.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(InputError, match=r"no LoRA .*trained"):
        exported("adapter", tmp_path, model)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"base is gone, and"):
        exported("adapter", tmp_path / "two", model)


def test_a_shipped_model_that_is_in_no_file_has_adapters_too(tmp_path):
    bare = findnemo.load("demo-natural")
    file = lora(tmp_path, bare.pipeline, {"unet": VALUES})
    model = findnemo.load("demo-natural", lora=f"{file}:0.8")
    out = exported("adapter", tmp_path, model)
    again = findnemo.load("demo-natural", lora=out)
    assert_close(weights(again.pipeline), edited(model, 0.0), 1e-6)
