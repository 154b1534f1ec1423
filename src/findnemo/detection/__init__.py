"""Detection: which captions are memorized. NeMo's score with no more seeds than it takes, and the competing detectors beside it."""

from findnemo.detection.sequential import Detection, Screen, detect, detect_many, screen

__all__ = ["Detection", "Screen", "detect", "detect_many", "screen"]
