"""Detection: which captions are memorized.

NeMo's score with no more seeds than it takes, and the competing detectors beside it.

>>> sorted(DETECTORS)
['agreement', 'bright-ending', 'edges', 'entropy-d', 'entropy-e', 'magnitude', 'one-step', 'ssim']

May be imported: the names below and the detectors as modules. May import: calibration, metrics,
images and what lies under them.
"""

from findnemo.detection import bright_ending, entropy, magnitude, one_step, ssim
from findnemo.detection._score import Detector, Score
from findnemo.detection.evaluation import Evaluation, evaluate
from findnemo.detection.sequential import Detection, detect, detect_many
from findnemo.passes import counting
from findnemo.runtime.plugins import Method, Methods, as_method

# name -> a function, or a Method of it with what tables say
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
}
DETECTORS = Methods("detector", "detectors", _OWN, as_method)

__all__ = [
    "DETECTORS",
    "Detection",
    "Detector",
    "Evaluation",
    "Method",
    "Score",
    "counting",
    "detect",
    "detect_many",
    "evaluate",
]
