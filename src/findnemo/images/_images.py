"""Finished images of a prompt, sheets that show them side by side, and pictures as latents."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from findnemo.errors import InputError, NumericalError
from findnemo.files.writing import atomic_write
from findnemo.models import (
    Model,
    check_steps,
    require_caption,
    sampler_class,
    sampler_name,
    sampling,
)
from findnemo.runtime.memory import Batches
from findnemo.seeds import sample_seed

if TYPE_CHECKING:
    from PIL import Image

MOST_STEPS = 1000
SHIPPED = ("demo", "demo-natural")  # findnemo's own models: small, with images of few steps


@dataclass(frozen=True)
class ImageSettings:
    """How finished images are made: denoising steps, guidance scale, base seed (published
    evaluations: 50 steps, 7).

    `sampler`: a name in `models.SAMPLERS`, in any case; None is the checkpoint's own. The paper's
    images are made with "ddim". Raises InputError for an unknown sampler, for fewer than 1 or more
    than 1000 steps, and for a guidance that is not a number.
    """

    steps: int = 50
    guidance: float = 7.0
    seed: int = 0
    sampler: str | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.steps, int) and 1 <= self.steps <= MOST_STEPS):
            raise InputError(f"images in {self.steps!r:.40} steps: give 1 to {MOST_STEPS}")
        if not abs(self.guidance) <= MOST_STEPS:
            raise InputError(
                f"guidance {self.guidance!r:.40} is not a scale for images: give a number such as 7"
            )
        if self.sampler is not None:
            object.__setattr__(self, "sampler", sampler_name(self.sampler))

    @property
    def passes(self) -> int:
        """U-Net sample evaluations of one image: two a step with guidance."""
        return self.steps * (2 if self.guidance > 1 else 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> ImageSettings:
        """The settings in an output of `to_json`. Raises InputError for anything else."""
        kinds: dict[Any, tuple[type, ...]] = {
            "steps": (int,),
            "guidance": (int, float),
            "seed": (int,),
            "sampler": (str, type(None)),
        }
        fields = values.items() if isinstance(values, dict) else ((None, values),)
        if any(type(value) not in kinds.get(name, ()) for name, value in fields):
            raise InputError(
                f"image settings cannot be {values!r:.100}: this run was made by another findnemo,"
                " or is damaged"
            )
        return cls(**values)


def usual(source: str) -> ImageSettings:
    """The default settings for images of a model, by the source it was loaded from.

    >>> usual("demo").steps, usual("CompVis/stable-diffusion-v1-4").steps
    (15, 50)
    """
    return ImageSettings(steps=15, guidance=2.0) if source in SHIPPED else ImageSettings()


def check_images(model: Any, settings: ImageSettings) -> None:
    """Raises InputError for a sampler that does not fit a model, and for steps that it cannot make.

    For a model that only workers have (`runs.Facts`), only the sampler is checked.
    """
    sampler_class(model.samplers, settings.sampler)
    if isinstance(model, Model):
        with sampling(model, settings.sampler):
            check_steps(model.pipeline.scheduler, settings.steps)


def generate(
    model: Model, prompt: str, samples: Sequence[int], settings: ImageSettings | None = None
) -> list[Image.Image]:
    """One RGB image for each sample number, with the edits that are in force.

    Sample k looks the same in every batch.

    The latents are decoded here, so that no safety checker blackens them. Raises NumericalError if
    the model gives NaN, InputError for an invalid caption and for steps that the sampler cannot
    make.
    """
    settings = settings or ImageSettings()
    require_caption(prompt)
    seeds = [sample_seed(settings.seed, prompt, k) for k in samples]
    return _sampled(model, prompt, seeds, settings)


def generate_many(
    model: Model,
    rows: Sequence[tuple[str, int]],
    settings: ImageSettings | None = None,
    batch: int = 8,
) -> list[Image.Image]:
    """RGB images of (prompt, sample number) pairs of many prompts, `batch` of them in each call of
    the pipeline.
    """
    settings = settings or ImageSettings()
    images: list[Image.Image] = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        seeds = [sample_seed(settings.seed, prompt, k) for prompt, k in part]
        images += _sampled(model, [prompt for prompt, _ in part], seeds, settings)
    return images


def _sampled(
    model: Model, prompt: str | list[str], seeds: list[int], settings: ImageSettings
) -> list[Image.Image]:
    """One image for each seed, of one prompt or of as many prompts; in smaller batches if memory is
    short.

    Raises DeviceError if a single one is too much.
    """

    def part(rows: slice) -> list[Image.Image]:
        prompts, each = (prompt, len(seeds[rows])) if isinstance(prompt, str) else (prompt[rows], 1)
        with sampling(model, settings.sampler):
            check_steps(model.pipeline.scheduler, settings.steps)
            latents = model.sample(prompts, each, seeds[rows], settings.steps, settings.guidance)
        return decoded_pictures(model, latents)

    batches = Batches(model.device, len(seeds), "a single image")
    return [image for images in batches(len(seeds), part) for image in images]


def decoded_pictures(model: Model, latents: torch.Tensor) -> list[Image.Image]:
    """Finished latents (N, C, H, W) as pictures. Raises NumericalError for NaN."""
    _require_finite(latents, "finished latents")
    decoded = model.decode(latents)
    _require_finite(decoded, "decoded images (VAE)")
    return to_pil(decoded)


def to_pil(decoded: torch.Tensor) -> list[Image.Image]:
    """Images (N, 3, H, W) in [-1, 1] as pictures."""
    from diffusers.image_processor import VaeImageProcessor

    pictures: list[Image.Image] = VaeImageProcessor().postprocess(decoded, output_type="pil")
    return pictures


def pixels(picture: Image.Image, model: Model) -> torch.Tensor:
    """A picture in the form for the model's encoder: (1, 3, H, W) in [-1, 1], its middle square at
    the model's native size.
    """
    import numpy as np
    from PIL import ImageOps

    _, height, width = model.latent_shape
    factor = int(getattr(model.pipeline, "vae_scale_factor", 1))
    fitted = ImageOps.fit(picture.convert("RGB"), (width * factor, height * factor))
    return torch.from_numpy(np.asarray(fitted, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def latents_of(picture: Image.Image, model: Model) -> torch.Tensor:
    """The latent (1, C, H, W) of a picture."""
    return model.encode_images(pixels(picture, model))


def noise_pictures(deltas: torch.Tensor) -> list[Image.Image]:
    """Scaled noise differences (N, C, H, W) in [0, 1] as pictures: the first three channels as red,
    green and blue.

    >>> noise_pictures(torch.ones(1, 4, 2, 2))[0].getpixel((0, 0))
    (255, 255, 255)
    """
    from PIL import Image

    rows = (deltas[:, :3].permute(0, 2, 3, 1) * 255).byte().cpu().numpy()
    return [Image.fromarray(row) for row in rows]


def _require_finite(values: torch.Tensor, name: str) -> None:
    if not torch.isfinite(values).all():
        raise NumericalError(
            f"the {name} hold NaN or infinity: load the model with dtype float32, or check the"
            " checkpoint"
        )


def save_png(image: Image.Image, path: str | os.PathLike) -> Path:
    """Write a PNG: it appears whole, flushed to the disk, or not at all.

    Raises StorageError if nothing can be written.
    """
    with atomic_write(path) as part:
        image.save(part, format="PNG")
    return Path(path)


def intact_png(path: str | os.PathLike) -> bool:
    """Whether a file is a complete PNG: every chunk fits its checksum (CRC-32), and the pixels can
    be read.
    """
    from PIL import Image

    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:  # an unreadable file may be intact
        try:
            with Image.open(file, formats=("PNG",)) as image:
                image.verify()
            file.seek(0)
            with Image.open(file, formats=("PNG",)) as image:
                image.load()
        except Exception as error:  # decoders raise anything on damaged bytes
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise
            return False
    return True


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def font(size: float) -> Any:
    """A font with the letters of most alphabets, for captions in any of them."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def sheet(
    caption: str,
    rows: Sequence[tuple[str | Sequence[str], Sequence[Image.Image]]],
    original: Image.Image | None = None,
    tile: int = 128,
) -> Image.Image:
    """A picture sheet: one row of images for each entry of `rows`, next to the training image if
    known. An entry has a label for the row, or one for each image.
    """
    from PIL import Image, ImageDraw

    margin = 16
    head = 46
    label = 24
    columns = max(len(images) for _, images in rows)
    left = margin + (tile + 2 * margin if original is not None else 0)
    width = left + columns * (tile + 4) + margin
    canvas = Image.new("RGB", (width, head + len(rows) * (tile + label + 8) + margin), "white")
    draw = ImageDraw.Draw(canvas)
    title = font(15)
    small = font(11)
    heading = _fit(draw, caption, title, width - 2 * margin)
    draw.text((margin, 14), heading, fill="black", font=title)
    for k, (name, images) in enumerate(rows):
        top = head + k * (tile + label + 8)
        names = [name] if isinstance(name, str) else [_fit(draw, n, small, tile) for n in name]
        for j, text in enumerate(names):
            draw.text((left + j * (tile + 4), top + 3), text, fill=(90, 90, 90), font=small)
        for j, image in enumerate(images):
            canvas.paste(_square(image, tile), (left + j * (tile + 4), top + label))
    if original is not None:
        draw.text((margin, head + 3), "training image", fill=(90, 90, 90), font=small)
        canvas.paste(_square(original, tile), (margin, head + label))
    return canvas


def _square(image: Image.Image, tile: int) -> Image.Image:
    from PIL import Image

    shrinks = image.width > tile
    resample = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return image.convert("RGB").resize((tile, tile), resample)


def _fit(draw: Any, text: str, font: Any, width: int) -> str:
    # longer text does not fit anyway, and takes Pillow long
    text = " ".join(text.split())[:1000]
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[: max(0, len(text) * 9 // 10)]
    return text + "…"
