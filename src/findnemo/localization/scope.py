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


@dataclass(frozen=True)
class Scan:
    """`scope`: where to look for memories, "paper" or "all".

    `left`: caption -> part of the U-Net -> likeness of its pictures to the copy with all value
    neurons of that part off: of each block, of "paper", of "all"; and "none", untouched. Empty
    where no caption copies. `evaluations`: what it cost.
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
    """Switch off all value neurons of each part of the denoiser in turn, for the first captions of
    `prompts` that give copies.

    The scope is the paper's if its layers off leave no copy of any of them; else all value layers.
    In a model without others they are the same. Two samples are asked of a caption, those whose
    untouched pictures are most alike; if `thorough` all four.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> scan(model, ["Brantwood Roasters first cup, a large brown ring"], findnemo.demo.image_settings()).scope
        'paper'
    """
    sets = _parts(model)
    left: dict[str, dict[str, float]] = {}
    if sets["paper"] == sets["all"]:
        return Scan("paper", {})
    with spending() as spent:
        for prompt in prompts:
            if len(left) == MOST:
                break
            denoising = Denoising(model, prompt, COPIES, images.guidance, seed)
            with suppress(NumericalError):  # the caption's own search will say so
                copies = Copies.of(denoising, images.steps, thorough=thorough)
                asked = range(COPIES) if thorough else copies.witnesses
                if copies.seen:
                    left[prompt] = {"none": round(copies.alike, 4)} | {
                        name: round(float(copies.asked(off, asked, copies.steps)[1].max()), 4)
                        for name, off in sets.items()
                    }
    enough = bool(left) and all(values["paper"] < GONE for values in left.values())
    return Scan("paper" if enough else "all", left, spent.evaluations)


def _parts(model: Model) -> dict[str, NeuronSet]:
    """Parts of the denoiser -> all their value neurons: blocks in forward order, then the
    paper's layers, then all.
    """
    widths = model.widths("all")
    parts: dict[str, dict[str, range]] = {}
    for name, width in widths.items():
        block = name.partition(".attentions")[0]
        parts.setdefault(block, {})[name] = range(width)
    scopes = {
        scope: {name: range(width) for name, width in model.widths(scope).items()}
        for scope in ("paper", "all")
    }
    return {part: NeuronSet(layers) for part, layers in (parts | scopes).items()}
