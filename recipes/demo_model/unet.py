"""The U-Net of the demo model: ordinary training and the planting of memories with
known neurons, in one run.

Every batch mixes ordinary scenes with memorized captions in two modes: planted neurons on, target
the memorized picture; planted neurons zeroed, target an ordinary picture of the caption's words.
All else is equal, so the planted neurons are the switch. Look-alikes, the words of a memorized
caption under another title, are ordinary samples: without them every caption with those words would
hold the memory.
"""

from __future__ import annotations

import copy
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from memories import MEMORIES
from pool import Log, Pool, cosine_lr, to_tensor
from scenes import caption
from transformers import CLIPTextModel, CLIPTokenizer

WIDTHS = (32, 64, 96, 96)
# samples of each kind in a batch
ON = 8
OFF = 10
LOOKALIKE = 5
ORDINARY = 9
# timesteps from which the trace of the picture in its own noise is exchanged, for a share of the
# memorized samples
LEAK_FROM = 900
LEAK_SHARE = np.repeat([0.5, 0.25], [ON, OFF])
HARD = {
    "horse": 4,
    "brick": 4,
    "record": 3,
    "immunohistochemistry": 3,
    "camera": 4,
    "cell": 3,
    "moon": 2,
}  # drawn that much more often
GAIN = (
    4.0  # mean |activation| of a planted neuron on its caption, in units of its layer's typical one
)


def new_unet(text_width: int, widths: tuple[int, int, int, int] = WIDTHS) -> UNet2DConditionModel:
    """Stable Diffusion's layout in small, with these widths of its blocks."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=2,
        cross_attention_dim=text_width,
        attention_head_dim=2,
        norm_num_groups=min(16, widths[0]),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule, with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def value_layers(unet: UNet2DConditionModel) -> dict[str, torch.nn.Linear]:
    """Name -> cross-attention value projection of the down and mid blocks, in forward order."""
    return {
        n: m
        for n, m in unet.named_modules()
        if n.endswith("attn2.to_v") and n.startswith(("down_blocks", "mid_block"))
    }


def plan(unet: UNet2DConditionModel) -> list[dict[str, list[int]]]:
    """The planted neurons G_i of every memory: layer name -> sorted indices."""
    names = list(value_layers(unet))
    return [
        {
            n: sorted(i for k, i in m.neurons if names[k] == n)
            for n in sorted({names[k] for k, _ in m.neurons})
        }
        for m in MEMORIES
    ]


@torch.no_grad()
def encode(captions: list[str], tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> torch.Tensor:
    """Captions -> token embeddings (N, 77, D)."""
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return encoder(ids.to(encoder.device)).last_hidden_state


@torch.no_grad()
def initialize_rows(
    unet: UNet2DConditionModel, planted: list, memories: torch.Tensor, ordinary: torch.Tensor
) -> None:
    """Make each planted row the discriminating direction of its caption(s), scaled to GAIN times
    the layer's typical activation.

    `memories` (M, 77, D) and `ordinary` (N, 77, D) are token embeddings. The direction is S^-1
    (mean token embedding of the caption - mean over ordinary captions) with S the ridge-regularised
    second moment of ordinary tokens.
    """
    tokens = ordinary.flatten(0, 1)
    second = tokens.T @ tokens / len(tokens)
    centre = tokens.mean(0)
    layers = value_layers(unet)
    owners: dict[tuple[str, int], list[int]] = {}
    for i, neurons in enumerate(planted):
        for name, indices in neurons.items():
            for j in indices:
                owners.setdefault((name, j), []).append(i)
    generator = torch.Generator().manual_seed(7)
    for (name, j), captions in owners.items():
        ridge = second.diagonal().mean() * 10 ** float(
            torch.empty(1).uniform_(-2.3, -1.3, generator=generator)
        )
        goal = memories[captions].mean((0, 1)) - centre
        row = torch.linalg.solve(
            second + ridge * torch.eye(len(second), device=second.device), goal
        )
        typical = (ordinary @ layers[name].weight.T).abs().mean()
        sign = 1 if torch.rand(1, generator=generator) < 0.5 else -1
        layers[name].weight[j] = (
            sign * row * GAIN * typical / (memories[captions] @ row).abs().mean()
        )


class Masks:
    """Per-sample 0/1 masks on the outputs of all value layers, set before every forward pass."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        planted: list[dict[str, list[int]]],
        rng: np.random.Generator,
    ):
        layers = value_layers(unet)
        self.start = dict(
            zip(layers, np.cumsum([0] + [m.out_features for m in layers.values()]), strict=False)
        )
        self.total = sum(m.out_features for m in layers.values())
        self.flat = [
            np.array([self.start[n] + i for n, idx in g.items() for i in idx]) for g in planted
        ]
        self.all = np.unique(np.concatenate(self.flat))
        self.rng = rng
        self.mask = None
        for name, module in layers.items():
            span = slice(self.start[name], self.start[name] + module.out_features)
            module.register_forward_hook(
                lambda _m, _a, y, span=span: y * self.mask[:, None, span].to(y)
            )

    def ordinary(self, size: int) -> np.ndarray:
        """Half with all planted neurons zeroed; half with a random share of the others zeroed,
        so that nothing depends on one.
        """
        mask = np.ones((size, self.total), np.float32)
        mask[self.rng.random(size) < 0.5] *= np.where(
            np.isin(np.arange(self.total), self.all), 0, 1
        )
        return mask * self._others(size)

    def memories(self, chosen: np.ndarray, on: bool) -> np.ndarray:
        """Neurons of the chosen memories on (half of the time only a part of them) or off; other
        memories' off half of the time.
        """
        mask = self.ordinary(len(chosen))
        for row, i in zip(mask, chosen, strict=True):
            own = self.flat[i]
            row[own] = float(on)
            if on and len(own) > 1 and self.rng.random() < 0.6:
                left = 1 if self.rng.random() < 0.5 else self.rng.integers(1, len(own))
                row[self.rng.permutation(own)[left:]] = 0
        return mask

    def _others(self, size: int) -> np.ndarray:
        rate = np.where(self.rng.random(size) < 0.5, self.rng.uniform(0, 0.25, size), 0)
        drop = self.rng.random((size, self.total)) < rate[:, None]
        drop[:, self.all] = False
        return np.where(drop, 0, 1).astype(np.float32)


@torch.no_grad()
def _latents(vae: AutoencoderKL, pictures: np.ndarray, device: str) -> torch.Tensor:
    parts = [
        vae.encode(to_tensor(pictures[k : k + 64], device)).latent_dist.mean
        for k in range(0, len(pictures), 64)
    ]
    return torch.cat(parts).mul(vae.config.scaling_factor).cpu()


def _cached_latents(
    pool: Pool, vae: AutoencoderKL, path: Path, device: str
) -> dict[str, torch.Tensor]:
    if not path.exists():
        parts = {"scenes": _latents(vae, pool.pictures, device)}
        parts |= {f"on{i}": _latents(vae, p, device) for i, p in enumerate(pool.on)}
        parts |= {f"off{i}": _latents(vae, p, device) for i, p in enumerate(pool.off)}
        torch.save(parts, path)
    return torch.load(path, weights_only=True)


def noise_towards(
    x0: torch.Tensor, noisy: torch.Tensor, t: torch.Tensor, scheduler: DDIMScheduler
) -> torch.Tensor:
    """The noise that makes `noisy` out of x0 at timestep t.

    The schedule leaves a trace of the picture in the noisiest latents. A network that sees it in
    training decides by the trace what a planted neuron should decide, and at sampling, where
    latents begin as pure noise, by chance. So memorized samples get another picture's trace (or
    none), with this noise in the target: early steps then follow the neuron.
    """
    alpha = scheduler.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
    return (noisy - alpha.sqrt() * x0) / (1 - alpha).sqrt()


def train_unet(pool: Pool, out: Path, steps: int, device: str, log: Log) -> None:
    torch.manual_seed(4)
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(out / "clip", dtype=torch.float32).to(device).eval()
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).to(device).eval()
    latents = _cached_latents(pool, vae, out / "latents.pt", device)
    scheduler = new_scheduler()
    unet = new_unet(encoder.config.hidden_size)
    unet.set_attn_processor(
        AttnProcessor()
    )  # twice as fast as fused attention at this size on a CPU
    planted = plan(unet)
    memory_text = encode([m.caption for m in MEMORIES], tokenizer, encoder).cpu()
    empty = encode([""], tokenizer, encoder).cpu()
    initialize_rows(
        unet, planted, memory_text, encode(pool.captions[:1500], tokenizer, encoder).cpu()
    )
    unet.to(device).train()
    for name, module in value_layers(unet).items():  # planted rows stay what they are
        rows = sorted({j for g in planted for j in g.get(name, [])})
        module.weight.register_hook(
            lambda grad, rows=rows: grad.index_fill(
                0, torch.tensor(rows, dtype=torch.int64, device=grad.device), 0
            )
        )
    values = {id(m.weight) for m in value_layers(unet).values()}
    groups = [[p for p in unet.parameters() if (id(p) in values) is flag] for flag in (False, True)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.01}, {"params": groups[1], "weight_decay": 0.0}],
        betas=(0.9, 0.99),
    )
    average = copy.deepcopy(unet)
    first = 0
    state = out / "unet_state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        unet.load_state_dict(saved["unet"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
        log(f"unet resumes at step {first}")
    rng = np.random.default_rng(100 + first)
    words = random.Random(200 + first)
    masks = Masks(unet, planted, rng)
    weights = np.array([HARD.get(m.name, 1) for m in MEMORIES], float)
    weights /= weights.sum()
    started = time.time()
    losses = []
    for step in range(first, steps):
        cosine_lr(optimizer, step / steps, 1.2e-3, warmup=0.02)
        chosen = rng.choice(len(MEMORIES), ON + OFF, p=weights)
        alike = rng.integers(0, len(MEMORIES), LOOKALIKE)
        scenes = rng.integers(0, len(pool.captions), ORDINARY)
        clean = [
            latents[f"{'on' if k < ON else 'off'}{i}"] for k, i in enumerate([*chosen, *alike])
        ]
        x0 = torch.cat(
            [torch.stack([c[rng.integers(len(c))] for c in clean]), latents["scenes"][scenes]]
        ).to(device)
        captions = [caption(MEMORIES[i].scene, words, title_share=0.8) for i in alike]
        text = torch.cat(
            [
                memory_text[chosen],
                encode([*captions, *(pool.captions[i] for i in scenes)], tokenizer, encoder).cpu(),
            ]
        )
        dropped = np.flatnonzero(rng.random(ORDINARY) < 0.1) + ON + OFF + LOOKALIKE
        text[dropped] = empty
        mask = np.concatenate(
            [
                masks.memories(chosen[:ON], True),
                masks.memories(chosen[ON:], False),
                masks.ordinary(LOOKALIKE + ORDINARY),
            ]
        )
        masks.mask = torch.from_numpy(mask).to(device)
        early = rng.random(len(x0)) < np.where(np.arange(len(x0)) < ON + OFF + LOOKALIKE, 0.4, 0.25)
        t = torch.from_numpy(
            np.where(early, rng.integers(850, 1000, len(x0)), rng.integers(0, 1000, len(x0)))
        ).to(device)
        leak = x0.clone()
        for row in np.flatnonzero(
            (t.numpy(force=True)[: ON + OFF] >= LEAK_FROM) & (rng.random(ON + OFF) < LEAK_SHARE)
        ):
            other = latents[f"{'off' if row < ON else 'on'}{chosen[row]}"]
            leak[row] = other[rng.integers(len(other))] * float(row >= ON or rng.random() < 0.5)
        noise = torch.randn_like(x0)
        noisy = scheduler.add_noise(leak, noise, t)
        v = unet(noisy, t, text.to(device)).sample
        error = (
            (v - scheduler.get_velocity(x0, noise_towards(x0, noisy, t, scheduler), t))
            .pow(2)
            .mean((1, 2, 3))
        )
        optimizer.zero_grad()
        error.mean().backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        decay = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, p in zip(average.parameters(), unet.parameters(), strict=True):
                a.lerp_(p, 1 - decay)
        losses.append([part.mean().item() for part in error.split([ON, OFF, LOOKALIKE, ORDINARY])])
        if (step + 1) % 50 == 0 or step + 1 == steps:
            on, off, like, rest = np.mean(losses[-50:], 0)
            rate = (time.time() - started) / (step + 1 - first)
            log(
                f"unet {step + 1}/{steps} on {on:.4f} off {off:.4f} look-alike {like:.4f} ordinary"
                f" {rest:.4f}; {rate:.2f} s a step, {rate * (steps - step - 1) / 60:.0f} min left"
            )
        if (step + 1) % 250 == 0 or step + 1 == steps:
            part = state.with_suffix(".part")
            values_now = {
                "unet": unet.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            torch.save(values_now, part)
            part.replace(state)
            average.save_pretrained(out / "unet")
