"""Denoising with masks: what the pipeline itself samples, gradients against finite differences,
and that nothing depends on company.
"""

import pytest
import torch

import findnemo
from findnemo.edits import masks
from findnemo.neurons import NeuronSet
from findnemo.passes import Denoising, likeness, spending

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

    def broken(self, latents, timestep, scales):
        image = whole(self, latents, timestep, scales)
        return image * float("nan") if scales else image

    monkeypatch.setattr(Denoising, "image", broken)
    with pytest.raises(NumericalError, match="Brantwood Roasters"):
        localize(demo_model, CAPTION, findnemo.demo.calibration())
    assert scan(demo_model, [CAPTION], findnemo.demo.image_settings()).left == {}
