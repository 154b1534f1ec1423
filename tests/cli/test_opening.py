"""A command opens its model once."""

from __future__ import annotations

import pytest
from _command import cli
from _place import IMAGES, inputs, make_place
from diffusers import DiffusionPipeline


@pytest.fixture
def opened(monkeypatch):
    """The places from which a pipeline was read."""
    places = []
    real = DiffusionPipeline.from_pretrained.__func__

    def counted(kind, source, *args, **kwargs):
        places.append(str(source))
        return real(kind, source, *args, **kwargs)

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(counted))
    return places


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def known(place):
    return *inputs(place), "--limit", 6


@pytest.fixture(scope="module")
def run(place, known):
    out = place / "run"
    assert cli("audit", place / "model", *known, *IMAGES, "--no-report", "--out", out).status == 0
    return out


def once(opened, place, *arguments):
    result = cli(*arguments)
    assert result.status == 0, result.err
    assert opened == [str(place / "model")]


def test_calibrate(opened, place, tmp_path):
    once(
        opened,
        place,
        "calibrate",
        place / "model",
        "--prompts",
        place / "holdout.txt",
        "--limit",
        2,
        "--out",
        tmp_path,
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("command", ["detect", "localize"])
def test_parts_of_the_path(opened, place, known, tmp_path, command):
    once(opened, place, command, place / "model", *known, "--out", tmp_path / "run")


def test_audit_and_what_goes_on_from_it(opened, place, known, run):
    once(opened, place, "audit", place / "model", *known, *IMAGES, "--out", run)
    opened.clear()
    assert cli("inspect", run).status == cli("report", run).status == 0
    assert opened == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["verify", "compare", "harden"])
def test_what_takes_minutes(opened, place, known, run, tmp_path, command):
    arguments = {
        "verify": (run, "--no-attempts", "--no-attack"),
        "compare": (place / "model", *known, *IMAGES, "--out", run),
        "harden": (
            run,
            "--captions",
            1,
            "--epochs",
            1,
            "--attack-steps",
            1,
            "--updates",
            1,
            "--no-check",
            "--out",
            tmp_path / "hardened",
        ),
    }[command]
    once(opened, place, command, *arguments)
