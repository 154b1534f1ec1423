"""Seeds by identity, and ranges of sample numbers that do not meet."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from findnemo import seeds
from findnemo.seeds import sample_seed

RANGES = sorted(
    value for name, value in vars(seeds).items() if name.isupper() and isinstance(value, int)
)


def test_ranges_of_sample_numbers_have_room():
    """No stage asks for 500 samples of a prompt. The wanted image and further ones are one range."""
    starts = [value for value in RANGES if value != seeds.UNTOUCHED]
    assert len({*starts}) == len(starts)
    assert min(b - a for a, b in pairwise(starts)) >= 500


@given(st.integers(-(2**63), 2**63 - 1), st.text(), st.integers(0, 10**6))
def test_a_seed_is_what_a_generator_takes(seed, prompt, sample):
    found = sample_seed(seed, prompt, sample)
    assert 0 <= found < 2**63
    torch.Generator().manual_seed(found)


def test_the_seed_is_the_beginning_of_a_digest():
    """Stored calibrations and runs depend on it."""
    digest = hashlib.sha256(b"3\0a cat\0" + b"12").hexdigest()
    assert sample_seed(3, "a cat", 12) == int(digest[:16], 16) // 2
