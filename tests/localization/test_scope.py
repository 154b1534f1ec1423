"""The layer scan: which value layers carry the copies of a model."""

from __future__ import annotations

from _tiny import tiny_pipeline

import findnemo
from findnemo import demo
from findnemo.localization.scope import Scan, scan


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
