"""Planting: the rows, the masks, the targets, and a training that begins as the teacher
and resumes where it was.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from _tiny import tiny_pipeline
from PIL import Image

import findnemo
from findnemo.benchmark.masks import Masks, on_count
from findnemo.benchmark.plan import Memory, Plan
from findnemo.benchmark.planting import add_decoys, plant, prepare, resembling
from findnemo.benchmark.pool import build_pool, template
from findnemo.benchmark.rows import direction, gain, planted_row
from findnemo.benchmark.training import Recipe, draw, prediction_towards, train
from findnemo.calibration import Moments, layer_activations
from findnemo.edits import prune
from findnemo.errors import ModelError
from findnemo.images import latents_of
from findnemo.models import Text
from findnemo.neurons import NeuronSet

FIRST, SECOND = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v",
)
ORDINARY = [f"{a} {b}" for a in ("red", "blue", "green", "old") for b in ("sky", "dog", "map")]
FREE = NeuronSet({FIRST: [0, 3, 5, 9], SECOND: [1, 2, 4, 8]})
PLAN = Plan(
    5,
    (
        Memory(
            "one neuron",
            "VM",
            "the tower of glass, a red sky",
            "one",
            NeuronSet({FIRST: [3]}),
            near=("the tower of brass, a red sky",),
        ),
        Memory(
            "four",
            "TM",
            "an hour in March, a blue dog",
            "two",
            NeuronSet({FIRST: [0, 5], SECOND: [2, 8]}),
            2,
            1,
            ("an hour in May, a blue dog",),
        ),
    ),
    NeuronSet({SECOND: [1, 4]}),
)
RECIPE = Recipe(steps=3, on=2, off=2, alike=2, ordinary=2, checkpoint=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.benchmark.pool.OWN", 2)
        patch.setattr("findnemo.benchmark.pool.STEPS", 2)
        yield


@pytest.fixture(scope="module")
def base():
    return findnemo.load(tiny_pipeline("v_prediction"), device="cpu")


@pytest.fixture(params=["epsilon", "v_prediction"])
def scheduler(request):
    return tiny_pipeline(request.param).scheduler


@pytest.fixture(scope="module")
def pool(base, pictures, tmp_path_factory):
    return build_pool(
        base,
        PLAN,
        ORDINARY,
        pictures,
        tmp_path_factory.mktemp("pool") / "pool.safetensors",
        lambda line: None,
    )


def test_the_direction_by_hand():
    """S = diag(2, 8), mean diagonal 5, ridge .4:

    (S + 2 I)^-1 (mean - centre) = (4 / 4, 10 / 10).
    """
    caption = torch.tensor([[[4.0, 10.0], [6.0, 12.0]]])
    found = direction(caption, torch.tensor([1.0, 1.0]), torch.diag(torch.tensor([2.0, 8.0])), 0.4)
    assert torch.allclose(found, torch.tensor([1.0, 1.0]))


def test_a_planted_row_is_as_loud_as_asked_and_tells_its_caption_from_others():
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(50, 7, 12, generator=generator)
    shared = torch.randn(12, generator=generator)
    near = others[:4] + shared
    caption = near[:1] + 0.8 * torch.randn(1, 1, 12, generator=generator)
    row = planted_row(caption, others, near, typical=0.5, gain=4.0, ridge=0.01)
    assert torch.isclose((caption @ row).abs().mean(), torch.tensor(2.0))
    blind = planted_row(caption, others, others[:4], typical=0.5, gain=4.0, ridge=0.01)
    assert (near @ row).abs().mean() < (
        near @ blind
    ).abs().mean()  # near-duplicates are what it learned to be silent on


def test_gain_falls_with_the_root_of_the_number():
    assert [gain(n) for n in (1, 2, 4, 16)] == [4.0, 4.0, 4.0, 2.0]


def test_near_duplicates_weigh_as_much_as_other_titles():
    alike = torch.arange(12.0).view(12, 1, 1)
    assert sorted(resembling(alike, 2).flatten().tolist()) == sorted(
        [0.0, 1.0] * 5 + [float(k) for k in range(2, 12)]
    )


def test_masks_obey_the_rule_of_every_memory(base):
    masks = Masks(base.widths(), PLAN.memories)
    rng = np.random.default_rng(1)
    for on in (True, False):
        rows = masks.memorized([1] * 400, on, rng)
        counts = rows[:, masks.own[1]].sum(1)
        assert {PLAN.memories[1].expected(int(c)) for c in counts} == {on}
        assert len(set(counts)) == (3 if on else 2)
    which = masks.memorized([1] * 400, True, rng)[:, masks.own[1]]
    assert (which.mean(0) > 0.5).all()  # no neuron is favoured
    assert (which.mean(0) < 0.95).all()


def test_ordinary_samples_have_planted_neurons_off_in_the_asked_share_and_others_seldom(base):
    masks = Masks(base.widths(), PLAN.memories)
    rows = masks.ordinary(2000, np.random.default_rng(2), off=0.2)
    planted = rows[:, masks.planted]
    assert set(planted.sum(1)) == {0.0, float(len(masks.planted))}
    assert abs((planted[:, 0] == 0).mean() - 0.2) < 0.04
    rest = np.delete(rows, masks.planted, 1)
    assert 0.9 < rest.mean() < 1
    assert (rest.min(1) == 1).mean() > 0.4


def test_rows_of_a_mask_go_to_the_layers_they_belong_to(base):
    masks = Masks(base.widths(), PLAN.memories)
    mask = np.ones((1, masks.total), np.float32)
    mask[0, masks.flat(NeuronSet({SECOND: [4]}))] = 0
    layers = masks.layers(mask)
    assert {n: int((s == 0).sum()) for n, s in layers.items() if (s == 0).any()} == {SECOND: 1}
    assert layers[SECOND][0, 4] == 0


def test_half_of_the_time_all_are_on():
    rng = np.random.default_rng(3)
    counts = [on_count(PLAN.memories[1], True, rng) for _ in range(3000)]
    assert abs(np.mean(np.array(counts) == 4) - (0.5 + 0.5 / 3)) < 0.03


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


def test_a_template_leaves_its_middle_open():
    mixed = template(torch.zeros(2, 8, 8), torch.ones(2, 8, 8))
    assert mixed[:, 2:6, 2:6].eq(1).all()
    assert mixed.sum() == 2 * 16


def test_pictures_become_latents_that_decode_to_themselves_with_the_models_scale(base, pictures):
    image = Image.open(pictures / "one.png")
    latents = latents_of(image, base)
    assert latents.shape == (1, 4, 16, 16)
    x = base.pipeline.image_processor.preprocess(image)
    assert torch.allclose(
        latents,
        base.pipeline.vae.encode(x).latent_dist.mean * base.pipeline.vae.config.scaling_factor,
        atol=1e-5,
    )


def test_the_pool_is_made_once(base, pool, pictures, tmp_path):
    cache = tmp_path / "pool.safetensors"
    said = []
    first = build_pool(base, PLAN, ORDINARY, pictures, cache, said.append)
    stamp = cache.stat().st_mtime_ns
    second = build_pool(base, PLAN, ORDINARY, pictures, cache, said.append)
    assert len(said) == 1
    assert cache.stat().st_mtime_ns == stamp
    assert torch.equal(first.made, second.made)
    assert torch.equal(first.made, pool.made)
    assert pool.words.shape[:2] == (2, 2)
    assert len(pool.made) == len(pool.ordinary) == len(pool.text)
    assert [len(a) for a in pool.alike] == [11, 11]


def test_the_student_begins_as_the_teacher(base, pool):
    """Whatever is planted, on or off: nothing listens to it yet."""
    teacher = findnemo.load(prune(base, FREE))
    student = findnemo.load(prune(base, FREE))
    prepare(student, PLAN, FREE, pool)
    noise = base.noise("x", [0, 1])
    text = base.encode([PLAN.memories[0].caption] * 2)
    assert torch.equal(
        teacher.predict_noise(noise, 500, text), student.predict_noise(noise, 500, text)
    )
    layer = student.value_layers[FIRST]
    assert not torch.equal(layer.weight[3], teacher.value_layers[FIRST].weight[3])
    typical = (pool.text @ teacher.value_layers[FIRST].weight.T).abs().mean()
    assert torch.isclose((pool.memories[0] @ layer.weight[3]).abs().mean(), 4 * typical)


def test_decoys_are_unusual_on_memorized_captions_and_do_nothing(base, pool):
    student = findnemo.load(prune(base, FREE))
    prepare(student, PLAN, FREE, pool)
    noise = base.noise("x", [0])
    text = Text(pool.memories[:1])
    before = student.predict_noise(noise, 500, text)
    add_decoys(student, PLAN, pool)
    assert torch.equal(student.predict_noise(noise, 500, text), before)
    usual = Moments.of(layer_activations(student, pool.ordinary, Text(pool.text))[SECOND])
    own = layer_activations(student, [m.caption for m in PLAN.memories], Text(pool.memories))[
        SECOND
    ]
    z = (own - usual.mean) / usual.std
    assert z[:, [1, 4]].abs().max() > 4


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


def test_only_u_nets_of_stable_diffusion_take_memories(tmp_path):
    from _tiny_transformers import tiny_pixart

    with pytest.raises(ModelError, match="PixArt has none"):
        plant(findnemo.load(tiny_pixart()), PLAN, FREE, ORDINARY, tmp_path, tmp_path, RECIPE)


@pytest.mark.slow
def test_a_few_steps_on_the_demo_model_begin_to_learn(tmp_path):
    """Losses on memorized pictures fall, and what is no memory stays near the teacher."""
    from findnemo.benchmark.members import freed
    from findnemo.benchmark.plan import suite_plan
    from findnemo.demo import ASSETS, unrelated

    base = findnemo.load("demo", "cpu", "float32")
    plan = suite_plan(1, list(base.value_layers), freed(base))
    lines: list[str] = []
    plant(
        base,
        plan,
        freed(base),
        unrelated()[:20],
        ASSETS / "images",
        tmp_path,
        Recipe(steps=75),
        lines.append,
    )
    on = [float(line.split(" on ")[1].split()[0]) for line in lines if " on " in line]
    assert on[-1] < 0.9 * on[0]
