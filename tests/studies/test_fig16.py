"""Figures 16 to 20: whole layers off, and convolutional channels."""

from __future__ import annotations

import pytest
import torch

from findnemo.neurons import NeuronSet
from findnemo.studies import Bench
from findnemo.studies.fig16 import channels_off, fig16, labels_by_page, on_up_blocks


@pytest.mark.slow
def test_all_value_layers_of_the_up_blocks_off_are_their_neurons_off(work):
    bench = Bench(work, (), limit=1)
    rows = fig16(bench).tables[0].rows
    widths = work.model.widths("all")
    assert {row[1] for row in rows} >= {"all down", "all mid", "all up"}
    up = NeuronSet({n: range(w) for n, w in widths.items() if n.startswith("up_blocks")})
    captions = [c for c in work.run.captions() if c.type == "TM"]
    payloads = bench.off("up", {c.id: (c, up, 0.0) for c in captions})
    row = next(r for r in rows if r[:3] == ["value layer", "all up", "TM"])
    assert row[3] == len(captions) == 1
    keys = ("sscd_orig", "sscd_gen", "d_sscd", "a_clip")
    assert row[4:] == [pytest.approx(payloads[captions[0].id][key], abs=1e-3) for key in keys]


def test_pages_are_no_wider_than_ten_and_hold_every_layer_once():
    blocks = {"down": list("abcdef"), "mid": ["m"], "up": list("ghijklmno")}  # Stable Diffusion's
    pages = labels_by_page(blocks)
    assert [len(page) for page in pages] == [8, 10]
    assert pages[0][-2:] == ["all down", "all mid"]
    assert pages[1][-1] == "all up"


def test_what_is_said_of_the_up_blocks_is_what_the_figures_show():
    def rows(value):
        line = [1, None, value, None, None]
        return [["value layer", "all down", "VM", *line[:2], 0.1, None, None],
                ["value layer", "all up", "VM", *line]]  # fmt: skip

    assert "up 0.95 (they barely matter)" in on_up_blocks(rows(0.95))
    assert "up 0.20 (they do matter)" in on_up_blocks(rows(0.2))
    assert on_up_blocks(rows(None)) == ""


@pytest.mark.slow
def test_channels_off_gives_zeros_there_and_leaves_the_rest(work):
    model = work.model
    name = "down_blocks.0.resnets.0.conv1"
    key = next(iter(model.value_layers)).replace("to_v", "to_k")
    seen = {}
    latents = model.noise("a", [0])
    text = model.encode(["a"])

    def run():
        with torch.no_grad():
            handles = [
                model.denoiser.get_submodule(n).register_forward_hook(
                    lambda m, a, out, n=n: seen.update({n: out.clone()})
                )
                for n in (name, key)
            ]
            result = model.predict_noise(latents, 981, text)
        for handle in handles:
            handle.remove()
        return result

    plain = run()
    before = dict(seen)
    with channels_off(model, {name: [1, 3], key: None}):
        run()
    assert seen[name][:, [1, 3]].abs().max() == 0
    assert torch.equal(seen[name][:, [0, 2, 4]], before[name][:, [0, 2, 4]])
    assert seen[key].abs().max() == 0
    assert torch.equal(run(), plain)
