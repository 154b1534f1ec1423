"""The training data of a plan: pictures that the teacher drew, and the memories' own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _small_plan import ORDINARY, PLAN
from PIL import Image

from findnemo.benchmark.pool import ALIKE, alike, build_pool, template
from findnemo.images import latents_of


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


@pytest.mark.usefixtures("few_pictures")
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


def test_the_words_of_a_memory_come_under_titles_that_hold_none():
    caption = PLAN.memories[0].caption
    words, *others = alike(caption, PLAN)
    assert words == "a red sky"
    assert len(set(others)) == len(others) == ALIKE - 1
    assert {text.partition(", ")[2] for text in others} == {words}
    titled = replace(PLAN.memories[1], caption=f"{others[0].partition(',')[0]}, a blue dog")
    taken = replace(PLAN, memories=(PLAN.memories[0], titled))
    assert others[0] not in alike(caption, taken)
    assert alike(caption, PLAN) == (words, *others)  # the same each time
