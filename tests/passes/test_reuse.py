"""What a pass computed before the first edited layer is used again."""

from __future__ import annotations

import pytest
import torch
from _replication import PROMPT

import findnemo
from findnemo import Model, NeuronSet
from findnemo.passes import Probe, Reuse


def recorded(model: Model) -> tuple[Probe, Reuse]:
    probe = Probe(model, PROMPT)
    reuse = Reuse()
    with reuse.record(model):
        probe.deltas()
    return probe, reuse


def test_parts_before_the_first_edited_layer_do_not_run_again(model):
    probe, reuse = recorded(model)
    layers = list(model.value_layers)
    ran: list[str] = []
    handles = [
        m.register_forward_hook(lambda *a, n=n: ran.append(n))
        for n, m in model.denoiser.named_modules()
        if n.endswith("conv1")
    ]
    try:
        with reuse.replay(model, len(layers) - 1, [0, 1]):
            probe.deltas(NeuronSet({layers[-1]: [0]}), keep=[0, 1])
    finally:
        for handle in handles:
            handle.remove()
    assert not [
        n for n in ran if n.startswith("down_blocks.0") or n.startswith("mid_block.resnets.0")
    ]
    assert [n for n in ran if n.startswith("up_blocks")]


def test_reuse_leaves_the_modules_as_they_were_also_after_an_exception(model):
    probe, reuse = recorded(model)
    before = probe.deltas()
    with pytest.raises(RuntimeError, match="on purpose"), reuse.replay(model, 3, [0]):
        raise RuntimeError("on purpose")
    assert not [n for n, m in model.denoiser.named_modules() if "forward" in m.__dict__]
    assert torch.equal(probe.deltas(), before)


def test_reuse_within_an_edit_keeps_the_edit(model):
    layers = list(model.value_layers)
    outer = NeuronSet({layers[0]: [1, 5]})
    inner = NeuronSet({layers[4]: [2]})
    with findnemo.deactivate(model, outer, factor=0.5):
        wanted = Probe(model, PROMPT).deltas(inner)
        probe, reuse = recorded(model)
        with reuse.replay(model, 4, range(10)):
            got = probe.deltas(inner)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
