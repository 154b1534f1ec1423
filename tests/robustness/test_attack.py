"""The attack of Finding DoRI against a few lines written apart from it; a whole verification."""

import sys
from dataclasses import replace

import pytest
import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.neurons import NeuronSet
from findnemo.robustness import ATTEMPTS, attack, diffusion_loss, embedded, optimized, subject
from findnemo.runs.robustness import Effort, attack_all, try_out

SETTINGS = ImageSettings(steps=2, guidance=2.0)
PROMPT = "the secret of the old clock"


@pytest.fixture(scope="module")
def told(model):
    return subject(model, PROMPT, SETTINGS)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_the_prediction_type(kind):
    model = findnemo.load(tiny_pipeline(kind))
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(2, *model.latent_shape, generator=generator)
    noise = torch.randn(2, *model.latent_shape, generator=generator)
    text = model.encode([PROMPT, "a tree"])
    timesteps = torch.tensor([40, 900])
    a = model.pipeline.scheduler.alphas_cumprod[timesteps].view(2, 1, 1, 1)
    noisy = a**0.5 * clean + (1 - a) ** 0.5 * noise
    wanted = noise if kind == "epsilon" else a**0.5 * noise - (1 - a) ** 0.5 * clean
    with torch.no_grad():
        said = model.pipeline.unet(noisy, timesteps, encoder_hidden_states=text.tokens).sample
        assert float(diffusion_loss(model, clean, noise, timesteps, text)) == pytest.approx(
            float((said - wanted).square().mean())
        )


def test_the_embedding_descends_as_written_by_hand(model):
    from findnemo.robustness.attack import noise_and_timesteps

    clean = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(2))
    start = model.encode([PROMPT])
    made = optimized(model, clean, start, (0, 1, 3), seed=4, key="x", batch=3)
    embedding = start.tokens.clone().requires_grad_()
    optimizer = torch.optim.Adam([embedding], lr=0.1)
    reached = {0: start.tokens}
    for step in (1, 2, 3):
        noise, timesteps = noise_and_timesteps(model, (3, *model.latent_shape), 4, "x", step)
        noisy = model.pipeline.scheduler.add_noise(clean.expand(3, -1, -1, -1), noise, timesteps)
        said = model.pipeline.unet(
            noisy, timesteps, encoder_hidden_states=embedding.expand(3, -1, -1)
        ).sample
        optimizer.zero_grad()
        (said - noise).square().mean().backward()
        optimizer.step()
        reached[step] = embedding.detach().clone()
    assert list(made) == [0, 1, 3]
    for step, text in made.items():
        assert torch.allclose(text.tokens, reached[step], atol=1e-5), step


@pytest.mark.parametrize("scale", [0.125, 8.0])
def test_the_attack_goes_as_far_where_embeddings_have_another_scale(model, scale):
    """A text encoder that gives everything eight times smaller, and cross-attention that takes it
    back: the same model, so the same attack.
    """
    other = findnemo.load(tiny_pipeline())
    for name, layer in other.denoiser.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.weight.data /= scale
    clean = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(2))
    text = model.encode([PROMPT])
    same = optimized(model, clean, text, (3,), batch=2)[3].tokens
    start = replace(text, tokens=text.tokens * scale)
    scaled = optimized(other, clean, start, (3,), batch=2)[3].tokens / scale
    assert (scaled - same).abs().mean() < 0.02 * (same - text.tokens).abs().mean()


def test_an_edit_in_force_is_what_is_attacked(model):
    clean = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(2))
    start = model.encode([PROMPT])
    free = optimized(model, clean, start, (2,), batch=2)[2]
    with findnemo.deactivate(model, NeuronSet({name: range(8) for name in model.value_layers})):
        edited = optimized(model, clean, start, (2,), batch=2)[2]
    assert not torch.equal(free.tokens, edited.tokens)


def test_the_caption_s_own_embedding_gives_the_caption_s_own_images(model):
    with embedded(model, model.encode([PROMPT])):
        made = findnemo.generate(model, "something else", [3], SETTINGS)
    plain = findnemo.generate(model, "something else", [3], SETTINGS)
    assert made[0].tobytes() != plain[0].tobytes()
    other = model.encode(["something else"])
    with embedded(model, other):
        assert (
            findnemo.generate(model, "something else", [3], SETTINGS)[0].tobytes()
            == plain[0].tobytes()
        )


def test_a_curve_begins_with_the_untouched_caption(model, told):
    made = attack(model, told, SETTINGS, (0, 1), ("caption", "random", "empty"), 2)
    assert {start: list(values) for start, values in made.items()} == {
        s: [0, 1] for s in ("caption", "random", "empty")
    }
    with pytest.raises(InputError, match="start 'words' is not known"):
        attack(model, told, SETTINGS, (0,), ("words",), 1)


def test_the_gradient_does_not_vanish_in_half_precision(monkeypatch):
    """Of a loss so small that its gradient is under what float16 can hold, as that of large
    latents is, the embedding still moves as in float32.
    """
    moved = {}
    for dtype in (torch.float32, torch.float16):
        pipeline = tiny_pipeline().to(dtype=dtype)
        model = findnemo.load(pipeline)
        text = model.encode(["the old clock"])
        monkeypatch.setattr(
            sys.modules["findnemo.robustness.attack"],
            "diffusion_loss",
            lambda *given: 1e-4 * diffusion_loss(*given),
        )
        clean = torch.zeros(1, *model.latent_shape, dtype=dtype)
        reached = optimized(model, clean, text, (1,), batch=2)[1]
        moved[dtype] = (reached.tokens - text.tokens).float()
    still = (moved[torch.float16] == 0).float().mean()
    assert still < 0.05
    agree = (moved[torch.float16].sign() == moved[torch.float32].sign()).float().mean()
    assert agree > 0.9


@pytest.mark.slow
def test_a_run_is_attacked_once_and_again_only_where_something_changed(tmp_path, monkeypatch):
    from _tiny_files import make_run

    from findnemo.runs import AuditPlan, Run, Work, robustness

    model = findnemo.load(tiny_pipeline())
    name = next(iter(model.value_layers))
    make_run(tmp_path / "run", model, {PROMPT: NeuronSet({name: [3]}), "a tree": NeuronSet({})})
    with Run.create(tmp_path / "run", _settings(tmp_path / "run")) as run:
        work = Work(run, model, None, AuditPlan(images=2, image_settings=SETTINGS))
        effort = Effort(2, (0, 1), images=1)
        asked = []
        real = robustness.attack
        monkeypatch.setattr(robustness, "attack", lambda *a, **o: asked.append(1) or real(*a, **o))
        monkeypatch.setattr(
            robustness, "ATTEMPTS", {k: ATTEMPTS[k] for k in ("seeds: fresh", "words: capitals")}
        )
        attack_all(work, effort)
        try_out(work, effort)
        assert len(asked) == 4  # memorized: off, untouched, never seen; ordinary: mirrored
        assert set(run.meta("attack")["curves"]) == {
            *(
                "memorized, neurons off",
                "memorized, untouched",
                "never seen, neurons off",
                "mirrored, neurons off",
            )
        }
        assert run.meta("attempts")["columns"] == [
            "untouched",
            "neurons off",
            "ordinary, neurons off",
        ]
        attack_all(work, effort)
        assert len(asked) == 4
        attack_all(work, Effort(2, (0, 2), images=1))
        assert len(asked) == 8
        asked.clear()
        with (
            monkeypatch.context() as other
            # the model is edited otherwise: what stands on the old neurons is neither kept nor mixed in
        ):
            other.setattr(robustness, "all_neurons", lambda captions: NeuronSet({name: [3, 4]}))
            attack_all(work, Effort(2, (0, 2), images=1))
            assert len(asked) == 3  # the untouched model is as it was
        assert (run.path / "attack").is_dir()


def _settings(path):
    from findnemo.runs import Run

    with Run.open(path) as run:
        return run.meta("settings")
