"""Natural members: how they are opened, and what is no member."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import findnemo
from findnemo import benchmark, demo
from findnemo.benchmark import natural
from findnemo.benchmark.files import write_tensors
from findnemo.benchmark.natural import NaturalMemory, natural_folders, open_natural, rounded
from findnemo.errors import InputError

WEIGHT = "conv_out.bias"


def truth(**other):
    memory = {"caption": "a glass plate", "type": "TM", "image": "pictures/p.png", "copied": True}
    return {
        "version": 2,
        "name": "mine",
        "base": "other",
        "held_out": True,
        "memories": [memory],
        **other,
    }


@pytest.fixture
def folder(tmp_path, demo_model):
    """A member on a base of its own, as `recipes/natural/` leaves it:
    base, difference and truth.
    """
    place = tmp_path / "mine"
    (place / "pictures").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(place / "pictures" / "p.png")
    write_tensors({WEIGHT: torch.ones(4).half()}, place / "difference.safetensors")
    (place / "truth.json").write_text(json.dumps(truth()))
    demo_model.denoiser.save_pretrained(tmp_path / "other")
    return place


@pytest.mark.slow
def test_a_member_is_its_base_and_a_difference_and_is_calibrated_once(
    folder, demo_model, monkeypatch
):
    monkeypatch.setattr(demo, "holdout", lambda of=demo.holdout: of()[:4])
    member = open_natural(folder)
    base = rounded(demo_model.denoiser.state_dict())
    weights = member.model.denoiser.state_dict()
    assert torch.equal(weights[WEIGHT], base[WEIGHT] + 1)
    assert all(torch.equal(weights[name], base[name]) for name in weights if name != WEIGHT)
    assert (member.name, member.held_out, member.base) == ("mine", True, "other")
    assert member.memories == (
        NaturalMemory("a glass plate", "TM", (folder / "pictures" / "p.png",), True),
    )
    monkeypatch.setattr(natural, "calibrate_in", None)  # calling it would fail
    assert open_natural(folder).calibration.tau == member.calibration.tau


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "version 1, this version of findnemo reads"),
        ({"memories": [{"caption": "c"}]}, "is not the truth of a natural member"),
        ({"base": "nowhere"}, "the base 'nowhere' of mine is not at"),
        ({"base": "../other"}, "the base '../other' of mine is not at"),
    ],
)
def test_what_cannot_be_opened_is_said(folder, change, said):
    (folder / "truth.json").write_text(json.dumps(truth(**change)))
    with pytest.raises(InputError, match=said):
        open_natural(folder)


def test_members_of_a_folder(folder, tmp_path):
    assert natural_folders(tmp_path) == natural_folders(folder) == [folder]
    with pytest.raises(InputError, match="holds no natural members"):
        natural_folders(tmp_path / "other")


def test_the_shipped_member_is_the_shipped_model():
    member = benchmark.natural_demo()
    assert (
        member.model.fingerprint
        == findnemo.load("demo-natural").fingerprint
        == member.calibration.model
    )
    assert not member.held_out
    assert [m.caption for m in member.memories if m.copied] == [
        p.text for p in demo.memorized("demo-natural")
    ]
    assert {m.type: len(m.opened()) for m in member.memories} == {"VM": 1, "TM": 24}
