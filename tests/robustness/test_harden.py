"""Hardening on a tiny model: what an update does, that it can be interrupted
anywhere, and what it refuses.
"""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from _odd_layers import MADE
from _tiny import tiny_pipeline
from _tiny_files import SMALL
from PIL import Image

import findnemo
from findnemo.edits import prune
from findnemo.errors import EditError, InputError, StoppedError
from findnemo.images import ImageSettings
from findnemo.neurons import NeuronSet
from findnemo.robustness import diffusion_loss
from findnemo.robustness.harden import (
    Hardening,
    KeptCaptions,
    Lesson,
    adversaries,
    evaluations,
    harden,
)

SETTINGS = Hardening(
    epochs=2, attack_steps=3, updates=5, learning_rate=1e-3, batch=2, keep=1.0, surrogates=2
)


@pytest.fixture
def model():
    return findnemo.load(tiny_pipeline(size=8, **SMALL))


def latents(model, count, seed):
    return torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def lessons(model):
    return [
        Lesson(text, latents(model, 1, k), latents(model, 2, 10 + k))
        for k, text in enumerate(["the old clock", "a red star"])
    ]


@pytest.fixture
def ordinary(model):
    prompts = ["blue sky", "two dogs run", "mountains"]
    return KeptCaptions(model.encode(prompts), latents(model, 3, 20), model.unconditional())


def weights(model):
    return {name: value.clone() for name, value in model.denoiser.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_embeddings_that_bring_the_picture_back_are_answered_with_surrogates(
    model, lessons, ordinary
):
    one = lessons[0]
    settings = replace(SETTINGS, epochs=1, updates=30, learning_rate=5e-3, batch=4)
    found = adversaries(model, one, settings, 0)
    assert torch.equal(found.tokens[:1], model.encode([one.prompt]).tokens)  # the caption as it is
    assert len(found) == 1 + 2 * 3  # and three embeddings on each of two ways
    before = answered(model, one.surrogates, found)
    harden(model, [one], ordinary, NeuronSet({}), settings)
    assert answered(model, one.surrogates, found) < 0.9 * before


def answered(model, surrogates, found):
    """The diffusion loss of surrogates under adversarial embeddings, over the whole schedule."""
    generator = torch.Generator().manual_seed(99)
    steps = torch.linspace(50, 950, 10).long()
    with torch.no_grad():
        parts = []
        for text in found.split():
            clean = surrogates[torch.arange(10) % len(surrogates)]
            parts.append(
                diffusion_loss(
                    model,
                    clean,
                    torch.randn(clean.shape, generator=generator),
                    steps,
                    text.expand(10),
                )
            )
    return float(torch.stack(parts).mean())


@pytest.mark.slow
def test_ordinary_captions_are_held(model, lessons, ordinary):
    drifts = []
    for keep in (0.0, 20.0):
        hardened = findnemo.load(prune(model, NeuronSet({})))
        old = model
        harden(hardened, lessons, ordinary, NeuronSet({}), replace(SETTINGS, updates=12, keep=keep))
        with torch.no_grad():
            new, before = (
                m.predict_noise(ordinary.latents, 700, ordinary.text) for m in (hardened, old)
            )
        drifts.append(float((new - before).square().mean()))
    assert drifts[1] < 0.5 * drifts[0]


def test_what_is_switched_off_stays_off(model, lessons, ordinary):
    name = next(iter(model.value_layers))
    edited = findnemo.load(prune(model, NeuronSet({name: [1, 3]})))
    harden(edited, lessons, ordinary, NeuronSet({name: [1, 3]}), SETTINGS)
    rows = edited.value_layers[name].weight
    assert not rows[[1, 3]].any()
    assert not torch.equal(rows[0], model.value_layers[name].weight[0])


@pytest.mark.parametrize("how", ["parametrization", "old weight norm", "pruning mask"])
def test_weights_that_are_made_of_others_are_refused_before_any_work(model, lessons, ordinary, how):
    name = next(iter(model.value_layers))
    with torch.no_grad():
        model.value_layers[name].weight[[1, 3]] = 0
    MADE[how](model.value_layers[name])
    with pytest.raises(EditError, match=rf"the weight of {name} is recomputed before every pass"):
        harden(
            model,
            lessons,
            ordinary,
            NeuronSet({name: [1, 3]}),
            SETTINGS,
            progress=lambda *_: pytest.fail("it began"),
        )


def test_a_model_whose_neurons_are_not_off_is_refused_before_any_work(model, lessons, ordinary):
    name = next(iter(model.value_layers))
    with pytest.raises(
        EditError,
        match=rf"the edit of {name} \(neurons 1, 3\) did not take effect: the weight is not zero",
    ):
        harden(
            model,
            lessons,
            ordinary,
            NeuronSet({name: [1, 3]}),
            SETTINGS,
            progress=lambda *_: pytest.fail("it began"),
        )


@pytest.mark.slow
def test_interrupted_anywhere_and_gone_on_with_to_the_same_weights(
    model, lessons, ordinary, tmp_path
):
    start = copy.deepcopy(model.denoiser.state_dict())
    harden(model, lessons, ordinary, NeuronSet({}), SETTINGS)
    undisturbed = weights(model)
    for moment in (3, 5):
        folder = tmp_path / str(moment)
        asked = iter(range(100))
        model.denoiser.load_state_dict(start)
        with pytest.raises(StoppedError, match="epoch"):
            harden(
                model,
                lessons,
                ordinary,
                NeuronSet({}),
                SETTINGS,
                folder,
                stop=lambda asked=asked, m=moment: next(asked) >= m,
            )
        model.denoiser.load_state_dict(start)
        seen = []
        harden(
            model,
            lessons,
            ordinary,
            NeuronSet({}),
            SETTINGS,
            folder,
            progress=lambda done, total, loss, s=seen: s.append(done),
        )
        assert same(weights(model), undisturbed), moment
        assert seen == list(range(6 if moment >= 5 else 1, 11)), moment


@pytest.mark.slow
def test_weights_that_another_hardening_left_are_not_taken(model, lessons, ordinary, tmp_path):
    start = copy.deepcopy(model.denoiser.state_dict())
    harden(model, lessons, ordinary, NeuronSet({}), SETTINGS, tmp_path)
    model.denoiser.load_state_dict(start)
    seen = []
    other = replace(SETTINGS, seed=1)
    harden(
        model,
        lessons,
        ordinary,
        NeuronSet({}),
        other,
        tmp_path,
        progress=lambda done, total, loss: seen.append(done),
    )
    assert seen[0] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("attack_steps", -1), ("learning_rate", 0.0), ("keep", float("nan"))],
)
def test_settings_that_are_no_use_are_refused(name, value):
    with pytest.raises(
        InputError, match=name.replace("_", " ").replace("attack steps", "attack_steps")
    ):
        Hardening(**{name: value})


def test_nothing_to_harden_is_said(model, ordinary):
    with pytest.raises(InputError, match="nothing to harden"):
        harden(model, [], ordinary, NeuronSet({}))


@pytest.mark.slow
def test_the_cost_is_what_passes_through_the_denoiser(model, lessons, ordinary):
    from findnemo.passes import counting

    with counting(model) as spent:
        harden(model, lessons, ordinary, NeuronSet({}), SETTINGS)
    told = evaluations(SETTINGS, len(lessons), 0, ImageSettings(steps=1, guidance=1.0))
    images = len(lessons) * SETTINGS.surrogates  # made before
    forward = SETTINGS.epochs * (
        len(lessons) * 2 * SETTINGS.batch * SETTINGS.attack_steps
        + SETTINGS.updates * SETTINGS.batch * 3
    )
    by_attacks = SETTINGS.epochs * len(lessons) * 2 * SETTINGS.batch * SETTINGS.attack_steps * 2
    backward = by_attacks + SETTINGS.epochs * SETTINGS.updates * SETTINGS.batch * 4
    # the copy that ordinary captions are held to is counted with it; of gradients those with
    # respect to what is given to the denoiser
    assert spent.evaluations == forward + by_attacks
    assert told == images + forward + backward


def test_a_run_in_half_precision_is_hardened_in_single_and_given_back_in_half(monkeypatch):
    """Half precision is what a GPU has: its text encoder and decoder must fit a
    denoiser that learns in float32.
    """
    from findnemo.runs import hardening

    model = findnemo.load(tiny_pipeline(size=8, **SMALL).to(dtype=torch.float16))
    subject = SimpleNamespace(picture=Image.new("RGB", (16, 16)))
    work = SimpleNamespace(
        model=model,
        run=SimpleNamespace(captions=lambda: []),
        plan=SimpleNamespace(image_settings=ImageSettings(steps=1, guidance=1.0)),
    )
    monkeypatch.setattr(hardening.robustness, "subject_of", lambda work, caption: subject)
    monkeypatch.setattr(hardening, "ordinary_captions", lambda work: (["blue sky"], ["mountains"]))
    seen = []
    caption = SimpleNamespace(id=1, text="the old clock")
    few = replace(SETTINGS, epochs=1, attack_steps=1, updates=1)
    made = hardening.harden_run(
        work, [caption], few, progress=lambda done, total, loss: seen.append(loss)
    )
    assert len(seen) == 1
    assert made.dtype == model.dtype == torch.float16
    assert {
        p.dtype
        for part in made.pipeline.components.values()
        if hasattr(part, "parameters")
        for p in part.parameters()
    } == {torch.float16}
