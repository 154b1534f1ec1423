"""The process in which a task works: its threads, what it tells of passes, and what it opens."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import _opened
import pytest
import torch
from _command import cli
from _opened import note_openings
from _place import IMAGES, inputs, make_place
from _tiny import tiny_pipeline
from safetensors.torch import load_file

import findnemo
from findnemo import demo, export, tasks
from findnemo.cli import SAID, _sleep_while_waiting
from findnemo.runs import Run
from findnemo.runs.cluster import Worker
from findnemo.runtime.threads import OWN
from findnemo.tasks import Listener, Workers
from findnemo.tasks.opening import at_work, judges_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with `model`, and `calibration` made of it."""
    place = tmp_path_factory.mktemp("opening")
    tiny_pipeline().save_pretrained(place / "model", safe_serialization=True)
    holdout = [f"hold out {letter}" for letter in "abcde"]
    tasks.calibrate(place / "model", holdout, place / "calibration")
    return place


@pytest.fixture
def three(monkeypatch):
    """A process with three threads, by what it tells, of which its user has said nothing."""
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    number = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda new: number.__setitem__(0, new))


def test_a_small_model_that_is_opened_has_one_thread_meanwhile(place, three):
    with at_work(place / "model"):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_what_the_user_has_said_stands(place, three, monkeypatch):
    with at_work(place / "model", Workers(threads=2)):
        assert torch.get_num_threads() == 2
    with at_work(findnemo.load(place / "model")), at_work(tiny_pipeline()):
        assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with at_work(place / "model"):
        assert torch.get_num_threads() == 3


def test_a_run_names_its_threads_and_goes_on_with_another_number(place, three, tmp_path):
    detecting = tasks.Detecting(calibration=place / "calibration")
    for threads, captions in ((2, ["a red fox"]), (None, ["a red fox", "a tree"])):
        given = (place / "model", captions, tmp_path / "run", detecting, Workers(threads=threads))
        with tasks.detect(*given):
            pass
        with Run.open(tmp_path / "run") as run:
            assert run.meta("versions")["threads"] == str(threads or 1)
            assert len([c for c in run.captions() if "detect" in c.results]) == len(captions)


def test_a_listener_hears_of_every_pass_of_images_and_scores(place):
    heard = []
    with at_work(place / "model", listener=Listener(passed=heard.append)) as pool:
        settings = findnemo.ImageSettings(3, guidance=2.0)
        findnemo.generate(pool.model, "a red fox", [0, 1], settings)
        assert heard == [4, 4, 4]  # two images, with guidance
        findnemo.score(pool.model, "a red fox")
        assert sum(heard) == 12 + findnemo.Settings().samples
    findnemo.generate(pool.model, "a red fox", [0], settings)
    assert sum(heard) == 12 + findnemo.Settings().samples


def test_threads_of_a_command_sleep_while_they_wait_unless_something_was_said(monkeypatch):
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    _sleep_while_waiting()
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.delenv("OMP_NUM_THREADS")
    _sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    _sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "active"


# what is opened -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A directory with `model`, its audit `run`, and the judges `descriptor.pt` and `clip`.

    One part of the model is in half precision, so exports read it in its own dtypes.
    """
    folder = make_place(tmp_path_factory.mktemp("audited"))
    findnemo.load(folder / "model").pipeline.vae.half().save_pretrained(folder / "model" / "vae")
    shutil.copyfile(demo.DESCRIPTOR, folder / "descriptor.pt")
    shutil.copytree(demo.CLIP, folder / "clip")
    shutil.copytree(demo.MODEL / "tokenizer", folder / "clip", dirs_exist_ok=True)
    place = Place(folder, folder)
    result = cli(*place.audit, *place.judges, "--no-report", "--out", place.run)
    assert result.status == 0, result.err
    return folder


class Place:
    """Arguments of commands in such a directory, with the judges of the directory `of`."""

    def __init__(self, folder, of):
        self.folder = folder
        self.run = folder / "run"
        self.new = folder / "new"
        self.judges = ("--descriptor", of / "descriptor.pt", "--clip", of / "clip")
        self.given = (folder / "model", *inputs(folder), *IMAGES)
        self.audit = ("audit", *self.given)
        self.compare = ("compare", *self.given, "--mitigations", "nemo")
        self.attack = ("--no-attempts", "--attack-steps", "0", "--attack-captions", 1)
        few = ("--captions", 1, "--epochs", 1, "--attack-steps", 1, "--updates", 1, "--no-check")
        self.harden = ("harden", self.run, *few, "--out", folder / "hardened", "--trust")

    def export(self, *forms):
        named = [word for form in forms for word in ("--to", form)]
        return "export", self.run, *named, "--out", self.folder / forms[0], "--trust"


ONCE = {"model": 1, "descriptor.pt": 1, "clip": 1}
# what is written has the dtypes of the source, and it is compared with what was loaded
AND_SOURCE = {"model": 2}
COMMANDS = {  # command -> its arguments, and how often each file is opened
    "audit again": (lambda at: (*at.audit, "--trust", "--out", at.run), ONCE),
    "verify": (lambda at: ("verify", at.run, *at.attack, "--trust"), ONCE),
    "export": (lambda at: at.export("checkpoint"), AND_SOURCE),
    "export in all forms": (
        lambda at: at.export("checkpoint", "file", "lora", "kohya", "neurons", "card"),
        AND_SOURCE,
    ),
    "export without weights": (lambda at: at.export("neurons", "card"), {}),
    "inspect": (lambda at: ("inspect", at.run), {}),
    "report": (lambda at: ("report", at.run), {}),
    "audit": (lambda at: (*at.audit, *at.judges, "--out", at.new), ONCE),
    "harden": (lambda at: at.harden, ONCE | AND_SOURCE),
    "compare": (lambda at: (*at.compare, "--trust", "--out", at.run), ONCE),
    "compare from the start": (lambda at: (*at.compare, *at.judges, "--out", at.new), ONCE),
    "study": (
        lambda at: ("study", "fig2a", at.run, *at.judges[2:], "--images", 2, "--trust"),
        ONCE,
    ),
}


@pytest.mark.first(7)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_opens_each_file_once(audited, tmp_path, monkeypatch, name):
    folder = shutil.copytree(audited, tmp_path / "place")
    opened = Counter()
    note_openings(monkeypatch, lambda place: opened.update([Path(place).name]))
    arguments, wanted = COMMANDS[name]
    result = cli(*arguments(Place(folder, audited)))
    assert result.status == 0, result.err
    assert opened == wanted


def test_judges_that_are_sent_to_a_process_again_are_not_opened_again(audited, monkeypatch):
    opened = []
    note_openings(monkeypatch, opened.append)
    sent = pickle.dumps(
        judges_of("", {"descriptor": audited / "descriptor.pt", "clip": audited / "clip"})
    )
    opened.clear()
    first, second = (pickle.loads(sent) for _ in range(2))
    assert len(opened) == 2
    assert first.descriptor is second.descriptor
    assert first.alignment is second.alignment


@pytest.mark.slow
def test_a_worker_opens_each_file_once_for_all_stages(audited, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    noted = tmp_path / "noted"

    class Noting(Worker):
        """A worker that writes what it opens to a file, with its process id."""

        def __init__(self, *given):
            super().__init__(*given)
            self.noted = noted
            note_openings(pytest.MonkeyPatch(), self.note)

        def note(self, place):
            with self.noted.open("a") as file:
                file.write(f"{os.getpid()} {Path(place).name}\n")

    ray.cloudpickle.register_pickle_by_value(_opened)
    monkeypatch.setattr("findnemo.runs.cluster.Worker", Noting)
    at = Place(shutil.copytree(audited, tmp_path / "place"), audited)
    workers = ("--workers", 2, "--device", "cpu")
    result = cli(*at.audit, *at.judges, *workers, "--out", at.new)
    assert result.status == 0, result.err
    opened = Counter(noted.read_text().splitlines())
    assert {line.split()[1] for line in opened} == {*ONCE}
    assert set(opened.values()) == {1}
    assert len({line.split()[0] for line in opened}) == 2


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_forms_that_are_written_together_are_those_written_alone(audited, tmp_path, dtype):
    model = findnemo.load(audited / "model")
    with Run.open(audited / "run") as run:
        chosen = export.select(run)
    forms = ("checkpoint", "file", "lora", "kohya")
    together = {form: tmp_path / "together" / export.FORMS[form].name for form in forms}
    alone = {form: tmp_path / "alone" / export.FORMS[form].name for form in forms}
    assert dict(export.write_each(together, chosen, model, dtype=dtype)) == together
    for form, path in alone.items():
        export.write(form, chosen, path, model, dtype=dtype)
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


def contents(folder):
    """The files of a folder; of weights the tensors, because metadata have no fixed order."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): content(path) for path in files}


def content(path):
    if path.suffix != ".safetensors":
        return path.read_bytes()
    tensors = load_file(path)
    return {name: (value.dtype, value.numpy().tobytes()) for name, value in tensors.items()}
