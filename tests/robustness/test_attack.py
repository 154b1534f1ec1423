"""The attack of Finding DoRI against a few lines written apart from it; attempts; curves, gaps
and shares by hand; a whole verification.
"""

import sys
from dataclasses import replace

import pytest
import torch
from _tiny import tiny_pipeline
from PIL import Image, ImageOps

import findnemo
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.neurons import NeuronSet
from findnemo.robustness import (
    ATTEMPTS,
    Subject,
    attack,
    diffusion_loss,
    embedded,
    optimized,
    subject,
)
from findnemo.robustness.attempts import SAMPLERS
from findnemo.robustness.controls import mirrored, pictures, scrambled
from findnemo.robustness.curves import curve, gap, shares
from findnemo.runs import Caption
from findnemo.runs.evidence import attack_summary
from findnemo.runs.robustness import Effort, attack_all, try_out
from findnemo.seeds import sample_seed

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
    from findnemo.robustness.attack import drawn

    clean = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(2))
    start = model.encode([PROMPT])
    made = optimized(model, clean, start, (0, 1, 3), seed=4, key="x", batch=3)
    embedding = start.tokens.clone().requires_grad_()
    optimizer = torch.optim.Adam([embedding], lr=0.1)
    reached = {0: start.tokens}
    for step in (1, 2, 3):
        noise, timesteps = drawn(model, (3, *model.latent_shape), 4, "x", step)
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


@pytest.mark.parametrize(
    "name",
    ["steps: double", "sampler: DPM++ 2M", "guidance: 15", "words: capitals", "random tokens: 4"],
)
def test_an_attempt_gives_other_images_than_the_plain_caption(model, told, name):
    made, plain = (ATTEMPTS[n](model, told, [7, 8], SETTINGS) for n in (name, "seeds: fresh"))
    assert len(made) == 2
    assert made[0].tobytes() != plain[0].tobytes()


def test_attempts_leave_the_pipeline_as_it_was(model, told):
    before = (
        type(model.pipeline.scheduler),
        findnemo.generate(model, PROMPT, [1], SETTINGS)[0].tobytes(),
    )
    for name in ("sampler: Euler", "sampler: Heun", "image to image: 0.5"):
        ATTEMPTS[name](model, told, [7], SETTINGS)
    assert (
        type(model.pipeline.scheduler),
        findnemo.generate(model, PROMPT, [1], SETTINGS)[0].tobytes(),
    ) == before


def test_what_says_what_the_caption_says_is_no_attempt(model):
    with pytest.raises(InputError, match="says what the caption says"):
        ATTEMPTS["words: lower case"](
            model, Subject("all small", Image.new("RGB", (16, 16))), [1], SETTINGS
        )


def test_curves_gaps_and_shares_by_hand():
    rows = [{0: 0.0, 5: 1.0}, {0: 0.5, 5: 0.8}]
    assert curve(rows) == [(0, 0.25, None, None), (5, 0.9, None, None)]
    assert gap(rows, [{5: 0.4, 9: 1.0}]) == [(5, 0.5, None, None)]
    ((_, value, low, high),) = gap([{1: v} for v in (0.8, 0.9, 1.0, 0.7, 0.6)], [{1: 0.1}] * 5)
    assert value == 0.7
    assert low < 0.7 < high
    one = shares([{"a": [0.9, 0.1]}, {"a": [0.69, 0.1]}, {"a": [0.7, 0.8], "b": []}])["a"]
    assert (one["captions"], one["n"], one["images"]) == (2, 3, 0.5)
    assert one["low"] < 2 / 3 < one["high"]


def test_controls_are_as_rich_and_not_the_same(tmp_path):
    picture = Image.effect_mandelbrot((16, 16), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    assert sorted(mirrored(picture).getdata()) == sorted(picture.getdata())
    assert sorted(p for pixel in scrambled(picture).getdata() for p in pixel) == sorted(
        p for pixel in picture.getdata() for p in pixel
    )
    assert scrambled(picture).tobytes() != picture.tobytes() != mirrored(picture).tobytes()
    with pytest.raises(InputError, match=r"\(PNG, JPEG, WebP\): 0; as controls 1 are needed"):
        pictures(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png is not a readable picture"):
        pictures(tmp_path)


@pytest.mark.slow
def test_a_run_is_attacked_once_and_again_only_where_something_changed(tmp_path, monkeypatch):
    from _tiny_files import make_run

    from findnemo.runs import Plan, Run, Work, robustness

    model = findnemo.load(tiny_pipeline())
    name = next(iter(model.value_layers))
    make_run(tmp_path / "run", model, {PROMPT: NeuronSet({name: [3]}), "a tree": NeuronSet({})})
    with Run.create(tmp_path / "run", _settings(tmp_path / "run")) as run:
        work = Work(run, model, None, Plan(images=2, image_settings=SETTINGS))
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


def test_results_on_another_basis_are_left_out_of_the_curves():
    def caption(id_, basis, value, memorized=True):
        found = {"basis": basis, "known": True, "curves": {"caption": {"0": [value]}}}
        never = found | {"curves": {"caption": {"0": [value / 2]}}}
        detected = {"memorized": memorized, "score": value, "tau": 0.5}
        results = {"detect": detected, "attack:neurons off": found}
        control = found | {"curves": {"random": {"0": [0.9]}}}
        tried = {"attack:neurons off, never seen": never, "attack:untouched": control}
        results |= tried if memorized else {}
        return Caption(id_, f"caption {id_}", id_, None, None, results, {}, 0.0)

    captions = [
        caption(1, "new", 0.8),
        caption(2, "old", 0.2),
        caption(3, "new", 0.4),
        caption(4, "new", 0.1, False),
    ]
    stages = ("neurons off", "neurons off, never seen", "untouched")
    made = attack_summary(captions, {f"attack:{name}": "new" for name in stages})
    assert made["curves"]["memorized, neurons off"] == [[0, pytest.approx(0.6)]]
    assert made["gaps"]["neurons off: memorized less never seen"] == [
        [0, pytest.approx(0.3), None, None]
    ]
    assert made["gaps"]["neurons off: memorized less mirrored"] == [
        [0, pytest.approx(0.5), None, None]
    ]
    assert attack_summary(captions, {})["curves"] == {}


def test_pictures_that_were_never_seen_are_compared_caption_by_caption():
    memorized = [{1: v} for v in (0.9, 0.7, 0.5, 0.3, 0.1)]
    control = [{1: v - 0.2} for v in (0.9, 0.7, 0.5, 0.3, 0.1)]
    assert gap(memorized, control, paired=True) == [
        (1, 0.2, 0.2, 0.2)
    ]  # each differs by as much, however they differ among themselves
    ((_, value, low, high),) = gap(memorized, control)
    assert value == 0.2
    assert low < 0 < high


@pytest.mark.parametrize(
    ("prediction", "darkest"), [("epsilon", 0), ("v_prediction", 0), ("epsilon", 150)]
)
@torch.no_grad()
def test_image_to_image_is_the_loop_written_by_hand(prediction, darkest):
    model = findnemo.load(tiny_pipeline(prediction))
    told = Subject(
        PROMPT,
        Image.effect_mandelbrot((48, 40), (-2, -1.5, 1, 1.5), 50)
        .convert("RGB")
        .point(lambda v: max(v, darkest)),
    )
    settings = ImageSettings(steps=6, guidance=3.0, seed=5)
    strength = 0.5
    made = ATTEMPTS[f"image to image: {strength:g}"](model, told, [11, 12], settings)
    pipe = model.pipeline
    side = model.pipeline.vae.config.sample_size
    square = ImageOps.fit(told.picture, (side, side))
    pixels = (
        torch.tensor(list(square.getdata())).float().view(1, side, side, 3).permute(0, 3, 1, 2)
        / 127.5
        - 1
    )
    alphas = pipe.scheduler.alphas_cumprod
    gap_ = 1000 // settings.steps
    schedule = [k * gap_ + 1 for k in reversed(range(settings.steps))][
        settings.steps - int(settings.steps * strength) :
    ]
    text = model.encode(["", PROMPT]).tokens
    for sample, image in zip((11, 12), made, strict=True):
        generator = torch.Generator().manual_seed(sample_seed(settings.seed, PROMPT, sample))
        x = pipe.vae.encode(pixels).latent_dist.sample(generator) * pipe.vae.config.scaling_factor
        noise = torch.randn(x.shape, generator=generator)
        x = alphas[schedule[0]] ** 0.5 * x + (1 - alphas[schedule[0]]) ** 0.5 * noise
        for t in schedule:
            a = alphas[t]
            before = alphas[t - gap_] if t >= gap_ else alphas[0]
            empty, said = pipe.unet(torch.cat([x, x]), t, encoder_hidden_states=text).sample.chunk(
                2
            )
            out = empty + settings.guidance * (said - empty)
            eps = out if prediction == "epsilon" else (1 - a) ** 0.5 * x + a**0.5 * out
            x = before**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - before) ** 0.5 * eps
        shown = (pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample[0] / 2 + 0.5).clamp(
            0, 1
        )
        near = torch.tensor(list(image.getdata())).float().view(
            side, side, 3
        ) / 255 - shown.permute(1, 2, 0)
        assert near.abs().max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "DDIM"])
def test_samplers_agree_where_steps_are_many(name):
    """All solve the same equation: on a smooth model their images are near each other, those of
    the deterministic ones very near.
    """
    model = findnemo.load(tiny_pipeline("v_prediction"))
    told = Subject("a red star", Image.new("RGB", (16, 16)))
    reference, made = (
        ATTEMPTS[f"sampler: {n}"](model, told, [1], ImageSettings(30, 1.0))[0]
        for n in ("DDIM", name)
    )
    gap_ = (
        torch.tensor(list(reference.getdata())).float() - torch.tensor(list(made.getdata())).float()
    ).abs().mean() / 255
    assert gap_ < (0.2 if "ancestral" in name else 0.03)


@pytest.mark.parametrize("adapter", ["sdxl", "sd-turbo"])
def test_a_picture_encoded_is_decoded_to_what_the_autoencoder_makes_of_it(adapter):
    from _tiny_unets import PIPELINES

    model = findnemo.load(PIPELINES[adapter]())
    pixels = (
        torch.rand(1, 3, *[s * model.pipeline.vae_scale_factor for s in model.latent_shape[1:]]) * 2
        - 1
    )
    with torch.no_grad():
        known = model.pipeline.vae(pixels, sample_posterior=False).sample
        assert torch.allclose(model.decode(model.encode_images(pixels)), known, atol=1e-4)


def _settings(path):
    from findnemo.runs import Run

    with Run.open(path) as run:
        return run.meta("settings")


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
