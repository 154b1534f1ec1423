"""`untouched` and `bare`: a reading leaves a training loop as it was, to the last bit, whatever
wraps its networks.
"""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from _loops import QUICK, lora
from _tiny import tiny_pipeline
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from torch import nn

from findnemo.errors import EditError, ModelError
from findnemo.training import MemorizationCallback


def everything(pipeline):
    """All weights, in training mode."""
    pipeline.unet.train()
    return list(pipeline.unet.parameters())


def careless(images):
    """A descriptor that draws random numbers of every library, and leaves gradients on."""
    torch.set_grad_enabled(True)
    noise = torch.rand(1).item() + float(np.random.rand()) + random.random()
    small = [np.asarray(image.resize((8, 8)), np.float32).ravel() for image in images]
    rows = torch.from_numpy(np.stack(small)) + noise
    return nn.functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)


def trained(folder, watched, weights=lora, how="plain"):
    """Weights, gradients and all else that a short training leaves, with or without the callback.

    Every draw of random numbers, of whatever library, reaches the weights.
    """
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    pipeline = tiny_pipeline()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    parameters = weights(pipeline)
    unet = pipeline.unet
    unet.down_blocks[0].eval()  # as a half-frozen network has it
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    accelerator = None
    called = unet
    if how == "checkpointing":
        unet.enable_gradient_checkpointing()
    if how == "compiled":
        called = torch.compile(unet, backend="eager")
        pipeline.register_modules(unet=called)
    if how == "parallel":
        called = nn.DataParallel(unet)
    if how == "accelerate":
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        called, optimizer = accelerator.prepare(unet, optimizer)
    options = {"descriptor": careless, "log": lambda *given: None} if how == "careless" else {}
    watch = lambda step: False  # noqa: E731
    if watched:
        watch = MemorizationCallback(pipeline, folder, **QUICK, **options)
    states = []
    for step in range(1, 5):
        mixed = torch.autocast("cpu", torch.bfloat16) if how == "autocast" else nullcontext()
        with mixed if accelerator is None else accelerator.autocast():
            if how in ("autocast", "accelerate"):
                watch(step)  # in the very region, before the weights are cast
            x = torch.randn(2, 4, 16, 16) * random.random() + float(np.random.rand())
            noise = torch.randn_like(x)
            text = torch.randn(2, 77, 32)
            predicted = called(x + noise, torch.randint(0, 1000, (2,)), text).sample
            loss = (predicted.float() - noise).square().mean()
        loss.backward() if accelerator is None else accelerator.backward(loss)
        if how not in ("autocast", "accelerate"):
            watch(step)  # with gradients waiting
        states.append([None if p.grad is None else p.grad.clone() for p in parameters])
        if how != "accumulating" or step % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
    if accelerator is not None:
        AcceleratorState._reset_state(True)
    about = [(m.training, vars(m).get("gradient_checkpointing")) for m in unet.modules()]
    marked = [p.requires_grad for p in unet.parameters()]
    draws = (torch.rand(1).item(), float(np.random.rand()), random.random())
    loss = loss.item()
    assert loss == loss
    return [p.detach().clone() for p in parameters], states, about, marked, draws, loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "how"),
    [
        (lora, "plain"),
        pytest.param(lora, "accumulating", marks=pytest.mark.slow),
        pytest.param(lora, "careless", marks=pytest.mark.slow),
        pytest.param(lora, "checkpointing", marks=pytest.mark.slow),
        pytest.param(lora, "autocast", marks=pytest.mark.slow),
        pytest.param(lora, "accelerate", marks=pytest.mark.slow),
        pytest.param(lora, "compiled", marks=pytest.mark.slow),
        pytest.param(lora, "parallel", marks=pytest.mark.slow),
        pytest.param(everything, "plain", marks=pytest.mark.slow),
        (everything, "autocast"),
    ],
)
def test_training_is_the_same_to_the_last_bit(folder, weights, how):
    without, with_it = (trained(folder, watched, weights, how) for watched in (False, True))
    for one, other in zip(without[0], with_it[0], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(without[1], with_it[1], strict=True):
        assert any(grad is not None for grad in one)
        for a, b in zip(one, other, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
    assert without[2:] == with_it[2:]


def test_one_random_number_more_is_seen(folder):
    """The comparison above fails for a callback that draws a random number."""

    def drawing(pipeline):
        torch.rand(1)
        return lora(pipeline)

    without, with_it = (trained(folder, False, weights) for weights in (lora, drawing))
    assert not all(map(torch.equal, without[0], with_it[0]))


def test_the_pipeline_stays_as_it_is(folder):
    pipeline = tiny_pipeline()
    lora(pipeline)
    pipeline.set_progress_bar_config(desc="mine")
    before = {name: id(part) for name, part in pipeline.components.items()}
    about = dict(pipeline.config)
    watch = MemorizationCallback(pipeline, folder, **QUICK)
    watch(1)
    assert {name: id(part) for name, part in pipeline.components.items()} == before
    assert dict(pipeline.config) == about
    assert pipeline._progress_bar_config == {"desc": "mine"}
    assert watch.model.pipeline is not pipeline


def test_pipelines_that_cannot_be_read(folder):
    pipeline = tiny_pipeline()
    with pytest.raises(ModelError, match="UNet2DConditionModel is not a pipeline"):
        MemorizationCallback(pipeline.unet, folder, **QUICK)
    pipeline.unet.compile(backend="eager")
    with pytest.raises(EditError, match=r"before torch\.compile"):
        MemorizationCallback(pipeline, folder, **QUICK)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda unet: nn.DataParallel(unet),
        lambda unet: torch.compile(unet, backend="eager"),
        lambda unet: torch.compile(nn.DataParallel(unet), backend="eager"),
        lambda unet: get_peft_model(unet, LoraConfig(r=2, target_modules=["to_v"])),
    ],
    ids=["parallel", "compiled", "both", "peft"],
)
def test_all_that_wraps_a_network_is_taken_off(folder, wrapped):
    pipeline = tiny_pipeline()
    unet = pipeline.unet
    around = wrapped(unet)
    pipeline.register_modules(unet=around)
    watch = MemorizationCallback(pipeline, folder, **QUICK)
    assert watch.model.pipeline.unet is unet
    assert pipeline.unet is around
