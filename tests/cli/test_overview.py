"""A run, and a caption of it, at a glance in the terminal."""

from __future__ import annotations

import re

from _command import cli
from _place import TEXTS
from _priced import DIAGNOSIS, priced
from _runs import make_run

from findnemo.runs import Run, neurons_of


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
