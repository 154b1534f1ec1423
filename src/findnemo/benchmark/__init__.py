"""The benchmark: models whose memories were planted in known neurons, and what localization methods make of them.

    from findnemo import benchmark
    member = benchmark.demo_member()
    results = list(benchmark.score_member(member, {"mine": my_method}, limit=4))

A method takes a `Task` (model, prompt, calibration, captions to compare with) and gives an `Answer` (neurons, U-Net evaluations spent).
"""

from findnemo.benchmark.member import Member
from findnemo.benchmark.members import demo_member, open_member, train_member
from findnemo.benchmark.methods import METHODS, Answer, Method, Task
from findnemo.benchmark.plan import SUITE_VERSION, Memory, Plan, suite_plan
from findnemo.benchmark.planting import plant
from findnemo.benchmark.results import Results, published
from findnemo.benchmark.scoring import Alarm, Score, score_member
from findnemo.benchmark.suite import run, train
from findnemo.benchmark.training import Recipe

__all__ = [
    "METHODS",
    "SUITE_VERSION",
    "Alarm",
    "Answer",
    "Member",
    "Memory",
    "Method",
    "Plan",
    "Recipe",
    "Results",
    "Score",
    "Task",
    "demo_member",
    "open_member",
    "plant",
    "published",
    "run",
    "score_member",
    "suite_plan",
    "train",
    "train_member",
]
