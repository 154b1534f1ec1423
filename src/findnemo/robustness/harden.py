"""Hardening: fine-tune an edited model against the attack, if switching neurons off is not enough.

This is the adversarial fine-tuning of Finding DoRI (Kowalczuk et al. 2025). An attack searches
embeddings that bring a picture back. Then all weights of the denoiser learn to answer them with
surrogate images, which the edited model makes from the caption. Both steps repeat a few times.

Three things are our own. The embeddings on the way to each result, the caption among them, are
answered too. High noise levels, which decide about a picture, are drawn more often. Predictions for
ordinary captions, and without a caption, are held to those of the model before hardening.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from findnemo.edits import effects, refuse_made
from findnemo.errors import InputError, NumericalError, StoppedError
from findnemo.files.tensors import read_header, write
from findnemo.files.writing import atomic_write
from findnemo.images import ImageSettings, generate, latents_of
from findnemo.models import Model, Text
from findnemo.neurons import NeuronSet
from findnemo.robustness.attack import diffusion_loss, optimized, starting
from findnemo.runtime.state import replacing, undisturbed
from findnemo.seeds import ORDINARY, SURROGATES, sample_seed

if TYPE_CHECKING:
    from PIL import Image

VIEWS = 4  # images of each ordinary caption
UNPROMPTED = 0.25  # share of ordinary samples without a caption, which guidance needs
STARTS = ("caption", "random")
WAYPOINTS = 3  # embeddings of an attack that are answered, the last one among them
FORMAT = "findnemo.harden.1"


@dataclass(frozen=True)
class Hardening:
    """Settings of hardening.

    `epochs`: rounds of an attack and of learning. `attack_steps`: steps of each attack. `updates`:
    weight updates in an epoch, by AdamW at `learning_rate`, each on `batch` surrogates and as many
    ordinary images. `keep`: weight of the ordinary ones. `surrogates`: images a caption. `seed`: of
    all random draws.

    >>> Hardening(epochs=0)
    Traceback (most recent call last):
    findnemo.errors.InputError: epochs is 0: it must be 1 or more
    """

    epochs: int = 4
    attack_steps: int = 30
    updates: int = 60
    learning_rate: float = 1e-5
    batch: int = 8
    keep: float = 100.0
    surrogates: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "attack_steps", "updates", "batch", "surrogates"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not 0 < self.learning_rate < 1 or not self.keep >= 0:
            raise InputError(
                f"a learning rate of {self.learning_rate} with keep {self.keep} cannot work: give"
                " a rate in (0, 1), and keep 0 or more"
            )


@dataclass(frozen=True)
class Lesson:
    """A caption to forget, with the latent of its picture (1, C, H, W) and those of surrogate
    images (n, C, H, W).
    """

    prompt: str
    picture: Tensor
    surrogates: Tensor


@dataclass(frozen=True)
class KeptCaptions:
    """Ordinary captions that the model must keep: their texts, n rows, and latents of images (n, C,
    H, W) of the edited model.

    Each caption has several rows. `empty`: the text of the empty prompt, one row.
    """

    text: Text
    latents: Tensor
    empty: Text


def lesson(
    model: Model, prompt: str, picture: Image.Image, settings: ImageSettings, hardening: Hardening
) -> Lesson:
    """The lesson of a caption for an edited model. Raises NumericalError if the model gives NaN."""
    images = generate(model, prompt, range(SURROGATES, SURROGATES + hardening.surrogates), settings)
    surrogates = torch.cat([latents_of(image, model) for image in images])
    return Lesson(prompt, latents_of(picture, model), surrogates)


def captions_to_keep(model: Model, prompts: Sequence[str], settings: ImageSettings) -> KeptCaptions:
    """Ordinary captions with four images of each.

    Raises InputError for no captions: hardening without any makes the model forget everything else
    too.
    """
    if not prompts:
        raise InputError(
            "hardening needs captions that are not memorized, to hold the model to: put some into"
            " the table"
        )
    samples = range(ORDINARY, ORDINARY + VIEWS)
    images = [image for prompt in prompts for image in generate(model, prompt, samples, settings)]
    text = model.encode(list(prompts)).repeat(VIEWS)
    latents = torch.cat([latents_of(image, model) for image in images])
    return KeptCaptions(text, latents, model.unconditional())


def adversaries(model: Model, lesson: Lesson, hardening: Hardening, epoch: int) -> Text:
    """Texts, n rows, that bring a lesson's picture nearer: the caption, and embeddings from an
    attack at each start.
    """
    shares = (hardening.attack_steps * k / WAYPOINTS for k in range(1, WAYPOINTS + 1))
    stops = sorted({round(share) for share in shares} - {0})
    seed = hardening.seed
    texts = [starting(model, lesson.prompt, "caption", seed)]
    for start in STARTS:
        text = starting(model, lesson.prompt, start, seed)
        key = f"harden\0{epoch}\0{start}\0{lesson.prompt}"
        reached = optimized(model, lesson.picture, text, stops, seed, key, hardening.batch)
        texts += [reached[stop] for stop in stops]
    return Text.cat(texts)


def evaluations(hardening: Hardening, captions: int, ordinary: int, settings: ImageSettings) -> int:
    """U-Net sample evaluations of a hardening; a backward pass counts as two.

    >>> evaluations(Hardening(epochs=1, attack_steps=30, updates=60, batch=8), 1, 0, ImageSettings(steps=15, guidance=2.0))
    4920
    """
    images = (captions * hardening.surrogates + ordinary * VIEWS) * settings.passes
    search = captions * len(STARTS) * 3 * hardening.batch * hardening.attack_steps
    learning = hardening.updates * hardening.batch * (3 + 3 + 1)
    return images + hardening.epochs * (search + learning)


@undisturbed
def harden(
    model: Model,
    lessons: Sequence[Lesson],
    ordinary: KeptCaptions,
    neurons: NeuronSet,
    hardening: Hardening | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Harden a model in place: all weights of its denoiser except the rows of `neurons`, which stay
    off.

    `model`: in float32, with the neurons off in its weights. `checkpoint`: a folder that keeps the
    weights after each epoch, so that an interrupted hardening resumes with the same result; remove
    it at the end. `progress`: called with the number of updates done, their total, and the loss.
    The result depends only on model, lessons, captions, settings and seed.

    Raises StoppedError once `stop` returns True, InputError without lessons, EditError if the
    neurons are not off in the weights, NumericalError for NaN.
    """
    hardening = hardening or Hardening()
    if not lessons:
        raise InputError("there is nothing to harden against: no memorized caption was given")
    check_off(model, neurons)
    reference = copy.deepcopy(model.denoiser).requires_grad_(False)
    key = _identity(model, lessons, ordinary, hardening) if checkpoint else ""
    first = _load(model.denoiser, checkpoint, key) if checkpoint else 0
    total = hardening.epochs * hardening.updates
    for epoch in range(first, hardening.epochs):
        answers = [(one, adversaries(model, one, hardening, epoch)) for one in lessons]
        parameters = list(model.denoiser.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=hardening.learning_rate, weight_decay=0.0)
        for update in range(hardening.updates):
            if stop():
                raise StoppedError(f"hardening stopped in epoch {epoch + 1} of {hardening.epochs}")
            number = sample_seed(hardening.seed, "harden", epoch * 1_000_000 + update)
            generator = torch.Generator().manual_seed(number)
            loss = _loss(model, reference, answers, ordinary, hardening, generator)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            zero_rows(model, neurons)
            progress(epoch * hardening.updates + update + 1, total, float(loss.detach()))
        if checkpoint is not None:
            _save(model.denoiser, checkpoint, key, epoch + 1)
    check_off(model, neurons)


def _loss(
    model: Model,
    reference: nn.Module,
    answers: Sequence[tuple[Lesson, Text]],
    ordinary: KeptCaptions,
    hardening: Hardening,
    generator: torch.Generator,
) -> Tensor:
    """The loss that an update of the weights lowers.

    `answers`: lessons, each with the embeddings that bring its picture back.
    """
    clean, text = _adversarial_batch(answers, hardening.batch, generator)
    held = _ordinary_batch(ordinary, hardening.batch, generator)
    with torch.enable_grad():
        loss = diffusion_loss(model, clean, *_noised(model, clean, generator), text)
        if hardening.keep:
            loss = loss + hardening.keep * _drift(model, reference, *held, generator)
    if not torch.isfinite(loss):
        raise NumericalError(
            "the loss of hardening is NaN or infinite: take a smaller learning rate"
        )
    return loss


def _adversarial_batch(
    answers: Sequence[tuple[Lesson, Text]], size: int, generator: torch.Generator
) -> tuple[Tensor, Text]:
    """Surrogate latents and adversarial embeddings, drawn uniformly over captions, images and
    embeddings.
    """

    def one_of(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    chosen = [answers[one_of(len(answers))] for _ in range(size)]
    clean = [lesson.surrogates[one_of(len(lesson.surrogates))] for lesson, _ in chosen]
    rows = [text[[one_of(len(text))]] for _, text in chosen]
    return torch.stack(clean), Text.cat(rows)


def _ordinary_batch(
    ordinary: KeptCaptions, size: int, generator: torch.Generator
) -> tuple[Tensor, Text]:
    """Latents of ordinary images with the embeddings of their captions; some are replaced by the
    empty prompt.
    """
    device = ordinary.latents.device
    rows = torch.randint(len(ordinary.latents), (size,), generator=generator).to(device)
    unprompted = (torch.rand(size, generator=generator) < UNPROMPTED).to(device)
    text = Text.cat([ordinary.empty, ordinary.text])
    return ordinary.latents[rows], text[torch.where(unprompted, 0, rows + 1)]


def _noised(model: Model, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise, and timesteps; half of these lie in the noisiest quarter of the schedule."""
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    steps = int(model.pipeline.scheduler.config.num_train_timesteps)
    share = 1 - torch.rand(len(clean), generator=generator) ** 2
    return noise, (share * steps).long().clamp(max=steps - 1).to(clean.device)


def _drift(
    model: Model, reference: nn.Module, clean: Tensor, text: Text, generator: torch.Generator
) -> Tensor:
    """How far predictions for ordinary captions have moved from those before hardening."""
    noise, timesteps = _noised(model, clean, generator)
    with torch.no_grad(), replacing(model.pipeline, model.component, reference):
        before, _ = model.regression(clean, noise, timesteps, text)
    now, _ = model.regression(clean, noise, timesteps, text)
    return nn.functional.mse_loss(now.float(), before.float())


@torch.no_grad()
def zero_rows(model: Model, neurons: NeuronSet) -> None:
    """Zero the weight rows of neurons, and their biases, in place."""
    for name, indices in neurons.layers.items():
        layer: Any = model.layers_of("all")[name]
        layer.weight[list(indices)] = 0
        if layer.bias is not None:
            layer.bias[list(indices)] = 0


def check_off(model: Model, neurons: NeuronSet) -> None:
    """Raises EditError unless the neurons are off in the weights of a model."""
    for name, effect in effects(model, neurons).items():
        layer = model.denoiser.get_submodule(name)
        refuse_made(name, layer)
        effect.check_weights(effect.weight, effect.bias, "the weight")


# resuming after an interruption -------------------------------------------------------------------


def _identity(
    model: Model, lessons: Sequence[Lesson], ordinary: KeptCaptions, hardening: Hardening
) -> str:
    """A digest of all that the result depends on: weights, pictures and embeddings by their
    bytes.
    """
    about = [asdict(hardening), [one.prompt for one in lessons]]
    digest = hashlib.sha256(json.dumps(about).encode())
    tensors = [
        *model.denoiser.state_dict().values(),
        *ordinary.text.tensors.values(),
        ordinary.latents,
        *ordinary.empty.tensors.values(),
        *(tensor for one in lessons for tensor in (one.picture, one.surrogates)),
    ]
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save(module: nn.Module, folder: Path, key: str, epochs: int) -> None:
    about = {"format": FORMAT, "key": key, "epochs": str(epochs)}
    with atomic_write(folder / "weights.safetensors") as part:
        write(part, module.state_dict(), about)


def _load(module: nn.Module, folder: Path, key: str) -> int:
    """Load the weights of an interrupted hardening with this key; return how many epochs it had
    done.
    """
    from safetensors.torch import load_file

    file = folder / "weights.safetensors"
    if not file.is_file():
        return 0
    _, about = read_header(file)
    if about.get("format") != FORMAT or about.get("key") != key:
        return 0
    module.load_state_dict(load_file(file))
    return int(about["epochs"])
