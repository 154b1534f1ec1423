"""`Model`: the interface through which findnemo uses an architecture.

An adapter is a short subclass that implements it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from findnemo.errors import EditError, InputError, ModelError
from findnemo.models._autoencoder import decoded, encoded
from findnemo.models._reading import (
    Prepared,
    Reader,
    as_it_is,
    distinct,
    encoder_kind,
    truncation_note,
)
from findnemo.models._text import Text
from findnemo.models.identified import Digests, identity
from findnemo.models.identity import Identity
from findnemo.models.modules import (
    applied,
    is_compiled,
    is_fused,
    moves,
    networks_of,
    part_of,
    submodule,
    unsteady,
    width_of,
)
from findnemo.models.samplers import explicit, fitting
from findnemo.runtime.notices import notice
from findnemo.runtime.state import evaluating, modules_of, plain_arithmetic, spare_scheduler, taking
from findnemo.seeds import sample_seed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T = TypeVar("T")

# settings on which a noise prediction and its timestep depend; a scheduler's other settings matter
# only for pictures
SCHEDULE = (
    "prediction_type",
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "timestep_spacing",
    "steps_offset",
    "trained_betas",
    "rescale_betas_zero_snr",
    "original_inference_steps",
    "sigma_data",
)
SCOPES = ("paper", "all")  # value layers in which to search a memory

# methods that run a network: called in a steady state, see `Model.steady`
PASSES = (
    "encode",
    "unconditional",
    "value_inputs",
    "value_activations",
    "output",
    "predict_noise",
    "regression",
    "sample",
    "decode",
    "encode_images",
)


class Model:
    """A diffusers pipeline behind the small interface that localization needs.

    Attributes: `pipeline`, the live pipeline; `source`, what it was loaded from; `options`, the
    requested revision, variant and config; `engine`, which predicts noise in its place, or None
    (see `findnemo.compiled`).
    """

    pipeline: Any
    engine: Any = None
    component = "unet"  # the pipeline's name for its denoiser; LoRA files prefix their keys with it
    # whether `text_of` and `conditions` cover all that the denoiser knows about a prompt, so that
    # it can be changed during a call
    changeable = False
    starts = 1  # positions of start-of-text before a prompt's own tokens (T5 has none)
    # which modules of the denoiser are its "value layers", "parts", "text projections" and
    # "cross-attentions", and which value layers are those of the "paper" (default: all): a pattern
    # of whole names, None for none
    names: Mapping[str, str | None] = {}
    # the pipeline's names of the parts that read captions
    encoders: tuple[tuple[str, str], ...] = (("tokenizer", "text_encoder"),)
    may_lack: tuple[str, ...] = ()  # those of them that the pipeline can do without
    encoding: Mapping[str, Any] = {}  # arguments of the pipeline's `encode_prompt`
    # how the pipeline changes a caption before a tokenizer reads it
    prepared: Prepared = staticmethod(as_it_is)
    decodes = True  # whether a VAE makes images of latents
    shift = 0.0  # the pipeline adds this to latents before decoding
    # whether guidance is part of the network, so that passes see no half without the prompt
    distilled = False
    # options that make the pipeline stop before decoding and safety checks
    finished: Mapping[str, Any] = {"output_type": "latent"}
    schedule: tuple[str, ...] = SCHEDULE  # the scheduler's settings that distinguish models
    _steady = False  # whether a steady state is under way
    _kept: dict[Any, Any] | None = None  # cache within `unchanged`

    def __init__(self, pipeline: DiffusionPipeline, source: str = "live pipeline"):
        self.pipeline = pipeline
        self.source = source
        self.options: dict[str, str] = {}
        self._found: dict[str, dict[str, nn.Module]] = {}
        self.tell: Callable[[str], None] = notice  # called with each warning
        # captions already reported as truncated
        self.told: set[str] = set()
        self._digests: Digests = {}
        self.check_editable()

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap every pass of every adapter in a steady state, so that none can forget it."""
        super().__init_subclass__(**options)
        _make_steady(cls)

    # what an adapter implements -------------------------------------------------------------------

    @property
    def denoiser(self) -> nn.Module:
        """The network that predicts noise; value layers are named relative to it."""
        module: nn.Module = getattr(self.pipeline, self.component)
        return module

    def is_value_layer(self, name: str, module: nn.Module) -> bool:
        """Whether a module of the denoiser is a cross-attention value projection, one whose
        outputs can be switched off.
        """
        if "value layers" not in self.names:
            raise NotImplementedError(f"{type(self).__name__} does not name its value layers")
        return self._is("value layers", name)

    def in_paper(self, name: str) -> bool:
        """Whether Finding NeMo looks for memories in a value layer (section
        3.1); by default in all.
        """
        return "paper" not in self.names or self._is("paper", name)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Text:
        """Everything that the denoiser gets from N prompts, padded as the pipeline pads them."""
        embeds, *others = self.pipeline.encode_prompt(
            list(prompts), device=self.device, **self.encoding
        )
        self.tell_cut(prompts)
        return self.text_from(embeds, others).to(self.device, self.dtype)

    def text_from(self, embeds: Tensor, others: Sequence[Tensor]) -> Text:
        """Prompts in the form for the denoiser, from the outputs of the pipeline's `encode_prompt`:
        token embeddings and the others.
        """
        return Text(embeds)

    def unconditional(self) -> Text:
        """The empty prompt of the pipeline's guidance, one row."""
        return self.encode([""])

    def conditions(self, text: Text) -> dict[str, Any]:
        """Keyword arguments that give the denoiser prompts encoded as `text`."""
        return {"encoder_hidden_states": text.tokens}

    def text_of(self, conditions: Mapping[str, Any]) -> Text:
        """The prompts in the keyword arguments (`conditions`) of the current pass, as `text`."""
        return Text(conditions["encoder_hidden_states"])

    def output(self, latents: Tensor, timestep: float | Tensor, text: Text) -> Tensor:
        """The network's own prediction (eps, v, a velocity), (N, C, H, W), for latents (N, C, H, W)
        and N prompts, at one timestep or at (N,) of them.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts nothing")

    def as_noise(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        """`predict_noise` from the network's own prediction for latents, both (N, C, H, W):
        unchanged, or computed in at least float32.
        """
        return output

    def predict_noise(self, latents: Tensor, timestep: float, text: Text) -> Tensor:
        """eps(x_t, t, y), (N, C, H, W), for latents (N, C, H, W) and N prompts, without guidance.

        If the network does not predict noise, the result differs from x_t as eps does, up to a
        positive factor (`DiffusionModel`, `FlowModel`).
        """
        return self.as_noise(self.output(latents, timestep, text), latents, timestep)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent at the model's native size."""
        raise NotImplementedError(f"{type(self).__name__} does not know its latents")

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Modules that run once in a pass and depend on latents, timestep and text only. Optional.

        Their outputs may be reused if nothing before them was edited.
        """
        return self._named("parts")

    @property
    def text_projections(self) -> dict[str, nn.Module]:
        """Modules that see only the prompt's embedding, so that all latents share their output.
        Optional.
        """
        return self._named("text projections")

    @property
    def cross_attentions(self) -> dict[str, nn.Module]:
        """Name -> attention module (diffusers `Attention`) in which the image attends to the
        prompt, in forward order. Optional.
        """
        attentions = self._named("cross-attentions")
        return {name: attentions[name] for name in sorted(attentions, key=part_of)}

    def value_inputs(self, text: Text) -> dict[str, Tensor]:
        """Layer -> input of its value projection for prompts encoded as `text`, (N, tokens, width).

        By default these are the embeddings. A model whose value layers see more than the prompt
        implements `value_activations` instead.
        """
        return dict.fromkeys(self.value_layers, text.tokens)

    @torch.no_grad()
    def value_activations(self, prompts: Sequence[str], text: Text) -> dict[str, Tensor]:
        """Layer -> (N, width), float32: a_i^l(y), the mean over all token positions of
        |activation|, for prompts encoded as `text`.

        If value projections see only the prompt, this takes one matrix product a layer and no pass
        of the denoiser.
        """
        inputs = self.value_inputs(text)
        return {
            name: applied(layer, inputs[name]).float().abs().mean(1)
            for name, layer in self.value_layers.items()
        }

    @torch.no_grad()
    def sample(
        self, prompts: str | list[str], each: int, seeds: Sequence[int], steps: int, guidance: float
    ) -> Tensor:
        """Finished latents of the unchanged pipeline, `each` for one prompt or for each of several,
        one seed for each image.
        """
        self.tell_cut([prompts] if isinstance(prompts, str) else prompts)
        with self.sampling():
            latents: Tensor = self.pipeline(
                prompts,
                num_images_per_prompt=each,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(s) for s in seeds],
                **self.finished,
                **self.size,
            ).images
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], float32, of finished latents, without a safety checker
        that could blacken them.
        """
        vae = self.pipeline.vae
        return decoded(vae, latents / vae.config.scaling_factor + self.shift)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (N, C, H, W) of images (N, 3, H, W) in [-1, 1]: the inverse of `decode`, without
        the noise of the encoder.
        """
        vae = self.pipeline.vae
        latents = encoded(vae, pixels.to(self.device))
        return ((latents - self.shift) * vae.config.scaling_factor).to(self.dtype)

    def image(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        """x0_hat, (N, C, H, W), float32: the clean latents that follow from the network's
        prediction for latents.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say what image its predictions mean"
        )

    def mixture(self, timestep: float) -> tuple[Tensor, Tensor]:
        """(c, s), float32 scalars, of x_t = c x_0 + s eps."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its latents are noised")

    def regression(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Text
    ) -> tuple[Tensor, Tensor]:
        """The denoiser's prediction for noised latents, and its training target (eps or v), both
        (N, C, H, W).

        The mean squared difference is the diffusion loss. `clean`, `noise`: (N, C, H, W).
        `timesteps`: (N,), one for each sample.
        """
        raise ModelError(
            f"the diffusion loss of a {type(self.pipeline).__name__} is not known to findnemo:"
            " attacks on an embedding and hardening need a U-Net that predicts eps or v (Stable"
            " Diffusion 1.x, 2.x, XL, DeepFloyd IF)"
        )

    def tokens(self, prompt: str) -> list[str]:
        """Texts of a prompt's tokens, from start-of-text to end-of-text, without padding."""
        raise ModelError(
            f"a {type(self.pipeline).__name__} has no one list of tokens from start-of-text to"
            " end-of-text: methods that look at single tokens need Stable Diffusion; use the"
            " detector ssim"
        )

    @property
    def size(self) -> dict[str, int]:
        """Height and width in pixels to request from the pipeline; by default its own."""
        return {}

    def limit(self, part: str) -> int:
        """How many tokens of a prompt the pipeline takes from one of its tokenizers, start-of-text
        and end-of-text included.
        """
        return int(getattr(self.pipeline, part).model_max_length)

    @property
    def samplers(self) -> dict[str, str]:
        """Name -> scheduler class of the samplers that fit the pipeline; "" is its own."""
        return fitting(self.pipeline.scheduler)

    # what follows from it -------------------------------------------------------------------------

    @property
    def readers(self) -> tuple[Reader, ...]:
        """The readers of a prompt and how much each reads: one for every existing text encoder."""
        readers: dict[str, Reader] = {}
        for words, name in self.encoders:
            tokenizer = getattr(self.pipeline, words, None)
            encoder = getattr(self.pipeline, name, None)
            if tokenizer and encoder is not None:
                kind = encoder_kind(encoder)
                readers[name] = Reader(kind, tokenizer, self.limit(words), self.prepared)
        return distinct(readers)

    @property
    def longest(self) -> int:
        """Tokens of a prompt that the first text encoder reads, start-of-text
        and end-of-text included.
        """
        return self.readers[0].limit

    def tell_cut(self, prompts: Sequence[str]) -> None:
        """Warn once of each prompt that a text encoder truncates."""
        for prompt in prompts:
            if prompt not in self.told and (unread := truncation_note(self.readers, prompt)):
                self.told.add(prompt)
                self.tell(f"{prompt[:60]!r}: {unread}")

    @property
    def value_layers(self) -> dict[str, nn.Module]:
        """Name -> value projection of the paper's layers, in forward order.

        They are found among the modules, not from a known layout.
        """
        return self.layers_of("paper")

    def layers_of(self, scope: str) -> dict[str, nn.Module]:
        """Name -> value projection in forward order, of the paper's layers ("paper") or of "all".

        Which layers of a U-Net carry memories was found on one model (appendix C.8); in others the
        up blocks carry them too.

            >>> import findnemo
            >>> model = findnemo.load("demo")
            >>> len(model.layers_of("paper")), len(model.layers_of("all"))
            (7, 13)
        """
        if scope not in SCOPES:
            raise InputError(f"scope {scope!r:.40} is not known: use one of {', '.join(SCOPES)}")
        layers = self.find("value layers", self.is_value_layer)
        names = [name for name in layers if scope == "all" or self.in_paper(name)]
        return {name: layers[name] for name in sorted(names, key=part_of)}

    def find(self, what: str, belongs: Callable[[str, nn.Module], bool]) -> dict[str, nn.Module]:
        """Name -> module of the denoiser for which `belongs` holds, in forward order.

        The result is cached under `what`, because a walk over all modules takes longer than many
        operations on them. It is computed again once one of the names belongs to another module (a
        LoRA was loaded, the denoiser replaced).
        """
        found = self._found.get(what)
        if not found or any(submodule(self.denoiser, n) is not m for n, m in found.items()):
            modules = self.denoiser.named_modules()
            found = self._found[what] = {n: m for n, m in modules if belongs(n, m)}
        return dict(found)

    def _is(self, what: str, name: str) -> bool:
        """Whether a module's name is one of those in `names`."""
        pattern = self.names.get(what)
        return pattern is not None and re.fullmatch(pattern, name) is not None

    def _named(self, what: str) -> dict[str, nn.Module]:
        """The modules of the denoiser with names in `names`."""
        return self.find(what, lambda name, module: self._is(what, name))

    @property
    def device(self) -> torch.device:
        """Where passes run: the denoiser's device, or the one that offloading moves it to."""
        name, first = next(self.denoiser.named_parameters())
        if moves(self.denoiser) or moves(self.denoiser.get_submodule(name.rpartition(".")[0])):
            return torch.device(self.pipeline._execution_device)
        return first.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the denoiser computes; its weights may be stored in less (quantized,
        float8).
        """
        stated = getattr(self.denoiser, "dtype", None)
        return stated if isinstance(stated, torch.dtype) else next(self.denoiser.parameters()).dtype

    def widths(self, scope: str = "paper") -> dict[str, int]:
        """Number of neurons of every value layer of a scope (`layers_of`)."""
        return {name: width_of(name, layer) for name, layer in self.layers_of(scope).items()}

    def timesteps(self, steps: int) -> list[int]:
        """The DDIM timesteps of a schedule with this many steps, from noise to image (981, 961,
        ... for SD and 50 steps).
        """
        config = explicit(self.pipeline.scheduler.config)
        return list(_timesteps(json.dumps(config, sort_keys=True, default=str), steps))

    def noise(self, prompt: str, samples: Sequence[int], seed: int = 0) -> Tensor:
        """Initial latents x_T ~ N(0, I), (N, C, H, W): sample k of a prompt is the same on every
        device and in every batch.
        """
        latents = [_drawn(self.latent_shape, seed, prompt, k) for k in samples]
        return torch.stack(latents).to(self.device, self.dtype)

    @property
    def identity(self) -> Identity:
        """Everything that a score or a picture depends on, of the pipeline as it is now (see
        `identity`).

        It is read anew each time, because a pipeline can change: a LoRA is loaded, weights are
        edited, a scheduler is replaced. Only changed parts are hashed; to detect changes takes a
        pass over the weights, about a second for Stable Diffusion in float32 on one core.

            >>> import findnemo
            >>> model = findnemo.load("demo")
            >>> calibrated_on = model.identity
            >>> model.pipeline.vae.register_to_config(scaling_factor=0.5)
            >>> model.identity.differences(calibrated_on)
            ['vae: scaling_factor 0.5 instead of 1.5045905113220215']
        """
        return self._once(identity, lambda: identity(self.pipeline, self.schedule, self._digests))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over everything that scores depend on, equal for loads in float32
        and in float16.

        To compare two models, or a model with results, `identity` says more.
        """
        return self.identity.fingerprint

    @contextmanager
    def steady(self) -> Iterator[None]:
        """The state of every pass, in which it gives the same to the last bit however the pipeline
        was left.

        All networks are in evaluation mode, without checkpointing or autocast. On leaving, also by
        an exception, every module returns to its mode. Raises EditError for anything that makes
        passes depend on earlier ones (`check_ready`).
        """
        if self._steady:
            yield
            return
        self.check_ready()
        with evaluating(*self.networks), plain_arithmetic():
            self._steady = True
            try:
                yield
            finally:
                self._steady = False

    @property
    def networks(self) -> list[nn.Module]:
        """All networks of the pipeline: denoiser, text encoders, VAE, and any others."""
        return list(networks_of(self.pipeline).values())

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Read the model's identity once, and encode no caption twice, while the context lasts.

        This is for work that leaves the pipeline unchanged. If the pipeline's `encode_prompt` is
        replaced, captions are encoded each time.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> with model.unchanged():
        ...     model.encode(["a star"]) is model.encode(["a star"])
        True
        """
        before = self._kept
        self._kept = {} if before is None else before
        try:
            yield
        finally:
            self._kept = before

    def _once(self, key: Any, made: Callable[[], T]) -> T:
        """The value of `made()`, cached under a key within `unchanged`."""
        if self._kept is None:
            return made()
        if key not in self._kept:
            self._kept[key] = made()
        value: T = self._kept[key]
        return value

    @contextmanager
    def sampling(self, pipeline: Any = None) -> Iterator[None]:
        """A steady state for a call of the pipeline, or of another pipeline with the same parts.

        It protects the scheduler from changes. Text encoders may compute in another dtype than the
        denoiser.
        """
        called = self.pipeline if pipeline is None else pipeline
        with self.steady(), spare_scheduler(called), taking(self.denoiser, self.dtype):
            yield

    def check_ready(self) -> None:
        """Raises EditError for a pipeline with anything in force that changes predictions, or makes
        them depend on earlier passes.
        """
        for module in modules_of(self.networks):
            if (reason := unsteady(module)) is not None:
                raise EditError(f"{self._name(module)} {reason}")

    def _name(self, module: nn.Module) -> str:
        """The name of a module of any network, for messages."""
        network = next(n for n in self.networks if any(m is module for m in n.modules()))
        name = next(n for n, m in network.named_modules() if m is module)
        kind = type(network).__name__
        return f"{name} of {kind}" if name else kind

    def check_editable(self) -> None:
        """Raises an error for a pipeline without value layers, or on which an edit would silently
        do nothing.
        """
        kind = type(self.denoiser).__name__
        modules = list(self.denoiser.named_modules())
        compiled = [n or kind for n, m in modules if is_compiled(m)]
        if compiled:
            raise EditError(
                f"{compiled[0]} is compiled, so an edit might silently do nothing: "
                "give findnemo the pipeline before torch.compile"
            )
        fused = [n for n, m in modules if is_fused(m)]
        if fused:
            raise EditError(
                f"the attention projections of {kind} are fused ({fused[0]}), so an edit of to_v"
                " would silently do nothing: call"
                f" pipeline.{self.component}.unfuse_qkv_projections() first"
            )
        if hasattr(self.denoiser, "get_base_model"):
            raise ModelError(
                f"the {self.component} is a {kind} of peft around the network that findnemo needs:"
                f" give the pipeline {self.component}.get_base_model(), or merge_and_unload() to"
                " keep what was adapted"
            )
        if not any(self.is_value_layer(n, m) and self.in_paper(n) for n, m in modules):
            raise ModelError(
                f"no value layers found in {kind}: findnemo needs a text-conditioned model with"
                " cross-attention (attn2.to_v)"
            )


def _steadily(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def called(self: Model, *args: Any, **kwargs: Any) -> Any:
        with self.steady():
            return function(self, *args, **kwargs)

    return called


def _once_each(function: Callable[..., Text]) -> Callable[..., Text]:
    @wraps(function)
    def called(self: Model, prompts: Sequence[str]) -> Text:
        if len(prompts) != 1 or "encode_prompt" in vars(self.pipeline):
            return function(self, prompts)
        return self._once((function, prompts[0]), lambda: function(self, prompts))

    return called


def _make_steady(kind: type[Model]) -> None:
    for name in PASSES:
        if name in vars(kind):
            setattr(kind, name, _steadily(vars(kind)[name]))
    if "encode" in vars(kind):
        kind.encode = _once_each(kind.encode)  # type: ignore[method-assign]


_make_steady(Model)


@lru_cache
def _timesteps(config: str, steps: int) -> tuple[int, ...]:
    from diffusers import DDIMScheduler

    # any betas will do: timesteps do not depend on them
    settings = json.loads(config) | {"beta_schedule": "linear", "trained_betas": None}
    scheduler = DDIMScheduler.from_config(settings)
    scheduler.set_timesteps(steps)
    return tuple(int(t) for t in scheduler.timesteps)


def _drawn(shape: tuple[int, ...], seed: int, prompt: str, sample: int) -> Tensor:
    """Gaussian noise in float32, drawn on the CPU whatever PyTorch's default dtype and device."""
    generator = torch.Generator("cpu").manual_seed(sample_seed(seed, prompt, sample))
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def require_caption(prompt: Any) -> None:
    """Raises InputError for anything but a caption: no text, or text with half of a surrogate
    pair.
    """
    if not isinstance(prompt, str):
        raise InputError(f"a caption must be text, not {type(prompt).__name__}: {prompt!r:.60}")
    if prompt.encode(errors="ignore").decode() != prompt:
        raise InputError(
            f"the caption {ascii(prompt)[:60]} holds half of a surrogate pair: repair or remove it"
        )


def captions_in(prompts: Iterable[str]) -> Iterator[str]:
    """Captions one by one.

    Raises InputError for a single text instead of several captions, which would be read letter by
    letter, and for anything but a caption.
    """
    if isinstance(prompts, str):
        raise InputError(
            f"{prompts!r:.60} is one text where several captions belong: give a list, or"
            " read_prompts(FILE) for a file"
        )
    for prompt in prompts:
        prompt = getattr(prompt, "text", prompt)  # a row of a table of captions
        require_caption(prompt)
        yield prompt
