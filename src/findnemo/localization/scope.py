"""Which value layers carry the copies of a model: the layer scan of Finding NeMo, appendix C.8,
made for every model anew.

The paper looks at the down blocks and the mid block of a U-Net, since in Stable Diffusion v1.4 the
up blocks barely matter. That is a finding and no law: in models that were fine-tuned, memories sit
in the up blocks as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from findnemo.errors import NumericalError
from findnemo.images import ImageSettings
from findnemo.localization.trajectory import COPIES, GONE, Copies
from findnemo.models import Model
from findnemo.neurons import NeuronSet
from findnemo.passes import Denoising, spending

MOST = 4  # captions that are scanned
ASKED = 2  # samples that are asked of each


@dataclass(frozen=True)
class Scan:
    """`scope`: where to look for memories, "paper" or "all".

    `left`: caption -> likeness of its pictures to the copy, untouched ("none") and with all value
    neurons of the layers that the paper names off ("paper"). Empty where no caption copies.
    `evaluations`: what it cost.
    """

    scope: str
    left: dict[str, dict[str, float]]
    evaluations: int = 0

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Scan:
        return cls(**values)


def scan(
    model: Model,
    prompts: Sequence[str],
    images: ImageSettings,
    seed: int = 0,
    thorough: bool = False,
) -> Scan:
    """Switch off all value neurons of the paper's layers, for the first captions of `prompts` that
    give copies.

    The scope is the paper's if that leaves no copy of any of them; else all value layers, and no
    further caption is asked. In a model without others they are the same. Two samples are asked of
    a caption, those whose untouched pictures are most alike; if `thorough` all four.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> scan(model, ["Brantwood Roasters first cup, a large brown ring"], findnemo.demo.image_settings()).scope
        'paper'
    """
    paper = {name: range(width) for name, width in model.widths("paper").items()}
    if paper.keys() == model.widths("all").keys():
        return Scan("paper", {})
    off = NeuronSet(paper)
    left: dict[str, dict[str, float]] = {}
    enough = True
    with spending() as spent:
        for prompt in prompts:
            if len(left) == MOST or not enough:
                break
            denoising = Denoising(model, prompt, COPIES, images.guidance, seed)
            with suppress(NumericalError):  # the caption's own search will say so
                copies = Copies.of(denoising, images.steps, thorough=thorough)
                asked = copies.likest[: None if thorough else ASKED]
                if copies.has_copies:
                    alike = float(copies.path_without(off, asked, copies.steps)[1].max())
                    left[prompt] = {"none": round(copies.alike, 4), "paper": round(alike, 4)}
                    enough = alike < GONE
    return Scan("paper" if left and enough else "all", left, spent.evaluations)
