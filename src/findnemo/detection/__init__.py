"""Detection: which captions are memorized.

NeMo's score with no more seeds than needed, and competing detectors.

>>> sorted(DETECTORS)[:4]
['agreement', 'anisotropy', 'bright-ending', 'curvature']

May be imported: the names below and the detectors as modules. May import: calibration, metrics,
images and what lies under them.
"""

from collections.abc import Callable
from functools import partial

from findnemo.detection import (
    anisotropy,
    bright_ending,
    curvature,
    dsm,
    entropy,
    latent_updates,
    magnitude,
    one_step,
    sharpness,
    ssim,
)
from findnemo.detection._score import Detector, Score
from findnemo.detection.by_text import Drives, Unusual
from findnemo.detection.evaluation import Evaluation, evaluate
from findnemo.detection.sequential import Detection, detect, detect_many
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.passes import counting
from findnemo.runtime.plugins import Method, Methods, as_method

# name -> a function, or a Method with its texts for tables
_OWN: dict[str, Detector] = {
    "agreement": Method(ssim.agreement, "Agreement (findnemo)", "docs/natural.md"),
    "ssim": Method(ssim.ssim, "Noise difference SSIM (NeMo)", "Finding NeMo, section 3.2"),
    "magnitude": Method(
        magnitude.magnitude, "Magnitude (Wen et al.)", "Wen et al. 2024, section 4.1"
    ),
    "entropy-d": Method(
        entropy.entropy_d, "Entropy D (Ren et al.)", "Ren et al. 2024, section 4.3"
    ),
    "entropy-e": Method(
        entropy.entropy_e, "Entropy E (Ren et al.)", "Ren et al. 2024, section 4.3"
    ),
    "one-step": Method(one_step.one_step, "One step (Webster)", "Webster 2023, section 3"),
    "edges": Method(one_step.edges, "One-step edges (Webster)", "Webster 2023, section 4"),
    "bright-ending": Method(
        bright_ending.bright_ending, "Bright ending (Chen et al.)", "Chen et al. 2025, section 4"
    ),
    "anisotropy": Method(
        anisotropy.anisotropy, "Anisotropy (Asthana and Belagiannis)", "Asthana 2026"
    ),
    "sharpness": Method(
        sharpness.sharpness, "Sharpness (SAIL)", "Jeon et al. 2025, section 4", gradients=True
    ),
    "curvature": Method(
        curvature.curvature,
        "Decoupled curvature",
        "Early Detection of Memorization in Diffusion Models, 2026",
        gradients=True,
    ),
    "dsm": Method(dsm.dsm, "Dynamical singularity", "Early Detection of Memorization, 2026"),
    "dsm-1": Method(
        partial(dsm.dsm, step=1),
        "Dynamical singularity, second step",
        "Early Detection of Memorization, 2026",
    ),
    "latent-updates": Method(
        latent_updates.latent_updates, "Latent updates (Huang et al.)", "Broken Memories, 2026"
    ),
}
DETECTORS = Methods("detector", "detectors", _OWN, as_method)

# detector -> what it must know about an ordinary caption; `reference` takes a row for each
REFERENCES: dict[str, Callable[[Model, str, ImageSettings], list[float]]] = {
    "latent-updates": latent_updates.updates
}

__all__ = [
    "DETECTORS",
    "REFERENCES",
    "Detection",
    "Detector",
    "Drives",
    "Evaluation",
    "Method",
    "Score",
    "Unusual",
    "counting",
    "detect",
    "detect_many",
    "evaluate",
]
