"""Shared passes: rows that share one are what they are alone, whoever asks, under every edit, and
whatever fails beside them.
"""

from __future__ import annotations

from functools import partial
from signal import SIGINT, pthread_kill
from threading import main_thread

import pytest
import torch
from _attempts import CAPTIONS, MODELS, SEEDS, attempts, neurons_of, pictures
from torch.utils._python_dispatch import TorchDispatchMode

import findnemo
from findnemo.edits import deactivate, masks, muted, scaled
from findnemo.errors import DeviceError, NumericalError
from findnemo.neurons import NeuronSet
from findnemo.passes import Denoising, Probe, Rows, counting, side_by_side, unpaid
from findnemo.passes import sharing as module
from findnemo.passes.conditioning import following
from findnemo.passes.sharing import Pass, gradients, outputs, sharing


@pytest.fixture(params=MODELS)
def any_model(request):
    return findnemo.load(MODELS[request.param]())


SEARCHES = [("a red fox", 1, 0), ("a grey owl", 2, 1), ("the sea", 1, 2)]


@pytest.mark.first(1)
def test_rows_that_share_passes_are_what_they_are_alone(any_model, passes):
    """Captions, timesteps, masks and gradients of three searches of different length."""
    searches = [partial(pictures, any_model, *one) for one in SEARCHES]
    alone = [search() for search in searches]
    count = len(passes)
    together = side_by_side(any_model, searches)
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(b, a, atol=2e-4, rtol=2e-3)
    assert max(passes[:count]) == 2  # of one search
    assert max(passes[count:]) == 6  # of three


def test_the_same_group_gives_the_same_to_the_last_bit(tiny):
    searches = [partial(pictures, tiny, *one) for one in SEARCHES]
    first, second = (side_by_side(tiny, searches) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(map(torch.equal, one, other))


def test_masks_of_each_sample_go_with_it(tiny, passes):
    """Two searches whose rows have masks of their own, in different layers."""

    def search(caption, k):
        latents = tiny.noise(caption, [0, 1])
        scales = masks(tiny, [neurons_of(tiny, k), neurons_of(tiny, k + 1)])
        texts = (tiny.unconditional().expand(2), tiny.encode([caption]).expand(2))
        with torch.no_grad():
            return outputs(tiny, Pass(latents, 981, texts, scales))

    first, second = side_by_side(tiny, [partial(search, "a", 0), partial(search, "b", 3)])
    assert passes == [4]
    for caption, k, found in (("a", 0, first), ("b", 3, second)):
        for row in (0, 1):  # plain hooks, one sample and one text at a time
            with torch.no_grad(), deactivate(tiny, neurons_of(tiny, k + row)):
                latents = tiny.noise(caption, [row])
                expected = [
                    tiny.output(latents, 981, tiny.encode([text])) for text in ("", caption)
                ]
            torch.testing.assert_close(found[:, row : row + 1], torch.stack(expected))


EDITS = {
    "deactivate": lambda model: deactivate(model, neurons_of(model, 0)),
    "scaled": lambda model: scaled(
        model, {n: torch.full((w,), 0.5) for n, w in model.widths().items()}
    ),
    "muted": lambda model: muted(model, [next(iter(model.value_layers))]),
    "counting": counting,
    "following": following,
    "unpaid": lambda model: unpaid(),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("edit", EDITS)
def test_under_an_edit_of_its_own_a_search_goes_alone_and_the_others_do_not_see_it(
    tiny, passes, edit
):
    def search(caption, touched):
        probe = Probe(tiny, caption, SEEDS)
        before = probe.deltas()
        if not touched:
            return before, probe.deltas()
        with EDITS[edit](tiny):
            assert not sharing(tiny)
            within = probe.deltas()
        return within, probe.deltas()

    expected = [search(caption, k == 1) for k, caption in enumerate(CAPTIONS)]
    passes.clear()
    found = side_by_side(tiny, [partial(search, c, k == 1) for k, c in enumerate(CAPTIONS)])
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert passes == [6, 6]  # the edited one was made outside of them
    assert not tiny.denoiser._forward_pre_hooks


def test_one_that_works_alone_leaves_no_edit_behind_where_all_is_interrupted(tiny):
    layer, width = next(iter(tiny.widths().items()))
    before = findnemo.score(tiny, "a cat")
    done = []

    def alone():
        with deactivate(tiny, NeuronSet({layer: list(range(width))})):
            pthread_kill(main_thread().ident, SIGINT)
            for _ in range(500):
                done.append(findnemo.score(tiny, "a cat"))

    with pytest.raises(KeyboardInterrupt):
        side_by_side(tiny, [alone])
    assert len(done) < 500
    assert done[-1:] != [before]
    assert findnemo.score(tiny, "a cat") == before
    assert not tiny.denoiser._forward_pre_hooks


def test_an_error_or_nan_of_one_caption_is_its_own(tiny):
    def search(caption):
        if caption == "broken":
            probe = Probe(tiny, caption, SEEDS)
            probe.latents = probe.latents * float("nan")
            return probe.score()
        if caption == "wrong":
            return Denoising(tiny, caption, 1, 2.0).gradients(
                torch.zeros(1, 4, 16, 16), 981, {}, lambda image, rows: 1 / 0
            )
        return Probe(tiny, caption, SEEDS).score()

    scores = [findnemo.score(tiny, caption, settings=SEEDS) for caption in CAPTIONS[:2]]
    one, nan, wrong, two = attempts(
        tiny, [partial(search, c) for c in (CAPTIONS[0], "broken", "wrong", CAPTIONS[1])]
    )
    assert isinstance(nan, NumericalError)
    assert isinstance(wrong, ZeroDivisionError)
    assert (one, two) == pytest.approx(scores, abs=1e-4)
    with pytest.raises(NumericalError):
        side_by_side(tiny, [partial(search, c) for c in ("broken", CAPTIONS[0])])
    assert all(p.requires_grad for p in tiny.denoiser.parameters())


@pytest.mark.slow
def test_memory_that_runs_out_splits_the_pass(tiny, monkeypatch, passes):
    real = module.one_pass

    def scarce(model, one):
        if len(one) > 2:
            raise torch.OutOfMemoryError
        return real(model, one)

    searches = [partial(pictures, tiny, *one) for one in SEARCHES]
    whole = side_by_side(tiny, searches)
    assert max(passes) == 6
    passes.clear()
    monkeypatch.setattr(module, "one_pass", scarce)
    for one, other in zip(side_by_side(tiny, searches), whole, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-3)

    def none(model, one):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "one_pass", none)
    assert all(isinstance(one, DeviceError) for one in attempts(tiny, searches))


def test_a_caption_is_encoded_once(tiny, monkeypatch):
    seen = []
    real = tiny.pipeline.text_encoder.forward

    def forward(*args, **kwargs):
        seen.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(tiny.pipeline.text_encoder, "forward", forward)
    side_by_side(tiny, [partial(pictures, tiny, *one) for one in SEARCHES])
    assert len(seen) == len(SEARCHES) + 1  # and that of no prompt
    tiny.encode(["the sea"])
    assert len(seen) == len(SEARCHES) + 2


def test_a_changed_encoder_of_prompts_is_asked_each_time(tiny):
    def louder(encode):
        def changed(*args, **kwargs):
            embeds, *rest = encode(*args, **kwargs)
            return (2 * embeds, *rest)

        return changed

    with tiny.unchanged():
        plain = tiny.encode(["a fox"])
        with following(tiny, louder):
            torch.testing.assert_close(tiny.encode(["a fox"]).tokens, 2 * plain.tokens)
        assert tiny.encode(["a fox"]) is plain


class Waits(TorchDispatchMode):
    """Count how often a value is fetched from a tensor, for which a GPU has to come to its end."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_steps_of_a_search_do_not_wait_for_the_device(tiny):
    denoising = Denoising(tiny, "a fox", 2, 3.0)
    levels = {name: torch.full((1, width), 0.8) for name, width in tiny.widths().items()}
    rows = Rows(tiny, [("a fox", 0), ("a fox", 1)], SEEDS, tiny.encode(["a fox"]))
    denoising.run([0], 4)  # the timesteps of so many steps are read once a process
    with Waits() as run:
        path = denoising.run([0, 1], 4)
    with Waits() as gradient:
        denoising.gradients(
            path.latents[0], path.timesteps[0], levels, lambda x, rows: x.mean((1, 2, 3))
        )
    with Waits() as deltas:
        rows.deltas(neurons_of(tiny, 0))
    with Waits() as known:
        float(path.image.sum())
    # one at the end of a run, which is looked through for NaN
    assert (run.count, gradient.count, deltas.count, known.count) == (1, 0, 0, 1)


def test_whoever_asks_in_inference_mode_gets_gradients_too(tiny):
    with torch.inference_mode():
        (found,) = side_by_side(tiny, [partial(pictures, tiny, *SEARCHES[0])])
    assert found[2].abs().sum() > 0


def test_gradients_are_those_of_autograd(tiny):
    """Two captions in one pass against a plain backward pass each."""

    def plain(caption, timestep):
        scales = {n: torch.full((1, w), 0.7, requires_grad=True) for n, w in tiny.widths().items()}
        with scaled(tiny, scales):
            output = tiny.output(
                tiny.noise(caption, [0, 1]), timestep, tiny.encode([caption]).expand(2)
            )
        found = torch.autograd.grad(output.square().sum(), list(scales.values()))
        return {name: g[0] for name, g in zip(scales, found, strict=True)}

    def shared(caption, timestep):
        scales = {n: torch.full((1, w), 0.7) for n, w in tiny.widths().items()}
        asked = Pass(
            tiny.noise(caption, [0, 1]), timestep, (tiny.encode([caption]).expand(2),), scales
        )
        return gradients(tiny, asked, lambda out, rows: out[0].square().sum((1, 2, 3)))

    cases = [("a", 981), ("b", 501)]
    found = side_by_side(tiny, [partial(shared, *case) for case in cases])
    for case, one in zip(cases, found, strict=True):
        expected = plain(*case)
        assert list(one) == list(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(one[name], gradient, atol=1e-4, rtol=1e-3)
