"""What the searches ask of a model: similarities, their gradient, and what is given back
instead of computed again.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from _replication import PROMPT, model_with_text, some_sets

from findnemo import Model, NeuronSet
from findnemo.edits import masks
from findnemo.localization.replication import Replication
from findnemo.passes import Probe, spending
from findnemo.scores import ssim


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request) -> Model:
    return model_with_text(request.param)


@pytest.fixture
def replication(model) -> Replication:
    return Replication(Probe(model, PROMPT, reuse=True), tau=-1.0)


@cache
def plain(model: Model, neurons: NeuronSet) -> torch.Tensor:
    """Same-seed similarities computed the long way: every seed and set in passes of its own."""
    probe = Probe(model, PROMPT)
    rows = [ssim(probe.deltas(keep=[k]), probe.deltas(neurons, keep=[k])) for k in range(10)]
    return torch.cat(rows)


@pytest.mark.slow
def test_similarities_of_many_sets_in_one_batch_are_those_of_passes_of_their_own(
    model, replication
):
    sets = some_sets(model)
    found = replication.similarities(sets, range(10))
    for row, neurons in zip(found, sets, strict=True):
        torch.testing.assert_close(row, plain(model, neurons), atol=2e-5, rtol=0)


@pytest.mark.slow
def test_the_largest_similarity_and_the_verdict_agree_in_any_order_of_asking(model):
    sets = some_sets(model)
    largest = [float(plain(model, s).max()) for s in sets]
    for level in sorted(largest)[::3]:
        for turned in (sets, sets[::-1]):
            replication = Replication(Probe(model, PROMPT, reuse=True), tau=-1.0)
            for neurons in turned:
                value = largest[sets.index(neurons)]
                assert replication.confirm(neurons, level + 1e-3) == (value <= level + 1e-3)
                assert replication.similarity(neurons) == pytest.approx(value, abs=2e-5)


@pytest.mark.slow
def test_a_seed_that_the_witnesses_did_not_speak_for_becomes_one(model, replication):
    (first,) = replication.witnesses
    neurons, values = next(
        (s, v)
        for s in some_sets(model)
        if int((v := plain(model, s)).argmax()) != first and v.max() < 0.999
    )
    worst = int(values.argmax())
    level = (float(values[first]) + float(values[worst])) / 2
    assert replication.gone(neurons, level)
    assert not replication.confirm(neurons, level)
    old, new = replication.witnesses
    assert old == first
    assert values[new] > level
    assert not replication.gone(neurons, level)


def test_a_set_is_tried_on_the_witness_alone(model, replication):
    with spending() as spent:
        replication.gone(NeuronSet({next(iter(model.value_layers)): [0]}), level=0.5)
    assert spent.evaluations == 1


def test_nothing_is_measured_twice(model, replication):
    neurons = some_sets(model)[2]
    replication.confirm(neurons, level=2.0)
    with spending() as spent:
        assert replication.gone(neurons, level=2.0)
        assert replication.confirm(neurons, level=2.0)
        replication.similarity(neurons)
    assert spent.evaluations == 0


def test_a_set_that_a_known_seed_refutes_is_not_tried_again(model, replication):
    """Whatever joins the witnesses later: one seed that says no is enough."""
    neurons = some_sets(model)[0]
    (first,) = replication.witnesses
    level = float(plain(model, neurons)[first]) - 1e-3
    assert not replication.gone(neurons, level)
    replication.witnesses.append(next(k for k in range(10) if k != first))
    with spending() as spent:
        assert not replication.gone(neurons, level)
    assert spent.evaluations == 0


def test_a_set_of_several_that_fails_is_confirmed_no_further_than_where_it_fails(
    model, replication
):
    neurons = some_sets(model)[0]
    values = plain(model, neurons)
    level = float(values.min()) - 1e-3  # every seed says no
    with spending() as spent:
        assert not replication.confirm(neurons, level)
    assert spent.evaluations == 2


@pytest.mark.first(1)
def test_needed_are_those_whose_return_lifts_a_witness_over_the_level(model, replication):
    neurons = some_sets(model)[-2]
    replication.witnesses = [2, 7]
    without = {n: float(plain(model, neurons - NeuronSet.of([n]))[[2, 7]].max()) for n in neurons}
    for level in (value + d for value in without.values() for d in (-1e-4, 1e-4)):
        assert replication.needed_neurons(neurons, level) == [
            n for n in neurons if without[n] > level
        ]


def test_the_gradient_is_that_of_finite_differences(model, replication):
    level = 0.7
    seeds = [1, 4]
    step = 0.02
    gradient = replication.sensitivity(seeds, level)

    def similarity(changes: dict[str, torch.Tensor]) -> float:
        scales = {n: torch.full((1, w), level) for n, w in model.widths().items()}
        scales = {n: s + changes.get(n, 0) for n, s in scales.items()}
        with torch.no_grad():
            blocked = replication.probe.scaled_deltas(scales, seeds)
        return float(ssim(replication.unblocked[seeds], blocked).sum())

    generator = torch.Generator().manual_seed(3)
    for name, g in gradient.items():
        direction = torch.randn(1, len(g), generator=generator)
        slope = (similarity({name: step * direction}) - similarity({name: -step * direction})) / (
            2 * step
        )
        assert slope == pytest.approx(float(g @ direction[0]), abs=1e-3)


def test_a_gradient_leaves_the_weights_as_they_were(model, replication):
    flags = [p.requires_grad for p in model.denoiser.parameters()]
    replication.sensitivity([0], 0.9)
    assert [p.requires_grad for p in model.denoiser.parameters()] == flags
    assert all(p.grad is None for p in model.denoiser.parameters())


def test_a_gradient_whose_graphs_do_not_fit_together_takes_fewer_seeds(model, monkeypatch):
    """The device holds one latent's graph: a second forward before the first
    backward is out of memory.
    """
    wanted = Replication(Probe(model, PROMPT, reuse=True), tau=-1.0).sensitivity([0, 1, 2], 0.5)
    predict = type(model).predict_noise
    held = [0]
    grad = torch.autograd.grad

    def forward(self, latents, timestep, text):
        if torch.is_grad_enabled():
            if held[0] + len(latents) > 1:
                held[0] = 0  # what a failed pass held is given back
                raise torch.OutOfMemoryError("CUDA out of memory")
            held[0] += len(latents)
        return predict(self, latents, timestep, text)

    def backward(*arguments, **options):
        held[0] = 0
        return grad(*arguments, **options)

    monkeypatch.setattr(type(model), "predict_noise", forward)
    monkeypatch.setattr(torch.autograd, "grad", backward)
    found = Replication(Probe(model, PROMPT, reuse=True), tau=-1.0).sensitivity([0, 1, 2], 0.5)
    for name, g in found.items():
        torch.testing.assert_close(g, wanted[name], atol=1e-5, rtol=1e-4)


def test_masks_are_one_row_a_set(model):
    layers = list(model.value_layers)
    scales = masks(
        model, [NeuronSet({layers[0]: [1]}), NeuronSet(), NeuronSet({layers[2]: [0, 3]})]
    )
    assert list(scales) == [layers[0], layers[2]]
    assert [int((row == 0).sum()) for row in scales[layers[0]]] == [1, 0, 0]
    assert torch.nonzero(scales[layers[2]] == 0).tolist() == [[2, 0], [2, 3]]


@pytest.mark.first(1)
@pytest.mark.parametrize("layer", [0, 4])
def test_a_first_guess_comes_with_the_first_pass_and_changes_nothing_else(model, layer):
    guess = NeuronSet({list(model.value_layers)[layer]: [1, 5]})
    with spending() as usual:
        plain_ = Replication(Probe(model, PROMPT, reuse=True), -1.0)
    with spending() as more:
        guessed = Replication(Probe(model, PROMPT, reuse=True), -1.0, guess)
    assert more.evaluations == usual.evaluations + 1
    torch.testing.assert_close(guessed.unblocked, plain_.unblocked, atol=2e-5, rtol=0)
    assert guessed.witnesses == [0]
    value = float(plain_.similarities([guess], [0]))
    with spending() as spent:
        assert guessed.gone(guess, value + 1e-4)
        assert not guessed.gone(guess, value - 1e-4)
    assert spent.evaluations == 0  # known from the first pass
    for neurons in some_sets(model):  # what is reused was never edited
        assert guessed.similarity(neurons) == pytest.approx(plain_.similarity(neurons), abs=2e-5)


def test_a_guess_on_a_seed_that_does_not_replicate_is_forgotten(model):
    deltas = Probe(model, PROMPT).deltas()
    best = torch.stack(
        [
            torch.stack([ssim(a[None], b[None])[0] for j, b in enumerate(deltas) if j != i]).max()
            for i, a in enumerate(deltas)
        ]
    )
    tau = float(best[0]) + 1e-4
    (witness,) = Replication(Probe(model, PROMPT), tau).witnesses
    sets = some_sets(model)
    alike = Replication(Probe(model, PROMPT), -1.0).similarities(sets, [0, witness])
    guess = int((alike[:, 0] - alike[:, 1]).argmax())  # like itself on seed 0, not on the witness
    first, kept = alike[guess].tolist()
    assert first > kept + 1e-4
    found = Replication(Probe(model, PROMPT), tau, sets[guess])
    assert 0 not in found.kept
    assert 0 not in found.witnesses
    assert found.gone(sets[guess], (first + kept) / 2)
