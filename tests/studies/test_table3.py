"""Table 3: what the neurons change on captions that are not memorized."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from _workshop import cells

from findnemo.runs.standing import neurons_of
from findnemo.studies.table3 import never_found


@pytest.mark.slow
def test_disentanglement_of_the_neurons_of_most_captions_and_of_others(made):
    """Against plain hooks, and weights of the value layers set to zero."""
    work = made.work
    _, *rows = cells(made.folder, "table3")
    held = Counter(n for c in work.run.captions() if c.type for n in neurons_of(c))
    layers = list(work.model.widths())
    order = sorted(held, key=lambda n: (-held[n], layers.index(n[0]), n[1]))
    counts = sorted({min(n, len(order)) for n in (1, 5, 10, 25, 50, 100, 150)})
    assert [int(r[1]) for r in rows if r[0] == "found"] == counts
    random = [int(r[1]) for r in rows if r[0] == "random"]
    assert all(0 < n <= count for n, count in zip(random, counts, strict=True))
    denoiser = copy.deepcopy(work.model.denoiser)
    seen = {}
    for name in layers:
        block = denoiser.get_submodule(name.removesuffix(".to_v"))
        block.register_forward_hook(lambda m, a, out, n=name: seen.update({n: out.flatten(1)}))
    t = work.model.timesteps(50)[0]

    def outputs(text):
        with torch.no_grad():
            latents = work.model.noise(text, range(3), 0)
            embeds = work.model.encode([text]).expand(3).tokens
            denoiser(latents, t, encoder_hidden_states=embeds)
        return dict(seen)

    prompts = [c.text for c in work.run.captions() if not c.type]
    before = [outputs(text) for text in prompts]
    for layer, index in order:
        denoiser.get_submodule(layer).weight.data[index] = 0
    after = [outputs(text) for text in prompts]
    cosine = torch.nn.functional.cosine_similarity
    last = [r for r in rows if r[0] == "found"][-1]
    for k, name in enumerate(layers, 2):
        values = [cosine(b[name], a[name]).mean() for b, a in zip(before, after, strict=True)]
        assert float(last[k]) == pytest.approx(float(sum(values)) / len(values), abs=2e-4)


@pytest.mark.slow
def test_random_neurons_were_found_for_no_caption_and_lie_in_the_same_layers():
    order = [("a", 0), ("b", 1), ("a", 3), ("b", 0)]
    for n in range(1, 5):
        drawn = never_found(order[:n], order, {"a": 9, "b": 3})
        assert not set(drawn) & set(order)
        wanted = Counter(layer for layer, _ in order[:n])
        assert {k: len(v) for k, v in drawn.layers.items()} == {
            k: min(v, 1) if k == "b" else v for k, v in wanted.items()
        }


def test_draws_of_random_neurons_differ_and_fewer_are_among_more():
    order = [("a", i) for i in range(10)]
    draws = [never_found(order, order, {"a": 100}, draw=draw) for draw in range(5)]
    assert len({draw.layers["a"] for draw in draws}) == len(draws)
    few = never_found(order[:4], order, {"a": 100})
    assert set(few) < set(draws[0])
    assert never_found(order, order, {"a": 12}).layers == {"a": (10, 11)}  # no more are left
