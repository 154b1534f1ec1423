"""A run of a shipped model against what is known of it: by caption, and of its own captions only."""

import pytest
from _cases import FOUND, GONE, OVER, UNDER, Case, run_with

from findnemo import demo
from findnemo.runs import Run, settings_of, summary
from findnemo.runs.truth import truth_of

FIRST, SECOND, THIRD = (prompt.text for prompt in demo.memorized()[:3])
PLAIN, LOUD, CLEARED = demo.unrelated()[:3]
SEEN = Case("gone", "memorized", True, (OVER, FOUND, GONE))
MISSED = Case("not memorized", "not memorized", False, (UNDER,))
CASES = {
    FIRST: SEEN,
    SECOND: MISSED,
    THIRD: Case("suspected", "suspected", False, (OVER,)),  # nobody looked: it is found so far
    PLAIN: MISSED,
    LOUD: SEEN,
    CLEARED: Case("suspected", "suspected", False, (OVER, FOUND, GONE | {"copies_before": 0.0})),
    "a caption that did not come with the model": SEEN,
    demo.memorized()[3].text: Case("open", None, False),
}


def truth(path, source, cases=CASES):
    with run_with(path, cases) as run:
        captions = list(run.captions())
    with Run.open(path) as run:
        settings = settings_of(run)
    with Run.create(path, settings) as run:
        run.set_meta("source", source)
        return truth_of(run, captions), summary(run)


def test_a_miss_and_a_false_alarm_do_not_cancel(tmp_path):
    found, whole = truth(tmp_path / "run", "demo")
    assert (found.of, found.missed, found.alarms) == (3, (SECOND,), (LOUD,))
    assert found.sentences == [
        "Found 2 of 3 planted memories, 1 false alarm.",
        f"missed: {SECOND}",
        f"false alarm: {LOUD}",
    ]
    assert whole["truth"] == {"of": 3, "missed": [SECOND], "alarms": [LOUD]}


def test_natural_memories_are_the_captions_that_copy(tmp_path):
    copying = [prompt.text for prompt in demo.memorized("demo-natural")]
    found, _ = truth(tmp_path / "run", "demo-natural", {copying[0]: SEEN, copying[1]: MISSED})
    assert found.sentences[0] == "Found 1 of 2 captions that the model copies, no false alarm."
    assert FIRST not in copying  # planted memories are off in that model


@pytest.mark.parametrize("source", ["model", "CompVis/stable-diffusion-v1-4"])
def test_nothing_is_known_of_other_models(tmp_path, source):
    found, whole = truth(tmp_path / "run", source)
    assert found is None
    assert "truth" not in whole


def test_of_captions_that_did_not_come_with_the_model_nothing_is_known(tmp_path):
    assert truth(tmp_path / "run", "demo", {"a caption": SEEN})[0] is None


def test_of_many_wrong_captions_a_few_are_named(tmp_path):
    cases = dict.fromkeys(demo.unrelated()[:5], SEEN)
    found, _ = truth(tmp_path / "run", "demo", cases)
    assert found.sentences == [
        "Found 0 of 0 planted memories, 5 false alarms.",
        *(f"false alarm: {text}" for text in demo.unrelated()[:3]),
        "false alarm: 2 more",
    ]
