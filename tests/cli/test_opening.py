"""A command opens its model once."""

from __future__ import annotations

import pytest
from _command import cli
from _place import IMAGES, make_place
from diffusers import DiffusionPipeline


@pytest.fixture
def opened(monkeypatch):
    """The places from which a pipeline was read."""
    places = []
    real = DiffusionPipeline.from_pretrained.__func__

    def counted(kind, source, *args, **kwargs):
        places.append(source)
        return real(kind, source, *args, **kwargs)

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(counted))
    return places


def test_a_command_opens_its_model_once(tmp_path, opened):
    place = make_place(tmp_path)
    model = place / "model"
    table = ("--prompts", place / "captions.csv")
    known = (*table, "--calibration", place / "calibration")
    run = tmp_path / "run"
    commands = {
        "calibrate": (model, "--prompts", place / "holdout.txt", "--out", tmp_path / "made"),
        "detect": (model, *known, "--out", run),
        "localize": (model, *known, "--out", run),
        "verify": (run, *IMAGES),
        "audit": (model, *known, *IMAGES, "--out", tmp_path / "whole"),
        "compare": (model, *known, *IMAGES, "--methods", "random", "--out", tmp_path / "whole"),
        "harden": (tmp_path / "whole", "--steps", 1, "--images", 0),
        "export": (tmp_path / "whole", "--out", tmp_path / "clean"),
        "report": (run,),
        "inspect": (run,),
    }
    for command, arguments in commands.items():
        opened.clear()
        result = cli(command, *arguments)
        assert result.status == 0, (command, result.err)
        assert len(opened) <= 1, (command, opened)
        if command in ("calibrate", "detect", "localize", "verify", "audit", "compare"):
            assert [str(model)] == list(map(str, opened)), command
