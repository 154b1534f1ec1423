"""Adjusted initial noise, against the paper's listings in a call written out by hand."""

import pytest
import torch
from _by_hand import difference, drawn, usual, written_out
from _mitigated import CASE, PROMPT, call, small_model
from diffusers import EulerDiscreteScheduler

from findnemo.mitigation import adjusted_noise, flattened_noise
from findnemo.mitigation.noise import flattened
from findnemo.passes import counting

KINDS = pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
SAMPLERS = pytest.mark.parametrize("euler", [False, True], ids=["ddim", "euler"])


def model_of(prediction_type, euler=False):
    model = small_model(prediction_type)
    if euler:
        config = model.pipeline.scheduler.config
        model.pipeline.scheduler = EulerDiscreteScheduler.from_config(config)
    return model


@pytest.mark.first(2)
@KINDS
@SAMPLERS
def test_each_image_starts_where_adamw_has_brought_its_noise_under_the_target(
    prediction_type, euler
):
    """As the listing of appendix A: until the norm is under the target; 4 x 16 x 16 latents have a
    quarter of a published norm.
    """
    model = model_of(prediction_type, euler)
    target, norms = [], []

    def adjusted(x, t):
        d = difference(model.pipeline, t)
        x = x.clone().requires_grad_()
        target.append(0.97 * float(d(x).norm().detach()))
        optimizer = torch.optim.AdamW([x], lr=0.01)
        with torch.enable_grad():
            while (loss := d(x).norm()) > target[0]:
                norms.append(float(loss.detach()))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return x.detach()

    expected = written_out(model.pipeline, 2, usual, adjusted)
    assert len(norms) > 1
    model.denoiser.zero_grad(set_to_none=True)
    with counting(model) as spent, adjusted_noise(model, CASE, target=4 * target[0]):
        result = call(model)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-3)
    assert spent.evaluations == 6 * (len(norms) + 1) + 2 * 2


def test_noise_that_misses_the_target_is_the_best_that_was_seen_and_is_told_of():
    model = model_of("epsilon")
    start = drawn()
    d = difference(model.pipeline, 501)
    with torch.no_grad():
        before = float(d(start).norm())
    seen = []
    told = []
    model.tell = told.append
    with adjusted_noise(model, CASE, target=0, rate=0.5, iterations=4):
        model.denoiser.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        call(model, guidance=1.0)
    assert ["not every image reached" in text for text in told] == [True]
    tried = [x[:1] for x in seen if len(x) == 2]
    with torch.no_grad():
        norms = [float(d(x).norm()) for x in tried]
    assert len(norms) == 5
    assert norms[0] == pytest.approx(before, rel=1e-4)
    used = next(x for x in seen if len(x) == 1)
    torch.testing.assert_close(used, tried[norms.index(min(norms))], atol=1e-5, rtol=1e-5)


def test_noise_under_the_target_is_left_alone():
    model = model_of("epsilon")
    expected = call(model, images=2)
    with adjusted_noise(model, CASE, target=1e6):
        torch.testing.assert_close(call(model, images=2), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.first(1)
@KINDS
@SAMPLERS
def test_batch_wise_is_algorithm_1_with_the_norm_of_each_image(prediction_type, euler):
    model = model_of(prediction_type, euler)
    gamma, rho, rounds, tau = 0.7, 50.0, 2, 700.0

    def adjusted(x, t):
        d = difference(model.pipeline, t)
        for _ in range(rounds):
            delta = rho / 4 * d(x) / d(x).norm()  # 1024 entries instead of 16384
            x = x - gamma * (d(x + delta) - d(x))
        return x

    def guide(step, t, without, given, x):
        return without if t > tau else usual(step, t, without, given, x)

    expected = [written_out(model.pipeline, 4, guide, adjusted, k) for k in range(2)]
    with counting(model) as spent, flattened_noise(model, CASE, gamma, rho, rounds, tau):
        result = call(model, images=2, num_inference_steps=4)
    torch.testing.assert_close(result, torch.cat(expected), atol=1e-4, rtol=1e-3)
    assert spent.evaluations == 2 * rounds * 4 + 2 * 2 * 4
    assert (result - call(model, PROMPT, 2, num_inference_steps=4)).abs().max() > 1e-2


def test_noise_is_adjusted_under_inference_mode_too():
    model = model_of("epsilon")
    with torch.inference_mode(), adjusted_noise(model, CASE, target=0.1, iterations=1):
        model.tell = lambda text: None
        assert torch.isfinite(call(model)).all()


def test_noise_at_which_the_prompt_says_nothing_stays():
    noise = torch.randn(1, 1, 2, 2)
    assert torch.equal(flattened(lambda x: 0 * x, noise), noise)
