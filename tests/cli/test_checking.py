"""The commands `verify` and `harden` on a small run."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
from _command import cli
from _outcome import outcome
from _place import save_model

import findnemo
from findnemo.robustness import ATTEMPTS
from findnemo.runs import Run, all_neurons
from findnemo.runs.robustness import Effort


@pytest.mark.slow
def test_harden_writes_a_checkpoint_and_one_report_of_before_and_after(
    audited, tmp_path, monkeypatch
):
    some = {
        name: attempt
        for name, attempt in ATTEMPTS.items()
        if name in ("seeds: fresh", "words: capitals")
    }
    monkeypatch.setattr("findnemo.runs.robustness.ATTEMPTS", some)
    monkeypatch.setattr("findnemo.tasks.checking.Effort", partial(Effort, steps=(0, 2)))
    run = shutil.copytree(audited, tmp_path / "run")
    out = tmp_path / "hardened"
    few = ["--captions", 1, "--epochs", 1, "--attack-steps", 2, "--updates", 2]
    result = cli("harden", run, *few, "--out", out, "--trust", "--json")
    assert result.status == 0, result.err
    assert set(result.json["quality"]) == {"untouched", "neurons off", "hardened"}
    assert result.json["quality"]["untouched"]["pixel_change"][0] == 0
    assert "memorized, hardened" in result.json["attack"]["curves"]
    hardened = findnemo.load(str(out))
    before = findnemo.load(Run.open(run).meta("source"))
    with Run.open(run) as opened:
        off = all_neurons(opened.captions())
    assert all(
        not hardened.value_layers[name].weight[list(rows)].any()
        for name, rows in off.layers.items()
    )
    assert hardened.fingerprint != before.fingerprint
    page = (run / "report.html").read_text()
    assert "Is it really gone?" in page
    assert "What hardening costs ordinary captions" in page
    assert not list((run / "harden").glob("*")), "weights of an interrupted hardening are left"

    again = cli("harden", run, *few, "--out", out, "--trust")
    assert again.status == 2
    assert "already exists" in again.err


@pytest.mark.slow
def test_verify_takes_starts_of_the_attack_and_refuses_others(audited, tmp_path):
    run = shutil.copytree(audited, tmp_path / "run")
    result = cli("verify", run, "--attack-starts", "caption,nowhere", "--trust")
    assert (result.status, "attack start 'nowhere' is not known" in result.err) == (2, True)
    few = ["--attack-steps", "0,1", "--attack-captions", 1, "--no-attempts", "--trust", "--json"]
    result = cli("verify", run, "--attack-starts", "random,empty", *few)
    assert result.status == 0, result.err
    assert len(result.json["attack"]["curves"]["memorized, neurons off"]) == 2


def test_verify_and_export_refuse_another_model(audited, tmp_path):
    other = save_model(tmp_path / "other", seed=1)
    before = outcome(audited)
    for arguments in (["verify", audited], ["export", audited, "--out", tmp_path / "clean"]):
        result = cli(*arguments, "--model", other)
        assert (result.status, result.out) == (2, "")
        assert "error: " in result.err
        assert "another model" in result.err or "not the model of this run" in result.err
    assert outcome(audited) == before
    assert not (tmp_path / "clean").exists()
