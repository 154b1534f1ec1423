"""One model of the suite with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from findnemo.benchmark.plan import Memory, Plan
from findnemo.calibration import Calibration
from findnemo.models import Model


@dataclass(frozen=True)
class Member:
    """One model of the suite.

    `reference`: captions that methods may compare with. `unrelated`: captions that must not change.
    """

    name: str
    model: Model
    plan: Plan
    calibration: Calibration
    pictures: Path
    reference: tuple[str, ...]
    unrelated: tuple[str, ...]

    def picture(self, memory: Memory) -> Image.Image:
        return Image.open(self.pictures / f"{memory.picture}.png").convert("RGB")
