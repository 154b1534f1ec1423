"""Published statistics: imported as they are, and no file runs code."""

import os
from pathlib import Path

import pytest
import torch
from _evil import Evil
from _holdout import assert_equal

from findnemo import Calibration, import_statistics
from findnemo.calibration import PUBLISHED_TAU
from findnemo.errors import InputError, MismatchError
from findnemo.models import Model
from findnemo.models.identity import Identity, Part
from findnemo.settings import PAPER, RELEASED

SHARED = Path(os.environ.get("FINDNEMO_SHARED", Path(__file__).parents[3] / "shared"))


PUBLISHED = SHARED / "published" / "activation_statistics_sd14.pt"


class StableDiffusion14(Model):
    """Stands for the full-size model: its value layers' names and widths."""

    source = "CompVis/stable-diffusion-v1-4"
    identity = Identity({"unet": Part({"class": "UNet2DConditionModel"})})

    def __init__(self):
        pass

    def widths(self) -> dict[str, int]:
        down = {
            f"down_blocks.{b}.attentions.{a}.attn2.to_v": 320 * 2**b
            for b in range(3)
            for a in range(2)
        }
        return down | {"mid_block.attentions.0.attn2.to_v": 1280}


@pytest.mark.skipif(
    not PUBLISHED.exists(), reason="needs the published statistics (FINDNEMO_SHARED)"
)
def test_the_published_statistics_are_imported(tmp_path):
    model = StableDiffusion14()
    made = import_statistics(PUBLISHED, model)
    means, deviations = torch.load(PUBLISHED, weights_only=True)
    assert list(made.mean) == list(made.std) == list(model.widths())
    assert all(torch.equal(a, b) for a, b in zip(made.mean.values(), means, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(made.std.values(), deviations, strict=True))
    assert made.tau == PUBLISHED_TAU == 0.428
    made.check(model, RELEASED)
    with pytest.raises(MismatchError, match="variant 'released' instead of 'paper'"):
        made.check(model, PAPER)
    made.save(tmp_path)
    assert_equal(Calibration.load(tmp_path), made)


@pytest.mark.skipif(
    not PUBLISHED.exists(), reason="needs the published statistics (FINDNEMO_SHARED)"
)
def test_published_statistics_of_a_model_with_other_widths_are_refused(model):
    with pytest.raises(
        MismatchError, match=r"layers of \[320, 320, 640.*the model has \[16, 16, 32"
    ):
        import_statistics(PUBLISHED, model)


def test_a_statistics_file_that_would_run_code_is_refused(model, tmp_path):
    marker = tmp_path / "was-run"
    torch.save([Evil(marker), Evil(marker)], tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)[0].close()
    assert marker.exists()  # the file does run code
    marker.unlink()
    with pytest.raises(
        InputError, match=r"evil\.pt is not a pair of lists of tensors that a weights-only"
    ):
        import_statistics(tmp_path / "evil.pt", model)
    assert not marker.exists()


def statistics(*widths: int) -> list[torch.Tensor]:
    return [torch.ones(width) for width in widths]


TINY = (16, 16, 32, 32, 32, 32, 32)


@pytest.mark.parametrize(
    "content",
    [
        statistics(*TINY),
        [statistics(*TINY)],
        ([1, 2], [3, 4]),
        (statistics(*TINY), statistics(*TINY[:-1])),
        (statistics(*TINY), statistics(*TINY[:-1], 31)),
        {"mean": 1, "std": 2},
    ],
)
def test_a_file_that_is_no_pair_of_lists_is_refused(model, tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(InputError, match="is not a pair of lists of tensors"):
        import_statistics(tmp_path / "other.pt", model)


def test_a_missing_or_damaged_statistics_file_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="no statistics file"):
        import_statistics(tmp_path / "nowhere.pt", model)
    (tmp_path / "damaged.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is not a pair of lists of tensors"):
        import_statistics(tmp_path / "damaged.pt", model)
