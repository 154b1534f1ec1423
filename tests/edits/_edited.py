"""Passes of a model with and without an edit."""

import torch
from _tiny import tiny_pipeline
from _tiny_files import make_run
from _tiny_transformers import PIPELINES as TRANSFORMERS
from _tiny_unets import PIPELINES as UNETS
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

import findnemo
from findnemo import NeuronSet, deactivate
from findnemo.export import select
from findnemo.models import Model
from findnemo.runs import Run

PIPELINES = {"sd": tiny_pipeline, **UNETS, **TRANSFORMERS}


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
