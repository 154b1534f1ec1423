"""The table of captions and the notes below it."""

from __future__ import annotations

import pytest
from _runs import LAYERS, Told, make_run, memorized, under

from findnemo.cli._common import stdout
from findnemo.cli._show import OTHERS, notes, show_run, summary_table
from findnemo.runs import STANDINGS, Run, captions_of

FIRST, _, MID = LAYERS


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(stdout, "_width", 120)


def test_memories_come_first_and_the_others_are_counted(tmp_path, capsys):
    told = [under(f"ordinary {k}") for k in range(OTHERS + 4)]
    told += [memorized("a memory", {FIRST: [1]}), Told("it failed", {"detect": "holds NaN"})]
    with Run.open(make_run(tmp_path / "run", told)) as run:
        show_run(run, captions_of(run))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("a memory ")
    assert [line.split()[0] for line in lines[2 : 2 + OTHERS]] == ["ordinary"] * OTHERS
    assert lines[2 + OTHERS] == "and 5 more captions"
    assert "Threshold: tau = 0.400." in lines
    assert any(line.startswith("failed: row 14 (it failed): ") for line in lines)


def test_neurons_of_many_layers_are_summed_over_the_parts_of_the_network(tmp_path, capsys):
    layers = [f"down_blocks.{k}.to_v" for k in range(4)] + ["mid_block.to_v"]
    layers += [f"up_blocks.{k}.to_v" for k in range(4)]
    found = {layers[0]: [1, 2], layers[3]: [0], layers[4]: [5, 6, 7, 8], layers[8]: [9]}
    with Run.open(make_run(tmp_path / "run", [memorized("a", found)])) as run:
        captions = captions_of(run)
    for shown, counts in ((layers, "3 4 1"), (layers[:8], "2 0 0 1 4 0 0 0")):
        stdout.print(summary_table(captions, shown))
        _, line = capsys.readouterr().out.splitlines()
        assert f" 100 → 0 % {counts} gone" in " ".join(line.split())


def test_captions_of_a_fine_tune_are_left_to_the_report(tmp_path, capsys):
    about = {"sentence": "", "main": "LoRA", "pictures": [], "variants": [], "notes": []}
    about |= {"rate": 0.05, "needed": 59, "descriptor": True}
    captions = [memorized("a memory", {FIRST: [1]}), Told("it failed", {"detect": "holds NaN"})]
    with Run.open(make_run(tmp_path / "run", captions, training=about)) as run:
        show_run(run, captions_of(run))
    told = capsys.readouterr().out
    assert "a memory" not in told
    assert "The report has the captions" in told
    assert "failed: row 2 (it failed): " in told


@pytest.fixture
def run(tmp_path):
    """A memory that is gone, one that is not, an ordinary caption, and one that failed."""
    told = [
        under("an ordinary one"),
        memorized("gone", {FIRST: [1, 2], MID: [3]}),
        memorized("left [/]", {MID: [3]}, type="TM", copies_after=0.5),
        Told("it failed", {"detect": "holds NaN\x1b[2J"}),
    ]
    with Run.open(make_run(tmp_path / "run", told)) as opened:
        yield opened


def test_a_narrow_terminal_leaves_out_the_type_and_then_the_neurons(run, monkeypatch, capsys):
    heads = []
    for width in (120, 66, 60):
        monkeypatch.setattr(stdout, "_width", width)
        stdout.print(summary_table(captions_of(run), list(LAYERS)))
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        heads.append(" ".join(lines[0].split()))
    assert heads == [
        "caption type score copies off by layer standing",
        "caption score copies off by layer standing",
        "caption score copies standing",
    ]


def test_notes_name_what_is_not_gone_and_what_failed_without_escape_codes(run):
    lines = notes(run, captions_of(run))
    assert lines[0] == "Threshold: tau = 0.400."
    found = "The search found a set for 2 of 2: 3 of 56 neurons off in all, median 2 a caption."
    assert found in lines
    assert f"[red]1 copies[/]: {STANDINGS['copies']}." in lines
    assert lines[-1].startswith("[red]failed:[/] row 4 (it failed): holds NaN")
    assert "\x1b" not in "".join(lines)
