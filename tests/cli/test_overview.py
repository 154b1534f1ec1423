"""A run, and a caption of it, at a glance in the terminal."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from _command import cli
from _place import TEXTS
from _priced import DIAGNOSIS, priced
from _runs import make_run

from findnemo.cli._overview import common_end, histogram_text, layers_text, shared_text
from findnemo.runs import Run, neurons_of
from findnemo.runs.overview import Bin


def test_inspect_shows_what_a_report_shows(audited):
    shown = cli("inspect", audited)
    assert (shown.status, shown.err) == (0, "")
    with Run.open(audited) as opened:
        tau = opened.meta("settings")["tau"]
    for text in (
        "Of 3 memorized captions, 3 still gave copies.",
        "captions memorized",
        "3 of 6",
        "neurons off",
        "memories gone on fresh seeds",
        "captions suspected",
        "change of pixels, ",
        f"tau = {tau:.3f}: suspected from here on",
        "Neurons off, per layer",
    ):
        assert text in shown.out, text
    bars = [
        int(line.split()[-1])
        for line in shown.out.splitlines()
        if re.match(r" *-?\d\.\d{3} *█", line)
    ]
    assert sum(bars) == 6


def test_inspect_shows_a_caption_with_its_neurons_before_and_after(audited):
    with Run.open(audited) as opened:
        caption = next(c for c in opened.captions() if len(neurons_of(c)))
    shown = cli("inspect", audited, caption.row).out
    words = " ".join(shown.split())
    assert words.startswith("copies: its finished images still hold copies ")
    assert f"Its score, {caption.score:.3f}, reaches tau, " in words
    assert "share of finished images that copy" in words
    assert "largest similarity of a search seed's noise difference" in words
    assert f"{caption.results['verify']['score_after']:.3f}" in words
    z = caption.results["localize"]["z"]
    for name, index in neurons_of(caption):
        assert re.search(rf"\({re.escape(name)}\): [^:]*#{index}\b", words)
    assert words.count("(z ") == len([n for n in neurons_of(caption) if f"{n[0]}:{n[1]}" in z])
    other = cli(
        "inspect",
        audited,
        next(k for k, t in enumerate(TEXTS, 1) if k != caption.row and "[" not in t),
    ).out
    assert "memorized" in other


def test_inspect_shows_prices_and_what_carries_a_memory(tmp_path):
    run = make_run(
        tmp_path / "run",
        [priced("far", [[1, 0.9, None], [3, 0.7, 0.002]], reached=False, diagnosis=DIAGNOSIS)],
    )
    lines = cli("inspect", run, "far").out.splitlines()
    assert "What carries it: <b>all</b> key layers." in lines
    assert [re.findall(r"[\d.]+", line) for line in lines if "\u2502" in line][-2:] == [
        ["1", "0.900"],
        ["3", "0.700", "0.002"],
    ]
    assert "row 1 (far): What carries it: <b>all</b> key layers." in cli("inspect", run).out


def test_the_line_of_tau_lies_between_the_bins_below_it_and_those_from_it_on():
    bins = [Bin(0.1, 0.2, 3), Bin(0.2, 0.3, 0), Bin(0.3, 0.4, 1)]
    lines = histogram_text(bins, 0.3).splitlines()
    assert [line.split()[0] for line in lines] == ["0.100", "0.200", "[bold]──", "0.300"]
    assert "tau = 0.300" in lines[2]
    assert [("cyan" in line, "red" in line) for line in lines if "bold" not in line] == [
        *[(True, False)] * 2,
        (False, True),
    ]
    bars = [line.count("█") for line in lines]
    assert bars[1] == bars[2] == 0
    assert bars[0] == pytest.approx(3 * bars[3], abs=2)
    assert histogram_text([], 0.3) == ""


def test_layers_are_named_without_what_they_share():
    names = ["down.0.attn2.to_v", "down.1.attn2.to_v", "mid.attn2.to_v"]
    tail = common_end(names)
    text = layers_text(dict(zip(names, (4, 0, 1), strict=True)), tail)
    lines = [line.split() for line in text.splitlines()]
    assert [line[0] for line in lines] == ["down.0", "down.1", "mid"]
    assert [line[-1] for line in lines][::2] == ["4", "1"]
    assert lines[0][1].count("█") == 4 * lines[2][1].count("█")
    assert layers_text(dict.fromkeys(names, 0), tail) == ""
    assert common_end(names[:1]) == common_end(["a.x", "b.y"]) == ""


def test_of_captions_that_share_a_neuron_three_are_named():
    captions = [SimpleNamespace(text=f"caption [{k}]") for k in range(5)]
    lines = shared_text([(("mid", 3), captions), (("up", 1), captions[:2])]).splitlines()
    assert lines[0] == "mid [bold]#3[/]  5 captions"
    assert [line.strip() for line in lines[1:5]] == [
        "caption [0]",
        "caption [1]",
        "caption [2]",
        "[dim]and 2 more[/]",
    ]
    assert lines[5:] == ["up [bold]#1[/]  2 captions", "    caption [0]", "    caption [1]"]
