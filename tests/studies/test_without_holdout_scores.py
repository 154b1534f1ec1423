"""Imported statistics leave no hold-out scores: every study works without them, or says in
words what it leaves out.
"""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from _tiny import made_loud, tiny_pipeline

import findnemo
from findnemo.calibration import import_statistics
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.metrics import Judges
from findnemo.prompts import Prompt
from findnemo.report import write
from findnemo.runs import AuditPlan, Work, audit, start
from findnemo.studies import STUDIES, Bench, catalogue, make, study, under_tau
from findnemo.studies.nemo import with_tau


@pytest.fixture(scope="module")
def bare(work):
    """The run of the other tests with its calibration stripped of hold-out
    scores, as import leaves it.
    """
    made = replace(
        work.calibration,
        trajectories=torch.empty(0, work.calibration.settings.samples - 1),
        count=0,
        prompts="",
    )
    return replace(work, calibration=made)


@pytest.mark.slow
def test_all_studies_go_on_to_the_end(bare, tmp_path):
    bench = Bench(bare, [c.text for c in bare.run.captions() if not c.type], limit=1)
    done = study(["all"], bench, tmp_path)
    assert list(done) == list(STUDIES)
    assert {name: str(one) for name, one in done.items() if isinstance(one, Exception)} == {}
    scores = dict(row[:2] for row in csv.reader((tmp_path / "fig2a.csv").open(encoding="utf-8")))
    assert scores["hold-out mean"] == scores["hold-out std"] == ""
    assert float(scores["AUROC, all"]) == 1.0  # memorized by decree: the three highest scores
    assert "the statistics were imported" in (tmp_path / "fig2a.md").read_text(encoding="utf-8")
    ablations = (tmp_path / "table4-1.csv").read_text(encoding="utf-8")
    page = (tmp_path / "table4.md").read_text(encoding="utf-8")
    assert "tau = mean" not in ablations
    assert (
        "Left out: other thresholds, for the calibration has no hold-out scores (imported"
        " statistics)" in page
    )


def test_without_scores_there_are_no_other_thresholds(bare):
    with pytest.raises(
        InputError,
        match=r"no hold-out scores \(imported statistics\): make one with `findnemo calibrate",
    ):
        with_tau(bare.calibration, 2.0)


@pytest.mark.first(12)
@pytest.mark.parametrize("captions", [(), ("a caption",)])
@pytest.mark.parametrize("name", STUDIES)
def test_a_run_without_memories_or_ordinary_captions_gives_words_and_no_traceback(
    bare, tmp_path_factory, name, captions
):
    with start(
        tmp_path_factory.mktemp("empty") / "run", bare.model, bare.calibration, bare.plan
    ) as run:
        bench = Bench(replace(bare, run=run), captions)
        first, *_ = (*STUDIES[name].needs, "nothing")
        if first in ("neurons", "neurons off"):
            with pytest.raises(InputError, match=f"needs captions with {first}, 1 or more: there"):
                make(name, bench)
        elif "training images" in STUDIES[name].needs:
            with pytest.raises(InputError, match="needs training images of captions, 1 or more"):
                make(name, bench)
        elif "others" in STUDIES[name].needs or name == "fig5a":
            with pytest.raises(InputError, match="needs captions that are not memorized, 2 or"):
                make(name, bench)
        else:
            assert make(name, bench).text


# a file, as it is published -----------------------------------------------------------------------

LAYOUT = {
    "block_out_channels": (8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}
TEXTS = ("a red fox", "a tree", "the old sea")


@pytest.fixture(scope="module")
def large():
    """44 x 44 latents: MS-SSIM needs as many."""
    return made_loud(findnemo.load(tiny_pipeline(size=44, **LAYOUT)))


def statistics(model, path, change=lambda mean, std: None):
    rows = [
        findnemo.activations(model, text) for text in ("hold out a", "hold out b", "hold out c")
    ]
    stacks = [torch.stack([row[name] for row in rows]) for name in model.widths()]
    mean, std = [s.mean(0) for s in stacks], [s.std(0) for s in stacks]
    change(mean, std)
    torch.save((mean, std), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["VM", None])
def test_an_imported_file_goes_through_audit_report_and_all_studies(large, tmp_path, kind):
    made = import_statistics(statistics(large, tmp_path / "statistics.pt"), large)
    assert (made.settings.variant, made.tau, len(made.scores)) == ("released", 0.428, 0)
    assert made.p_value(0.9) is made.rate_bound() is None
    scores = sorted(findnemo.score(large, text, settings=made.settings) for text in TEXTS)
    made = replace(made, tau=(scores[1] + scores[2]) / 2)
    plan = AuditPlan(images=2, image_settings=ImageSettings(steps=1, guidance=2.0))
    with start(tmp_path / "run", large, made, plan) as run:
        work = Work(run, large, made, plan, Judges())
        captions = audit(
            work,
            [Prompt(text, row, kind if row == 1 else None) for row, text in enumerate(TEXTS, 1)],
        )
        assert sum(c.results["detect"]["memorized"] for c in captions) == 1
        assert all(c.results["detect"]["p"] is None for c in captions)
        assert "given with imported statistics" in write(run).read_text(encoding="utf-8")
        bench = Bench(work, TEXTS[1:] if kind else (), limit=1, under=under_tau(captions))
        states = {row[0]: row[-1] for row in catalogue(bench.stock).rows}
        done = study(["all"], bench, tmp_path / "studies")
        wrong = {name: str(one) for name, one in done.items() if isinstance(one, Exception)}
        # no judge, and pictures that are no copies: nothing is switched off
        assert {*wrong} == {"fig6", "fig9", "utility"}
        assert {name for name, state in states.items() if state.startswith("lacks")} == {*wrong}
        assert all(says.startswith("needs ") for says in wrong.values())


@pytest.mark.parametrize(
    ("change", "tau", "message"),
    [
        (lambda mean, std: mean[0].__setitem__(1, torch.nan), 0.428, "statistics"),
        (lambda mean, std: std[0].__setitem__(1, -1.0), 0.428, "deviations"),
        (lambda mean, std: None, 7.0, "tau"),
    ],
)
def test_a_file_or_a_tau_that_no_calibration_has_is_refused_when_it_is_read(
    large, tmp_path, change, tau, message
):
    path = statistics(large, tmp_path / "statistics.pt", change)
    with pytest.raises(InputError, match=f"its {message} cannot be those of a calibration"):
        import_statistics(path, large, tau)
