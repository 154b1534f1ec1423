"""Runs with quick pictures: what they keep, what finds it again, and runs that began thorough."""

import re

import pytest
from _audited import PROMPTS, SETTINGS, calibrated, run_audit, small_model

from findnemo.errors import MismatchError
from findnemo.files.originals import picture
from findnemo.images import ImageSettings
from findnemo.runs import AuditPlan, Run, Work, repair, start
from findnemo.runs.compare import kept_images
from findnemo.runs.standing import image_name
from findnemo.runs.track import images
from findnemo.tasks.opening import as_begun, plan_of

QUICK = AuditPlan("gradient", images=3, image_settings=ImageSettings(steps=4, guidance=2.0))
OLD = AuditPlan("gradient", images=3, image_settings=QUICK.image_settings, thorough=True)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def calibration(model):
    return calibrated(model)


@pytest.fixture(scope="module")
def audited(tmp_path_factory, model, calibration):
    out = tmp_path_factory.mktemp("quick") / "run"
    captions = run_audit(out, model, calibration, PROMPTS, QUICK)
    return out, next(c for c in captions if c.verified and c.verified.steps)


def test_quick_pictures_are_called_so(audited, model, calibration):
    out, caption = audited
    files = {p.name for p in (out / "images" / caption.slug).glob("*.png")}
    few = {f"quick-{when}-{k:02d}.png" for when in ("before", "after") for k in range(3)}
    assert few <= files
    assert files - few  # those that were made in all steps
    assert all(re.fullmatch(r"(before|after)-\d\d\.png", name) for name in files - few)
    assert image_name(caption, "before") == "quick-before"
    with Run.open(out) as run:
        shown = images(run, caption)[f"{caption.slug}/after"]
        work = Work(run, model, calibration, QUICK)
        # a figure of untouched images in all steps must not take quick ones for such
        assert kept_images(work, caption) is None
    first = picture(out / "images" / caption.slug / "quick-after-00.png")
    assert shown[0].tobytes() == first.tobytes()
    assert caption.verified.evaluations > 2 * (SETTINGS.samples + 2 * 3)


def test_a_quick_picture_that_is_lost_is_made_anew(audited, model, calibration):
    out, caption = audited
    lost = out / "images" / caption.slug / "quick-before-01.png"
    kept = lost.read_bytes()
    lost.unlink()
    repair(out)
    with Run.open(out) as run:
        assert next(c for c in run.captions() if c.id == caption.id).verified is None
    run_audit(out, model, calibration, PROMPTS, QUICK)
    assert lost.read_bytes() == kept


def test_a_picture_in_all_steps_that_is_damaged_is_made_anew(audited, model, calibration):
    out, caption = audited
    folder = out / "images" / caption.slug
    file = next(f for f in folder.glob("*.png") if re.match("(before|after)-", f.name))
    data = file.read_bytes()
    file.write_bytes(data[:100])
    repair(out)
    run_audit(out, model, calibration, PROMPTS, QUICK)
    assert file.read_bytes() == data


def test_a_run_that_says_nothing_of_it_is_thorough_and_goes_on_so(tmp_path, model, calibration):
    settings = OLD.settings(model, calibration)
    assert "thorough" not in settings
    assert plan_of(settings).thorough
    assert QUICK.settings(model, calibration)["thorough"] is False
    assert not plan_of(QUICK.settings(model, calibration)).thorough
    captions = run_audit(tmp_path / "run", model, calibration, PROMPTS, OLD)
    assert not any(c.verified.steps for c in captions if c.verified)
    assert as_begun(QUICK, tmp_path / "run") == OLD
    assert as_begun(QUICK, tmp_path / "none") == QUICK
    again = run_audit(
        tmp_path / "run", model, calibration, PROMPTS, as_begun(QUICK, tmp_path / "run")
    )
    assert [c.results for c in again] == [c.results for c in captions]
    with pytest.raises(MismatchError, match="thorough None, now False"):
        start(tmp_path / "run", model, calibration, QUICK)


def test_a_quick_run_does_not_become_thorough_half_way(audited, model, calibration):
    out, _ = audited
    with pytest.raises(MismatchError, match="begun with quick pictures: leave --thorough out"):
        as_begun(OLD, out)
    with pytest.raises(MismatchError, match="thorough False, now None"):
        start(out, model, calibration, OLD)
