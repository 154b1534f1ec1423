"""Make the demo model, from nothing: `python recipes/demo_model/train.py --out build/demo`.

Stages, each skipped when its result is there: pool, tokenizer, clip, vae, unet, decoder,
descriptor. The U-Net stage also resumes from its last checkpoint; decoder and descriptor can run
beside it (`--only decoder descriptor`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from pool import Pool

STEPS = {"clip": 700, "vae": 700, "unet": 9000, "decoder": 2000, "descriptor": 400}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument("--only", nargs="*", default=["tokenizer", *STEPS], help="stages to run")
    for stage, steps in STEPS.items():
        parser.add_argument(f"--{stage}-steps", type=int, default=steps)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    def log(line: str) -> None:
        text = f"{time.strftime('%H:%M:%S')} {line}"
        print(text, flush=True)
        with (args.out / "train.log").open("a", encoding="utf-8") as f:
            f.write(text + "\n")

    pool = Pool(args.out / "pool.npz")
    log(f"pool of {len(pool.captions)} scenes")
    if "tokenizer" in args.only and not (args.out / "tokenizer").exists():
        from text import train_tokenizer

        train_tokenizer(pool.captions, args.out / "tokenizer")
    if "clip" in args.only and not (args.out / "clip" / "model.safetensors").exists():
        from text import train_clip
        from transformers import CLIPTokenizer

        train_clip(
            pool,
            CLIPTokenizer.from_pretrained(args.out / "tokenizer"),
            args.out / "clip",
            args.clip_steps,
            args.device,
            log,
        )
    if (
        "vae" in args.only
        and not (args.out / "vae" / "diffusion_pytorch_model.safetensors").exists()
    ):
        from vae import train_vae

        train_vae(pool, args.out / "vae", args.vae_steps, args.device, log)
    if "unet" in args.only:
        from unet import train_unet

        train_unet(pool, args.out, args.unet_steps, args.device, log)
    if "decoder" in args.only and not (args.out / "decoder.done").exists():
        from vae import tune_decoder

        tune_decoder(pool, args.out / "vae", args.decoder_steps, args.device, log)
        (args.out / "decoder.done").touch()
    if "descriptor" in args.only and not (args.out / "descriptor.pt").exists():
        from descriptor import train_descriptor

        train_descriptor(pool, args.out / "descriptor.pt", args.descriptor_steps, args.device, log)


if __name__ == "__main__":
    main()
