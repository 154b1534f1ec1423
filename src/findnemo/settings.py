"""The settings that a memorization score depends on: findnemo's own, and the two published
variants.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from findnemo.errors import InputError


@dataclass(frozen=True)
class Settings:
    """How noise differences are computed and compared (Finding NeMo, section 3.2 and Algorithm 1).

    `variant`: "findnemo", "paper", or "released" (the published code, for published thresholds and
    statistics). `similarity`: "ssim" or "ms-ssim". `pairs`: what counts of the similarities of all
    pairs of seeds, the "largest" (the paper) or their "mean". `per_channel`: min-max scaling per
    channel instead of per sample. `timestep`: position in a schedule of `steps` DDIM steps.
    `trials`: how often Algorithm 3 relaxes theta and k. `reverse`: refine layers from last to
    first. `samples`: seeds per prompt. `guidance`: classifier-free guidance scale in detection,
    None for none (default of both). `seed`: base seed; sample k of a prompt is drawn from (seed,
    prompt, k).
    """

    variant: str = "paper"
    similarity: str = "ssim"
    per_channel: bool = False
    steps: int = 50
    timestep: int = 0
    trials: int = 18
    reverse: bool = False
    samples: int = 10
    guidance: float | None = None
    seed: int = 0
    pairs: str = "largest"

    @property
    def grows(self) -> bool:
        """Whether a score can only grow with more seeds, so that few can decide: one pair is
        enough, whatever the others.
        """
        return self.pairs == "largest" and self.similarity == "ssim"

    def reaches(self, score: Any, tau: float) -> Any:
        """Whether a score (a number, or each of a tensor) means a memory: at least `tau`; in the
        released code more than `tau`.

        >>> PAPER.reaches(0.428, 0.428), RELEASED.reaches(0.428, 0.428)
        (True, False)
        """
        return score > tau if self.variant == "released" else score >= tau

    def spared(self, similarity: float, tau_ref: float) -> bool:
        """Whether Algorithm 4 drops neurons without which this similarity remains: at most
        `tau_ref`; in the released code less than `tau_ref`.

        >>> PAPER.spared(0.428, 0.428), RELEASED.spared(0.428, 0.428)
        (True, False)
        """
        return similarity < tau_ref if self.variant == "released" else similarity <= tau_ref

    def __post_init__(self) -> None:
        """Raises InputError naming a value with which no score can be computed."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if type(value) is not type(kind[0]) or value not in kind:
                raise InputError(f"settings cannot have {name} {value!r:.60}")
        if self.guidance is not None and not (
            type(self.guidance) in (int, float) and abs(self.guidance) <= MOST
        ):
            raise InputError(f"settings cannot have guidance {self.guidance!r:.60}")
        if self.timestep >= self.steps:
            raise InputError(f"settings cannot have timestep {self.timestep} of {self.steps} steps")

    def to_json(self) -> dict[str, Any]:
        """As JSON; `pairs` only if it is not the paper's, so that older calibrations and runs stay
        valid.
        """
        values = asdict(self)
        if self.pairs == "largest":
            del values["pairs"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """The settings in JSON. Raises InputError for names of another version, and for values that
        no calibration can have.
        """
        if not isinstance(values, dict) or set(values) - {field.name for field in fields(cls)}:
            raise InputError(f"settings of another findnemo version: {values!r:.200}")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{error}: calibrate again") from None

    def differences(self, other: Settings) -> str:
        """`timestep 0 instead of 1, ...`; empty if equal."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{k} {mine[k]!r} instead of {theirs[k]!r}" for k in mine if mine[k] != theirs[k]
        )


# largest samples, trials and steps: more means a damaged file, and would exhaust memory
MOST = 1000
_KINDS: dict[str, Any] = {  # allowed texts, or the smallest and the largest number
    "variant": ("findnemo", "paper", "released"),
    "similarity": ("ssim", "ms-ssim"),
    "pairs": ("largest", "mean"),
    "per_channel": (False, True),
    "reverse": (False, True),
    "steps": range(1, MOST + 1),
    "timestep": range(MOST),
    "trials": range(MOST + 1),
    "samples": range(2, MOST + 1),
    "seed": range(-(2**63), 2**63),
}


PAPER = Settings()
RELEASED = Settings(
    variant="released", similarity="ms-ssim", per_channel=True, timestep=1, trials=16, reverse=True
)
FINDNEMO = Settings(variant="findnemo", samples=4, pairs="mean")
VARIANTS = {"findnemo": FINDNEMO, "paper": PAPER, "released": RELEASED}


def settings_for(variant: str, seed: int = 0, **changes: Any) -> Settings:
    """The settings of a variant with a base seed, and with other changes.

    Raises InputError for an unknown variant.

    >>> settings_for("released").similarity
    'ms-ssim'
    """
    if variant not in VARIANTS:
        raise InputError(f"variant {variant!r} is not known: use one of {', '.join(VARIANTS)}")
    return replace(VARIANTS[variant], seed=seed, **changes)
