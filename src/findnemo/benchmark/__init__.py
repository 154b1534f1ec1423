"""The benchmark of localization methods, on models whose memories were planted in known neurons and
on models that memorized by themselves.

    from findnemo import benchmark
    member = benchmark.demo_member()
    results = list(benchmark.score_member(member, {"mine": my_method}, limit=4))

A method takes a `Task` (model, prompt, calibration, captions to compare with) and returns an
`Answer` (neurons or another edit, U-Net evaluations spent).

May be imported: the names below and the modules here. May import: localization, mitigation,
verification, demo and what lies under them.
"""

from findnemo.benchmark.members import demo_member, open_member, train_member
from findnemo.benchmark.methods import METHODS, Answer, Method, Task
from findnemo.benchmark.natural import (
    NATURAL_VERSION,
    NaturalMember,
    NaturalMemory,
    natural_demo,
    open_natural,
)
from findnemo.benchmark.natural_scoring import NaturalScore
from findnemo.benchmark.plan import SUITE_VERSION, Memory, Plan, suite_plan
from findnemo.benchmark.planted_scoring import Score
from findnemo.benchmark.planting import plant
from findnemo.benchmark.results import Results, published
from findnemo.benchmark.scoring import Alarm, score_member
from findnemo.benchmark.suite import run, train
from findnemo.benchmark.training import Recipe
from findnemo.benchmark.truth import Member

__all__ = [
    "METHODS",
    "NATURAL_VERSION",
    "SUITE_VERSION",
    "Alarm",
    "Answer",
    "Member",
    "Memory",
    "Method",
    "NaturalMember",
    "NaturalMemory",
    "NaturalScore",
    "Plan",
    "Recipe",
    "Results",
    "Score",
    "Task",
    "demo_member",
    "natural_demo",
    "open_member",
    "open_natural",
    "plant",
    "published",
    "run",
    "score_member",
    "suite_plan",
    "train",
    "train_member",
]
