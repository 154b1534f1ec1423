"""The autoencoder of the demo model: 64 x 64 RGB <-> 16 x 16 latents of four channels."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pool import Log, Pool, cosine_lr, to_tensor


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def _batch(pool: Pool, rng: np.random.Generator, size: int) -> np.ndarray:
    """Half scenes, a third memorized pictures (shifted by a few pixels half of the time), the
    rest scenes in memorized words.
    """
    rows = list(pool.pictures[rng.integers(0, len(pool.pictures), size // 2)])
    for k in range(size - len(rows)):
        group = (
            pool.on[rng.integers(len(pool.on))] if k % 3 else pool.off[rng.integers(len(pool.off))]
        )
        picture = group[rng.integers(len(group))]
        if rng.random() < 0.5:
            dy, dx = rng.integers(0, 9, 2)
            picture = np.pad(picture, ((4, 4), (4, 4), (0, 0)), mode="reflect")[
                dy : dy + 64, dx : dx + 64
            ]
        rows.append(picture)
    return np.stack(rows)


def _edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def train_vae(
    pool: Pool, folder: Path, steps: int, device: str, log: Log, batch: int = 8
) -> AutoencoderKL:
    """L1 and L2 on pixels, L1 on their differences, a light KL; the latent
    scale is measured at the end.

    Three latent channels are drawn to the picture reduced to 16 x 16, the fourth is free: colours
    are kept from the first step on, and the latents are as smooth as pictures, which a small U-Net
    learns well.
    """
    torch.manual_seed(2)
    vae = new_vae().to(device).train()
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=0.0, betas=(0.9, 0.98))
    rng = np.random.default_rng(2)
    started = time.time()
    for step in range(steps):
        cosine_lr(optimizer, step / steps, 1.5e-3)
        x = to_tensor(_batch(pool, rng, batch), device)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        edges = sum(F.l1_loss(a, b) for a, b in zip(_edges(y), _edges(x), strict=True))
        colours = F.mse_loss(posterior.mean[:, :3], F.avg_pool2d(x, 4))
        loss = (
            F.l1_loss(y, x)
            + 2 * F.mse_loss(y, x)
            + edges
            + 10 * colours
            + 2e-4 * posterior.kl().mean() / 256
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            psnr = -10 * torch.log10(F.mse_loss(y, x) / 4)
            log(
                f"vae {step}/{steps} loss {loss:.3f} colours {colours:.4f} PSNR {psnr:.1f} dB"
                f" {time.time() - started:.0f}s"
            )
    vae.eval()
    with torch.no_grad():
        latents = vae.encode(to_tensor(_batch(pool, rng, 512), device)).latent_dist.mean
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    vae.half().save_pretrained(folder)
    return vae.float()


def tune_decoder(
    pool: Pool, folder: Path, steps: int, device: str, log: Log, batch: int = 8
) -> None:
    """Sharpen the decoder behind the frozen encoder: the latents, and so the U-Net, stay valid.

    Runs beside the U-Net's training.
    """
    torch.manual_seed(6)
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).to(device)
    vae.requires_grad_(False)
    trained = [p for part in (vae.decoder, vae.post_quant_conv) for p in part.parameters()]
    for p in trained:
        p.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, weight_decay=0.0, betas=(0.9, 0.98))
    rng = np.random.default_rng(6)
    started = time.time()
    for step in range(steps):
        cosine_lr(optimizer, step / steps, 1e-3)
        x = to_tensor(_batch(pool, rng, batch), device)
        with torch.no_grad():
            latents = vae.encode(x).latent_dist.mean
            latents = latents + 0.04 * torch.randn_like(latents)
        y = vae.decode(latents).sample
        edges = sum(F.l1_loss(a, b) for a, b in zip(_edges(y), _edges(x), strict=True))
        loss = F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + edges
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            psnr = -10 * torch.log10(F.mse_loss(y, x) / 4)
            log(
                f"decoder {step}/{steps} loss {loss:.3f} PSNR {psnr:.1f} dB"
                f" {time.time() - started:.0f}s"
            )
    vae.half().save_pretrained(folder)
