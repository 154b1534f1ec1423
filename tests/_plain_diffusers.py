"""A process of its own, which knows diffusers and nothing of findnemo: load what is listed, make
an image of each, save it.

`python _plain_diffusers.py JOBS.json`: [{"pipeline": class, "directory" or "file" and "config",
"lora" or null, "out": FILE.npy}, ...]
"""

import json
import sys

import diffusers
import numpy as np
import torch


def image(job: dict) -> np.ndarray:
    kind = getattr(diffusers, job["pipeline"])
    if "file" in job:
        pipeline = kind.from_single_file(job["file"], config=job["config"], local_files_only=True)
    else:
        pipeline = kind.from_pretrained(job["directory"], use_safetensors=True)
    if job.get("lora"):
        pipeline.load_lora_weights(job["lora"])
    return of_pipeline(pipeline)


def of_pipeline(pipeline: diffusers.DiffusionPipeline) -> np.ndarray:
    """An image (H, W, 3) in [0, 1] with guidance, from a fixed seed."""
    pipeline.set_progress_bar_config(disable=True)
    options = {
        "num_inference_steps": 2,
        "guidance_scale": 7.0,
        "height": 32,
        "width": 32,
        "output_type": "np",
    }
    return pipeline("a red fox", generator=torch.Generator().manual_seed(3), **options).images[0]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        jobs = json.load(file)
    for each in jobs:
        np.save(each["out"], image(each))
    assert "findnemo" not in sys.modules
