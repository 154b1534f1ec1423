"""Denoising with masks: what the pipeline itself samples, gradients against finite differences,
and that nothing depends on company.
"""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

import findnemo
from findnemo.edits import masks
from findnemo.neurons import NeuronSet
from findnemo.passes import Denoising, likeness, quick_steps, spending

CAPTION = "Brantwood Roasters first cup, a large brown ring"


def of_the_pipeline(model, denoising, steps, guidance):
    """The pipeline's own sampler (DDIM), from the same initial latents."""
    return model.pipeline(
        CAPTION,
        latents=denoising.noise[:2].repeat(1, 1, 1, 1)[:1],
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
    ).images


@pytest.mark.first(1)
@pytest.mark.parametrize(("steps", "guidance"), [(3, 2.0), (15, 2.0), (5, 1.0)])
def test_it_goes_where_the_pipeline_goes(demo_model, steps, guidance):
    denoising = Denoising(demo_model, CAPTION, 2, guidance)
    with spending() as spent:
        path = denoising.run([0], steps)
    theirs = of_the_pipeline(demo_model, denoising, steps, guidance)
    assert (
        float(likeness(path.image, theirs)) > 0.999
    )  # the pipeline leaves the noise of the last timestep in
    assert spent.evaluations == steps * (2 if guidance > 1 else 1)
    assert len(path.latents) == len(path.timesteps) == steps


def test_a_sample_is_the_same_in_any_company(demo_model):
    denoising = Denoising(demo_model, CAPTION, 6, 2.0)
    together = denoising.run([4, 1, 5], 3).image
    alone = denoising.run([1], 3).image
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_neurons_off_are_those_of_a_pruned_model(demo_model):
    neurons = NeuronSet(
        {
            "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v": [1, 5],
            **findnemo.demo.planted()[CAPTION].layers,
        }
    )
    masked = (
        Denoising(demo_model, CAPTION, 2, 2.0).run([0, 1], 3, masks(demo_model, [neurons])).image
    )
    copy = findnemo.load("demo")
    pruned = (
        Denoising(findnemo.load(findnemo.prune(copy, neurons)), CAPTION, 2, 2.0)
        .run([0, 1], 3)
        .image
    )
    torch.testing.assert_close(masked, pruned, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_finite_differences(demo_model):
    denoising = Denoising(demo_model, CAPTION, 1, 2.0)
    path = denoising.run([0], 3)
    layer = next(iter(demo_model.value_layers))
    step = 1e-2
    target = path.image
    scales = {layer: torch.full((1, demo_model.widths()[layer]), 0.7)}

    def value(image, rows=slice(0, 1)):
        return likeness(image, target[rows]).diagonal()

    found = denoising.gradients(path.latents[0], path.timesteps[0], scales, value)[layer]
    for neuron in (0, 4, 9):
        ends = []
        for sign in (1, -1):
            moved = {layer: scales[layer].clone()}
            moved[layer][0, neuron] += sign * step
            with torch.no_grad():
                ends.append(
                    float(value(denoising.image(path.latents[0], path.timesteps[0], moved)))
                )
        assert float(found[neuron]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-3)


def test_memory_that_runs_out_halves_the_batch(demo_model, monkeypatch):
    denoising = Denoising(demo_model, CAPTION, 4, 2.0)
    whole = Denoising.image
    expected = denoising.run(range(4), 2).image

    def scarce(self, latents, *args):
        if len(latents) > 1:
            raise torch.OutOfMemoryError
        return whole(self, latents, *args)

    monkeypatch.setattr(Denoising, "image", scarce)
    torch.testing.assert_close(denoising.run(range(4), 2).image, expected, atol=1e-5, rtol=1e-5)


def test_likeness_by_hand():
    one = torch.tensor([[[[1.0, -1.0]], [[2.0, 0.0]]]])  # centred: (1, -1), (1, -1)
    other = torch.tensor([[[[3.0, 1.0]], [[0.0, 2.0]]]])  # centred: (1, -1), (-1, 1)
    assert float(likeness(one, one)) == pytest.approx(1)
    assert float(likeness(one, other)) == pytest.approx(0)


def test_nan_is_no_picture_without_a_copy(demo_model, monkeypatch):
    from findnemo.errors import NumericalError
    from findnemo.localization import localize, scan

    whole = Denoising.image

    def broken(self, latents, timestep, scales, *options):
        image = whole(self, latents, timestep, scales, *options)
        return image * float("nan") if scales else image

    monkeypatch.setattr(Denoising, "image", broken)
    with pytest.raises(NumericalError, match="Brantwood Roasters"):
        localize(demo_model, CAPTION, findnemo.demo.calibration())
    assert scan(demo_model, [CAPTION], findnemo.demo.image_settings()).left == {}


def of_diffusers(model, denoising, timesteps, guidance, rescaled):
    """x0_hat at the last of the timesteps by diffusers' DPM-Solver++ 2M, for all samples, with the
    guidance of predictions by hand.
    """
    config = {**model.pipeline.scheduler.config, "prediction_type": "sample"}
    solver = DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2, lower_order_final=False
    )
    solver.set_timesteps(timesteps=timesteps)
    latents = denoising.noise
    count = len(latents)
    texts = torch.cat([t.tokens.expand(count, -1, -1) for t in (denoising.empty, denoising.text)])
    for t in solver.timesteps:
        with torch.no_grad():
            v = model.denoiser(torch.cat([latents] * 2), t, encoder_hidden_states=texts).sample
        a = model.pipeline.scheduler.alphas_cumprod[t]
        without, given = (a.sqrt() * torch.cat([latents] * 2) - (1 - a).sqrt() * v).chunk(2)
        image = without + guidance * (given - without)
        if rescaled:
            image *= (given.flatten(1).std(1) / image.flatten(1).std(1)).view(-1, 1, 1, 1)
        latents = solver.step(image, t, latents).prev_sample
    return image


@pytest.mark.parametrize(("guidance", "rescaled"), [(2.0, False), (7.0, True)])
def test_quick_steps_are_those_of_dpm_solver_among_the_steps_of_the_whole(
    demo_model, guidance, rescaled
):
    steps = quick_steps(guidance)
    whole = demo_model.timesteps(15)
    denoising = Denoising(demo_model, CAPTION, 2, guidance, first=1000)
    assert torch.equal(denoising.noise, demo_model.noise(CAPTION, [1000, 1001]))
    path = denoising.run([0, 1], steps, whole=15)
    assert path.timesteps == tuple(whole[k * 15 // steps] for k in range(steps))
    assert path.timesteps[0] == whole[0]
    theirs = of_diffusers(demo_model, denoising, list(path.timesteps), guidance, rescaled)
    torch.testing.assert_close(path.image, theirs, atol=1e-3, rtol=1e-3)


def test_masks_a_sample_in_one_batch_give_what_separate_runs_give(demo_model):
    planted = findnemo.demo.planted()[CAPTION]
    denoising = Denoising(demo_model, CAPTION, 2, 2.0)
    sets = masks(demo_model, [NeuronSet(), planted])
    rows = {name: scale.repeat_interleave(2, 0) for name, scale in sets.items()}
    together = denoising.run([0, 1, 0, 1], 3, rows, whole=15).image
    on = denoising.run([0, 1], 3, whole=15).image
    off = denoising.run([0, 1], 3, masks(demo_model, [planted]), whole=15).image
    torch.testing.assert_close(together, torch.cat([on, off]), atol=1e-5, rtol=1e-5)
    assert float(likeness(on, off).max()) < 0.5
