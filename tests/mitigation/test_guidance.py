"""Delayed and opposite guidance, against the paper's formulas in a call written out by hand."""

import pytest
import torch
from _by_hand import as_noise, usual, written_out
from _mitigated import CASE, call, small_model
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from torch import Tensor

from findnemo.errors import FindnemoWarning, InputError
from findnemo.mitigation import delayed_guidance
from findnemo.models import Model


@pytest.fixture
def model() -> Model:
    return small_model()


def mitigated(model: Model, steps: int, images: int = 1, tau=500.0, opposite=0.0, **more) -> Tensor:
    with delayed_guidance(model, CASE, tau, opposite):
        return call(model, images=images, num_inference_steps=steps, **more)


@pytest.mark.first(2)
@pytest.mark.parametrize(("tau", "opposite"), [(500, 0.0), (650, 2.0)])
@pytest.mark.parametrize("steps", [4, 7])
def test_guidance_is_off_or_opposite_above_tau_whatever_the_number_of_steps(
    model, steps, tau, opposite
):
    seen = []

    def guide(step, t, without, given, x):
        seen.append(t > tau)
        if t > tau:
            return without - opposite * (given - without)
        return usual(step, t, without, given, x)

    expected = written_out(model.pipeline, steps, guide)
    assert any(seen)
    assert not all(seen)
    torch.testing.assert_close(
        mitigated(model, steps, tau=tau, opposite=opposite), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_every_sampler_waits_for_the_timestep(model, scheduler):
    model.pipeline.scheduler = scheduler.from_config(model.pipeline.scheduler.config)

    def guide(step, t, without, given, x):
        return without if t > 500 else usual(step, t, without, given, x)

    expected = written_out(model.pipeline, 4, guide)
    torch.testing.assert_close(mitigated(model, 4), expected, atol=1e-4, rtol=1e-4)


def test_tau_is_in_thousandths_of_the_training_schedule(model):
    model.pipeline.scheduler = DDIMScheduler(num_train_timesteps=500, clip_sample=False)

    def guide(step, t, without, given, x):
        return without if t > 250 else usual(step, t, without, given, x)

    expected = written_out(model.pipeline, 4, guide)
    torch.testing.assert_close(mitigated(model, 4), expected, atol=1e-4, rtol=1e-4)


def minimum(norms: list[float]) -> int | None:
    """The first place with larger ones on both sides."""
    inner = range(1, len(norms) - 1)
    return next((k for k in inner if norms[k - 1] > norms[k] < norms[k + 1]), None)


def swaying(module, args, kwargs):
    """A prompt that is heard now more, now less: random weights give no minimum by themselves."""
    swing = torch.cos(torch.as_tensor(args[1]).float() / 70) ** 2
    return args, kwargs | {"encoder_hidden_states": kwargs["encoder_hidden_states"] * swing}


@pytest.mark.first(1)
@pytest.mark.parametrize("opposite", [0.0, 2.0])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_dynamic_transition_is_the_first_minimum_of_each_image(prediction_type, opposite):
    """Found by hand step after step; the step that shows the minimum is the first with guidance."""
    model = small_model(prediction_type)
    model.denoiser.register_forward_pre_hook(swaying, with_kwargs=True)
    expected, switched = [], []
    for k in range(4):
        norms: list[float] = []

        def guide(step, t, without, given, x, norms=norms):
            d = as_noise(model.pipeline, given, x, t) - as_noise(model.pipeline, without, x, t)
            norms.append(float(d.norm()))
            if minimum(norms) is None:
                return without - opposite * (given - without)
            return usual(step, t, without, given, x)

        expected.append(written_out(model.pipeline, 12, guide, k=k))
        switched.append(minimum(norms))
    told: list[str] = []
    model.tell = told.append
    result = mitigated(model, 12, images=4, tau=None, opposite=opposite)
    torch.testing.assert_close(result, torch.cat(expected), atol=1e-4, rtol=1e-3)
    assert None not in switched
    assert not told


def test_a_minimum_decides_for_its_own_image_alone(model):
    """Norms made by hand: the first image has its minimum at the second step, the other none."""
    sizes = [(3.0, 5.0), (1.0, 4.0), (2.0, 3.0), (9.0, 2.0)]
    told: list[str] = []
    model.tell = told.append
    steps, seen = iter(sizes), []

    def predict(module, args, kwargs, output):
        halves = torch.zeros_like(output[0])
        for k, size in enumerate(next(steps)):
            halves[2 + k] = size
        return (halves,)

    with delayed_guidance(model, CASE, tau=None):
        handles = [
            model.denoiser.register_forward_hook(predict, with_kwargs=True, prepend=True),
            model.denoiser.register_forward_hook(
                lambda m, args, output: seen.append(output[0][:, 0, 0, 0].tolist())
            ),
        ]
        call(model, images=2, num_inference_steps=4)
    for handle in handles:
        handle.remove()
    assert seen == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 9, 0]]
    assert told == [
        "1 of 2 images reached no transition point: they were made without the prompt; use a"
        " static one (tau)"
    ]


def test_without_guidance_there_is_nothing_to_delay(model):
    plain = call(model)
    with delayed_guidance(model, CASE), pytest.raises(InputError, match="guidance_scale above 1"):
        call(model, guidance=1.0)
    assert torch.equal(call(model), plain)


@pytest.mark.parametrize(("tau", "words"), [(999, "none of the 4 .* always on"), (0, "all of")])
def test_a_schedule_on_one_side_of_tau_is_told_of(model, tau, words):
    with pytest.warns(FindnemoWarning, match=words):
        mitigated(model, 4, tau=tau)
