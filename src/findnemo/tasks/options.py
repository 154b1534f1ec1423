"""Options of the tasks, in groups.

Each option is declared once, with its default and its meaning. The command line shows the same text.

>>> Detecting(fpr=0.01).fpr, Localizing().search
(0.01, 'trajectory')
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findnemo.runtime.plugins import also

# in place of an option's names on the command line: it has none, and is told by its position
ARGUMENT = ""


def option(default: Any, means: str, *flags: str, **limits: Any) -> Any:
    """A field of a group of options.

    `means`: one or two sentences. `flags`: names on the command line, if they differ from the name
    of the field, or `ARGUMENT`; what is False by default has no `--no-...`. `limits`: `min`, `max`
    of a number, `metavar`.
    """
    return dataclasses.field(
        default=default, metadata={"help": means, "flags": flags, "limits": limits}
    )


@dataclass(frozen=True)
class Source:
    """A model by its place: 'demo', a diffusers directory, a hub id, or a .safetensors file.

    `place` None: the place that a run recorded.
    """

    place: str | None = option(
        None,
        "'demo', a diffusers directory, a hub id, or a .safetensors file.",
        ARGUMENT,
        metavar="MODEL",
    )
    revision: str | None = option(None, "Branch, tag or commit of a hub id.")
    weights_variant: str | None = option(
        None, "Take the weight files with this name (such as fp16), from a hub id or a directory."
    )
    config: str | None = option(
        None,
        "Diffusers directory or hub id that gives a single file its configuration and tokenizer.",
    )
    lora: str | None = option(
        None,
        "A LoRA on the model: a .safetensors file of diffusers, peft or kohya, or its directory; for"
        " --train-images also a directory of checkpoints. FILE:0.8 sets another strength than 1.",
    )
    embedding: str | None = option(
        None,
        "A textual inversion: a .safetensors file; FILE:TOKEN sets the token that captions"
        " use for it; separate several tokens with commas.",
    )
    device: str | None = option(None, "cpu, cuda, cuda:1 or mps; default: CUDA if there is one.")
    dtype: str | None = option(
        None, "float32, float16 or bfloat16; default: float16 on CUDA, else float32."
    )
    compile: bool = option(
        False,
        "Compile the model for scores and searches. This takes minutes at the start, and pays"
        " off on a GPU with many captions.",
    )
    trust: bool = option(
        False,
        "Trust a run that somebody else made: open the model, descriptor (a program), CLIP"
        " and pictures that it names.",
    )

    def __str__(self) -> str:
        return str(self.place)

    @property
    def options(self) -> dict[str, str]:
        """The options of `findnemo.load` besides place, device and dtype."""
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

    prompts: Any = option(
        None,
        "Captions: CSV, TSV, Parquet, JSON(L) or text; - for standard input, hf:OWNER/NAME for a"
        " data set; 'demo' has its own.",
        "--prompts",
        "-p",
    )
    column: str | None = option(None, "Caption column, if it has an unusual name.")
    limit: int | None = option(None, "Use the first N captions of the table only.", min=1)
    shard: str | None = option(
        None, "Audit part I of N of the captions; `findnemo merge` joins the parts.", metavar="I/N"
    )


@dataclass(frozen=True)
class FineTune:
    """The pictures that a model was fine-tuned on, and the tuned model.

    A task takes it instead of a table of captions. `train_images`: as for `prompts.read_training`.
    `prompts`: captions in addition to those of the pictures. `column`: the caption column of a table
    of pictures. `limit`: number of captions of the pictures to use, drawn at random.
    """

    train_images: Any = option(
        None,
        "Audit a fine-tune: its training pictures, as a folder that trainers read or a table.",
        metavar="DIR",
    )
    prompts: Any = None
    column: str | None = None
    limit: int | None = None
    holdout_images: Path | None = option(
        None,
        "With --train-images: pictures of the same kind that the model was not trained on, as"
        " controls.",
        metavar="DIR",
    )
    tuned: str | None = option(
        None,
        "With --train-images: a fully fine-tuned model, or a directory of its checkpoints,"
        " instead of a LoRA on MODEL.",
    )
    lora_scale: str | None = option(
        None, "With --train-images: strengths of the LoRAs, such as 0.6,0.8,1."
    )
    copy_rate: float = option(
        0.05,
        "With --train-images: say that a model does not copy only if, with 95 % confidence, a"
        " smaller share of its images than this are copies.",
    )


@dataclass(frozen=True)
class Output:
    """The folder of a run, and the files that are written at its end."""

    path: str | Path = option("findnemo-run", "Directory to write to.", "--out", "-o")
    wait: bool = option(
        False, "Wait for another process that writes to --out, instead of refusing."
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
    """The threshold, from a calibration or from hold-out captions, and how captions are scored and
    listed.
    """

    holdout: Any = option(None, "Hold-out captions for the calibration; 'demo' has its own.")
    calibration: Any = option(
        None, "A stored calibration, instead of hold-out captions.", "--calibration", "-c"
    )
    variant: str | None = option(
        None,
        "Detection: 'findnemo', 'paper', or 'released' for published thresholds and"
        " statistics. Default: the calibration's own; otherwise 'findnemo', or 'paper' with a"
        " one-step search.",
    )
    fpr: float | None = option(
        None,
        "Set the threshold so that at most this share of ordinary captions reaches it. The"
        " default, mean + 1 std, lets 12 to 18 % through. Works with a stored calibration"
        " too. Recommended: 0.01, from 99 hold-out captions on.",
    )
    confidence: float | None = option(
        None,
        "With --fpr: keep the rate in this share of calibrations, not only on average over them.",
    )
    precision: float = option(
        0.002,
        "Stop scoring hold-out captions once tau is known to this precision (95 %); 0 scores all.",
    )
    seed: int | None = option(None, "Base seed of all samples (0); a calibration has its own.")
    fdr: float | None = option(
        None,
        "List captions so that on average at most this share of the list is ordinary (q <= this)."
        " Scores every caption with all seeds.",
    )
    miss: float | None = option(
        None,
        "Detection ends early for most ordinary captions. Lose at most this share of the memories"
        " by that (0.005; a resumed run keeps its own); 0 loses none.",
    )
    budget: int | None = option(
        None,
        "Spend this many U-Net evaluations on detection. Captions with unusual text come"
        " first, and the command estimates what is left. Repeat it with a larger number to"
        " continue.",
        min=2,
    )
    like: Any = option(
        None,
        "Search for captions that drive the neurons found in this run, the most likely first"
        " (1000, or as many as --budget allows). Writes RUN/like.csv.",
        metavar="RUN",
    )


@dataclass(frozen=True)
class Localizing:
    """How to search for neurons."""

    search: str = option(
        "trajectory",
        "How to search for neurons: 'trajectory' until images are no copies; 'gradient' or"
        " 'listing' (Algorithms 3 and 4 of the paper) by one noisy step." + also("searches"),
    )
    scope: str = option(
        "auto",
        "Where to search: the layers of the 'paper', 'all' value layers, or 'auto', which"
        " scans the model first.",
    )
    max_impact: float | None = option(
        None,
        "Among sets that remove a memory, prefer one that changes unrelated captions by at"
        " most this much (0 to 2).",
    )
    unrelated: Any = option(
        None, "Captions that are not memorized; --max-impact uses 16 of them. 'demo' has its own."
    )
    thorough: bool = option(
        False,
        "Make every image that decides a result with all denoising steps, not with three"
        " steps and a confirmation. Several times slower.",
    )


@dataclass(frozen=True)
class Pictures:
    """Finished images, and the judges of these images."""

    images: int | None = option(
        None,
        "Finished images before and after, for each memorized caption (4; a resumed run keeps"
        " its own number); 0 for none. With --train-images: images for each caption.",
        min=0,
    )
    image_steps: int | None = option(
        None, "Denoising steps of finished images (50; demo 15).", min=1
    )
    guidance: float | None = option(None, "Guidance scale of finished images (7; demo 2).")
    sampler: str | None = option(
        None,
        "Sampler of finished images (default: the checkpoint's). 'ddim' is the paper's. The"
        " run records it.",
    )
    descriptor: Path | None = option(
        None,
        "TorchScript copy descriptor (SSCD) for finished images; 'demo' has its own. It is a"
        " program: use one that you trust. A resumed run keeps its own; another one judges"
        " its images again.",
    )
    clip: str | None = option(
        None,
        "CLIP (directory or hub id) that measures how well images match the caption; the"
        " paper's is openai/clip-vit-base-patch32. 'demo' has its own, and so has a resumed"
        " run; another one judges its images again.",
    )


@dataclass(frozen=True)
class Workers:
    """The processes that do the work: this one, or several on this machine or on a Ray cluster."""

    workers: int | None = option(
        None,
        "Number of worker processes. Each loads its own model, on its own GPU if there are"
        " any (needs findnemo[ray]).",
        min=1,
    )
    ray: str | None = option(
        None,
        "Run the workers on this Ray cluster ('auto', 'HOST:6379', 'ray://HOST:10001').",
        metavar="ADDRESS",
    )
    threads: int | None = option(
        None,
        "CPU threads of a process (a worker has 1 by default). The last bits of a score depend on"
        " this number.",
        min=1,
    )

    @property
    def many(self) -> bool:
        return self.workers is not None or self.ray is not None


@dataclass(frozen=True)
class Comparing:
    """The methods that are compared with NeMo."""

    mitigations: str | None = option(
        None,
        "Names, separated by commas, such as nemo,neurons,random-1,embedding,tokens-4;"
        " NAME:OPTION=VALUE sets a hyperparameter. docs/compare.md#mitigations has all. Default:"
        " all but noise and sail, which take hundreds of U-Net evaluations per image."
        + also("mitigations"),
    )
    intervals: bool = option(False, "Add 95 % bootstrap intervals of the medians.")


@dataclass(frozen=True)
class Trying:
    """How hard `verify` tries to get memories back from the edited model."""

    attempts: bool = option(
        True,
        "Try to get memories back with other samplers, steps, guidance, words, scripts and"
        " img2img.",
    )
    attack: bool = option(
        True,
        "Attack: optimize text embeddings for the memorized pictures and for controls, as a"
        " curve over steps.",
    )
    attack_captions: int = option(
        5, "Number of memorized captions to attack, with as many ordinary ones; 0: all.", min=0
    )
    attack_steps: str = option("0,5,10,20,50", "Steps of the attack after which it makes images.")
    attack_starts: str = option(
        "caption",
        "Embeddings from which the attack starts: caption, random, empty. With several, the"
        " best counts at each step.",
    )
    control_images: Path | None = option(
        None,
        "Folder of pictures that the model never saw (default: the memorized ones, scrambled).",
    )


@dataclass(frozen=True)
class HardeningOptions:
    """How `harden` fine-tunes the edited model against the attack."""

    captions: int = option(
        0, "Number of memorized captions to harden against; 0: all of them.", min=0
    )
    epochs: int = option(
        4, "Rounds of searching for embeddings and learning to answer them.", min=1
    )
    attack_steps: int = option(30, "Steps of each search for an embedding.", min=1)
    updates: int = option(60, "Weight updates in each epoch.", min=1)
    learning_rate: float | None = option(None, "Learning rate of AdamW (1e-5; demo 1e-4).")
    keep: float = option(
        100.0,
        "How strongly to hold the predictions for ordinary captions to those before hardening.",
        min=0,
    )
    check: bool = option(
        True, "Attack the hardened model again, and the edited one for comparison."
    )
    force: bool = option(False, "Replace an earlier export or hardened checkpoint in --out.")
    seed: int = option(0, "Base seed of all samples.")


@dataclass(frozen=True)
class Studying:
    """The captions, images and judges that studies use."""

    per_type: int | None = option(
        None,
        "Memorized captions of each type in table1, table2, table4, fig5b, fig9, fig14 and stability"
        " (default: all; demo 4).",
        min=1,
    )
    unrelated: Any = option(
        None,
        "Captions known not to be memorized, none of them hold-out captions. They join the"
        " demo's own and, if the run's table has types, its captions without a type.",
    )
    column: str | None = option(None, "Caption column, if it has an unusual name.")
    images: int | None = option(
        None,
        "Finished images for each caption (10, or the run's number if that is larger; demo 4).",
        min=2,
    )
    sampler: str | None = option(
        None, "Sampler of finished images, instead of the run's; 'ddim' is the paper's."
    )
    clip: str | None = option(
        None,
        "CLIP (directory or hub id) instead of the run's; the paper's is"
        " openai/clip-vit-base-patch32.",
    )
    reference: Path | None = option(
        None,
        "Real pictures with which fig5a compares the images, such as COCO's, with or without"
        " captions: a folder that trainers read, or a table. 'demo' has its own.",
        metavar="DIR",
    )
    inception: Path | None = option(
        None,
        "inception-2015-12-05.pt (TorchScript, as clean-fid uses it) for FID and KID;"
        " default: the copy descriptor. It is a program: use one that you trust.",
    )
    quality_captions: int | None = option(
        None,
        "Number of captions whose images fig5a measures (48; demo 20). With few images, FID"
        " is high.",
        min=2,
    )


@dataclass(frozen=True)
class Selecting:
    """Which neurons to export."""

    caption: list[str] | None = option(
        None,
        "Export only the neurons of this caption, given by row number or text; you can repeat"
        " the option.",
    )
    most: int | None = option(None, "Export only the N neurons that most captions share.", min=1)
    neurons: int | None = option(
        None,
        "For one caption: the set of N neurons in its price list (`findnemo inspect RUN ROW`).",
        min=1,
    )
    include_reduced: bool = option(
        False,
        "Include captions that are only reduced: no set removes their memory, but there are"
        " fewer copies.",
    )
    neurons_file: Path | None = option(
        None,
        "Neurons that somebody chose by hand, for example in the app: a JSON or safetensors"
        " file. The card says that they were not verified.",
        metavar="FILE",
    )
    take: str | None = option(
        None,
        "Write a model of a fine-tune audit as it is, with no neurons off: an earlier checkpoint,"
        " or the LoRA with a lower strength written into it. NAME is its name in the table of the"
        " audit.",
        metavar="NAME",
    )
    factor: float | None = option(
        None,
        "Multiply the neurons by this factor instead of switching them off (0, or the factor"
        " in --neurons-file).",
    )


@dataclass(frozen=True)
class Scoring:
    """Which methods are scored, and on which models."""

    natural: bool = option(
        False,
        "Score suite 2: models that memorized by ordinary fine-tuning, whose neurons are unknown.",
    )
    suite: Path | None = option(
        None,
        "Score the trained models in this folder, or the one model that it holds, instead of the"
        " shipped model.",
    )
    train: bool = option(
        False, "First train the missing models of --suite (half an hour each); can be resumed."
    )
    methods: str | None = option(None, "Names of methods, separated by commas; default: all.")
    add: Path | None = option(
        None, "Also score the answers of your own method: JSON, see docs/benchmark.md."
    )
    published: bool = option(False, "Show the results that ship with findnemo; compute nothing.")


@dataclass(frozen=True)
class Writing:
    """Where an export is written.

    `out`: a file or folder; with several forms a folder for all.
    """

    out: str | Path | None = option(
        None,
        "Where to write; with several forms, a folder for all of them (default: RUN/export).",
        "--out",
        "-o",
    )
    push: str | None = option(
        None,
        "With --to card: write the section into the model card of this repository on the hub, not"
        " into a file.",
        metavar="REPO_ID",
    )
    force: bool = option(False, "Replace an earlier export.")
