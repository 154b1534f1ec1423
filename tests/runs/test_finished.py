"""Pictures in all steps for what a report shows first."""

import pytest
from _audited import calibrated, small_model

import findnemo
from findnemo.files.originals import picture
from findnemo.images import ImageSettings, generate
from findnemo.neurons import NeuronSet
from findnemo.passes import counting
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Serial, standing, start
from findnemo.runs.finished import finish_first
from findnemo.seeds import FRESH

QUICK = AuditPlan("gradient", images=3, image_settings=ImageSettings(steps=4, guidance=2.0))


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def calibration(model):
    return calibrated(model)


def told(run, number, standing, neurons):
    """Results of a memory that is gone, or not."""
    score = {"memorized": True, "score": 0.9, "tau": 0.4}
    found = {
        **score,
        "reached": True,
        "neurons": neurons.to_json(),
        "score_before": 0.9,
        "score_after": 0.1,
    }
    left = {"copies_before": 1.0, "copies_after": float(standing == "copies")}
    values = {"score_before": 0.9, "score_after": 0.1, "steps": 3, "seed": 1, **left}
    for stage, result in (("detect", score), ("localize", found), ("verify", values)):
        run.record(number, stage, result, 1.0)


def test_what_a_report_shows_first_is_finished(tmp_path, model, calibration):
    """Of the first that is gone and the worst, six in all; once."""
    images = QUICK.image_settings
    off = NeuronSet({name: [0, 2] for name in model.value_layers})
    texts = [f"a memory of {k} owls" for k in range(1, 9)]
    with start(tmp_path / "run", model, calibration, QUICK) as run:
        ids = run.add(Prompt(text, row) for row, text in enumerate(texts, 1))
        for k, number in enumerate(ids):
            told(run, number, "copies" if k == 7 else "gone", off)
        finish_first(run, images, Serial(model))
        with counting(model) as spent:
            finish_first(run, images, Serial(model))
        captions = list(run.captions())
    assert spent.evaluations == 0
    assert {standing(c) for c in captions} == {"gone", "copies"}
    made = {
        c.text: sorted(f.name for f in (tmp_path / "run" / "images" / c.slug).glob("*.png"))
        for c in captions
    }
    first = [texts[0], texts[7], *texts[1:5]]
    assert [text for text in texts if made[text]] == sorted(first, key=texts.index)
    assert all(made[text] == ["after-01.png", "before-01.png"] for text in first)
    folder = tmp_path / "run" / "images" / captions[0].slug
    (before,) = generate(model, texts[0], [FRESH + 1], images)
    with findnemo.deactivate(model, off):
        (after,) = generate(model, texts[0], [FRESH + 1], images)
    assert picture(folder / "before-01.png").tobytes() == before.tobytes()
    assert picture(folder / "after-01.png").tobytes() == after.tobytes()
    assert before.tobytes() != after.tobytes()
