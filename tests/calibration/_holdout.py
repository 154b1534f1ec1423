"""Hold-out captions and light settings for the tests of calibrations."""

import torch

from findnemo import Calibration, Settings

LIGHT = Settings(samples=3)


PROMPTS = [
    "a cat",
    "two dogs in the snow",
    "",
    "a very long caption about nothing at all",
    "a red star",
    "the sea",
]


def assert_equal(a: Calibration, b: Calibration) -> None:
    """The same to the last bit."""
    for name in ("model", "source", "settings", "tau", "count", "fpr"):
        assert getattr(a, name) == getattr(b, name)
    assert torch.equal(a.scores, b.scores)
    for mine, theirs in ((a.mean, b.mean), (a.std, b.std)):
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
