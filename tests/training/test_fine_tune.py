"""A LoRA trained for real, with plain diffusers and peft: what the copy test says of it meanwhile."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from _photos import photos, verbatim
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch.nn.functional import mse_loss

import findnemo
from findnemo import demo
from findnemo.images import ImageSettings, generate_many
from findnemo.prompts import read_training
from findnemo.training import CopyTest, MemorizationCallback, compared, plant, sensitivity

EVERY = 40
MOST = 400
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
OTHERS = ["proj_in", "proj_out", "ff.net.2", "conv1", "conv2"]
IMAGES = ImageSettings(steps=15, guidance=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven pictures that an epoch shows ten times, and twelve canaries."""
    place = tmp_path_factory.mktemp("training") / "photos"
    photos(place / "10_photos", 7)
    plant(place, each=4, repeats=(1, 4, 16), size=64)
    return place


def with_lora():
    """The demo, loaded by diffusers, with a LoRA to train, and its weights."""
    pipeline = StableDiffusionPipeline.from_pretrained(demo.MODEL).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for network in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        network.requires_grad_(False)
    torch.manual_seed(0)
    pipeline.unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=ATTENTION + OTHERS))
    return pipeline, [p for p in pipeline.unet.parameters() if p.requires_grad]


def batches(pipeline, folder):
    training = read_training(folder)
    with torch.no_grad():
        pixels = [pipeline.image_processor.preprocess(Image.open(p.path), 64, 64) for p in training]
        latents = pipeline.vae.encode(torch.cat(pixels)).latent_dist.mode()
        latents = latents * pipeline.vae.config.scaling_factor
        texts = [pipeline.encode_prompt(p.caption, "cpu", 1, False)[0][0] for p in training]
    epoch = [(latents[k], texts[k]) for k, p in enumerate(training) for _ in range(p.repeats)]
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.utils.data.DataLoader(epoch, 16, shuffle=True, generator=generator)


def train(folder, rate, most, out=None):
    """The callback after a training of `most` steps, or fewer; a LoRA is saved at every reading."""
    pipeline, weights = with_lora()
    test = CopyTest(images=ImageSettings(12, 2.0))
    watch = MemorizationCallback(pipeline, folder, EVERY, test, stop=True)
    optimizer = torch.optim.AdamW(weights, lr=rate)
    noises = DDPMScheduler.from_config(pipeline.scheduler.config)
    losses = []
    for step, (clean, text) in enumerate(islice(batches(pipeline, folder), most), 1):
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (len(clean),))
        predicted = pipeline.unet(noises.add_noise(clean, noise, t), t, text).sample
        loss = mse_loss(predicted, noises.get_velocity(clean, noise, t))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        stop = watch(step)
        if out is not None and step % EVERY == 0:
            pipeline.save_lora_weights(out / str(step), get_peft_model_state_dict(pipeline.unet))
        if stop:
            break
    return watch, losses


@pytest.mark.slow
def test_copies_come_while_it_is_trained(folder, tmp_path):
    watch, losses = train(folder, 3e-3, MOST, tmp_path)
    assert watch.stopped
    assert sum(losses[-EVERY:]) < 0.9 * sum(losses[:EVERY])
    first, last = watch.readings[0], watch.readings[-1]
    assert first.copies == 0
    assert last.copies >= 2
    assert watch.readings[-2].copies >= 1
    assert last.similarity > first.similarity + 0.2
    assert all(reading.control < 0.5 for reading in watch.readings)
    rates = {n: seen.hits for n, seen in last.canaries.seen.items()}
    assert rates[16] >= 3
    assert rates[16] >= rates[4] >= rates[1]

    # on other seeds, with more steps, and as diffusers loads it: the one that was saved before the
    # first copy does not copy
    began = next(reading.step for reading in watch.readings if reading.copies)
    captions = verbatim()
    originals = [demo.training_image(caption, "demo-natural") for caption in captions]
    asked = [(caption, seed) for caption in captions for seed in range(4)]
    shares = {}
    for step in (began - EVERY, last.step):
        pipeline = StableDiffusionPipeline.from_pretrained(demo.MODEL).to(torch.float32)
        pipeline.load_lora_weights(tmp_path / str(step))
        pipeline.set_progress_bar_config(disable=True)
        model = findnemo.load(pipeline, "cpu")
        alike = pixels_alike(generate_many(model, asked, IMAGES), originals)
        shares[step] = float((alike[range(28), [k // 4 for k in range(28)]] >= 0.7).float().mean())
    assert shares[began - EVERY] <= 0.1 < 0.3 < shares[last.step]

    # the canaries with as many images as one likes, the twins' captions among them
    def images(captions):
        made = generate_many(model, [(c, seed) for c in captions for seed in range(2)], IMAGES)
        return [made[k : k + 2] for k in range(0, len(made), 2)]

    canaries = watch.canaries
    own = images([one.caption for one in canaries])
    found = sensitivity(
        canaries, *compared(canaries, own, images([one.twin_caption for one in canaries]))
    )
    assert found.negatives == 2 * 12 * 12
    assert found.seen[16].hits >= 3
    assert found.seen[16].hits >= found.seen[1].hits


def pixels_alike(images, originals):
    """Correlations of pixels, by hand."""
    rows = torch.tensor(
        [list(image.convert("RGB").resize((64, 64)).tobytes()) for image in [*images, *originals]]
    ).float()
    return torch.corrcoef(rows)[: len(images), len(images) :]


@pytest.mark.slow
def test_no_copies_where_nothing_is_learned(folder):
    watch, _ = train(folder, 0.0, 2 * EVERY)
    assert [reading.copies for reading in watch.readings] == [0, 0]
    assert not watch.stopped
    assert watch.readings[-1].canaries.seen[16].hits <= 1
