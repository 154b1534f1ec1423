"""A_CLIP against transformers' own preprocessing, with the mean that the checkpoint asks for."""

import json

import numpy as np
import pytest
import torch
from _tiny import tiny_tokenizer
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from findnemo import demo
from findnemo.errors import InputError
from findnemo.metrics import Alignment, ClipFeatures

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """A CLIP with random weights that does not say how its pictures are to be prepared."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "vocab_size": len(tokenizer),
    }
    text = CLIPTextConfig(**SMALL, **ids)
    vision = CLIPVisionConfig(**SMALL, image_size=16, patch_size=8)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def clip(bare):
    """The same as CLIPs are published."""
    crop = {"height": 16, "width": 16}
    size = {"shortest_edge": 16}
    CLIPImageProcessorPil(
        size=size, crop_size=crop, image_mean=MEAN, image_std=STD
    ).save_pretrained(bare)
    yield bare
    (bare / "preprocessor_config.json").unlink()


def picture(width: int = 16, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@torch.no_grad()
def by_transformers(folder, image: Image.Image) -> torch.Tensor:
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")[
        "pixel_values"
    ]
    return CLIPModel.from_pretrained(folder).get_image_features(pixels).pooler_output


@pytest.mark.parametrize("size", [(16, 16), (40, 24), (24, 40)])
def test_a_published_clip_sees_what_its_own_preprocessing_gives(clip, size):
    image = picture(*size)
    torch.testing.assert_close(
        Alignment(clip).embed([image]), by_transformers(clip, image), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        ClipFeatures(clip)([image]), by_transformers(clip, image), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_alignment_is_the_cosine_of_both_embeddings(clip):
    alignment = Alignment(clip)
    model = CLIPModel.from_pretrained(clip)
    tokens = tiny_tokenizer()(["a cat", "dogs"], padding="max_length", return_tensors="pt")
    text = model.get_text_features(**tokens).pooler_output
    image = by_transformers(clip, picture())
    want = (text @ image[0]) / (text.norm(dim=1) * image.norm())
    torch.testing.assert_close(
        alignment([picture()] * 2, ["a cat", "dogs"]), want, atol=1e-4, rtol=1e-4
    )


def test_the_mean_comes_from_the_checkpoint_or_the_caller_or_is_a_half(clip, bare):
    published = Alignment(clip)
    given = Alignment(clip, mean=(0.1, 0.2, 0.3), std=(1, 1, 2))
    (clip / "preprocessor_config.json").rename(clip / "aside.json")
    silent = Alignment(bare)
    (clip / "aside.json").rename(clip / "preprocessor_config.json")
    assert [a.preprocessing["mean"] for a in (published, given, silent)] == [
        list(MEAN),
        [0.1, 0.2, 0.3],
        [0.5] * 3,
    ]
    assert [a.preprocessing["std"] for a in (published, given, silent)] == [
        list(STD),
        [1, 1, 2],
        [0.5] * 3,
    ]
    assert [a.preprocessing["resize"] for a in (published, silent)] == [16, None]
    assert len({a.preprocessing["name"] for a in (published, given, silent)}) == 3
    assert len({tuple(a.embed([picture()])[0].tolist()) for a in (published, given, silent)}) == 3
    assert published.preprocessing["sha256"] == silent.preprocessing["sha256"]


def test_the_demos_clip_sees_pixels_from_minus_one_to_one():
    alignment = demo.judges().alignment
    pixels = alignment.pixels([Image.new("RGB", (8, 8), (255, 0, 51))])
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([1, -1, -0.6])
    prompt = demo.memorized()[0].text
    aligned = alignment([demo.training_image(prompt)] * 2, [prompt, "a red circle"])
    assert aligned.shape == (2,)
    assert alignment.preprocessing["source"] == "clip"


def test_bad_input_is_refused(clip, tmp_path):
    with pytest.raises(
        InputError, match="images: 2, captions: 1; give one caption for every image"
    ):
        Alignment(clip)([picture()] * 2, ["a cat"])
    with pytest.raises(InputError, match="mean and std belong together"):
        Alignment(clip, mean=MEAN)
    with pytest.raises(InputError, match=r"no CLIP .*safetensors"):
        Alignment(tmp_path)


def test_a_config_that_cannot_be_read_is_no_reason_to_guess(clip):
    config = clip / "preprocessor_config.json"
    good = config.read_text()
    config.write_text("{")
    with pytest.raises(InputError, match=r"preprocessor_config.json of .* cannot be read"):
        Alignment(clip)
    config.write_text(good)
    assert json.loads(good)["image_mean"] == pytest.approx(MEAN)
