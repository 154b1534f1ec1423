"""Nothing is written outside the run directory: by links in a run of somebody else, by what
captions and tables name, by names in files.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from _command import cli
from _here import settings_in
from _tiny import tiny_pipeline
from _tiny_files import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

import findnemo
from findnemo.errors import FindnemoError, InputError
from findnemo.neurons import NeuronSet
from findnemo.runs import Run, acquire, write_results
from findnemo.runs.repair import repair
from findnemo.runs.store import Caption
from findnemo.settings import Settings

KEPT = b"somebody's only copy"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    model = findnemo.load(tiny_pipeline())
    captions = {
        "../../escaped": NeuronSet({next(iter(model.value_layers)): [3]}),
        "/etc/passwd": NeuronSet(),
    }
    folder = make_run(tmp_path_factory.mktemp("whole") / "run", model, captions)
    findnemo.calibrate(model, ["a grey owl", "the sea"], settings=Settings(samples=3)).save(
        folder / "calibration"
    )
    return folder


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "inside" / "run"))


@pytest.fixture
def outside(tmp_path) -> Path:
    """A file and a directory of the user's; after the test they are as they were."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_bytes(KEPT)
    yield folder
    assert [p.name for p in folder.iterdir()] == ["file"]
    assert (folder / "file").read_bytes() == KEPT


LINKED = [
    *(
        ".lock",
        "backup.sqlite",
        "run.sqlite-wal",
        "run.sqlite-journal",
        "settings.json",
        "results.csv",
        "results.json",
        "report.html",
    ),
    *(
        "calibration",
        "images",
        "sheets",
        "noise",
        "compare",
        "export",
        "tracking",
        "images/00001-escaped",
        "calibration/x.part",
    ),
]
WRITERS = {
    "lock": lambda run: acquire(run).close(),
    "go on": lambda run: Run.create(run, settings_in(run)).close(),
    "repair": repair,
    "report": lambda run: cli_ended(cli("report", run)),
}


def cli_ended(result) -> None:
    if result.status:
        raise InputError(result.err)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_a_run_is_refused_before_anything_is_written(run, outside, name, writer):
    place = run / name
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside / "file" if "." in Path(name).name else outside)
    with pytest.raises(FindnemoError, match="is a link"):
        WRITERS[writer](run)


@pytest.mark.parametrize("writer", WRITERS)
def test_links_that_trackers_keep_are_no_reason_to_refuse(run, outside, writer):
    (run / "tracking" / "wandb").mkdir(parents=True)
    (run / "tracking" / "wandb" / "latest-run").symlink_to(outside)
    WRITERS[writer](run)


@pytest.mark.parametrize("name", ["images/a.png", ".lock", "results.csv"])
def test_a_pipe_in_a_run_is_refused(run, name):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(InputError, match="a pipe or a device"):
        acquire(run)


def test_the_directory_itself_may_be_a_link(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    with Run.create(tmp_path / "link", settings_in(run)) as opened:
        write_results(opened)
    assert (run / "results.csv").is_file()


def test_captions_that_look_like_paths_stay_inside(run, tmp_path):
    before = everything(tmp_path, run)
    for command in (
        ("report", run),
        ("inspect", run),
        ("export", run, "--to", "neurons", "--to", "card"),
    ):
        assert cli(*command).status == 0
    with Run.open(run) as opened:
        write_results(opened)
    assert everything(tmp_path, run) == before


def everything(folder: Path, but: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p != but and but not in p.parents)


TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(["..", "/", "\\", "\0", "~", "C:", "con", ".", " "]), max_size=9
).map("".join)


@given(TEXTS, st.integers(1, 10**9))
@settings(max_examples=300, deadline=None)
def test_no_caption_makes_a_name_that_is_more_than_a_name(text, number):
    slug = Caption(number, text, 1, None, None, {}, {}, 0.0).slug
    assert Path(slug).name == slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(slug) < 60
