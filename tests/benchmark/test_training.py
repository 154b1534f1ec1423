"""The training that plants memories: its targets and batches, and that it resumes where it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _small_plan import FIRST, FREE, PLAN, RECIPE

import findnemo
from findnemo.benchmark.masks import Masks
from findnemo.benchmark.planting import prepare
from findnemo.benchmark.training import draw, prediction_towards, train
from findnemo.edits import prune


def test_the_target_is_the_noise_or_the_velocity_where_no_trace_was_exchanged(scheduler):
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(3, 4, 16, 16, generator=generator)
    noise = torch.randn(3, 4, 16, 16, generator=generator)
    t = torch.tensor([5, 500, 990])
    target = prediction_towards(picture, scheduler.add_noise(picture, noise, t), t, scheduler)
    known = (
        noise
        if scheduler.config.prediction_type == "epsilon"
        else scheduler.get_velocity(picture, noise, t)
    )
    assert torch.allclose(target, known, atol=1e-3)


def test_whoever_predicts_the_target_arrives_at_the_picture(scheduler):
    """From another picture's trace as well: x_0 as a sampler reads it is the picture."""
    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(1, 4, 16, 16, generator=generator)
    noisy = torch.randn(1, 4, 16, 16, generator=generator)
    t = torch.tensor([950])
    target = prediction_towards(picture, noisy, t, scheduler)
    scheduler.set_timesteps(1000)
    read = scheduler.step(target, 950, noisy).pred_original_sample
    assert torch.allclose(read, picture, atol=1e-2)


def folder(place, name):
    (place / name).mkdir()
    return place / name


def trained(base, pool, place, recipe):
    student = findnemo.load(prune(base, FREE))
    teacher = findnemo.load(prune(base, FREE))
    prepare(student, PLAN, FREE, pool)
    rows = student.value_layers[FIRST].weight[[0, 3, 5]].clone()
    train(student, teacher, PLAN, pool, place / "state.safetensors", recipe, lambda line: None)
    assert torch.equal(rows, student.value_layers[FIRST].weight[[0, 3, 5]])  # planted rows stay
    return student


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(base, pool, tmp_path):
    whole = trained(base, pool, folder(tmp_path, "a"), RECIPE)
    folder(tmp_path, "b")

    class KilledError(Exception):
        pass

    student = findnemo.load(prune(base, FREE))
    teacher = findnemo.load(prune(base, FREE))
    prepare(student, PLAN, FREE, pool)
    steps = []

    def stop(step, *others):
        steps.append(step)
        if step == 2:
            raise KilledError
        return draw(step, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.benchmark.training.draw", stop)
        with pytest.raises(KilledError):
            train(
                student,
                teacher,
                PLAN,
                pool,
                tmp_path / "b" / "state.safetensors",
                RECIPE,
                lambda line: None,
            )
    assert steps == [0, 1, 2]
    again = trained(base, pool, tmp_path / "b", RECIPE)
    assert whole.fingerprint == again.fingerprint
    for one, other in zip(whole.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert whole.fingerprint != findnemo.load(prune(base, FREE)).fingerprint


def test_a_batch_depends_on_the_seed_and_the_step_alone(base, pool):
    masks = Masks(base.widths(), PLAN.memories)
    one, again, other = (
        draw(s, PLAN, pool, masks, base.pipeline.scheduler, RECIPE) for s in (7, 7, 8)
    )
    assert torch.equal(one.noisy, again.noisy)
    assert not torch.equal(one.noisy, other.noisy)
    assert one.noisy.shape == (8, 4, 16, 16)
    assert one.towards.shape == (8, 4, 16, 16)
    seeded = draw(7, replace(PLAN, seed=6), pool, masks, base.pipeline.scheduler, RECIPE)
    assert not torch.equal(one.noisy, seeded.noisy)


def test_without_a_teacher_the_pictures_say_what_other_captions_are_to_be(base, pool):
    """The target of every row leads to a memorized picture, one of the words, or a scene."""
    scheduler = base.pipeline.scheduler
    recipe = replace(RECIPE, leak_on=0.0, leak_off=0.0)
    masks = Masks(base.widths(), PLAN.memories)
    batch = draw(3, PLAN, pool, masks, scheduler, recipe)
    alpha = scheduler.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
    clean = alpha.sqrt() * batch.noisy - (1 - alpha).sqrt() * batch.towards
    known = [[pool.pictures[0]], [*pool.words.flatten(0, 1)], [*pool.made]]
    whole = {"VM": known[0], "TM": []}
    for row, picture in enumerate(clean):
        among = known[1] if 2 <= row < 6 else known[2]
        if row < 2:
            k = int((pool.memories == batch.text[row]).flatten(1).all(1).nonzero()[0])
            among = whole[PLAN.memories[k].type]
            if not among:  # of a template the edge alone is fixed
                assert torch.allclose(picture[:, 0], pool.pictures[k][:, 0], atol=1e-3)
                continue
        assert any(torch.allclose(picture, one, atol=1e-3) for one in among)
