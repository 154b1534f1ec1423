"""FID, KID and CLIP-FID against other implementations, hand-computed cases and
clean-fid's preprocessing.
"""

import math

import numpy as np
import pytest
import torch
from _inception import Resizing
from PIL import Image

from findnemo import demo
from findnemo.errors import InputError, NumericalError
from findnemo.metrics import (
    ClipFeatures,
    Descriptor,
    Inception,
    clean_resize,
    fid,
    frechet_distance,
    kernel_distance,
    kid,
)
from findnemo.metrics.quality import features

SHAPES = [(50, 60, 4), (9, 7, 20), (200, 3, 5)]


def sets(n: int, m: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n + m + d)
    mixed = torch.randn(d, d, generator=generator, dtype=torch.float64)
    one, other = (torch.randn(k, d, generator=generator, dtype=torch.float64) for k in (n, m))
    return one @ mixed, 0.7 * other + 0.3


def pictures(count: int, seed: int = 0, size: int = 20) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(count)]


# the Fréchet distance -----------------------------------------------------------------------------


def gaussians(a: torch.Tensor, b: torch.Tensor) -> tuple[np.ndarray, ...]:
    return (
        a.mean(0).numpy(),
        np.cov(a.numpy(), rowvar=False),
        b.mean(0).numpy(),
        np.cov(b.numpy(), rowvar=False),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_frechet_distance_equals_the_one_with_eigenvalues_of_the_product(shape):
    a, b = sets(*shape)
    m1, s1, m2, s2 = gaussians(a, b)
    root = np.sqrt(np.linalg.eigvals(s1 @ s2).astype(complex)).real.sum()
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_equals_the_one_with_scipys_matrix_root():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = sets(50, 60, 4)
    m1, s1, m2, s2 = gaussians(a, b)
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * linalg.sqrtm(s1 @ s2).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_in_one_dimension_it_is_the_distance_of_means_and_deviations():
    a, b = (
        torch.tensor([[1.0], [3.0], [5.0]]),
        torch.tensor([[0.0], [1.0]]),
    )  # means 3, .5; variances 4, .5
    assert frechet_distance(a, b) == pytest.approx(2.5**2 + 4 + 0.5 - 2 * math.sqrt(4 * 0.5))


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_sets_in_any_order_have_no_distance_and_a_shift_is_its_square(shape):
    a, _ = sets(*shape)
    shift = torch.full((a.shape[1],), 0.25, dtype=torch.float64)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + shift) == pytest.approx(a.shape[1] / 16)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_symmetric_and_scales_with_the_square(shape):
    a, b = sets(*shape)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * frechet_distance(a, b))


def test_sets_without_any_spread_differ_by_their_means():
    assert frechet_distance(torch.zeros(5, 3), torch.ones(4, 3)) == pytest.approx(3)


# the kernel distance ------------------------------------------------------------------------------


def mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate, written out as sums over pairs."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / len(x) + 1) ** 3

    n = len(a)
    m = len(b)
    within_a = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_of_whole_sets_is_the_sum_over_pairs():
    a, b = sets(9, 9, 6)
    assert kernel_distance(a, b) == pytest.approx(mmd2(a.numpy(), b.numpy()))


def test_kernel_distance_of_whole_sets_equals_that_of_torchmetrics():
    poly_mmd = pytest.importorskip("torchmetrics.image.kid").poly_mmd
    a, b = sets(30, 30, 8)
    assert kernel_distance(a, b) == pytest.approx(float(poly_mmd(a, b)))


def test_subsets_average_to_the_estimate_of_the_whole_sets():
    a, b = sets(40, 30, 5)
    whole = mmd2(a.numpy(), b.numpy())
    scattered = [kernel_distance(a, b, subsets=400, size=10, seed=s) for s in range(3)]
    assert len(set(scattered)) == 3
    assert np.mean(scattered) == pytest.approx(whole, rel=0.1)
    assert kernel_distance(a, b, size=10, seed=1) == kernel_distance(a, b, size=10, seed=1)


def test_the_kernel_distance_of_two_samples_of_one_distribution_is_about_zero_and_can_be_negative():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    values = [kernel_distance(x[k : k + 20], x[k + 20 : k + 40]) for k in range(0, 400, 40)]
    assert abs(np.mean(values)) < 0.5 < kernel_distance(x[:200], x[200:] + 1)
    assert min(values) < 0


def test_subsets_are_cut_to_the_smaller_set():
    a, b = sets(3, 200, 5)
    assert kernel_distance(a, b, subsets=3) == kernel_distance(a, b, subsets=3, size=3)


def test_clean_fid_agrees():
    cleanfid = pytest.importorskip("cleanfid.fid")
    resize = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    a, b = sets(50, 50, 4)
    assert frechet_distance(a, b) == pytest.approx(cleanfid.fid_from_feats(a.numpy(), b.numpy()))
    assert kernel_distance(a, b) == pytest.approx(cleanfid.kernel_distance(a.numpy(), b.numpy()))
    picture = pictures(1)[0]
    assert np.array_equal(
        clean_resize(picture).numpy(), resize(np.asarray(picture)).transpose(2, 0, 1)
    )


# what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_features_that_cannot_be_compared_are_refused(distance):
    with pytest.raises(InputError, match=r"\(4, 3\) and \(4, 2\) cannot be compared"):
        distance(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(InputError, match="sets of 4 and 1 have no spread"):
        distance(torch.ones(4, 3), torch.ones(1, 3))
    with pytest.raises(NumericalError, match="NaN"):
        distance(torch.ones(4, 3), torch.full((4, 3), torch.nan))


@pytest.mark.parametrize(("subsets", "size"), [(0, 10), (10, 1)])
def test_no_subsets_are_refused(subsets, size):
    with pytest.raises(InputError, match=f"{subsets} subsets of {size} rows"):
        kernel_distance(torch.ones(4, 3), torch.ones(4, 3), subsets, size)


@pytest.mark.parametrize("distance", [fid, kid])
def test_one_image_is_no_set(distance):
    with pytest.raises(InputError, match="1 image cannot be compared as a set"):
        distance(pictures(3), pictures(1), lambda images: torch.zeros(len(images), 2))


# extractors ---------------------------------------------------------------------------------------


def test_clean_resize_smooths_before_it_shrinks_and_does_not_round():
    ramp = np.zeros((4, 8, 3), np.uint8)
    ramp[:, ::2] = [
        101,
        0,
        3,
    ]  # every other column: a resize without smoothing would see all or nothing
    small = clean_resize(Image.fromarray(ramp), 4)
    assert small.shape == (3, 4, 4)
    assert small[0, 1, 1:3].tolist() == pytest.approx([50.5] * 2, abs=8)
    assert small[0].unique().numel() > 1
    assert not torch.equal(small, small.round())


def test_clean_resize_stays_within_the_range_at_an_edge():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255  # bicubic overshoots on both sides
    large = clean_resize(Image.fromarray(edge), 32)
    assert (large.min(), large.max()) == (0, 255)
    assert (large == 255).float().mean() > 0.25


def test_clean_resize_is_pillows_filter_on_each_channel():
    picture = pictures(1, size=31)[0]
    resized = clean_resize(picture, 12)
    for k, channel in enumerate(picture.split()):
        expected = channel.convert("F").resize((12, 12), Image.Resampling.BICUBIC)
        assert np.array_equal(resized[k].numpy(), np.asarray(expected))
    rounded = np.asarray(picture.resize((12, 12), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert abs(resized.clamp(0, 255).round().numpy() - rounded).max() <= 1


def test_inception_is_fed_as_clean_fid_feeds_it(tmp_path):
    torch.jit.script(Resizing()).save(str(tmp_path / "inception.pt"))
    white = Image.new("RGB", (40, 20), "white")
    black = Image.new("RGB", (5, 5))
    rows = Inception(tmp_path / "inception.pt")([white, black])
    assert rows.tolist() == [pytest.approx([127 / 128] * 2 + [299]), pytest.approx([-1, -1, 299])]


def test_other_files_are_no_inception(tmp_path):
    with pytest.raises(InputError, match=r"no Inception file nowhere.pt"):
        Inception("nowhere.pt")
    with pytest.raises(InputError, match=r"descriptor.pt has no `layers`"):
        Inception(demo.DESCRIPTOR)
    (tmp_path / "x.pt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"x.pt is not a TorchScript Inception"):
        Inception(tmp_path / "x.pt")


def test_features_come_64_at_a_time_in_order():
    seen: list[int] = []

    def brightness(images: list[Image.Image]) -> torch.Tensor:
        seen.append(len(images))
        return torch.tensor([[float(np.asarray(i).mean())] for i in images])

    images = pictures(130, size=2)
    assert torch.equal(features(images, brightness), brightness(images))
    assert seen == [64, 64, 2, 130]


def test_fid_and_kid_with_each_extractor_tell_other_pictures_from_the_same():
    photos = [demo.training_image(p.text) for p in demo.memorized()[:8]]
    for extractor in (ClipFeatures(demo.CLIP), Descriptor(demo.DESCRIPTOR)):
        one, other = features(photos, extractor), features(pictures(8, size=64), extractor)
        assert fid(photos, pictures(8, size=64), extractor) == frechet_distance(one, other) > 0.1
        assert kid(photos, pictures(8, size=64), extractor) == kernel_distance(one, other) > 0
        assert fid(photos, photos, extractor) == pytest.approx(0, abs=1e-4)


def test_clip_features_see_the_middle_square():
    clip = ClipFeatures(demo.CLIP)
    square = pictures(1, size=64)[0]
    wide = Image.new("RGB", (128, 64), "red")
    wide.paste(square, (32, 0))
    assert clip.preprocessing["resize"] == 64
    torch.testing.assert_close(clip([wide]), clip([square]))
    assert clip([square]).norm() != pytest.approx(1)
