"""Weight rows of planted neurons: by hand, and as loud as asked."""

from __future__ import annotations

import torch

from findnemo.benchmark.rows import decoy_row, direction, gain, planted_row


def test_the_direction_by_hand():
    """S = diag(2, 8), mean diagonal 5, ridge .4:

    (S + 2 I)^-1 (mean - centre) = (4 / 4, 10 / 10).
    """
    caption = torch.tensor([[[4.0, 10.0], [6.0, 12.0]]])
    found = direction(caption, torch.tensor([1.0, 1.0]), torch.diag(torch.tensor([2.0, 8.0])), 0.4)
    assert torch.allclose(found, torch.tensor([1.0, 1.0]))


def test_a_planted_row_is_as_loud_as_asked_and_tells_its_caption_from_others():
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(50, 7, 12, generator=generator)
    shared = torch.randn(12, generator=generator)
    near = others[:4] + shared
    caption = near[:1] + 0.8 * torch.randn(1, 1, 12, generator=generator)
    row = planted_row(caption, others, near, typical=0.5, gain=4.0, ridge=0.01)
    assert torch.isclose((caption @ row).abs().mean(), torch.tensor(2.0))
    blind = planted_row(caption, others, others[:4], typical=0.5, gain=4.0, ridge=0.01)
    assert (near @ row).abs().mean() < (
        near @ blind
    ).abs().mean()  # near-duplicates are what it learned to be silent on


def test_gain_falls_with_the_root_of_the_number():
    assert [gain(n) for n in (1, 2, 4, 16)] == [4.0, 4.0, 4.0, 2.0]


def test_a_decoy_reacts_to_some_captions_and_is_as_loud_as_its_layer_on_others():
    """Of six captions with a direction of their own it reacts to four."""
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(200, 7, 12, generator=generator)
    captions = torch.randn(6, 7, 12, generator=generator) + 6 * torch.eye(12)[:6, None]
    for seed in (1, 2, 3):
        row = decoy_row(captions, others, 0.5, torch.Generator().manual_seed(seed))
        usual = (others @ row).abs().mean(1)
        assert torch.isclose(usual.mean(), torch.tensor(0.5))
        z = ((captions @ row).abs().mean(1) - usual.mean()) / usual.std()
        *quiet, fourth = z.sort().values[:3].tolist()
        assert max(quiet) < 3 < fourth
