"""The measurement on a GPU: what its table says of rows, that a part goes on and is cut off, and
that planted memories are memories. The rehearsal of whole parts is slow.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch

import findnemo
from findnemo.settings import settings_for

sys.path.insert(0, str(Path(__file__).parents[2] / "measurements"))

import geometry
import gpu
import gpu_parts

MODEL = {  # a part of a model, with round figures
    "build": {"seconds": 1.0},
    "plant": {"seconds": 2.0},
    "identity": {"seconds": 3.0, "billions": 1.0, "rate": 4e14, "flop": 8e11},
    "calibrate": {"seconds": 4.0, "evaluations": 0, "tau": 0.3, "captions": 16, "scores": [0.9, 0.8]},
    "pass 8": {"seconds": 1.0, "evaluations": 80, "latents": 8, "pass": 0.032, "share": 0.5, "gib": 7.0},
    "VM gradient": {"seconds": 0.08, "evaluations": 22, "memorized": True, "reached": True, "neurons": 1, "planted": 1},
    "VM literal": {"seconds": 2.0, "evaluations": 260, "memorized": True, "reached": True, "neurons": 1, "planted": 1},
    "TM gradient": {"seconds": 0.6, "evaluations": 60, "memorized": True, "reached": True, "neurons": 5, "planted": 5},
    "TM literal": {"seconds": 30.0, "evaluations": 900, "cut": True},
    "audit": {
        "seconds": 9.0,
        "evaluations": 900,
        "memorized": 2,
        "ordinary": 6,
        "answered": True,
        "cut": True,  # in the quality check, which no caption waits for
        "stages": {"detect": [0.8, 32], "localize": [2.0, 200], "verify": [1.8, 400], "quality and report": [4.0, 100]},
    },
    "image": {"seconds": 1.0, "evaluations": 200, "images": 2},
    "compiled default 1": {"seconds": 5.0, "evaluations": 0, "failed": "RuntimeError: no compiler"},
}  # fmt: skip


def cells(table: str, begins: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith(f"| {begins}")]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


@pytest.fixture(scope="module")
def table() -> str:
    rows = {"float16": {"seconds": 1.0, "rate": 4e14}}
    return gpu.table(
        {
            "rate": {"card": "A Card", "rows": rows, "whole": True},
            "sd14-float16": {"card": "A Card", "rows": MODEL},
        },
        rehearsed=False,
    )


def test_the_table_has_the_card_and_says_what_is_missing(table) -> None:
    assert table.startswith("### A Card\n")
    assert "Matrix rate, TFLOP/s: float16 400." in table
    assert "Not begun: xl-float16, flux-bfloat16" in table
    assert "Not ended: sd14-float16." in table
    assert "cut off after 30 s" in table
    assert "failed: RuntimeError: no compiler" in table
    assert "Rehearsal" not in table
    assert "**Rehearsal" in gpu.table({}, rehearsed=True)


def test_the_table_sums_an_audit_and_the_released_procedure_by_hand(table) -> None:
    """A memorized caption: .8 / 8 + 2 / 2 + 1.8 / 2 = 2 s; the released procedure: 2 s of search and
    20 images, two of which took 1 s.
    """
    name = "Stable Diffusion v1.4, float16"
    rows = {tuple(r[1:2]): r for r in cells(table, name)}
    assert rows["detect",][2:5] == ["0.10", "4.0", "5%"]
    assert rows["verify",][2:5] == ["0.90", "200.0", "45%"]
    assert rows["released procedure, VM",][2:4] == ["12.00", "2,260"]
    assert rows["released procedure, TM",][2:4] == ["40.00", "2,900"]  # or more: it was cut off
    assert rows["released procedure, TM",][5].endswith("a lower bound")
    assert rows["audit 20 times faster, VM",][2:4] == ["6.00 times", "no"]
    assert rows["audit 20 times faster, TM",][2:4] == ["at least 20.00 times", "yes"]
    assert rows["search of a VM caption in 0.1 s",][2:4] == ["0.08 s", "yes"]
    assert rows["search of a TM caption in 0.5 s",][2:4] == ["0.60 s", "no"]
    assert rows["50% of the matrix rate",][2:4] == ["0.50", "yes"]
    assert rows["8",][2:6] == ["32.0", "4.00", "50%", "7.0"]


def test_a_model_that_could_not_be_built_is_told_and_nothing_else_of_it() -> None:
    rows = {"build": {"failed": "OutOfMemoryError: 80 GiB"}}
    (model,) = cells(
        gpu.table({"flux-bfloat16": {"rows": rows}}, False), "FLUX.1-dev, bfloat16 | O"
    )
    assert model[1] == "OutOfMemoryError: 80 GiB"


def test_items_that_fail_or_are_cut_leave_the_others_alone_and_are_not_made_again(tmp_path) -> None:
    clock = gpu_parts.no_model()
    layer = torch.nn.Linear(2, 2)
    layer.register_forward_hook(clock.count, with_kwargs=True)
    asked = []

    def good(row):
        asked.append("good")
        with torch.no_grad():
            layer(torch.ones(3, 2))
        layer(torch.ones(2, 2)).sum().backward()
        row["found"] = 1

    def broken(row):
        row["begun"] = True
        raise RuntimeError("no kernel\nfor this card")

    def endless(row):
        clock.ends = time.monotonic() - 1
        layer(torch.ones(1, 2))

    file = tmp_path / "part.json"
    items = [("broken", broken), ("endless", endless), ("good", good)]
    for _ in range(2):
        gpu_parts.run(items, file, time.monotonic() + 60, clock)
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert rows["broken"]["failed"] == "RuntimeError: no kernel"
    assert rows["broken"]["begun"]
    assert rows["endless"]["cut"]
    assert rows["good"]["found"] == 1
    assert rows["good"]["evaluations"] == 3 + 3 * 2  # a gradient was taken back
    assert asked == ["good"]
    gpu.forget(file)
    assert list(json.loads(file.read_text(encoding="utf-8"))["rows"]) == ["good"]


def test_a_part_without_time_begins_nothing_and_is_not_whole(tmp_path) -> None:
    file = tmp_path / "rate.json"
    gpu_parts.main("rate", file, -1, small=True)
    assert not file.exists() or not json.loads(file.read_text(encoding="utf-8")).get("whole")


@pytest.mark.slow
def test_the_rehearsal_of_the_smallest_part_and_its_table(tmp_path) -> None:
    gpu_parts.main("rate", tmp_path / "rate.json", 60, small=True)
    made = gpu.table(gpu.records(tmp_path), rehearsed=True)
    assert made.startswith("### CPU\n")
    rates = json.loads((tmp_path / "rate.json").read_text(encoding="utf-8"))["rows"]
    assert list(rates) == ["float16", "bfloat16", "tf32", "float32"]
    assert rates["float32"]["rate"] > 1e8
    assert f"float32 {rates['float32']['rate'] / 1e12:.3g}" in made


def test_an_unknown_part_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SystemExit, match="no part is called 'sd15': there are rate, sd14-float16"):
        gpu.chosen("sd15", list(gpu.PARTS))


@pytest.mark.parametrize("size", ["small-flux", "small", "small-xl"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.slow
def test_planted_memories_are_detected_ordinary_captions_are_not_and_neurons_remove_them(
    size, dtype
) -> None:
    model = findnemo.load(geometry.pipeline(size, dtype=dtype))
    memories = dict(list(geometry.MEMORIES.items())[:2])
    ordinary = geometry.CAPTIONS[:5]
    planted = geometry.plant(model, memories, ordinary)
    settings = settings_for("findnemo")
    highest = max(findnemo.score(model, c, settings=settings) for c in ordinary)
    for caption, neurons in planted.items():
        assert len(neurons) == memories[caption]
        assert findnemo.score(model, caption, settings=settings) > highest + 0.05
        off = findnemo.score(model, caption, neurons, settings=settings)
        assert off < highest + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("part", ["sd14", "xl", "flux", "emergence"])
def test_the_rehearsal_of_a_part_gives_all_its_rows(part, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "REHEARSAL", 900)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--rehearse", "--parts", part, "--out", str(tmp_path), "--minutes", "20"])
    assert "Not ended" not in capsys.readouterr().out
    (record,) = gpu.records(tmp_path / "rehearsal").values()
    assert not [row for row in record["rows"].values() if "failed" in row or "cut" in row]
