"""A small run of the demo model, with captions that are up to no good, and the app that shows it."""

from __future__ import annotations

import pytest
from _captions import FIRST, HOSTILE, LONG, SECOND

from findnemo import demo
from findnemo.app import open_subject, serve
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Work, audit, start


@pytest.fixture(scope="session")
def run_path(demo_model, tmp_path_factory):
    """Two memorized captions with their neurons and two images each, and two that are not
    memorized; tests leave it as it is.
    """
    path = tmp_path_factory.mktemp("app") / "run"
    calibration = demo.calibration()
    plan = AuditPlan("gradient", 2, demo.image_settings(), quality_prompts=1, thorough=True)
    prompts = [
        Prompt(FIRST, 1, "VM"),
        Prompt(SECOND, 2, "<i>VM</i>"),
        Prompt(HOSTILE, 3, None, "../secret.png"),
        Prompt(LONG, 4),
    ]
    with start(path, demo_model, calibration, plan) as run:
        audit(Work(run, demo_model, calibration, plan), prompts)
    return path


@pytest.fixture
def subject(run_path, demo_model, tmp_path):
    return open_subject(run_path, tmp_path, model=demo_model)


@pytest.fixture(scope="session")
def served(run_path, demo_model, tmp_path_factory):
    """The subject, and the address at which the app shows it; tests leave the subject as it is."""
    pytest.importorskip("gradio", reason="the app needs gradio: pip install 'findnemo[app]'")
    subject = open_subject(run_path, tmp_path_factory.mktemp("served"), model=demo_model)
    page, url = serve(subject)
    yield subject, url
    page.close(verbose=False)


@pytest.fixture
def passes(subject):
    """How often the denoiser ran."""
    seen = []
    handle = subject.model.denoiser.register_forward_hook(lambda *args: seen.append(1))
    yield seen
    handle.remove()
