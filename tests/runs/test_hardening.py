"""Which captions a model is hardened on, which it is judged by, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from _cases import FOUND, GONE, OVER, SETTINGS, UNDER

from findnemo.errors import InputError
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.runs.hardening import CHECKED, JUDGED, ORDINARY, challenged, ordinary_captions
from findnemo.runs.robustness import ordinary


@pytest.fixture
def work(tmp_path):
    """What hardening works on: a run, here of so many captions that are gone, and others."""

    def make(memories, others):
        with Run.create(tmp_path / "run", SETTINGS) as run:
            texts = [f"m{k}" for k in range(memories)] + [f"o{k}" for k in range(others)]
            ids = run.add(Prompt(text, k) for k, text in enumerate(texts, 1))
            for number, text in zip(ids, texts, strict=True):
                stages = zip(("detect", "localize", "verify"), (OVER, FOUND, GONE), strict=True)
                for stage, payload in stages if text[0] == "m" else [("detect", UNDER)]:
                    run.record(number, stage, payload, 1.0)
        return SimpleNamespace(run=Run.open(tmp_path / "run"))

    return make


def test_a_model_is_judged_by_captions_on_which_it_was_not_held(work):
    some = work(1, 60)
    held, judged = ordinary_captions(some)
    assert judged == [f"o{k}" for k in range(1, ORDINARY + JUDGED, 2)]
    # controls of the attack are spread over all captions: hardening must not have seen them
    controls = {caption.text for caption in ordinary(some.run.captions(), CHECKED)}
    assert {*held} == {f"o{k}" for k in range(0, ORDINARY + JUDGED, 2)} - controls
    assert len(held) < ORDINARY


def test_with_few_captions_controls_are_held_too(work):
    assert ordinary_captions(work(1, 3)) == (["o0", "o2"], ["o1"])


@pytest.mark.parametrize("others", [0, 1])
def test_fewer_than_two_ordinary_captions_are_too_few(work, others):
    with pytest.raises(InputError, match=f"holds {others} ordinary caption.*at least two"):
        ordinary_captions(work(1, others))


def test_memories_whose_neurons_are_off_are_what_is_hardened(work):
    some = work(5, 2)
    assert [c.text for c in challenged(some, 0)] == ["m0", "m1", "m2", "m3", "m4"]
    assert [c.text for c in challenged(some, 2)] == ["m0", "m4"]


def test_a_run_without_memories_is_not_hardened(work):
    with pytest.raises(InputError, match="no memorized caption whose neurons are off"):
        challenged(work(0, 2), 0)
