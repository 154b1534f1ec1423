"""Trackers: what reaches one is what the run holds, read back from a fake class
and from a real event file.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from accelerate.logging import get_logger
from accelerate.state import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from findnemo.errors import InputError
from findnemo.images import save_png
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.runs import track as module
from findnemo.runs.track import PACKAGES, check_tracker, track

SETTINGS = {
    "model": "0" * 32,
    "dtype": "float32",
    "calibration": {
        "variant": "paper",
        "similarity": "ssim",
        "samples": 10,
        "timestep": 0,
        "steps": 50,
    },
    "tau": 0.5,
    "search": "gradient",
    "images": 2,
    "judges": {},
    "image_settings": {"steps": 2, "guidance": 7.0},
}


@pytest.fixture
def run(tmp_path):
    """Two captions, one memorized with images, and a comparison."""
    with Run.create(tmp_path / "run", SETTINGS) as made:
        made.set_meta("source", str(tmp_path / "secret" / "model"))
        made.set_meta("versions", {"findnemo": "1"})
        made.set_meta("quality", {"prompts": 1, "failed": 0, "neurons": 1, "pixel_change": 0.03})
        one, two = made.add([Prompt("one", 1), Prompt("two", 2)])
        made.record(
            one, "detect", {"score": 0.9, "tau": 0.5, "memorized": True, "evaluations": 2}, 1.0
        )
        made.record(
            two, "detect", {"score": 0.1, "tau": 0.5, "memorized": False, "evaluations": 10}, 1.0
        )
        found = {
            "score_before": 0.9,
            "score_after": 0.2,
            "reached": True,
            "neurons": {"a": [3]},
            "evaluations": 20,
        }
        made.record(one, "localize", found, 1.0)
        made.record(
            one,
            "verify",
            {"same_seed": 0.3, "score_after": 0.25, "copies_before": 1.0, "copies_after": 0.0},
            1.0,
        )
        made.record(one, "compare:embedding", {"images": 2, "sscd_gen": 0.1}, 1.0)
        slug = next(made.captions()).slug
        for k in range(2):
            save_png(
                Image.new("RGB", (8, 6), (k, 100, 200)),
                made.path / "images" / slug / f"before-{k:02d}.png",
            )
            save_png(
                Image.new("RGB", (8, 6), (k, 0, 0)),
                made.path / "images" / slug / f"after-{k:02d}.png",
            )
    with Run.open(tmp_path / "run") as opened:
        yield opened


EXPECTED = {
    "run/captions memorized": 1,
    "run/neurons off": 1,
    "run/memories gone on fresh seeds": 1,
    "run/memories not gone": 0,
    "run/change of other captions pixels": 0.03,
    "quality/pixel_change": 0.03,
    "compare/embedding/sscd_gen": 0.1,
}


class Fake(GeneralTracker):
    """Keeps what it is given."""

    name = "fake"
    requires_logging_directory = False
    main_process_only = False
    last = None

    def __init__(self, project, **options):
        super().__init__()
        self.calls: list[tuple] = [("project", project)]
        type(self).last = self

    @property
    def tracker(self):
        return self.calls

    def start(self):
        get_logger("fake").debug(
            "as wandb's tracker does; raises where accelerate's state is not there"
        )
        self.calls.append(("start",))

    def store_init_configuration(self, values):
        self.calls.append(("configuration", values))

    def log(self, values, step=None, **options):
        self.calls.append(("log", step, values))

    def finish(self):
        self.calls.append(("finish",))


class Pictured(Fake):
    name = "pictured"

    def log_images(self, values, step=None):
        self.calls.append(("images", step, {k: v.shape for k, v in values.items()}))


@pytest.fixture
def registered(monkeypatch):
    for kind in (Fake, Pictured):
        monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, kind.name, kind)


def test_a_tracker_that_asks_accelerate_for_its_process_gets_an_answer(run, registered):
    PartialState._reset_state()  # as in a process in which nothing has used accelerate
    track(run, "fake")
    assert Fake.last.calls[1] == ("start",)


def test_a_tracker_gets_settings_figures_and_captions_in_order(run, registered):
    track(run, "fake")
    project, start, configuration, whole, one, finish = Fake.last.calls
    assert (project, start, finish) == (("project", "findnemo"), ("start",), ("finish",))
    assert configuration[1] == {
        "source": "model",  # not where it lies
        "settings.model": "0" * 32,
        "settings.dtype": "float32",
        "settings.calibration.variant": "paper",
        "settings.calibration.similarity": "ssim",
        "settings.calibration.samples": 10,
        "settings.calibration.timestep": 0,
        "settings.calibration.steps": 50,
        "settings.images": 2,
        "settings.image_settings.guidance": 7.0,
        "settings.tau": 0.5,
        "settings.search": "gradient",
        "settings.image_settings.steps": 2,
        "versions.findnemo": "1",
    }
    assert whole[1] == 0
    assert EXPECTED.items() <= whole[2].items()
    assert one == (
        "log",
        1,
        {
            "caption/score": 0.9,
            "caption/same_seed": 0.2,
            "caption/neurons": 1,
            "caption/fresh_score_after": 0.25,
            "caption/fresh_same_seed": 0.3,
            "caption/copies_before": 1,
            "caption/copies_after": 0,
            "caption/evaluations": 22,
            "caption/gone": 1,
        },
    )


def test_images_go_to_trackers_that_take_them(run, registered):
    track(run, "pictured")
    assert Pictured.last.calls[-2] == (
        "images",
        2,
        {"00001-one/before": (2, 6, 8, 3), "00001-one/after": (2, 6, 8, 3)},
    )


def test_a_tracker_is_finished_also_when_it_fails(run, registered, monkeypatch):
    def fails(self, values, step=None):
        raise ConnectionError("gone")

    monkeypatch.setattr(Fake, "log", fails)
    with pytest.raises(ConnectionError):
        track(run, "fake")
    assert Fake.last.calls[-1] == ("finish",)


def test_trackers_that_are_not_known_or_not_installed_say_what_to_do(monkeypatch):
    with pytest.raises(
        InputError, match="'nonsense' is not known: use tensorboard, wandb, trackio, mlflow"
    ):
        check_tracker("nonsense")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for name, (package, *_) in PACKAGES.items():
        with pytest.raises(InputError, match=f"pip install {package}"):
            check_tracker(name)


def events(folder: Path) -> list:
    """The events of all files of tensorboard below a folder: length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    made = []
    for file in sorted(folder.rglob("events.*")):
        data = file.read_bytes()
        at = 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            made.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return made


def test_tensorboard_reads_back_what_the_run_holds(run):
    pytest.importorskip("tensorboardX")
    track(run, "tensorboard")
    values = [(v.tag, e.step, v) for e in events(run.path / "tracking") for v in e.summary.value]
    scalars = {(tag, step): v.simple_value for tag, step, v in values if v.HasField("simple_value")}
    for tag, value in EXPECTED.items():
        assert scalars[tag.replace(" ", "_"), 0] == pytest.approx(value)
    assert scalars["caption/score", 1] == pytest.approx(0.9)
    shown = {tag: v.image for tag, _, v in values if v.HasField("image")}
    assert set(shown) == {"00001-one/before", "00001-one/after"}
    assert (shown["00001-one/before"].height, shown["00001-one/before"].width) == (
        6,
        16,
    )  # two side by side
    import io

    pixels = np.asarray(
        Image.open(io.BytesIO(shown["00001-one/before"].encoded_image_string)).convert("RGB")
    )
    assert {tuple(p) for p in pixels.reshape(-1, 3).tolist()} == {(0, 100, 200), (1, 100, 200)}


def test_a_folder_may_be_given(run, tmp_path):
    pytest.importorskip("tensorboardX")
    track(run, "tensorboard", tmp_path / "logs")
    assert list((tmp_path / "logs").rglob("events.*"))
    assert not (run.path / "tracking").exists()
