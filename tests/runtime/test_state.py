"""State of networks and of PyTorch is set aside and comes back, also after an exception."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import torch
from torch import nn

from findnemo.runtime.state import (
    evaluating,
    modules_of,
    plain_arithmetic,
    replacing,
    spare_scheduler,
    taking,
    undisturbed,
)


def test_modes_come_back_one_by_one_after_an_exception():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
    network[1][0].eval()
    network[1].gradient_checkpointing = True
    before = [module.training for module in network.modules()]
    with suppress(KeyError), evaluating(network):
        assert not any(module.training for module in network.modules())
        assert network[1].gradient_checkpointing is False
        raise KeyError
    assert [module.training for module in network.modules()] == before
    assert network[1].gradient_checkpointing is True


def test_modules_are_those_of_torch():
    network = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(), nn.ReLU()))
    network.register_module("none", None)
    assert {*map(id, modules_of([network]))} == {*map(id, network.modules())}


def test_gradients_are_possible_within_inference_mode():
    @undisturbed
    def slope():
        with torch.enable_grad():
            x = torch.ones(1, requires_grad=True)
            (3 * x).backward()
        return x.grad

    with torch.inference_mode():
        assert slope().tolist() == [3.0]


def test_autocast_is_off_and_on_again():
    with torch.autocast("cpu", torch.bfloat16):
        with plain_arithmetic():
            assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype is torch.float32
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype is torch.bfloat16


def test_a_method_is_that_of_the_class_again():
    class Lamp:
        def light(self):
            return "on"

    lamp = Lamp()
    with suppress(KeyError), replacing(lamp, "light", lambda: "off"):
        assert lamp.light() == "off"
        raise KeyError
    assert lamp.light() == "on"
    assert vars(lamp) == {}


def test_another_call_keeps_its_scheduler():
    scheduler = SimpleNamespace(step=3)
    pipeline = SimpleNamespace(scheduler=scheduler)
    with spare_scheduler(pipeline):
        pipeline.scheduler.step = 9
    assert pipeline.scheduler is scheduler
    assert scheduler.step == 3


def test_numbers_are_converted_and_indices_stay():
    seen = []

    class Network(nn.Module):
        def forward(self, x, ids=None, more=None):
            seen.extend([x.dtype, ids.dtype, more["mask"].dtype])

    network = Network()
    with taking(network, torch.float16):
        network(torch.ones(1), ids=torch.ones(1, dtype=torch.long), more={"mask": torch.ones(1)})
    assert seen == [torch.float16, torch.int64, torch.float16]
    network(torch.ones(1), ids=torch.ones(1, dtype=torch.long), more={"mask": torch.ones(1)})
    assert seen[3] is torch.float32
