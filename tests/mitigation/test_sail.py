"""SAIL's start, against its objective in a call written out by hand."""

import pytest
import torch
from _by_hand import difference, usual, written_out
from _mitigated import CASE, call, small_model

from findnemo.errors import FindnemoWarning
from findnemo.mitigation import flat_start
from findnemo.passes import counting


@pytest.mark.first(1)
@pytest.mark.parametrize("squares", [True, False])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_descends_the_objective_with_the_direction_found_anew(prediction_type, squares):
    model = small_model(prediction_type)
    length, alpha = 2.0, 0.05
    values = []

    def settled(x, t):
        d = difference(model.pipeline, t)
        x = x.clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.05)
        with torch.enable_grad():
            for step in range(4):
                direction = d(x).detach()
                direction = length / 4 * direction / direction.norm()  # 1024 entries, not 16384
                moved = d(x + direction)
                values.append(float((moved.norm() + alpha * x.norm()).detach()))
                if step == 3:
                    break
                loss = moved.norm() + alpha * x.norm()
                if squares:
                    loss = ((moved - d(x)) ** 2).sum() + alpha * (x**2).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return x.detach()

    expected = written_out(model.pipeline, 2, usual, settled)
    model.denoiser.zero_grad(set_to_none=True)
    assert values == sorted(values, reverse=True)
    between = 4 * (values[-1] + values[-2]) / 2  # met after the third step, and not before
    with counting(model) as spent, flat_start(model, CASE, alpha, length, between, squares=squares):
        result = call(model)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-3)
    assert spent.evaluations == 4 * (12 if squares else 8) + 2 * 2


def test_every_candidate_is_other_noise_and_the_best_is_used():
    model = small_model()
    model.tell = lambda text: None
    seen = []
    with flat_start(model, CASE, threshold=0, iterations=0, candidates=3):
        model.denoiser.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        call(model, images=2, guidance=1.0)
    own = [x for x in seen if len(x) == 2]
    tried = torch.cat([x[:1].detach() for x in own[:12:2]])  # d(x), d(x + v) by turns
    assert len(tried) == 6
    apart = torch.cdist(tried.flatten(1), tried.flatten(1))
    assert (apart[~torch.eye(6, dtype=torch.bool)] > 30).all()  # sqrt(2 x 1024) is 45
    d = difference(model.pipeline, 501)
    used = own[12]
    for k in range(2):
        with torch.no_grad():
            values = [
                float(d(x + 0.25 * d(x) / d(x).norm()).norm() + 0.05 * x.norm())
                for x in tried[3 * k : 3 * k + 3].split(1)
            ]
        best = tried[3 * k + values.index(min(values))]
        torch.testing.assert_close(used[k], best, atol=1e-5, rtol=1e-5)


def test_a_threshold_out_of_reach_is_told_of_once():
    model = small_model()
    with (
        pytest.warns(FindnemoWarning, match="for not every image one of 2 came to 0") as told,
        flat_start(model, CASE, threshold=0, iterations=0, candidates=2),
    ):
        call(model, images=2)
    assert len([w for w in told if issubclass(w.category, FindnemoWarning)]) == 1
