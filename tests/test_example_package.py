"""The example package: built, installed, and all its methods at work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from findnemo import demo

EXAMPLE = Path(__file__).parents[1] / "examples" / "findnemo-example"
USE = """
import json, sys
import findnemo
import numpy as np
from diffusers import StableDiffusionPAGPipeline
from findnemo.detection import DETECTORS
from findnemo.mitigation import MITIGATIONS, Case
sys.path.insert(0, {tests!r})
from _tiny import tiny_pipeline

model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
memory, other = next(iter(findnemo.demo.planted())), findnemo.demo.unrelated()[0]
settings = findnemo.ImageSettings(5, 2.0)
apart = lambda a, b: int(abs(np.asarray(a, int) - np.asarray(b, int)).max())
before = findnemo.generate(model, memory, [0], settings)[0]
with MITIGATIONS["embedding-noise"](model, Case(memory)):
    one = findnemo.generate(model, memory, [0], settings)[0]
    two = findnemo.generate(model, memory, [0, 1], settings)[0]
after = findnemo.generate(model, memory, [0], settings)[0]
found = findnemo.localize(model, memory, calibration, "doubling")
pag = StableDiffusionPAGPipeline(**tiny_pipeline().components, requires_safety_checker=False)
scores = [DETECTORS["duplicates"](model, caption, settings) for caption in (memory, other)]
print(json.dumps({{
    "scores": [score.value for score in scores],
    "evaluations": scores[0].evaluations,
    "noise": [apart(before, one), apart(one, two), apart(before, after)],
    "found": [found.reached, len(found.neurons), found.score_after <= calibration.tau],
    "adapter": type(findnemo.load(pag)).__module__,
}}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """That of a process for which the package is installed, from a wheel."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source")  # a build leaves folders in its source
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["--no-build-isolation", "--no-deps", "--wheel-dir", folder, folder / "source"]
    subprocess.run([*pip, "wheel", *build], check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}


def findnemo(environment: dict[str, str], *arguments: object) -> str:
    command = [sys.executable, "-m", "findnemo", *map(str, arguments)]
    wide = environment | {"COLUMNS": "200"}
    done = subprocess.run(command, env=wide, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_help_names_its_methods(environment):
    for command, name in (
        ("detect", "duplicates"),
        ("compare", "embedding-noise"),
        ("localize", "doubling"),
    ):
        help_text = " ".join(findnemo(environment, command, "--help").replace("│", "").split())
        assert f"Of installed packages: {name}." in help_text


@pytest.mark.slow
def test_all_four_work(environment):
    code = USE.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["scores"][0] > 0.9 > told["scores"][1]  # alike, and not
    assert told["evaluations"] == 4 * 5 * 2
    noisy, batched, left = told["noise"]  # largest difference of a pixel, of 255
    assert noisy > 5
    assert batched <= 2
    assert left == 0
    reached, count, gone = told["found"]
    assert reached
    assert gone
    assert count & (count - 1) == 0  # a power of two
    assert told["adapter"] == "findnemo_example.perturbed_attention"


@pytest.mark.slow
def test_commands_put_them_into_table_and_report(environment, tmp_path):
    demo.calibration().save(tmp_path / "calibration")
    run = ("--limit", 1, "--out", tmp_path / "run", "--quiet")
    short = ("--images", 2, "--image-steps", 5, "--calibration", tmp_path / "calibration")
    findnemo(environment, "audit", "demo", "--search", "doubling", *short, *run)
    findnemo(environment, "compare", "demo", "--mitigations", "embedding-noise", *run)
    label = "Embedding noise (Somepalli et al.)"
    assert label in (tmp_path / "run" / "table1.md").read_text(encoding="utf-8")
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert label in report
    assert "findnemo-example 0.1.0" in report
    holdout = tmp_path / "holdout.txt"
    holdout.write_text("\n".join(demo.holdout()[:8]), encoding="utf-8")
    out = tmp_path / "detectors"
    table = findnemo(
        environment,
        *("detect", "demo", "--detector", "duplicates", "--holdout", holdout),
        *("--limit", 2, "--out", out, "--json"),
    )
    assert json.loads(table)["detectors"][0]["detector"] == "duplicates"
