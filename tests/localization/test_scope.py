"""The layer scan: which value layers carry the copies of a model."""

from __future__ import annotations

import pytest
from _tiny import tiny_pipeline

import findnemo
from findnemo import demo
from findnemo.errors import InputError
from findnemo.localization import Scan, scan
from findnemo.localization.trajectory import GONE

ONE = "Brantwood Roasters first cup, a large brown ring"  # held by one planted neuron
ORDINARY = "a small teal heart on dots"


def test_a_scan_comes_back_from_json():
    found = Scan("all", {"a": {"none": 0.9, "paper": 0.8}}, 40)
    assert Scan.from_json(found.to_json()) == found


def test_without_a_caption_that_copies_all_layers_are_looked_at(demo_model):
    found = scan(demo_model, [demo.unrelated()[0]], demo.image_settings())
    assert (found.scope, found.left) == ("all", {})
    assert found.evaluations > 0


def test_where_the_papers_layers_are_all_there_are_nothing_is_computed(monkeypatch):
    model = findnemo.load(tiny_pipeline())
    widths = model.widths("paper")
    monkeypatch.setattr(type(model), "widths", lambda self, scope="paper": widths)
    assert scan(model, ["a caption"], findnemo.ImageSettings(steps=1)) == Scan("paper", {})


def test_the_memories_of_the_demo_are_in_the_papers_layers(demo_model):
    found = scan(demo_model, [p.text for p in demo.memorized()[:2]], demo.image_settings())
    assert found.scope == "paper"
    assert all(one["none"] > one["paper"] for one in found.left.values())


def test_scopes(demo_model, natural):
    assert list(demo_model.layers_of("paper")) == list(demo_model.value_layers)
    assert [n.split("_")[0] for n in demo_model.layers_of("all")] == ["down"] * 6 + ["mid"] + [
        "up"
    ] * 6
    assert sum(demo_model.widths("all").values()) == 960
    with pytest.raises(InputError, match="scope 'up' is not known: use one of paper, all"):
        demo_model.layers_of("up")
    captions = [p.text for p in demo.memorized("demo-natural")[7:9]]
    scanned = scan(natural, captions, demo.image_settings())
    assert scanned.scope == "all"
    # asked until one shows that the paper's layers are not enough
    *enough, last = [left["paper"] for left in scanned.left.values()]
    assert list(scanned.left) == captions[: len(scanned.left)]
    assert max([0, *enough]) < GONE <= last
    # untouched pictures of four seeds, two of them with the layers off; three guided steps
    assert scanned.evaluations == len(scanned.left) * (4 + 2) * 3 * 2
    assert scan(demo_model, [ONE], demo.image_settings()).scope == "paper"
    assert scan(demo_model, [ORDINARY], demo.image_settings()).left == {}
