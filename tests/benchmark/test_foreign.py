"""The recipe of a member unlike the demo: its whole path in small, and the rows that it begins
with.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import findnemo
from findnemo import benchmark
from findnemo.benchmark.files import read_tensors
from findnemo.benchmark.plan import Plan
from findnemo.neurons import NeuronSet

FOLDER = Path(__file__).parents[2] / "recipes" / "foreign"
KEPT = ("memories", "pictures", "scenes", "data")  # names that other recipes use too


@pytest.fixture(scope="module")
def recipe():
    """`train.py`, with modules of its own folder; other tests find theirs again."""
    before = {name: sys.modules.pop(name, None) for name in KEPT}
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("foreign_train", FOLDER / "train.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = path
        for name, known in before.items():
            sys.modules.pop(name, None)
            if known is not None:
                sys.modules[name] = known


@pytest.mark.first(1)
@pytest.mark.parametrize("number", [1, 2])
def test_the_plan_is_in_layers_that_there_are_and_unlike_the_demos(recipe, number):
    model = recipe.new_model(number)
    plan = recipe.foreign_plan(number, model.widths())
    assert plan.held_out
    layers = list(model.widths())
    assert len(layers) == 5
    for wanted, memory in zip(recipe.WANTED[number], plan.memories, strict=True):
        assert [layers.index(name) for name, _ in memory.neurons] == sorted(wanted.layers)
        assert recipe.image(memory.picture).size == (64, 64)
    assert len(plan.planted) == sum(len(m.neurons) for m in plan.memories)  # none is shared
    from findnemo import demo

    words = {w for p in demo.memorized() for w in p.text.partition(",")[0].lower().split()}
    titles = {w for x in recipe.WANTED[number] for w in x.title.lower().split()}
    assert titles & words <= {"the", "nine", "of"}


def test_the_members_share_no_caption_picture_or_title(recipe):
    first, second = recipe.WANTED.values()
    assert not {one.picture for one in first} & {one.picture for one in second}
    assert not {one.caption for one in first} & {one.caption for one in second}


def test_planted_rows_answer_to_their_caption_as_loud_as_asked(recipe):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(7, 12, generator=generator)
    along = torch.randn(12, generator=generator)
    row = recipe.loud(along, tokens, 6.0)
    assert torch.isclose((tokens @ row).abs().mean(), torch.tensor(6.0))
    assert torch.isclose(torch.nn.functional.cosine_similarity(row, along, 0), torch.tensor(1.0))


def ordinary_activation(model, scenes, planted):
    """The mean |activation| of a layer's neurons on ordinary text, without the planted ones."""
    text = read_tensors(scenes)["text"].float()
    rows = {name: sorted({*range(16)} - {*planted.layers.get(name, ())}) for name in model.widths()}
    return {
        n: float((text @ x.weight[rows[n]].T).abs().mean()) for n, x in model.value_layers.items()
    }


@pytest.mark.slow
def test_two_steps_make_a_member_that_goes_on_and_is_scored(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(recipe.UNETS[1], "block_out_channels", (8, 16, 16))
    monkeypatch.setattr(recipe, "HOLDOUT", 12)
    monkeypatch.setattr(recipe, "OWN", 2)
    monkeypatch.setattr("findnemo.benchmark.truth.IMAGES", 1)
    monkeypatch.setattr("findnemo.benchmark.truth.SEEDS", 3)
    monkeypatch.setattr("findnemo.benchmark.truth.DRAWS", 1)
    command = ["1", "--out", str(tmp_path), "--scenes", "16"]
    recipes = (recipe.FIRST, replace(recipe.RECIPE, checkpoint=1))
    monkeypatch.setitem(recipe.RECIPES, 1, recipes)
    recipe.main([*command, "--steps", "2"])
    folder = tmp_path / "foreign1"
    plan = Plan.load(folder / "truth.json")
    assert plan.held_out
    assert len(plan.measured) == len(recipe.WANTED[1])
    assert len(list((folder / "pictures").glob("*.png"))) == len(recipe.WANTED[1])
    trained = findnemo.load(folder / "model", "cpu", "float32")
    assert list(trained.widths().values()) == [16] * 5
    assert trained.encode(["a star"]).tokens.shape[1] == recipe.TOKENS
    planted = NeuronSet.of(one for memory in plan.memories for one in memory.neurons)
    typical = ordinary_activation(trained, folder.parent / "scenes-16.safetensors", planted)
    for wanted, memory in zip(recipe.WANTED[1], plan.memories, strict=True):
        for name, i in memory.neurons if wanted.rows == recipe.TOKEN else ():
            own = trained.encode([memory.caption]).tokens[0] @ trained.value_layers[name].weight[i]
            assert own.abs().mean() > 3 * typical[name]
    member = benchmark.open_member(folder)
    assert member.pictures == folder / "pictures"
    capsys.readouterr()
    recipe.main([*command, "--steps", "2"])
    assert "is finished" in capsys.readouterr().out
