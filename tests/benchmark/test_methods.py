"""Methods on a memory whose neuron is known: what they find, what their sets are tested on, and
edits that are no neurons.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from _planting import CAPTION, HOLDOUT, INDEX, planted
from _tiny import tiny_pipeline

import findnemo
from findnemo import demo
from findnemo.benchmark import METHODS, Answer, Task, methods
from findnemo.benchmark.methods import attribution, wanda_scores
from findnemo.images import ImageSettings
from findnemo.localization import Localization
from findnemo.localization.replication import Replication
from findnemo.mitigation import Case, conceptprune, wanda
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import spend
from findnemo.passes.deltas import Probe
from findnemo.scores import pairwise

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
STEPS = 3


@pytest.fixture(scope="module")
def task():
    model, _ = planted(tiny_pipeline())
    model.pipeline.set_progress_bar_config(disable=True)
    return Task(
        model,
        CAPTION,
        findnemo.calibrate(model, HOLDOUT),
        tuple(HOLDOUT),
        "all",
        True,
        ImageSettings(STEPS, 2.0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Wanda", "ConceptPrune"])
def test_pruning_zeroes_the_weights_that_the_mitigation_zeroes_and_gives_them_back(
    name, task, monkeypatch
):
    monkeypatch.setattr(methods, "REFERENCE", 1)
    layers = [
        module
        for layer, module in task.model.denoiser.named_modules()
        if layer.endswith("ff.net.2")
    ]
    answer = METHODS[name](task)
    before = [layer.weight.clone() for layer in layers]
    case = Case(CAPTION, reference=tuple(HOLDOUT)[: methods.REFERENCE])
    with {"Wanda": wanda, "ConceptPrune": conceptprune}[name](task.model, case):
        expected = [layer.weight == 0 for layer in layers]
    with answer.applied(task.model):
        seen = [layer.weight == 0 for layer in layers]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    assert any(zeros.any() for zeros in seen)
    assert all(torch.equal(layer.weight, kept) for layer, kept in zip(layers, before, strict=True))
    assert answer.size is None
    assert answer.evaluations == 2 * 10 * (1 if name == "Wanda" else 1 + methods.REFERENCE)


def test_neurons_are_off_while_an_answer_is_in_force(task):
    caught = []
    for answer in (Answer(EMPTY), Answer(NeuronSet({LAYER: [INDEX]}))):
        with answer.applied(task.model), torch.no_grad():
            hook = task.model.value_layers[LAYER].register_forward_hook(
                lambda *of: caught.append(float(of[2][..., INDEX].abs().max()))
            )
            task.model.predict_noise(
                task.model.noise(CAPTION, [0]), 981, task.model.encode([CAPTION])
            )
            hook.remove()
    assert caught[0] > caught[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("suspected", [True, False])
def test_nothing_is_switched_off_where_pictures_are_no_copies(task, monkeypatch, suspected):
    found = Localization(
        CAPTION,
        True,
        NeuronSet({LAYER: [1]}),
        EMPTY,
        0.9,
        0.5,
        True,
        0.8,
        copy_before=0.59 if suspected else 0.61,
    )
    monkeypatch.setattr(methods, "localize", lambda *a, **k: found)
    assert METHODS["findnemo"](task).neurons == (EMPTY if suspected else found.neurons)


def test_the_shortest_prefix_of_a_ranking_that_leaves_no_copy_among_pictures(task, monkeypatch):
    """Three neurons of the ranking are needed for pictures, one for noise differences:
    the task says which counts.
    """
    order = [("a", k) for k in range(8)]
    sight = SimpleNamespace(memorized=True, gone=lambda off: len(off) >= 3)

    def looked_at(task):
        spend(7)
        return sight

    monkeypatch.setattr(methods, "Sight", looked_at)
    assert methods.sufficient(task, lambda seen: order) == Answer(NeuronSet({"a": [0, 1, 2]}), 7)
    sight.gone = lambda off: False
    assert methods.sufficient(task, lambda seen: order).neurons == NeuronSet({"a": range(8)})
    sight.memorized = False
    assert methods.sufficient(task, lambda seen: order) == Answer(EMPTY, 7)


@pytest.mark.parametrize("pictures", [True, False])
def test_the_test_of_a_set_is_the_tasks(task, monkeypatch, pictures):
    sight = methods.Sight(methods.Task(task.model, CAPTION, task.calibration, pictures=pictures))
    sight.__dict__["copies"] = SimpleNamespace(has_copies=False, gone=lambda off: None)
    monkeypatch.setattr(sight.replication, "confirm", lambda off, tau: False)
    assert (
        sight.memorized is not pictures
    )  # pictures that are unlike each other only count where pictures are asked for
    assert sight.gone(EMPTY) is pictures


def test_rankings_hold_all_value_neurons_of_the_scope(task):
    paper, whole = (
        methods.wanda_scores(task.model, [CAPTION], scope) for scope in ("paper", "all")
    )
    assert {n: len(s) for n, s in whole.items()} == task.model.widths("all")
    assert len(paper) < len(whole)
    assert all(torch.equal(paper[name], whole[name]) for name in paper)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("random", "findnemo")])
def test_every_method_finds_the_one_neuron_that_holds_all(name, planted_task, member):
    """One neuron drives the image, and it alone is unusual: whatever ranks neurons well must
    have it. (The default search looks at pictures, which random weights have none of;
    tests/localization has its tests.)
    """
    answer = METHODS[name](planted_task)
    if answer.edit is not None:  # it changes weights: tested above
        assert (answer.size, answer.neurons) == (None, EMPTY)
        return
    assert ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v", INDEX) in answer.neurons
    if name in ("gradient", "NeMo", "attribution"):
        assert answer.neurons == member.plan.planted


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in METHODS if n not in ("random", "z-score", "Wanda", "ConceptPrune")]
)
def test_methods_that_look_at_seeds_return_nothing_where_no_seed_replicates(
    name, planted_task, member
):
    quiet = replace(planted_task, calibration=replace(member.calibration, tau=1.1))
    assert METHODS[name](quiet).neurons == EMPTY


def test_chance_draws_as_many_as_the_default_search_and_the_same_each_time(
    planted_task, monkeypatch
):
    found = NeuronSet({next(iter(planted_task.model.widths())): [0, 1, 2]})
    monkeypatch.setattr(
        methods, "by_search", lambda task, search: {"trajectory": Answer(found, 50)}[search]
    )
    first = METHODS["random"](planted_task)
    again = METHODS["random"](planted_task)
    assert first == again
    assert len(first.neurons) == 3


def test_attribution_is_the_slope_of_the_mean_similarity(demo_model):
    """Against a finite difference, for the neuron that matters most."""
    caption = demo.memorized()[2].text
    probe = Probe(demo_model, caption)
    seeds = [0, 1, 2]
    step = 0.02
    slopes = attribution(Replication(probe, 0.0), [0, 1, 2], demo_model.widths())
    _, name, i = max(
        (abs(float(v)), name, i) for name, values in slopes.items() for i, v in enumerate(values)
    )

    def mean(value: float) -> float:
        scales = torch.ones(1, len(slopes[name]))
        scales[0, i] = value
        with torch.no_grad():
            return float(
                pairwise(probe.scaled_deltas({name: scales}, seeds))[
                    torch.triu_indices(3, 3, 1).unbind()
                ].mean()
            )

    assert (mean(1 + step) - mean(1 - step)) / (2 * step) == pytest.approx(
        float(slopes[name][i]), rel=0.1
    )


def test_wanda_by_hand(member):
    model = member.model
    name, layer = next(iter(model.value_layers.items()))
    text = model.encode([CAPTION]).tokens[0]
    by_hand = [
        sum(abs(float(w)) * float(text[:, j].norm()) for j, w in enumerate(row))
        for row in layer.weight[:3].tolist()
    ]
    assert torch.allclose(
        wanda_scores(model, [CAPTION])[name][:3], torch.tensor(by_hand), rtol=1e-4
    )
