"""Turns at the one model: sessions one after the other, and work that is cancelled."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
from _asking import ME, SILENT, found_for, pixels, with_edit
from _captions import FIRST
from torch import nn

import findnemo
from findnemo.app import events, open_subject
from findnemo.app.events import Who
from findnemo.app.jobs import CancelledError, Jobs, watching_passes
from findnemo.localization import TrajectorySearch
from findnemo.neurons import NeuronSet


class Turn:
    """A lock that counts how often somebody is kept waiting."""

    def __init__(self, refusals: threading.Semaphore) -> None:
        self.refusals = refusals
        self.lock = threading.Lock()

    def acquire(self, timeout: float) -> bool:
        got = self.lock.acquire(timeout=0.001)
        if not got:
            self.refusals.release()
        return got

    def release(self) -> None:
        self.lock.release()


@pytest.fixture
def refusals(monkeypatch) -> threading.Semaphore:
    """Of turns at all models that are opened in the test."""
    refusals = threading.Semaphore(0)
    turns = SimpleNamespace(Lock=lambda: Turn(refusals))
    monkeypatch.setattr("findnemo.app.jobs.threading", turns)
    return refusals


def refused(refusals: threading.Semaphore) -> None:
    """Wait until somebody who asks for a turn is kept waiting twice from now on.

    The limit only ends a test that hangs.
    """
    while refusals.acquire(blocking=False):
        pass
    for _ in range(2):
        assert refusals.acquire(timeout=60)


@pytest.mark.slow
def test_sessions_do_not_disturb_each_other(refusals, subject, run_path, tmp_path):
    """Two sessions edit at once: the second asks in the midst of the first's passes, and
    each gets its own image.
    """
    name = next(iter(subject.model.widths()))
    edits = {
        "a": found_for(subject, FIRST),
        "b": NeuronSet({name: range(subject.model.widths()[name])}),
    }
    fresh = open_subject(run_path, tmp_path, model=subject.model)  # made, and not taken from there
    alone = {
        who: events.compare(fresh, Who(who), with_edit(FIRST, edit), 1000, SILENT).after[0]
        for who, edit in edits.items()
    }
    assert (pixels(alone["a"]) != pixels(alone["b"])).any()

    order = []
    made = {}
    second = threading.Thread(
        target=lambda: made.update(b=work("b", lambda done: order.append("b")))
    )

    def work(who, tell):
        return events.compare(subject, Who(who), with_edit(FIRST, edits[who]), 1000, tell).after[0]

    def tell(done):
        if not order:
            second.start()
        order.append("a")
        refused(refusals)  # the other would begin, were it let in

    made["a"] = work("a", tell)
    second.join()
    assert order == sorted(order)
    assert set(order) == {"a", "b"}
    for who, image in alone.items():
        assert (pixels(made[who]) == pixels(image)).all()


@pytest.mark.slow
def test_cancelling_stops_between_two_passes_and_leaves_all_as_it_was(subject, passes):
    hooks = len(subject.model.denoiser._forward_pre_hooks)

    def tell(done):
        if len(passes) == 3:
            subject.jobs.cancel("me")

    edit = found_for(subject, FIRST)
    chosen = with_edit(FIRST, edit)
    with pytest.raises(CancelledError):
        events.compare(subject, ME, chosen, 7, tell)
    assert len(passes) == 4  # the pass that was about to begin, and no other
    assert len(subject.model.denoiser._forward_pre_hooks) == hooks
    with pytest.raises(CancelledError):  # still waiting in a queue when it was cancelled
        events.compare(subject, ME, chosen, 7, SILENT)
    assert len(passes) == 4
    made = events.compare(subject, Who("me", 1), chosen, 7, SILENT)
    with findnemo.deactivate(subject.model, edit):
        want = findnemo.generate(subject.model, FIRST, range(7, 11), subject.image_settings)[0]
    assert (pixels(made.after[0]) == pixels(want)).all()


@pytest.mark.slow
def test_cancelling_a_localization(subject, passes):
    caption = FIRST
    seen = []

    def tell(done):
        seen.append(done)
        subject.jobs.cancel("other")  # of others nothing is stopped
        if len(seen) == 2:
            subject.jobs.cancel("me")

    with pytest.raises(CancelledError):
        events.examine(subject, ME, caption, tell)
    assert len(passes) == len(seen) == 2
    found = events.examine(subject, Who("me", 1), caption, SILENT)
    assert len(passes) > 4
    assert found == findnemo.localize(
        subject.model, caption, subject.calibration, TrajectorySearch(subject.image_settings)
    )


def test_cancelling_while_another_session_is_at_work(tiny, refusals):
    jobs = Jobs()
    stopped = threading.Event()

    def wait():
        with pytest.raises(CancelledError), jobs.turn("b", 0, tiny, SILENT):
            pass
        stopped.set()

    with jobs.turn("a", 0, tiny, SILENT):
        waiting = threading.Thread(target=wait)
        waiting.start()
        refused(refusals)
        assert not stopped.is_set()
        assert jobs.cancel("b") == 1
        assert stopped.wait(60)  # the limit only ends a test that hangs
    waiting.join()
    with jobs.turn("b", 1, tiny, SILENT):
        pass


def test_what_fails_gives_the_turn_back(subject):
    def tell(done):
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        events.examine(subject, ME, FIRST, tell)
    assert events.examine(subject, Who("another"), FIRST, SILENT).memorized


def test_latents_are_counted_pass_by_pass_and_a_check_that_fails_stops_before_the_next():
    done = []
    model = SimpleNamespace(denoiser=nn.Identity())

    def check():
        if len(done) == 2:
            raise CancelledError

    with watching_passes(model, check, done.append):
        for size in (2, 3):
            model.denoiser(torch.zeros(size, 1))
        with pytest.raises(CancelledError):
            model.denoiser(torch.zeros(4, 1))
    assert done == [2, 5]
    model.denoiser(torch.zeros(1, 1))  # nobody watches any more
    assert done == [2, 5]
