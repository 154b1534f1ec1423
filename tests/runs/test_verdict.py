"""What to do now: each advice from the standings that lead to it, the worst first."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
import torch

from findnemo.calibration import Calibration
from findnemo.cli import _app
from findnemo.prompts import Prompt
from findnemo.runs import Caption, Run
from findnemo.runs.evidence import EMBEDDING, OFF, AttemptVerdict
from findnemo.runs.standing import WORDS, standing, state
from findnemo.runs.verdict import (
    AGAIN,
    CARRIERS,
    NEXT,
    advice,
    advice_of,
    of_training,
    strengths,
    verdict_of,
    what_helps,
)
from findnemo.settings import PAPER

TAU = 0.4
UNDER = {"memorized": False, "score": 0.1, "tau": TAU}
OVER = {"memorized": True, "score": 0.9, "tau": TAU}
FOUND = {"neurons": {"a": [1]}, "reached": True, "score_before": 0.9, "score_after": 0.2}
ALONE = FOUND | {"neurons": {"a": [2], "b": [1, 2]}}
FAR = FOUND | {"reached": False}
GONE = {"same_seed": 0.3, "copies_before": 1.0, "copies_after": 0.0}
COPIES = GONE | {"copies_after": 0.5}
NO_COPY = GONE | {"copies_before": 0.0}
UNION = "union:feed0123"


def case(*payloads, together=None, listed=False, **failed) -> Caption:
    results = dict(zip(("detect", "localize", "verify"), payloads, strict=False))
    if together is not None:
        results[UNION] = together
    unions = ("feed0123",) if together is not None else ()
    return Caption(1, "a", 1, None, None, results, failed, 0.0, listed=listed, unions=unions)


MEMORY = case(OVER, FOUND, GONE, together=GONE)
OTHER = case(OVER, ALONE, GONE, together=GONE)
ORDINARY = case(UNDER)
ADVICE = {  # sentence -> (action, captions, what else)
    "Nothing to switch off: release it as it is.": ("release", [ORDINARY], {}),
    "Release it with this one neuron off.": ("release edited", [case(OVER, FOUND, GONE)], {}),
    "Release it with these 4 neurons off.": ("release edited", [MEMORY, OTHER, ORDINARY], {}),
    "Not decided yet: these 4 neurons were not checked all together.": (
        "go on",
        [MEMORY, case(OVER, ALONE, GONE)],
        {},
    ),
    "Do not release yet: 1 of 2 memories is still there.": (
        "hold",
        [MEMORY, case(OVER, ALONE, GONE, together=COPIES)],
        {"rest": 3},
    ),
    "Do not release yet: 2 of 3 memories are still there.": (
        "hold",
        [MEMORY, case(OVER, FAR, COPIES), case(OVER, FAR, COPIES | {"copies_after": 1.0})],
        {},
    ),
    "Do not release yet: the one memory is still there.": ("hold", [case(OVER, FAR, COPIES)], {}),
    "Do not release yet: other prompts bring back 1 of 2 memories.": (
        "hold",
        [MEMORY, OTHER],
        {"returned": 1},
    ),
    "Not decided yet: no caption was looked at.": ("go on", [case()], {"audited": 0, "rest": 1}),
    "Not decided yet: 3 captions failed or are open.": (
        "go on",
        [MEMORY, case(OVER, FOUND, verify="NaN")],
        {"rest": 2},
    ),
    "Not decided yet: 1 caption failed or is open.": ("go on", [ORDINARY], {"rest": 1}),
    "Not decided yet: 1 of 2 memories is not verified.": (
        "go on",
        [MEMORY, case(OVER, FOUND, listed=True)],
        {},
    ),
    "Not decided yet: no image of 2 captions over the threshold was looked at.": (
        "go on",
        [case(OVER), case(OVER, FOUND, {"same_seed": 0.1}, listed=True)],
        {},
    ),
}


@pytest.mark.parametrize("sentence", ADVICE)
def test_each_advice(sentence):
    action, captions, more = ADVICE[sentence]
    found = advice(captions, **({"audited": len(captions)} | more))
    assert (found.action, found.sentence) == (action, sentence)
    assert set(found.why) <= set(NEXT)
    assert len(sentence.split()) <= 14


def test_captions_of_the_same_neurons_were_checked_with_all_that_are_off():
    twice = [case(OVER, FOUND, GONE), replace(case(OVER, FOUND, GONE), id=2)]
    assert advice(twice, 2).sentence == "Release it with this one neuron off."


def test_a_caption_without_copies_is_in_nobodys_way():
    suspected = case(OVER, FOUND, NO_COPY)
    assert state(suspected) == "suspected"
    assert advice([suspected], 1).action == "release"
    assert advice([MEMORY, suspected], 2).action == "release edited"


@pytest.mark.parametrize("word", WORDS)
def test_only_what_is_gone_or_is_no_memory_may_be_released(word):
    """Whatever a caption's standing is, a release is advised for none that is in trouble."""
    listed = {
        "failed": case(OVER, FOUND, verify="NaN"),
        "out of reach": case(OVER, FAR, GONE | {"copies_after": 1.0}),
        "reduced": case(OVER, FAR, COPIES),
        "back": case(OVER, FOUND, {"same_seed": 0.5}, listed=True),
        "copies": case(OVER, FOUND, COPIES),
        "not replicated": case(OVER, FOUND, {}, listed=True),
        "not verified": case(OVER, FOUND, listed=True),
        "not localized": case(OVER, listed=True),
        "no neurons": case(OVER, FOUND | {"neurons": {}}, listed=True),
        "gone": MEMORY,
        "suspected": case(OVER, FOUND, NO_COPY),
        "open": case(),
        "not memorized": ORDINARY,
    }
    caption = listed[word]
    assert standing(caption) == word
    found = advice([caption, replace(MEMORY, id=2)], 2, rest=int(word == "open"))
    released = word in ("gone", "suspected", "not memorized")
    assert (found.action == "release edited") == released
    assert found.why


MAIN = {"name": "tuned", "copied": 2, "verdict": "copies", "subject": 0.5, "a_clip": 0.4}
MAIN |= {"checkpoint": None, "strength": 1.0, "copies": 6, "of": 60}
CLEANED = {"name": "neurons off", "copied": 0, "verdict": "does not copy", "subject": 0.4}
CLEANED |= {"checkpoint": None, "strength": 1.0, "copies": 0, "of": 60}
BASE = CLEANED | {"name": "base", "strength": None, "a_clip": 0.5}


def confirmed(row, verdict="does not copy", copied=0):
    """A model after further images."""
    first = {name: row[name] for name in ("verdict", "copied", "copies", "of")}
    now = {"verdict": verdict, "copied": copied, "copies": 2 * copied, "of": 240}
    return row | now | {"chosen_by": first, "beside": {"copied": 1, "copies": 2, "of": 240}}


def about(*variants, **main):
    pictures = [{"group": k} for k in range(20)]
    return {"main": "tuned", "variants": [MAIN | main, *variants], "pictures": pictures}


def test_a_fine_tune_is_advised_by_its_copies():
    from findnemo.runs import tuned

    cleaned = CLEANED | {"name": tuned.CLEANED}
    earlier = CLEANED | {"name": "step 400"}
    copies = "Do not release it: it copies 2 of 20 training pictures"
    as_it_is = copies.replace("it:", "it as it is:")
    said = {
        f"{copies}.": about(),
        f"{copies}; further images have to confirm step 400.": about(earlier),
        f"{copies}; release step 400 instead.": about(confirmed(earlier)),
        f"{copies}; further images have to confirm {tuned.CLEANED}.": about(cleaned),
        f"{as_it_is}. Release it with these 7 neurons off.": about(confirmed(cleaned)),
        f"{copies}; release step 400 instead. ": about(confirmed(cleaned), confirmed(earlier)),
        f"{copies} (the training taught it 1 of them). ": about(taught={"a.png": 3}),
        "Not decided yet: its images do not tell whether it copies.": about(
            verdict="cannot be said"
        ),
    }
    for sentence, one in said.items():
        assert of_training(one, 7).sentence == sentence.rstrip()
    unsure = about(cleaned | {"verdict": "cannot be said"})
    assert of_training(unsure, 7).action == "hold"
    assert of_training(about(verdict="does not copy"), 0) is None  # its captions decide


@pytest.mark.parametrize(("fit", "action"), [(0.04, "hold"), (0.3, "release edited")])
def test_a_repair_whose_images_do_not_follow_the_captions_is_not_released(fit, action):
    from findnemo.runs import tuned

    cleaned = confirmed(CLEANED | {"name": tuned.CLEANED, "a_clip": fit})
    found = of_training(about(BASE, cleaned), 7)
    assert found.action == action
    lost = "with these 7 neurons off its images no longer follow the captions"
    assert (lost in found.sentence) == (action == "hold")


def test_a_fine_tune_that_copies_is_advised_a_lower_strength_and_no_more_images(run):
    """The command is the one that began the run; other images would need another directory."""
    begun = ["demo", "--lora", "my lora", "--train-images", "photos"]
    pictures = [{"group": 0, "ways": {"own": [4, 4]}}]
    kept = {"main": "tuned", "variants": [MAIN], "pictures": pictures, "begun": begun}
    for verdict, options in (
        ("copies", ["--lora-scale", "0.4,0.6,0.8,1", "--out", "run"]),
        ("cannot be said", ["--images", "8", "--out", "run-more-images"]),
    ):
        one = kept | {"sentence": "So it is.", "variants": [MAIN | {"verdict": verdict}]}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("findnemo.runs.tuned.training_of", lambda run, one=one: one)
            found = advice_of(run, list(run.captions()), place="run")
        (command,) = found.next_commands
        assert shlex.split(command) == ["findnemo", "audit", *begun, *options]
        assert ("a lower strength, an earlier checkpoint" in found.because) == (verdict == "copies")


def test_the_next_command_of_an_audit_with_its_own_number_of_images_keeps_or_replaces_it(run):
    """With the same --out a resumed audit must ask for as many images; elsewhere it asks for
    more.
    """
    begun = ["demo", "--lora", "a b", "--train-images", "photos", "--images", "16"]
    pictures = [{"group": 0, "ways": {"own": [4, 16]}}]
    kept = {"main": "tuned", "variants": [MAIN], "pictures": pictures, "begun": begun}
    first = ["findnemo", "audit", *begun[:5]]
    for verdict, options in (
        ("copies", ["--images", "16", "--lora-scale", "0.4,0.6,0.8,1", "--out", "run"]),
        ("cannot be said", ["--images", "32", "--out", "run-more-images"]),
    ):
        one = kept | {"sentence": "So it is.", "variants": [MAIN | {"verdict": verdict}]}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("findnemo.runs.tuned.training_of", lambda run, one=one: one)
            (command,) = advice_of(run, list(run.captions()), place="run").next_commands
        assert shlex.split(command) == [*first, *options]


def strength(share: float, verdict: str = "copies", copied: int = 2) -> dict:
    one = {"name": f"LoRA x {share:g}", "strength": share, "verdict": verdict, "copied": copied}
    return MAIN | one


@pytest.mark.parametrize(
    ("weaker", "helps"),
    [
        ([], "a lower strength"),
        ([strength(0.4)], "a strength under 0.4"),  # weaker ones are still to be looked at
        ([strength(0.16), strength(0.4)], "No model of this audit can be published."),
        (
            [confirmed(strength(0.16, "does not copy", 0))],
            "You may release LoRA x 0.16 instead, with its strength written into the file",
        ),
        (
            [
                confirmed(strength(0.16, "as the base", 1), "copies", 2),
                strength(0.4, "as the base"),
            ],
            "LoRA x 0.16 was not known to copy; by 240 further images it copies 2 training pictures,"
            " by any prompt, and 4 of 240 images of their captions are copies. No model of this audit"
            " can be published.",
        ),
        ([strength(0.16, "does not copy", 0)], "LoRA x 0.16 may do instead: further images have"),
        (
            [confirmed(strength(0.16, "cannot be said", 1), "cannot be said", 1)],
            "LoRA x 0.16 was not known to copy; by 240 further images it may copy 1 training picture",
        ),
    ],
)
def test_what_was_tried_in_vain_is_not_advised_again(run, weaker, helps):
    kept = about(BASE, *weaker) | {"sentence": "So it is."}
    kept["variants"] = [BASE, *weaker, MAIN]
    kept["pictures"] = [{"group": 0, "ways": {"own": [4, 4]}}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.runs.tuned.training_of", lambda run: kept)
        found = advice_of(run, list(run.captions()), place="run")
    assert helps in found.because
    file = "findnemo export run --to adapter --take 'LoRA x 0.16' --out instead.safetensors"
    check = "findnemo export run --take 'LoRA x 0.16' --check instead.safetensors"
    assert (found.next_commands == (file, check)) == ("You may release" in helps)
    goes_on = (
        "findnemo audit MODEL --lora LORA --train-images FOLDER --lora-scale 0.16,1 --out run",
    )
    assert (found.next_commands == goes_on) == ("further images have" in helps)


def test_checkpoints_that_all_copy_are_advised_lower_strengths_too(run):
    steps = [
        MAIN | {"name": f"checkpoint-{n}", "checkpoint": f"checkpoint-{n}"} for n in (100, 200)
    ]
    kept = about() | {"main": "checkpoint-200", "variants": [BASE, *steps], "sentence": "So it is."}
    kept |= {
        "begun": ["demo", "--lora", "lora"],
        "pictures": [{"group": 0, "ways": {"own": [4, 4]}}],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.runs.tuned.training_of", lambda run: kept)
        found = advice_of(run, list(run.captions()), place="run")
    assert "a lower strength, a checkpoint before checkpoint-100" in found.because
    weaker = "findnemo audit demo --lora lora --lora-scale 0.4,0.6,0.8,1 --out run"
    assert found.next_commands == (weaker,)


def subject(middle: float) -> dict:
    return {"subject": middle, "subject_low": middle - 0.03, "subject_high": middle + 0.03}


@pytest.mark.parametrize(("left", "nothing"), [(0.5, False), (0.4, True), (0.42, True)])
def test_a_strength_that_has_lost_the_subject_is_no_way_out(left, nothing):
    """.42 +- .03 reaches down to the base's .402."""
    weak = confirmed(strength(0.1, "does not copy", 0)) | subject(left)
    weak["beside"] |= subject(0.402)
    main, base = MAIN | {"strength": 1.0} | subject(0.6), BASE | subject(0.402)
    told = what_helps(about() | {"variants": [base, weak, main]})
    lost = "LoRA x 0.1 shows no more of the subject than the base. No model of this audit can be"
    assert told.startswith(lost) == nothing
    kept = f"Its similarity to the subject is {left:.2f} (as trained 0.60, base 0.40)"
    assert (kept in told) == (not nothing)


def test_a_similarity_that_tells_no_model_from_the_base_rules_out_none():
    weak = confirmed(strength(0.1, "does not copy", 0)) | subject(0.41)
    weak["beside"] |= subject(0.402)
    main, base = MAIN | {"strength": 1.0} | subject(0.42), BASE | subject(0.402)
    told = what_helps(about() | {"variants": [base, weak, main]})
    assert told.startswith("You may release LoRA x 0.1 instead")
    assert "The similarity tells no model from the base: look at models.png" in told


def test_a_base_that_does_not_tell_asks_for_nothing_more():
    unsure = BASE | {"verdict": "cannot be said"}
    kept = about() | {"variants": [unsure, MAIN | {"strength": 0.2}]}
    assert of_training(kept, 3).why == ()


@pytest.fixture
def run(tmp_path):
    mean, std = ({name: torch.ones(8) for name in "ab"} for _ in range(2))
    scores = torch.full((5, 9), 0.1)
    path = tmp_path / "a run"
    Calibration("0" * 32, "model", PAPER, TAU, mean, std, 5, scores, None).save(
        path / "calibration"
    )
    settings = {"model": "0" * 32, "calibration": PAPER.to_json(), "tau": TAU, "images": 4}
    with Run.create(path, settings) as run:
        run.set_meta("source", "some/model")
        for id_ in run.add([Prompt("a cat", 1), Prompt("a dog", 2)]):
            run.record(id_, "detect", UNDER if id_ == 2 else OVER, 1.0)
        yield run


def test_the_advice_on_a_run_rests_on_its_verdict_and_names_the_run(run):
    captions = list(run.captions())
    found = advice_of(run, captions, place="a run")
    assert found.action == "go on"
    assert found.because == verdict_of(run, captions).text
    (command,) = found.next_commands
    assert shlex.split(command)[-2:] == ["--out", "a run"]
    assert "a run/calibration" in shlex.split(command)
    assert advice_of(run, captions).next_commands == (command,)  # the directory's own name


def test_a_search_that_tried_all_is_not_advised_again(run, tmp_path):
    run.record(1, "localize", FAR, 1.0)
    run.record(1, "verify", COPIES | {"copies_after": 1.0}, 1.0)
    found = advice_of(run, list(run.captions()))
    assert found.action == "hold"
    assert "--thorough" in found.next_commands[0]
    settings = run.meta("settings") | {"scope": "all", "thorough": True}
    with Run.create(tmp_path / "tried", settings) as tried:
        (id_,) = tried.add([Prompt("a cat", 1)])
        for stage, result in (("detect", OVER), ("localize", FAR), ("verify", COPIES)):
            tried.record(id_, stage, result, 1.0)
        found = advice_of(tried, list(tried.captions()))
    assert found.next_commands == ("findnemo inspect tried",)


def test_what_was_not_looked_at_before_a_release_is_said(run):
    run.record(1, "localize", FOUND, 1.0)
    run.record(1, "verify", GONE, 1.0)
    found = advice_of(run, list(run.captions()))
    assert found.sentence == "Release it with this one neuron off."
    assert found.because.endswith(
        "Other prompts and attacks were not tried (findnemo verify does that). The effect on"
        " other captions was not measured. All this is known of the 2 captions that were looked at;"
        " others can be memorized too."
    )
    assert found.next_commands == ("findnemo export 'a run' --out clean",)


@pytest.mark.parametrize(
    ("source", "options", "form"),
    [
        ("some/model", {}, "--out clean"),
        ("/models/mine.safetensors", {}, "--to file --out clean.safetensors"),
        ("some/model", {"lora": "my.safetensors"}, "--to adapter --out clean.safetensors"),
    ],
)
def test_an_export_is_advised_in_the_form_of_the_model(run, source, options, form):
    run.record(1, "localize", FOUND, 1.0)
    run.record(1, "verify", GONE, 1.0)
    run.set_meta("source", source)
    run.set_meta("source_options", options)
    found = advice_of(run, list(run.captions()), place="run")
    assert found.next_commands == (f"findnemo export run {form}",)


@pytest.mark.parametrize(
    ("attempts", "attack", "said"),
    [
        (True, False, "The attack on the text embedding was not tried"),
        (False, True, "Other prompts were not tried"),
        (True, True, "An optimized text embedding, which takes the weights, still gives a copy of"),
    ],
)
def test_what_was_tried_is_no_less_than_what_was_not(run, monkeypatch, attempts, attack, said):
    """An attack that succeeds must not make the verdict read cleaner than none."""
    run.record(1, "localize", FOUND, 1.0)
    run.record(1, "verify", GONE, 1.0)
    tried = {"attempts": attempts, "attack": attack}
    kept = run.meta
    monkeypatch.setattr(run, "meta", lambda key: tried[key] if key in tried else kept(key))
    reached = {EMBEDDING: AttemptVerdict("back", 0.99, 0.99)} if attempts and attack else {}
    monkeypatch.setattr("findnemo.runs.verdict.verdicts", lambda caption, bases: {OFF: reached})
    found = advice_of(run, list(run.captions()))
    assert said in found.because
    assert ("of 2 of 2 captions attacked" in found.because) is bool(reached)


def test_every_command_and_option_that_is_advised_is_there():
    import typer

    commands = typer.main.get_command(_app.app).commands
    audits = ("findnemo audit MODEL --calibration C", "findnemo audit MODEL --train-images F")
    for template in (*NEXT.values(), AGAIN, CARRIERS):
        for audit in audits:
            again = AGAIN.format(audit=audit, run="RUN")
            _, name, *words = template.format(
                audit=audit,
                run="RUN",
                again=again,
                form="--to file --out F",
                images=8,
                strengths="0.4,1",
                variant="LoRA",
                other=audit,
                scales=" --lora-scale 0.4,1",
            ).split()
            known = {
                flag for one in commands[name].params for flag in (*one.opts, *one.secondary_opts)
            }
            assert {word for word in words if re.match("--", word)} <= known, template


def test_a_lora_whose_weakest_strength_has_lost_the_subject_is_not_made_weaker():
    base, main = BASE | subject(0.44), MAIN | {"strength": 1.0} | subject(0.6)
    weak = confirmed(strength(0.4, "does not copy", 0)) | subject(0.45)
    weak["beside"] |= subject(0.44)
    kept = about() | {"main": MAIN["name"], "variants": [base, weak, main]}
    assert strengths(kept) == []
    told = what_helps(kept)
    assert told.startswith(
        "LoRA x 0.4 shows no more of the subject than the base. No model of this audit can be"
        " published. What helps is an earlier checkpoint, or"
    )
    weak |= subject(0.5)
    assert strengths(kept) == [0.16, 0.24, 0.32, 0.4, 1.0]
