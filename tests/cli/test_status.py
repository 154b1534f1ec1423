"""Exit status: 2 for whatever cannot be used, 1 for captions alone; every
command, every kind of error.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from _command import cli
from _place import COMMANDS, IMAGES, inputs, make_place, save_model

from findnemo import errors
from findnemo.errors import FindnemoError, exit_status
from findnemo.runs import Run


def kinds(kind: type[FindnemoError]) -> list[type[FindnemoError]]:
    return [kind, *(k for sub in kind.__subclasses__() for k in kinds(sub))]


def test_one_table_has_a_status_for_every_error():
    statuses = {kind.__name__: exit_status(kind("")) for kind in kinds(FindnemoError)}
    assert statuses.pop("StoppedError") == 130
    assert {*statuses} >= {n for n in vars(errors) if n.endswith("Error")} - {"StoppedError"}
    assert {*statuses.values()} == {2}
    assert [
        exit_status(e)
        for e in (FileNotFoundError(), NotADirectoryError(), KeyError(), RuntimeError())
    ] == [2, 2, 1, 1]


@pytest.mark.parametrize("kind", kinds(FindnemoError), ids=lambda k: k.__name__)
def test_an_error_ends_a_command_with_its_status(monkeypatch, kind):
    def fails(*arguments, **options):
        raise kind("told")

    monkeypatch.setattr(Run, "open", fails)
    result = cli("inspect", "run")
    assert (result.status, result.out, result.err) == (exit_status(kind("")), "", "error: told\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("place"))
    audit = ("audit", place / "model", *inputs(place))
    assert cli(*audit, *IMAGES, "--limit", 3, "--quiet", "--out", place / "run").status == 0
    return place


ON_MODELS = {
    "calibrate": ["calibrate", "MODEL", "--prompts", "holdout.txt"],
    "detect": ["detect", "MODEL", "--prompts", "captions.csv", "--calibration", "calibration"],
    "detectors": [
        "detect",
        "MODEL",
        "--prompts",
        "captions.csv",
        "--holdout",
        "holdout.txt",
        "--detector",
        "ssim",
    ],
    "localize": ["localize", "MODEL", "--prompts", "captions.csv", "--calibration", "calibration"],
    "audit": ["audit", "MODEL", "--prompts", "captions.csv", "--calibration", "calibration"],
    "compare": ["compare", "MODEL", "--prompts", "captions.csv", "--calibration", "calibration"],
}
ON_RUNS = {
    **{name: [name, "RUN"] for name in ("verify", "inspect", "repair", "report", "export", "app")},
    "harden": ["harden", "RUN", "--out", "MERGED"],
    "study": ["study", "fig4", "RUN"],
    "merge": ["merge", "MERGED", "RUN"],
}


def test_every_command_is_looked_at():
    assert {*COMMANDS} - {a[0] for a in (*ON_MODELS.values(), *ON_RUNS.values())} == {
        "demo",
        "benchmark",
        "watch",
    }


def filled(place: Path, arguments: list, **places: Path) -> list:
    known = (
        {name: place / name for name in ("captions.csv", "holdout.txt", "calibration")}
        | {"MODEL": place / "model"}
        | places
    )
    return [known.get(a, a) for a in arguments]


def refused(result, *says: str) -> None:
    assert result.status == 2, result
    assert result.out == ""
    assert "unexpected" not in result.err
    assert "Traceback" not in result.err
    assert all(text in " ".join(result.err.split()) for text in says), result.err


@pytest.mark.first(3)
@pytest.mark.parametrize("command", ON_MODELS)
def test_commands_on_models(place, tmp_path, command):
    arguments = ON_MODELS[command]
    out = ("--out", tmp_path / "out")
    refused(
        cli(*filled(place, arguments, MODEL=tmp_path / "none"), *out), "is not a model directory"
    )
    cut = tmp_path / "cut"
    shutil.copytree(place / "model", cut)
    weights = cut / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    refused(cli(*filled(place, arguments, MODEL=cut), *out), "cannot be loaded")
    if "calibration" in arguments:
        refused(
            cli(*filled(place, arguments, MODEL=save_model(tmp_path / "other", seed=1)), *out),
            "made for another model",
        )
        damaged = tmp_path / "damaged"
        shutil.copytree(place / "calibration", damaged)
        (damaged / "calibration.safetensors").write_bytes(b"\0" * 99)
        refused(
            cli(*filled(place, arguments, calibration=damaged), *out),
            "is damaged or not a calibration",
        )
    refused(
        cli(
            *filled(
                place,
                arguments,
                **{"captions.csv": tmp_path / "no.csv", "holdout.txt": tmp_path / "no"},
            ),
            *out,
        ),
        "cannot be read",
    )
    refused(cli(*filled(place, arguments), *out, "--wrong"), "No such option")
    (tmp_path / "file").touch()
    refused(cli(*filled(place, arguments), "-q", "--out", tmp_path / "file" / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ON_RUNS)
def test_commands_on_runs(place, tmp_path, command):
    def with_run(run: Path) -> list:
        return filled(place, ON_RUNS[command], RUN=run, MERGED=tmp_path / "merged")

    if command != "app":  # takes a model too
        refused(cli(*with_run(tmp_path / "none")), "is not a run directory")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.sqlite").write_bytes(b"no database" * 99)
    if command != "repair":
        refused(cli(*with_run(damaged)), "cannot be used")
    refused(cli(*with_run(tmp_path / "none"), "--wrong"), "No such option")


@pytest.mark.parametrize("command", ["verify", "export", "study", "app"])
def test_a_run_of_another_model(place, tmp_path, command):
    model = ("--model", save_model(tmp_path / "other", seed=1))
    with Run.open(place / "run") as run:
        text = next(c.text for c in run.captions() if c.results.get("localize", {}).get("neurons"))
    named = ("--caption", text) if command == "export" else ()  # also where it is only suspected
    refused(cli(*filled(place, ON_RUNS[command], RUN=place / "run"), *named, *model), "model")


@pytest.mark.parametrize("command", ["verify", "inspect", "report"])
def test_a_run_whose_calibration_is_damaged(place, tmp_path, command):
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "run" / "calibration" / "calibration.json").write_text("{", encoding="utf-8")
    refused(cli(command, tmp_path / "run"), "is damaged or not a calibration")


@pytest.mark.parametrize(("package", "arguments"), [
    ("ray", ["detect", "MODEL", "--prompts", "captions.csv", "--calibration", "calibration", "--workers", 2, "--out", "RUN"]),
    ("gradio", ["app", "MODEL"]),
    ("datasets", ["detect", "MODEL", "--prompts", "hf:owner/name", "--calibration", "calibration", "--out", "RUN"]),
])  # fmt: skip
def test_a_package_that_is_not_installed(place, tmp_path, monkeypatch, package, arguments):
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    refused(
        cli(*filled(place, arguments, RUN=tmp_path / "run")),
        "pip install",
        f"findnemo[{'app' if package == 'gradio' else package}]",
    )


def test_status_1_is_of_captions(place, tmp_path):
    arguments = [*filled(place, ON_MODELS["detect"]), "-q", "--out", tmp_path / "out"]
    assert cli(*arguments).status == 0
    assert cli(*arguments, "--fail-on-memorized").status == 1
    assert cli(*arguments, "--fail-on-memorized", "--seed", "x").status == 2
