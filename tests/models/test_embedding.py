"""Textual inversions: captions with their tokens are read as plain diffusers reads them, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_files import make_run
from _tiny_files import save_file as save_single_file
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

import findnemo
from findnemo import NeuronSet
from findnemo.errors import InputError, ModelError
from findnemo.export import select, write
from findnemo.models.embedding import read_embeddings
from findnemo.runs import Run

CAPTION = "a photo of <mine> at sea"


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def file_of(folder: Path, name: str = "mine", **tensors: torch.Tensor) -> Path:
    file = folder / f"{name}.safetensors"
    save_file(tensors, file)
    return file


def plain(base: Path) -> Any:
    return DiffusionPipeline.from_pretrained(base, use_safetensors=True)


def encoded(pipeline: Any, caption: str = CAPTION) -> list[torch.Tensor]:
    """What a pipeline itself makes of a caption: embeddings, pooled ones too."""
    options = {} if hasattr(pipeline, "transformer") else {"do_classifier_free_guidance": False}
    with torch.no_grad():
        given = pipeline.encode_prompt(caption, device="cpu", num_images_per_prompt=1, **options)
    return [part for part in given if part is not None]


def read(model: Any, caption: str = CAPTION) -> list[torch.Tensor]:
    """What findnemo tells the denoiser of a caption."""
    text = model.encode([caption])
    return [part for part in (text.tokens, text.pooled) if part is not None]


def assert_same(model: Any, pipeline: Any, caption: str = CAPTION) -> None:
    found, wanted = read(model, caption), encoded(pipeline, caption)
    assert found
    for tensor in found:
        assert any(tensor.shape == other.shape and torch.equal(tensor, other) for other in wanted)


# what is read -------------------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize("count", [None, 1, 3])
@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_the_form_of_diffusers_is_what_diffusers_makes_of_it(bases, tmp_path, kind, count):
    shape = (32,) if count is None else (count, 32)
    file = file_of(tmp_path, **{"<mine>": vectors(*shape)})
    model = findnemo.load(bases(kind), embedding=file)
    pipeline = plain(bases(kind))
    pipeline.load_textual_inversion(str(file))
    assert_same(model, pipeline)
    without = read(findnemo.load(bases(kind)))
    assert not all(map(torch.equal, read(model), without))


@pytest.mark.first(1)
@pytest.mark.parametrize("count", [1, 4])
def test_the_form_of_automatic1111_has_the_name_of_its_file(bases, tmp_path, count):
    file = file_of(tmp_path, "my-style", emb_params=vectors(count, 32))
    pipeline = plain(bases("sd"))
    pipeline.load_textual_inversion(str(file), token="my-style")
    caption = "a house in my-style"
    assert_same(findnemo.load(bases("sd"), embedding=file), pipeline, caption)
    named = findnemo.load(bases("sd"), embedding=f"{file}:<mine>")
    pipeline = plain(bases("sd"))
    pipeline.load_textual_inversion(str(file), token="<mine>")
    assert_same(named, pipeline)


@pytest.mark.parametrize("count", [1, 2])
def test_both_encoders_of_sdxl(bases, tmp_path, count):
    """As diffusers' documentation loads such a file, encoder by encoder."""
    left, right = vectors(count, 16), vectors(count, 32, seed=1)
    file = file_of(tmp_path, clip_l=left, clip_g=right)
    pipeline = plain(bases("sdxl"))
    for which, values in (("", left), ("_2", right)):
        pipeline.load_textual_inversion(
            {"<mine>": values},
            token="<mine>",
            text_encoder=getattr(pipeline, f"text_encoder{which}"),
            tokenizer=getattr(pipeline, f"tokenizer{which}"),
        )
    assert_same(findnemo.load(bases("sdxl"), embedding=f"{file}:<mine>"), pipeline)


def test_several_files_and_several_tokens_in_one(bases, tmp_path):
    one = file_of(tmp_path, "one", **{"<mine>": vectors(32), "<yours>": vectors(2, 32, seed=1)})
    two = file_of(tmp_path, "two", emb_params=vectors(1, 32, seed=2))
    model = findnemo.load(bases("sd"), embedding=f"{one}, {two}:<theirs>")
    pipeline = plain(bases("sd"))
    for token, values in (
        ("<mine>", vectors(32)),
        ("<yours>", vectors(2, 32, seed=1)),
        ("<theirs>", vectors(1, 32, seed=2)),
    ):
        pipeline.load_textual_inversion({token: values})
    assert_same(model, pipeline, "<mine> and <yours> and <theirs>")


def test_half_precision_is_read_and_written_in_that_of_the_model(bases, tmp_path):
    file = file_of(tmp_path, **{"<mine>": vectors(2, 32).half()})
    model = findnemo.load(bases("sd"), embedding=file)
    weight = model.pipeline.text_encoder.get_input_embeddings().weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight[-2:], vectors(2, 32).half().float())


def test_what_a_caption_takes_is_counted_with_all_vectors(bases, tmp_path):
    file = file_of(tmp_path, **{"<mine>": vectors(5, 32)})
    model = findnemo.load(bases("sd"), embedding=file)
    assert model.readers[0].count("<mine>") == 5 + 2


def test_names_with_commas_and_colons_are_names_if_they_are_there(tmp_path):
    odd = file_of(tmp_path, "a,b:c", emb_params=vectors(1, 32))
    (found,) = read_embeddings(str(odd))
    assert (found.file, found.token) == (str(odd), "a,b:c")
    (found,) = read_embeddings(f"{odd}:<mine>")
    assert (found.file, found.token) == (str(odd), "<mine>")


# identity, scores ---------------------------------------------------------------------------------


def test_a_model_with_a_token_is_another_one_and_remembers_it(bases, tmp_path):
    file = file_of(tmp_path, **{"<mine>": vectors(32)})
    other = file_of(tmp_path, "other", **{"<mine>": vectors(32, seed=1)})
    base = findnemo.load(bases("sd"))
    model = findnemo.load(bases("sd"), embedding=file)
    assert model.options == {"embedding": str(file)}
    assert model.fingerprint == findnemo.load(bases("sd"), embedding=file).fingerprint
    named = findnemo.load(bases("sd"), embedding=f"{file}:<yours>")
    others = findnemo.load(bases("sd"), embedding=other)
    assert len({m.fingerprint for m in (base, model, named, others)}) == 4


def test_scores_are_those_of_a_pipeline_of_plain_diffusers(bases, tmp_path):
    file = file_of(tmp_path, **{"<mine>": vectors(3, 32)})
    pipeline = plain(bases("sd"))
    pipeline.load_textual_inversion(str(file))
    live = findnemo.load(pipeline)
    model = findnemo.load(bases("sd"), embedding=file)
    live.denoiser.to(memory_format=torch.channels_last)  # as what `load` opens
    assert findnemo.score(model, CAPTION) == findnemo.score(live, CAPTION)
    assert model.fingerprint == live.fingerprint


# what is refused ----------------------------------------------------------------------------------


def test_a_pickle_is_refused_whatever_its_name(bases, tmp_path):
    for name in ("mine.pt", "mine.bin", "mine.safetensors"):
        torch.save({"<mine>": vectors(32)}, tmp_path / name)
        for end in ("", ":<mine>"):
            with pytest.raises(ModelError, match=r"mine\.\w+ is a pickle, and a pickle can run"):
                findnemo.load(bases("sd"), embedding=f"{tmp_path / name}{end}")


WRONG: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "another width": ({"<mine>": torch.ones(48)}, "has vectors of 48 values.* reads 32.*another"),
    "SDXL's": ({"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 48)}, r"clip_g is of SDXL"),
    "not finite": ({"<mine>": torch.full((32,), torch.nan)}, "<mine> of .* is empty or not finite"),
    "empty": ({"<mine>": torch.ones(0, 32)}, "is empty or not finite"),
    "whole numbers": ({"<mine>": torch.ones(32, dtype=torch.int32)}, r"is I32 \(32,\): that is no"),
    "three dimensions": ({"<mine>": torch.ones(1, 1, 32)}, r"is F32 \(1, 1, 32\): that is no"),
    "mixed": ({"emb_params": torch.ones(32), "x": torch.ones(32)}, "emb_params, x: that is no"),
    "no tensors": ({}, "holds no tensors"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_embedding_of_this_model_is_named(bases, tmp_path, case):
    tensors, said = WRONG[case]
    with pytest.raises(ModelError, match=said):
        findnemo.load(bases("sd"), embedding=file_of(tmp_path, **tensors))


def test_tokens_that_the_tokenizer_has_are_refused_and_none_is_added(bases, tmp_path):
    good = file_of(tmp_path, "good", **{"<mine>": vectors(2, 32)})
    letter = file_of(tmp_path, "a", emb_params=vectors(1, 32))
    with pytest.raises(InputError, match=r"the tokenizer has 'a' already: .* FILE:TOKEN"):
        findnemo.load(bases("sd"), embedding=f"{good},{letter}")
    with pytest.raises(InputError, match="the tokenizer has '<mine>' already"):
        findnemo.load(bases("sd"), embedding=f"{good},{letter}:<mine>")
    with pytest.raises(InputError, match="the tokenizer has '<mine>_1' already"):
        findnemo.load(bases("sd"), embedding=f"{good},{letter}:<mine>_1")
    with pytest.raises(InputError, match="the tokenizer has '<mine>_1' already"):
        findnemo.load(bases("sd"), embedding=f"{letter}:<mine>_1,{good}")


def test_names_of_nothing(bases, tmp_path):
    file = file_of(tmp_path, **{"<mine>": vectors(32), "<yours>": vectors(32)})
    for name, said in (
        (tmp_path / "missing.safetensors", r"no embedding '.*missing\.safetensors'"),
        (tmp_path, "no embedding"),
        (f"{file},", "no embedding ''"),
        (f"{file}:<one>", "holds 2 tensors: give one token"),
        (f"{file}:", "give one token of at least one letter"),
    ):
        with pytest.raises(InputError, match=said):
            findnemo.load(bases("sd"), embedding=name)
    with pytest.raises(
        InputError, match=r"embedding .* adds tokens to a model that is loaded here"
    ):
        findnemo.load(tiny_pipeline(), embedding=file)
    with pytest.raises(ModelError, match="StableDiffusion3Pipeline takes no textual inversions"):
        findnemo.load(bases("sd3"), embedding=file)


# exports ------------------------------------------------------------------------------------------


def chosen_of(folder: Path, model: Any) -> Any:
    neurons = NeuronSet({next(iter(model.value_layers)): [1, 2]})
    with Run.open(make_run(folder / "run", model, {CAPTION: neurons})) as run:
        return select(run)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_a_checkpoint_carries_the_token_in_the_dtype_of_the_source(bases, tmp_path, dtype):
    """Nothing is said of parts that changed since: they are what was loaded."""
    file = file_of(tmp_path, **{"<mine>": vectors(2, 32)})
    model = findnemo.load(bases("sd"), dtype=dtype, embedding=file)
    clean = plain(write("checkpoint", chosen_of(tmp_path, model), tmp_path / "clean", model))
    assert clean.text_encoder.dtype == torch.float32
    pipeline = plain(bases("sd"))
    pipeline.load_textual_inversion(str(file))
    for found, wanted in zip(encoded(clean), encoded(pipeline), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.slow
def test_a_lora_of_the_edit_is_used_beside_the_embedding_and_a_file_is_refused(bases, tmp_path):
    file = file_of(tmp_path, **{"<mine>": vectors(32)})
    model = findnemo.load(bases("sd"), embedding=file)
    chosen = chosen_of(tmp_path, model)
    write("lora", chosen, tmp_path / "lora", model)
    with pytest.raises(ModelError, match=r"tokens of its own \('<mine>'"):
        write("file", chosen, tmp_path / "clean.safetensors", model)
    single = save_single_file(plain(bases("sd")), tmp_path / "single.safetensors")
    model = findnemo.load(single, config=bases("sd"), embedding=file)
    with pytest.raises(ModelError, match=r"tokens of its own \('<mine>'"):
        write("file", chosen_of(tmp_path / "two", model), tmp_path / "clean.safetensors", model)
    assert not (tmp_path / "clean.safetensors").exists()
