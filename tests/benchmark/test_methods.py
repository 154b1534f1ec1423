"""Methods of suite 2: what their sets are tested on, edits that are no neurons, and the
learned mask step by step.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from _planting import CAPTION, HOLDOUT, INDEX, planted
from _tiny import tiny_pipeline

import findnemo
from findnemo.benchmark import METHODS, Answer, Task, methods
from findnemo.benchmark.learned_mask import BEGIN, COST, MOVE, learned_mask
from findnemo.images import ImageSettings
from findnemo.localization import Localization
from findnemo.localization.trajectory import FLOOR, GENTLER
from findnemo.mitigation import Case, conceptprune, wanda
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import spend

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
    sight.__dict__["copies"] = SimpleNamespace(seen=False, gone=lambda off: None)
    monkeypatch.setattr(sight.replication, "confirmed", lambda off, tau: False)
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


def fake(slopes):
    """Copies whose likeness has these slopes at every mask; it keeps the masks
    that it was asked about.
    """
    asked = []

    def answered(levels, path):
        asked.append({name: level[0].clone() for name, level in levels.items()})
        return slopes

    model = SimpleNamespace(device=torch.device("cpu"))
    return (
        SimpleNamespace(
            slopes=answered, untouched_path=None, denoising=SimpleNamespace(model=model)
        ),
        asked,
    )


def test_the_first_steps_of_a_learned_mask_by_hand():
    slopes = {"a": torch.tensor([4.0, 1.0, -2.0])}
    price = {"a": torch.ones(3)}
    copies, asked = fake(slopes)
    mask = learned_mask(copies, price, steps=2)["a"]
    assert torch.allclose(asked[0]["a"], torch.full((3,), 1 - BEGIN))
    drive = slopes["a"] / (1 + FLOOR) ** GENTLER[0]
    step = MOVE / drive[0] * (drive - COST * drive[0])
    once = (BEGIN + step).clamp(0, 1)
    assert torch.allclose(asked[1]["a"], 1 - once)
    assert torch.allclose(mask, (once + step).clamp(0, 1), atol=1e-3)
    assert mask[0] > mask[1] > mask[2]


def test_a_learned_mask_spares_what_ordinary_captions_need():
    copies, _ = fake({"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([-1.0, 0.0])})
    mask = learned_mask(copies, {"a": torch.tensor([100.0, 1.0]), "b": torch.ones(2)}, steps=4)
    assert mask["a"][1] > mask["a"][0]
    assert (
        mask["b"][1] > mask["b"][0]
    )  # neither is turned down in the end: the slope still ranks them
