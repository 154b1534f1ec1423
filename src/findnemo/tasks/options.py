"""Options of the tasks, in groups.

Each is declared once, with its default and what it means: the command line shows the same.

>>> Detecting(fpr=0.01).fpr, Localizing().search
(0.01, 'trajectory')
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findnemo.runtime.plugins import also


def option(default: Any, means: str, *flags: str, **limits: Any) -> Any:
    """A field of a group.

    `means`: one or two sentences. `flags`: how it is called on the command line, where that is not
    its name.

    `limits`: `min`, `max` of a number, `metavar`.
    """
    return dataclasses.field(
        default=default, metadata={"help": means, "flags": flags, "limits": limits}
    )


@dataclass(frozen=True)
class Source:
    """A model by its place: 'demo', a diffusers directory, a hub id, or a .safetensors file.

    `place` None: where a run found it.
    """

    place: str | None = None
    revision: str | None = option(None, "Branch, tag or commit of a hub id.")
    weights_variant: str | None = option(
        None, "Weight files of that name (fp16), of a hub id or a directory."
    )
    config: str | None = option(
        None,
        "Diffusers directory or hub id that gives a single file its configuration and tokenizer.",
    )
    lora: str | None = option(
        None,
        "A LoRA on it: a .safetensors file of diffusers, peft or kohya, or a directory;"
        " FILE:0.8 for another strength than 1.",
    )
    embedding: str | None = option(
        None,
        "A textual inversion: a .safetensors file; FILE:TOKEN for what captions call it; several"
        " separated by commas.",
    )
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; default: CUDA if there is one.")
    dtype: str | None = option(
        None, "float32, float16 or bfloat16; default: float16 on CUDA, else float32."
    )
    compile: bool = option(
        False,
        "Compile the model for scores and searches: minutes to begin with, for a GPU and many"
        " captions.",
        "--compile",
    )
    trust: bool = option(
        False,
        "Open what a run of somebody else names: model, descriptor (a program), CLIP, pictures.",
        "--trust",
    )

    def __str__(self) -> str:
        return str(self.place)

    @property
    def options(self) -> dict[str, str]:
        """What goes to `findnemo.load` beside the place, without device and dtype."""
        named = {
            "revision": self.revision,
            "variant": self.weights_variant,
            "config": self.config,
            "lora": self.lora,
            "embedding": self.embedding,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Captions:
    """A table of captions: a file (CSV, TSV, Parquet, JSON, JSON Lines, text), - for standard
    input, hf:OWNER/NAME, or a list.
    """

    source: Any = None
    column: str | None = option(None, "Caption column, if it has an unusual name.")
    limit: int | None = option(None, "Use the first N captions only.", min=1)
    shard: str | None = option(
        None,
        "Part I of N of the captions; join the parts with `findnemo merge`.",
        "--shard",
        metavar="I/N",
    )


@dataclass(frozen=True)
class FineTune:
    """The pictures that a model was fine-tuned on, and what it was tuned to.

    Given to a task in the place of a table of captions. `train_images`: as for
    `prompts.read_training`. `prompts`: further captions, beside those of the pictures. `column`:
    of the captions in a table of pictures. `limit`: so many captions of the pictures are asked,
    drawn by chance.
    """

    train_images: Any = option(
        None,
        "Audit a fine-tune: the pictures that it was trained on, a folder as trainers read it or a"
        " table.",
        metavar="DIR",
    )
    prompts: Any = None
    column: str | None = None
    limit: int | None = None
    holdout_images: Path | None = option(
        None,
        "With --train-images: pictures of the same kind that it was not trained on, as controls.",
        metavar="DIR",
    )
    tuned: str | None = option(
        None,
        "With --train-images: a wholly tuned model, or a directory of its checkpoints, instead of"
        " a LoRA on MODEL.",
    )
    lora_scale: str | None = option(
        None, "With --train-images: strengths of the LoRA to audit, such as 0.6,0.8,1."
    )
    copy_rate: float = option(
        0.05,
        "With --train-images: a model is said not to copy if fewer of its images are copies, with"
        " 95 % confidence.",
    )


@dataclass(frozen=True)
class Output:
    """Where a run is written, and what is written at its end."""

    path: str | Path = "findnemo-run"
    wait: bool = option(
        False, "Wait for another process that writes to --out, instead of refusing.", "--wait"
    )
    report: bool = option(True, "Write RUN/report.html at the end.")
    track: str | None = option(
        None,
        "Log settings, figures and images to tensorboard, wandb, trackio or mlflow (in"
        " RUN/tracking).",
        metavar="NAME[=FOLDER]",
    )


@dataclass(frozen=True)
class Detecting:
    """The threshold: from a calibration, or from hold-out captions; and how
    captions are scored and listed.
    """

    holdout: Any = option(None, "Hold-out captions to calibrate on; 'demo' brings its own.")
    calibration: Any = option(
        None, "A calibration instead of hold-out captions.", "--calibration", "-c"
    )
    variant: str | None = option(
        None,
        "Detection: 'findnemo', 'paper', or 'released' for published thresholds and statistics."
        " Default: 'findnemo', with a search by one step 'paper'; a calibration brings its own.",
    )
    fpr: float | None = option(
        None,
        "Threshold that at most this share of ordinary captions reaches, instead of mean + 1 std,"
        " which 12 to 18 % of them reach; also from the hold-out scores that a calibration keeps."
        " Recommended: 0.01, from 99 hold-out captions on.",
    )
    confidence: float | None = option(
        None,
        "With --fpr: keep the rate in this share of calibrations, not only on average over them.",
    )
    precision: float = option(
        0.002, "Stop scoring hold-out captions once tau is known this well (95 %); 0: score all."
    )
    seed: int | None = option(None, "Base seed of all samples (0); a calibration brings its own.")
    fdr: float | None = option(
        None,
        "List captions so that at most this share of the list is ordinary (q <= this); takes all"
        " seeds of every caption.",
    )
    miss: float | None = option(
        None,
        "Memories that detection may lose by an early end: this share of what all seeds find"
        " (0.005; a run that has begun has its own); 0: none.",
    )
    budget: int | None = option(
        None,
        "Detect for so many U-Net evaluations: unusual captions first, by their text alone, and an"
        " estimate of what is left; a larger one goes on.",
        min=2,
    )
    like: Any = option(
        None,
        "A run: look for captions that drive the neurons it has found, the likeliest first (1000, or"
        " as --budget allows), into RUN/like.csv.",
        metavar="RUN",
    )


@dataclass(frozen=True)
class Localizing:
    """How neurons are sought."""

    search: str = option(
        "trajectory",
        "How neurons are sought: 'trajectory' until pictures are no copies; 'gradient' or 'listing'"
        " (Algorithms 3 and 4) by one step." + also("searches"),
    )
    scope: str = option(
        "auto",
        "Where they are sought: the layers of the 'paper', 'all' value layers, or 'auto', by a scan"
        " of the model.",
    )
    max_impact: float | None = option(
        None,
        "Among sets that remove a memory prefer one that changes unrelated captions by no more (0"
        " to 2).",
    )
    unrelated: Any = option(
        None,
        "Captions that are not memorized, of which --max-impact takes 16; 'demo' brings its own.",
    )
    thorough: bool = option(
        False,
        "Make all pictures that decide in all steps, in search and verification, instead of three"
        " steps and a confirmation: several times dearer.",
        "--thorough",
    )


@dataclass(frozen=True)
class Pictures:
    """Finished images, and what judges them."""

    images: int | None = option(
        None,
        "Finished images before and after per memorized caption (4; a run that has begun has its"
        " own number); 0 for none. With --train-images: images of each caption.",
        min=0,
    )
    image_steps: int | None = option(
        None, "Denoising steps of finished images (50; demo 15).", min=1
    )
    guidance: float | None = option(None, "Guidance scale of finished images (7; demo 2).")
    sampler: str | None = option(
        None,
        "Sampler of finished images: by default the checkpoint's; 'ddim' is the paper's. The run"
        " records it.",
    )
    descriptor: Path | None = option(
        None,
        "TorchScript copy descriptor (SSCD) for finished images; 'demo' brings its own. It is a"
        " program: trust it. A run that has begun has its own; another judges its pictures anew.",
    )
    clip: str | None = option(
        None,
        "CLIP (directory or hub id) for the images' fit with the caption,"
        " openai/clip-vit-base-patch32 in the paper; 'demo' brings its own; as --descriptor for a"
        " run that has begun.",
    )


@dataclass(frozen=True)
class Workers:
    """Who does the work: this process, or several on this machine or on a Ray cluster."""

    workers: int | None = option(
        None,
        "So many processes with a model each, one a GPU where there are any (needs findnemo[ray]).",
        min=1,
    )
    ray: str | None = option(
        None,
        "Workers on this Ray cluster ('auto', 'HOST:6379', 'ray://HOST:10001').",
        metavar="ADDRESS",
    )
    threads: int | None = option(
        None,
        "CPU threads of a process; of workers 1. The last bits of a score depend on it.",
        min=1,
    )

    @property
    def many(self) -> bool:
        return self.workers is not None or self.ray is not None


@dataclass(frozen=True)
class Comparing:
    """What is compared with NeMo."""

    mitigations: str | None = option(
        None,
        "Names, separated by commas, with other hyperparameters as NAME:OPTION=VALUE; default: all"
        " but noise and sail, which take hundreds of U-Net evaluations an image."
        + also("mitigations"),
    )
    intervals: bool = option(False, "With 95 % bootstrap intervals of the medians.", "--intervals")


@dataclass(frozen=True)
class Trying:
    """How hard it is tried to get memories back from the edited model."""

    attempts: bool = option(
        True, "Try other samplers, steps, guidance, words, scripts and img2img."
    )
    attack: bool = option(
        True, "Optimise text embeddings for the pictures, beside controls, as a curve over steps."
    )
    attack_captions: int = option(
        5, "Memorized captions to attack, and as many ordinary ones; 0: all.", min=0
    )
    attack_steps: str = option("0,5,10,20,50", "Steps of the attack after which images are made.")
    attack_starts: str = option(
        "caption",
        "Embeddings that the attack begins with: caption, random, empty; the best counts at each"
        " step.",
    )
    control_images: Path | None = option(
        None, "Folder of pictures that the model never saw (default: the memorized ones scrambled)."
    )


@dataclass(frozen=True)
class HardeningOptions:
    """How the edited model is fine-tuned against the attack."""

    captions: int = option(0, "Harden against so many memorized captions; 0: all of them.", min=0)
    epochs: int = option(4, "Times that embeddings are sought and answered.", min=1)
    attack_steps: int = option(30, "Steps of each search for an embedding.", min=1)
    updates: int = option(60, "Updates of the weights in an epoch.", min=1)
    learning_rate: float | None = option(None, "Of AdamW (1e-5; demo 1e-4).")
    keep: float = option(100.0, "How firmly predictions for ordinary captions are held.", min=0)
    check: bool = option(True, "Attack the hardened model anew, beside the edited one.")
    force: bool = option(False, "Replace an earlier export.", "--force")
    seed: int = option(0, "Base seed of all samples.")


@dataclass(frozen=True)
class Studying:
    """What studies look at."""

    per_type: int | None = option(
        None, "Memorized captions of each type in costly studies (default: all; demo 4).", min=1
    )
    unrelated: Any = option(
        None,
        "Captions known not to be memorized, none of them hold-out captions; those of the run"
        " without the type of a memory, where others have one, and the demo's are used anyway.",
    )
    column: str | None = option(None, "Caption column, if it has an unusual name.")
    images: int | None = option(
        None, "Finished images of each caption (10, or the run's where it has more; demo 4).", min=2
    )
    sampler: str | None = option(
        None, "Sampler of finished images, instead of the run's; 'ddim' is the paper's."
    )
    clip: str | None = option(
        None,
        "CLIP (directory or hub id) instead of the run's; openai/clip-vit-base-patch32 in the"
        " paper.",
    )
    reference: Path | None = option(
        None,
        "Real pictures that the quality of images is measured against (fig5a), such as COCO's, with"
        " captions or without: a folder as trainers read it, or a table; 'demo' brings its own.",
        metavar="DIR",
    )
    inception: Path | None = option(
        None,
        "inception-2015-12-05.pt (TorchScript, as clean-fid uses it) for FID and KID; default: the"
        " copy descriptor. It is a program: trust it.",
    )
    quality_captions: int | None = option(
        None,
        "Captions whose images fig5a measures (48; demo 20). FID of few images is high.",
        min=2,
    )


@dataclass(frozen=True)
class Selecting:
    """Which neurons are exported."""

    caption: list[str] | None = option(
        None, "Only neurons of this caption, by row number or text; may be given several times."
    )
    most: int | None = option(None, "Only the N neurons that most captions share.", min=1)
    neurons: int | None = option(
        None,
        "Of one caption the set with N neurons of its price list (`findnemo inspect RUN ROW`).",
        min=1,
    )
    include_reduced: bool = option(
        False,
        "Also captions that are reduced: no set removes their memory, but there are fewer copies.",
        "--include-reduced",
    )
    neurons_file: Path | None = option(
        None,
        "Neurons that were chosen by hand, such as the app saves: a JSON or safetensors file. The"
        " card says that they were not verified.",
        metavar="FILE",
    )
    factor: float | None = option(
        None,
        "Multiply the neurons by this instead of switching them off (0, or what --neurons-file"
        " says).",
    )
