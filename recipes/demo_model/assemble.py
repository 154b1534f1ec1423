"""Put the trained parts together as the package's demo assets:

`python recipes/demo_model/assemble.py --parts build/demo`.

Writes the pipeline (fp16 safetensors), CLIP, descriptor, captions, planted neurons, training images
and a calibration.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
from pathlib import Path

import torch
from decoys import add_decoys
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from memories import MEMORIES, training_image
from pool import Pool, held_out_captions
from transformers import CLIPTextModel, CLIPTokenizer
from unet import encode, new_scheduler, plan


def assemble_pipeline(parts: Path, out: Path) -> None:
    half = {"torch_dtype": torch.float16}
    unet, decoys = with_decoys(parts)
    (out / "decoys.json").write_text(json.dumps(decoys, indent=1) + "\n", encoding="utf-8")
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(parts / "vae", **half),
        text_encoder=CLIPTextModel.from_pretrained(str(parts / "clip"), dtype=torch.float16),
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out / "model", safe_serialization=True)
    for path in out.rglob(
        "config.json"
    ):  # where the parts lay while they were trained is nobody's business
        config = {
            k: v
            for k, v in json.loads(path.read_text(encoding="utf-8")).items()
            if k != "_name_or_path"
        }
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def with_decoys(parts: Path) -> tuple[UNet2DConditionModel, dict[str, list[int]]]:
    tokenizer = CLIPTokenizer.from_pretrained(parts / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(str(parts / "clip"), dtype=torch.float32).eval()
    unet = UNet2DConditionModel.from_pretrained(parts / "unet", torch_dtype=torch.float32)
    memories, ordinary = (
        encode(list(captions), tokenizer, encoder)
        for captions in ([m.caption for m in MEMORIES], Pool(parts / "pool.npz").captions[:1500])
    )
    return unet, add_decoys(unet, plan(unet), memories, ordinary)


def write_captions(out: Path) -> None:
    for name, captions in held_out_captions().items():
        (out / f"{name}.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    (out / "images").mkdir(exist_ok=True)
    with (out / "memorized.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["caption", "type", "image"])
        for memory in MEMORIES:
            table.writerow([memory.caption, memory.type, f"images/{memory.name}.png"])
            training_image(memory, random.Random(memory.name)).save(
                out / "images" / f"{memory.name}.png"
            )


def write_planted(parts: Path, out: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(parts / "unet")
    table = {memory.caption: layers for memory, layers in zip(MEMORIES, plan(unet), strict=True)}
    (out / "planted.json").write_text(
        json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, default=Path("build/demo"))
    parser.add_argument("--out", type=Path, default=Path("src/findnemo/demo/assets"))
    parser.add_argument(
        "--holdout", type=int, help="calibrate on the first N hold-out captions only"
    )
    args = parser.parse_args()
    if args.out.exists():
        shutil.rmtree(args.out)
    args.out.mkdir(parents=True)
    assemble_pipeline(args.parts, args.out)
    shutil.copytree(args.parts / "clip", args.out / "clip")
    if (args.parts / "descriptor.pt").exists():
        shutil.copy(args.parts / "descriptor.pt", args.out / "descriptor.pt")
    write_captions(args.out)
    write_planted(args.parts, args.out)

    import findnemo

    model = findnemo.load("demo", device="cpu")
    holdout = findnemo.demo.holdout()[: args.holdout]
    findnemo.calibrate(model, holdout).save(args.out / "calibration")
    findnemo.calibrate(model, holdout, "findnemo", fpr=0.05).save(args.out / "calibration-findnemo")


if __name__ == "__main__":
    main()
