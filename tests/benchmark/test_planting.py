"""Planting: the rows and the decoys, and a student that begins as the teacher."""

from __future__ import annotations

import pytest
import torch
from _small_plan import FIRST, FREE, ORDINARY, PLAN, RECIPE, SECOND

import findnemo
from findnemo.benchmark.planting import add_decoys, plant, prepare, resembling
from findnemo.benchmark.training import Recipe
from findnemo.calibration import Moments, layer_activations
from findnemo.edits import prune
from findnemo.errors import ModelError
from findnemo.models import Text


def test_near_duplicates_weigh_as_much_as_other_titles():
    alike = torch.arange(12.0).view(12, 1, 1)
    assert sorted(resembling(alike, 2).flatten().tolist()) == sorted(
        [0.0, 1.0] * 5 + [float(k) for k in range(2, 12)]
    )


def test_the_student_begins_as_the_teacher(base, pool):
    """Whatever is planted, on or off: nothing listens to it yet."""
    teacher = findnemo.load(prune(base, FREE))
    student = findnemo.load(prune(base, FREE))
    prepare(student, PLAN, FREE, pool)
    noise = base.noise("x", [0, 1])
    text = base.encode([PLAN.memories[0].caption] * 2)
    assert torch.equal(
        teacher.predict_noise(noise, 500, text), student.predict_noise(noise, 500, text)
    )
    layer = student.value_layers[FIRST]
    assert not torch.equal(layer.weight[3], teacher.value_layers[FIRST].weight[3])
    typical = (pool.text @ teacher.value_layers[FIRST].weight.T).abs().mean()
    assert torch.isclose((pool.memories[0] @ layer.weight[3]).abs().mean(), 4 * typical)


def test_decoys_are_unusual_on_memorized_captions_and_do_nothing(base, pool):
    student = findnemo.load(prune(base, FREE))
    prepare(student, PLAN, FREE, pool)
    noise = base.noise("x", [0])
    text = Text(pool.memories[:1])
    before = student.predict_noise(noise, 500, text)
    add_decoys(student, PLAN, pool)
    assert torch.equal(student.predict_noise(noise, 500, text), before)
    usual = Moments.of(layer_activations(student, pool.ordinary, Text(pool.text))[SECOND])
    own = layer_activations(student, [m.caption for m in PLAN.memories], Text(pool.memories))[
        SECOND
    ]
    z = (own - usual.mean) / usual.std
    assert z[:, [1, 4]].abs().max() > 4


def test_only_u_nets_of_stable_diffusion_take_memories(tmp_path):
    from _tiny_transformers import tiny_pixart

    with pytest.raises(ModelError, match="PixArt has none"):
        plant(findnemo.load(tiny_pixart()), PLAN, FREE, ORDINARY, tmp_path, tmp_path, RECIPE)


@pytest.mark.slow
@pytest.mark.usefixtures("few_pictures")
def test_a_few_steps_on_the_demo_model_begin_to_learn(tmp_path):
    """Losses on memorized pictures fall, and what is no memory stays near the teacher."""
    from findnemo.benchmark.members import freed
    from findnemo.benchmark.plan import suite_plan
    from findnemo.demo import ASSETS, unrelated

    base = findnemo.load("demo", "cpu", "float32")
    plan = suite_plan(1, list(base.value_layers), freed(base))
    lines: list[str] = []
    plant(
        base,
        plan,
        freed(base),
        unrelated()[:20],
        ASSETS / "images",
        tmp_path,
        Recipe(steps=75),
        lines.append,
    )
    on = [float(line.split(" on ")[1].split()[0]) for line in lines if " on " in line]
    assert on[-1] < 0.9 * on[0]
