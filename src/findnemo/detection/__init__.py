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

DETECTORS: dict[str, Detector] = {
    "agreement": ssim.agreement,
    "ssim": ssim.ssim,
    "magnitude": magnitude.magnitude,
    "entropy-d": entropy.entropy_d,
    "entropy-e": entropy.entropy_e,
    "one-step": one_step.one_step,
    "edges": one_step.edges,
    "bright-ending": bright_ending.bright_ending,
}

__all__ = [
    "DETECTORS",
    "Detection",
    "Detector",
    "Evaluation",
    "Score",
    "detect",
    "detect_many",
    "evaluate",
]
