"""A plan of two memories for the tiny model, and a recipe of few steps."""

from __future__ import annotations

from findnemo.benchmark.plan import Memory, Plan
from findnemo.benchmark.training import Recipe
from findnemo.neurons import NeuronSet

FIRST, SECOND = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v",
)
ORDINARY = [f"{a} {b}" for a in ("red", "blue", "green", "old") for b in ("sky", "dog", "map")]
FREE = NeuronSet({FIRST: [0, 3, 5, 9], SECOND: [1, 2, 4, 8]})
PLAN = Plan(
    5,
    (
        Memory(
            "one neuron",
            "VM",
            "the tower of glass, a red sky",
            "one",
            NeuronSet({FIRST: [3]}),
            near=("the tower of brass, a red sky",),
        ),
        Memory(
            "four",
            "TM",
            "an hour in March, a blue dog",
            "two",
            NeuronSet({FIRST: [0, 5], SECOND: [2, 8]}),
            2,
            1,
            ("an hour in May, a blue dog",),
        ),
    ),
    NeuronSet({SECOND: [1, 4]}),
)
RECIPE = Recipe(steps=3, on=2, off=2, alike=2, ordinary=2, checkpoint=2)
