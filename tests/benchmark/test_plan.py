"""What a model of the suite is to memorize: rules, kinds, and that nothing is planted twice."""

from __future__ import annotations

import json

import pytest

from findnemo import demo
from findnemo.benchmark.members import freed
from findnemo.benchmark.plan import DECOYS, KINDS, SEEDS, Memory, Plan, suite_plan
from findnemo.errors import InputError
from findnemo.neurons import EMPTY, NeuronSet


@pytest.fixture(scope="module", params=SEEDS)
def plan(request, demo_model):
    return suite_plan(request.param, list(demo_model.value_layers), freed(demo_model))


def test_a_plan_holds_every_kind_with_the_neurons_it_names(plan):
    sizes = {}
    for memory in plan.memories:
        sizes.setdefault(memory.kind, []).append((len(memory.neurons), len(memory.neurons.layers)))
    assert sizes["one neuron"] == [(1, 1), (1, 1)]
    assert sizes["redundant"] == [(2, 2)]
    assert sizes["four, one layer"] == [(4, 1)]
    assert sizes["four, several layers"] == [(4, 4)]
    assert [sizes[k][0][0] for k in ("two neurons", "eight", "sixteen", "thirty-two")] == [
        2,
        8,
        16,
        32,
    ]
    assert len(sizes["shared"]) == 2
    assert {m.type for m in plan.memories} == {"VM", "TM"}


def test_no_neuron_has_two_owners_but_the_shared_one(plan, demo_model):
    owners = {}
    for memory in plan.memories:
        for neuron in memory.neurons:
            owners.setdefault(neuron, []).append(memory.kind)
    assert [kinds for kinds in owners.values() if len(kinds) > 1] == [["shared", "shared"]]
    assert not set(owners) & set(plan.decoys)
    assert plan.planted | plan.decoys <= freed(demo_model)
    assert len(plan.decoys) == DECOYS


def test_captions_and_pictures_are_all_different(plan):
    captions = [
        *(m.caption for m in plan.memories),
        *(c for m in plan.memories for c in m.near),
        *plan.unusual,
    ]
    assert len(captions) == len(set(captions))
    assert len({m.picture for m in plan.memories}) == len(plan.memories) == len(KINDS) + 2
    assert all((demo.ASSETS / "images" / f"{m.picture}.png").is_file() for m in plan.memories)
    assert not {m.caption for m in plan.memories} & {p.text for p in demo.memorized()}


def test_a_plan_depends_on_its_seed_alone(plan, demo_model):
    again = suite_plan(plan.seed, list(demo_model.value_layers), freed(demo_model))
    other = suite_plan(plan.seed + 10, list(demo_model.value_layers), freed(demo_model))
    assert again == plan
    assert {m.caption for m in other.memories} != {m.caption for m in plan.memories}


def test_the_rule_says_which_subsets_keep_a_memory_alive():
    memory = Memory("", "VM", "c", "p", NeuronSet({"l": range(8)}), alive=4, gone=2)
    assert [memory.expected(n) for n in (0, 2, 3, 4, 8)] == [False, False, None, True, True]
    assert memory.needed == 6
    redundant = Memory("", "VM", "c", "p", NeuronSet({"a": [1], "b": [1]}))
    assert [redundant.expected(n) for n in (0, 1, 2)] == [False, True, True]
    assert redundant.needed == 2


def test_too_few_free_neurons_are_an_error(demo_model):
    with pytest.raises(InputError, match="too few neurons are free"):
        suite_plan(1, list(demo_model.value_layers), EMPTY)


def test_a_plan_reads_back_what_it_wrote(plan, tmp_path):
    plan.save(tmp_path / "truth.json")
    assert Plan.load(tmp_path / "truth.json") == plan
    assert [p.name for p in tmp_path.iterdir()] == ["truth.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 99}, "version 99, this version of findnemo reads 1"),
        ({"memories": 3}, "memories: "),
        ({"memories": [{"kind": 1}]}, "memories.0.kind: "),
        ({"decoys": {"layer": [-1]}}, "decoys.layer.0: "),
        ({"surprise": 1}, "surprise: "),
    ],
)
def test_another_version_or_something_else_is_refused(plan, tmp_path, change, said):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(plan.to_json() | change))
    with pytest.raises(InputError, match=r"truth\.json is not the truth of a benchmark model") as e:
        Plan.load(path)
    assert said in str(e.value)


def test_a_programming_error_is_not_told_as_damage_of_the_file(plan, tmp_path, monkeypatch):
    plan.save(tmp_path / "truth.json")
    monkeypatch.setattr(NeuronSet, "__init__", lambda self: None)
    with pytest.raises(TypeError):
        Plan.load(tmp_path / "truth.json")
