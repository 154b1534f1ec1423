"""Tables and notes of a run in the terminal.

Tables of a fine-tune: tests/runs/test_tuned.py. The end of a command: test_closing.py.
"""

from __future__ import annotations

import pytest
from _runs import LAYERS, Told, make_run, memorized, under
from rich.console import Console

from findnemo.cli import _show
from findnemo.cli._show import COLOURS, coloured, notes, show_run, summary_table
from findnemo.runs import STANDINGS, Run
from findnemo.runs.standing import WORDS

FIRST, SECOND, MID = LAYERS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    told = [
        under("an ordinary one"),
        memorized("gone", {FIRST: [1, 2], MID: [3]}),
        memorized("left [/]", {MID: [3]}, type="TM", copies_after=0.5),
        Told("it failed", {"detect": "holds NaN\x1b[2J"}),
    ]
    return make_run(tmp_path_factory.mktemp("show") / "run", told)


@pytest.fixture
def captions(run):
    with Run.open(run) as opened:
        return list(opened.captions())


def cells(captions, layers, width: int) -> list[list[str]]:
    """The lines of the table in a terminal of so many columns."""
    console = Console(width=width, color_system=None)
    with pytest.MonkeyPatch.context() as patch, console.capture() as shown:
        patch.setattr(_show, "stdout", console)
        console.print(summary_table(captions, layers))
    return [line.split() for line in shown.get().splitlines()]


def test_every_standing_has_a_colour():
    for word in STANDINGS:
        assert coloured(word, "text") == f"[{COLOURS[WORDS[word].tone]}]text[/]"


def test_a_line_has_the_counts_of_each_layer_in_forward_order(captions):
    head, *lines = cells(captions, list(LAYERS), 120)
    assert head == ["caption", "type", "score", "copies", "off", "by", "layer", "standing"]
    assert ["gone", "VM", "0.900", "100", "→", "0", "%", "2", "0", "1", "gone"] in lines
    assert ["left", "[/]", "TM", "0.900", "100", "→", "50", "%", "0", "0", "1", "copies"] in lines


def test_many_layers_are_summed_over_the_parts_of_a_network(tmp_path):
    layers = [*(f"down_blocks.{k}.to_v" for k in range(8)), "mid_block.to_v", "up_blocks.0.to_v"]
    off = {layers[0]: [1], layers[7]: [2, 3], layers[8]: [4]}
    with Run.open(make_run(tmp_path / "run", [memorized("gone", off)])) as opened:
        head, line = cells(list(opened.captions()), layers, 120)
    assert head[4:8] == ["off:", "down,", "mid,", "up"]
    assert line[-4:] == ["3", "1", "0", "gone"]


def test_a_narrow_terminal_leaves_out_the_type_and_then_the_neurons(captions):
    heads = [cells(captions, list(LAYERS), width)[0] for width in (120, 66, 60)]
    assert "type" in heads[0]
    assert "type" not in heads[1]
    assert heads[1][-4:] == ["off", "by", "layer", "standing"]
    assert heads[2] == ["caption", "score", "copies", "standing"]


def test_notes_name_what_is_not_gone_and_what_failed_without_escape_codes(run, captions):
    with Run.open(run) as opened:
        lines = notes(opened, captions)
    assert lines[0] == "Threshold: tau = 0.400."
    assert (
        "The search found a set for 2 of 2: 3 of 56 neurons off in all, median 2 a caption."
        in lines
    )
    assert f"[red]1 copies[/]: {STANDINGS['copies']}." in lines
    assert lines[-1].startswith("[red]failed:[/] row 4 (it failed): holds NaN")
    assert "\x1b" not in "".join(lines)


def test_of_captions_that_are_not_memorized_the_first_are_shown_and_the_rest_is_counted(
    tmp_path, capsys
):
    told = [under(f"ordinary {k}") for k in range(12)] + [memorized("gone", {FIRST: [1]})]
    with Run.open(make_run(tmp_path / "run", told)) as opened:
        show_run(opened, list(opened.captions()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("gone ")
    assert sum(line.startswith("ordinary ") for line in lines) == _show.OTHERS
    assert f"and {12 - _show.OTHERS} more captions" in lines
