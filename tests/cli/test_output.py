"""Output in any encoding: nothing ends a command, JSON can be read back, tables stay tables.

Real processes, for streams are theirs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _place import make_place

import findnemo
from findnemo.neurons import NeuronSet
from findnemo.prompts import read_prompts

pytestmark = pytest.mark.slow

TEXTS = ("a red fox 東京 🦊", "ein Bär — ±", "κόκκινο αστέρι", "a tree")

ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "UTF-16": {"PYTHONIOENCODING": "utf-16"},
    "C locale": {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
}

# a process each: the others take part in the long checks
SOME = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in ("ascii", "UTF-16")))
    for name in ENCODINGS
]


def ran(encoding: dict[str, str], *arguments: object, cwd: Path) -> tuple[int, bytes, bytes]:
    """A command as a process of its own: status, standard output, standard error."""
    paths = [str(Path(findnemo.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        **encoding,
    }
    command = [sys.executable, "-m", "findnemo", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, env=environment, cwd=cwd, check=False, timeout=300
    )
    assert b"UnicodeE" not in done.stderr, done.stderr[-2000:]
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`model`, `calibration`, `captions.csv` with captions in several scripts, and `run`, in
    which they are detected.
    """
    place = make_place(tmp_path_factory.mktemp("output"))
    rows = "".join(f"{text}\tVM\n" for text in TEXTS)
    (place / "captions.csv").write_text(f"caption\ttype\n{rows}", encoding="utf-8")
    status, out, _ = ran(ENCODINGS["ascii"], *detect("run"), "--json", cwd=place)
    assert status == 0
    assert [r["caption"] for r in json.loads(out.decode("ascii"))["results"]] == list(TEXTS)
    return place


def detect(out: str) -> tuple[object, ...]:
    return (
        "detect",
        "model",
        "--prompts",
        "captions.csv",
        "--calibration",
        "calibration",
        "--out",
        out,
    )


@pytest.mark.parametrize("encoding", SOME)
def test_inspect_shows_captions_in_any_encoding(place, encoding):
    status, out, err = ran(ENCODINGS[encoding], "inspect", "run", cwd=place)
    assert (status, err) == (0, b"")
    name = {"C locale": "ascii"}.get(encoding, encoding)
    text = out.decode(name)
    lines = sorted(line for line in text.splitlines() if line.startswith(("a red fox", "a tree")))
    assert len(lines) == 2
    wide = name.startswith("UTF")
    assert ("東京" in lines[0]) == wide
    assert ("\\u6771" in lines[0]) == (not wide)
    if not wide:
        # what is replaced is known before the table is laid out: scores stand under each other
        scores = [re.search(r" -?\d\.\d{3} ", line) for line in lines]
        assert scores[0].end() == scores[1].end()
        assert "ein B" + ("\\xe4" if name == "ascii" else "ä") in text


@pytest.mark.parametrize("encoding", SOME)
def test_json_can_be_read_back_in_any_encoding(place, encoding):
    status, out, _ = ran(ENCODINGS[encoding], "inspect", "run", "fox", "--json", cwd=place)
    assert status == 0
    rows = json.loads(out.decode("utf-16") if encoding == "UTF-16" else out)
    assert [r["caption"] for r in rows] == [TEXTS[0]]


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("C locale", marks=pytest.mark.slow)])
def test_help_errors_and_paths_in_any_encoding(place, encoding):
    assert ran(ENCODINGS[encoding], "--help", cwd=place)[0] == 0
    status, out, err = ran(
        ENCODINGS[encoding],
        "detect",
        "model",
        "--prompts",
        "東.csv",
        "-c",
        "calibration",
        "--out",
        "x",
        cwd=place,
    )
    assert (status, out) == (2, b"")
    assert err.decode("ascii").startswith("error: ")
    assert ".csv: cannot be read" in err.decode("ascii")
    assert ran(ENCODINGS[encoding], "inspect", "run", "東", cwd=place)[0] in (0, 2)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_that_shows_captions(place, tmp_path, encoding):
    def done(*arguments: object) -> None:
        status, out, err = ran(ENCODINGS[encoding], *arguments, cwd=place)
        assert status == 0, err
        if "--json" in arguments:
            json.loads(out.decode("utf-16") if encoding == "UTF-16" else out)

    run = tmp_path / "lauf-東"
    usual = ("model", "--prompts", "captions.csv", "--calibration", "calibration")
    done("calibrate", "model", "--prompts", "holdout.txt", "--out", tmp_path / "calibration")
    done("audit", *usual, "--images", 2, "--image-steps", 2, "--out", run)
    done("localize", *usual, "--out", tmp_path / "localized", "--json")
    done("inspect", run, 1)
    done("report", run)
    done("verify", run, "--no-attack", "--json")
    done("compare", *usual, "--out", run, "--mitigations", "neurons")
    done("export", run, "--to", "neurons", "--to", "card", "--out", tmp_path / "exports")
    done("study", "fig4", run)
    done("repair", run)


@pytest.mark.parametrize("locale", ["ascii", "cp1252"])
def test_files_are_read_and_written_in_utf_8_whatever_the_locale_says(
    tmp_path, locale, monkeypatch
):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *a: locale)
    monkeypatch.setattr("locale.getencoding", lambda: locale, raising=False)
    neurons = NeuronSet({"größe.東": [1, 5]})
    neurons.save(tmp_path / "n.json")
    assert NeuronSet.load(tmp_path / "n.json") == neurons
    (tmp_path / "n.json").write_bytes('\ufeff{"layers": {"東": [1]}}'.encode())
    assert NeuronSet.load(tmp_path / "n.json") == NeuronSet({"東": [1]})
    (tmp_path / "t.txt").write_bytes("東\n".encode())
    assert [p.text for p in read_prompts(tmp_path / "t.txt")] == ["東"]
