"""Statistics against naive ones, thresholds against hand computation and their guarantee,
and calibrations as files.
"""

import json
import os
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from random import Random

import pytest
import torch
from _evil import Evil
from _tiny import tiny_pipeline
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import findnemo
from findnemo import Calibration, Settings, activations, calibrate, import_statistics
from findnemo.calibration import (
    PRECISION,
    PUBLISHED_TAU,
    Moments,
    Rule,
    calibrate_in,
    tau_interval,
    threshold,
)
from findnemo.calibration._calibration import digest_of
from findnemo.calibration._gathered import Gathered
from findnemo.errors import InputError, MismatchError, NumericalError
from findnemo.models import Model
from findnemo.models.identity import Identity, Part
from findnemo.settings import PAPER, RELEASED

SHARED = Path(os.environ.get("FINDNEMO_SHARED", Path(__file__).parents[3] / "shared"))
PUBLISHED = SHARED / "published" / "activation_statistics_sd14.pt"
LIGHT = Settings(samples=3)
PROMPTS = [
    "a cat",
    "two dogs in the snow",
    "",
    "a very long caption about nothing at all",
    "a red star",
    "the sea",
]


@pytest.fixture(scope="module")
def calibration(model) -> Calibration:
    return calibrate(model, PROMPTS, settings=LIGHT)


def assert_equal(a: Calibration, b: Calibration) -> None:
    """The same to the last bit."""
    for name in ("model", "source", "settings", "tau", "count", "fpr"):
        assert getattr(a, name) == getattr(b, name)
    assert torch.equal(a.scores, b.scores)
    for mine, theirs in ((a.mean, b.mean), (a.std, b.std)):
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# statistics ---------------------------------------------------------------------------------------


@given(
    st.integers(2, 30),
    st.lists(st.integers(0, 30)),
    st.sampled_from([0.0, 1e6]),
    st.integers(0, 2**31),
)
def test_moments_of_any_split_merge_to_the_mean_and_unbiased_deviation(n, cuts, offset, seed):
    values = (
        torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        + offset
    )
    edges = sorted({0, n, *(c for c in cuts if c < n)})
    parts = [values[i:j] for i, j in pairwise(edges)]
    total = reduce(add, [Moments.of(part) for part in parts])
    assert total.count == n
    torch.testing.assert_close(total.mean, values.mean(0))
    torch.testing.assert_close(total.std, values.std(0), atol=1e-8, rtol=1e-8)


def test_one_value_has_no_deviation():
    assert Moments.of(torch.ones(1, 3)).std.isnan().all()


def test_streaming_equals_a_naive_computation(model, calibration):
    rows = [activations(model, prompt) for prompt in PROMPTS]
    for name in model.value_layers:
        table = torch.stack([row[name] for row in rows])
        torch.testing.assert_close(calibration.mean[name], table.mean(0))
        torch.testing.assert_close(calibration.std[name], table.std(0), atol=1e-7, rtol=1e-4)
    scores = torch.tensor([findnemo.score(model, prompt, settings=LIGHT) for prompt in PROMPTS])
    torch.testing.assert_close(calibration.scores, scores)
    assert calibration.tau == pytest.approx(float(scores.mean() + scores.std()), abs=1e-6)
    assert calibration.count == len(PROMPTS)
    assert calibration.model == model.fingerprint


def test_activations_are_those_of_a_real_unet_pass(tiny):
    expected = {}
    handles = [
        layer.register_forward_hook(
            lambda _, args, output, name=name: expected.update({name: output[0].abs().mean(0)})
        )
        for name, layer in tiny.value_layers.items()
    ]
    with torch.no_grad():
        tiny.predict_noise(tiny.noise("a cat", [0]), 981, tiny.encode(["a cat"]))
    for handle in handles:
        handle.remove()

    def refuse(*_: object) -> None:
        raise AssertionError("the U-Net ran")

    tiny.denoiser.register_forward_pre_hook(refuse)
    values = activations(tiny, "a cat")
    assert list(values) == list(tiny.value_layers)
    for name, value in values.items():
        assert value.shape == (tiny.widths()[name],)
        torch.testing.assert_close(value, expected[name])


def test_z_scores_by_hand():
    calibration = Calibration(
        "",
        "",
        PAPER,
        0.5,
        {"mid": torch.tensor([1.0, 2.0, 3.0, 3.0])},
        {"mid": torch.tensor([0.5, 4.0, 0.0, 0.0])},
        2,
        torch.empty(0),
    )
    z = calibration.z_scores({"mid": torch.tensor([2.0, 0.0, 3.0, 4.0])})
    assert z["mid"].tolist() == [2.0, -0.5, 0.0, float("inf")]


# thresholds ---------------------------------------------------------------------------------------


def test_the_papers_threshold_is_mean_plus_one_unbiased_deviation():
    assert threshold(torch.tensor([0.1, 0.2, 0.6])) == pytest.approx(0.3 + (0.14 / 2) ** 0.5)


@pytest.mark.parametrize(
    ("n", "fpr", "rank"),
    [(19, 0.1, 18), (9, 0.1, 9), (10, 0.25, 9), (3, 0.3, 3), (99, 0.01, 99), (999, 0.05, 950)],
)
def test_the_conformal_threshold_is_next_above_an_order_statistic(n, fpr, rank):
    """Of 1 .. n the ceil((n + 1)(1 - fpr))-th smallest stays under it, and nothing that
    float32 holds lies between.
    """
    scores = torch.randperm(n, generator=torch.Generator().manual_seed(n)) + 1.0
    assert (
        threshold(scores, fpr)
        == torch.nextafter(torch.tensor(float(rank)), torch.tensor(float(n + 1))).item()
        > rank
    )


@pytest.mark.parametrize(("n", "fpr"), [(19, 0.1), (50, 0.05)])
def test_a_new_prompt_exceeds_the_conformal_threshold_at_most_that_often(n, fpr):
    trials = 4000
    scores = torch.randn(
        trials, n + 1, generator=torch.Generator().manual_seed(0)
    ).exp()  # any distribution
    rate = sum(float(row[-1]) > threshold(row[:-1], fpr) for row in scores) / trials
    noise = 3 * (fpr * (1 - fpr) / trials) ** 0.5
    assert fpr - 1 / (n + 1) - noise <= rate <= fpr + noise


def test_a_rate_that_the_prompts_cannot_support_is_refused_with_the_number_it_takes():
    with pytest.raises(InputError, match=r"8 hold-out prompts are too few .* 0\.1: it takes 9"):
        threshold(torch.rand(8), 0.1)
    threshold(torch.rand(9), 0.1)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 5.0])
def test_a_rate_outside_zero_to_one_is_refused(fpr):
    with pytest.raises(InputError, match="is not a rate between 0 and 1"):
        threshold(torch.rand(9), fpr)


# calibrate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fpr", [None, 0.6])
@pytest.mark.parametrize("prompts", [[], ["a cat"]])
def test_fewer_than_two_prompts_are_refused(model, prompts, fpr):
    with pytest.raises(InputError, match=f"at least two hold-out prompts, not {len(prompts)}"):
        calibrate(model, prompts, settings=LIGHT, fpr=fpr)


def test_a_calibration_for_a_rate_keeps_it(model, calibration):
    made = calibrate(model, iter(PROMPTS), settings=LIGHT, fpr=0.3)
    assert made.fpr == 0.3
    assert made.tau == pytest.approx(calibration.scores.sort().values[4].item())
    assert torch.equal(made.scores, calibration.scores)


def test_the_seed_changes_the_scores_but_not_the_activations(model, calibration):
    other = calibrate(model, PROMPTS[:2], settings=replace(LIGHT, seed=1))
    assert not torch.equal(other.scores, calibration.scores[:2])
    assert other.settings.seed == 1


def test_the_released_variant_on_small_latents_names_the_sizes_and_the_way_out(model):
    with pytest.raises(
        InputError, match=r"MS-SSIM needs maps of at least 44 x 44, these are 16 x 16.*'paper'"
    ):
        calibrate(model, PROMPTS, variant="released")


def test_an_unknown_variant_is_refused(model):
    with pytest.raises(
        InputError, match="variant 'fast' is not known: use one of findnemo, paper, released"
    ):
        calibrate(model, PROMPTS, variant="fast")


def test_a_model_that_gives_nan_is_refused_by_prompt(tiny):
    with torch.no_grad():
        tiny.denoiser.conv_out.bias[0] = float("nan")
    with pytest.raises(NumericalError, match=r"hold-out prompt 'a cat': .*NaN"):
        calibrate(tiny, PROMPTS, settings=LIGHT)


# interruption -------------------------------------------------------------------------------------


def interrupt(model: Model, folder: Path, done: int) -> None:
    """A calibration that is interrupted once `done` prompts are done."""
    finished = []

    def progress(prompt: str) -> None:
        finished.append(prompt)
        if len(finished) == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_in(folder, model, PROMPTS, LIGHT, progress=progress)
    assert finished == PROMPTS[:done]


@pytest.mark.first(1)
@pytest.mark.parametrize("done", [1, 4, len(PROMPTS)])
def test_an_interrupted_calibration_goes_on_without_redoing_to_the_same_last_bit(
    tiny, tmp_path, done, monkeypatch
):
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 1)
    calibration = calibrate(tiny, PROMPTS, settings=LIGHT)
    folder = tmp_path / "run"
    interrupt(tiny, folder, done)
    assert [file.name for file in folder.iterdir()] == ["partial.safetensors"]
    again = findnemo.load(tiny.pipeline)
    calls = []
    seen = []
    again.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    made = calibrate_in(folder, again, PROMPTS, LIGHT, progress=seen.append)
    assert len(calls) == len(PROMPTS) - done  # one U-Net pass a prompt
    assert seen == PROMPTS
    assert_equal(made, calibration)
    assert not (folder / "partial.safetensors").exists()
    assert_equal(Calibration.load(folder), calibration)


@pytest.mark.first(1)
@pytest.mark.parametrize("done", range(1, len(PROMPTS) + 1))
def test_captions_that_share_passes_have_the_same_scores_wherever_it_was_interrupted(
    tiny, tmp_path, done, monkeypatch
):
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 2)
    whole = calibrate(tiny, PROMPTS, settings=LIGHT)
    interrupt(tiny, tmp_path, done)
    assert_equal(calibrate_in(tmp_path, tiny, PROMPTS, LIGHT), whole)


def test_scores_do_not_depend_on_how_many_captions_share_a_pass(tiny, monkeypatch):
    scores = []
    for group, batch in ((1, 64), (2, 64), (32, 64), (32, 7)):
        monkeypatch.setattr("findnemo.passes.deltas.GROUP", group)
        monkeypatch.setattr("findnemo.passes.deltas.BATCH", batch)
        scores.append(calibrate(tiny, PROMPTS, settings=LIGHT).trajectories)
    for others in scores[1:]:
        torch.testing.assert_close(others, scores[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "prompts",
    [
        [*PROMPTS[:3], "another", *PROMPTS[4:]],
        ["another", *PROMPTS[1:]],
        [PROMPTS[1], PROMPTS[0], *PROMPTS[2:]],
        PROMPTS[:2],
        [],
    ],
    ids=["last done changed", "first changed", "reordered", "fewer", "none"],
)
def test_other_hold_out_prompts_than_before_the_interruption_are_refused(
    model, tmp_path, prompts, monkeypatch
):
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 1)
    interrupt(model, tmp_path, 4)
    with pytest.raises(
        MismatchError, match=r"has done 4 hold-out prompts.*same hold-out prompts.*or a new --out"
    ):
        calibrate_in(tmp_path, model, prompts, LIGHT)


def test_more_hold_out_prompts_after_an_interruption_are_welcome(model, tmp_path):
    interrupt(model, tmp_path, 3)
    more = [*PROMPTS, "one more"]
    made = calibrate_in(tmp_path, model, more, LIGHT)
    assert_equal(made, calibrate(model, more, settings=LIGHT))


def test_what_was_done_with_other_settings_is_not_used(model, tmp_path):
    interrupt(model, tmp_path, 2)
    other = replace(LIGHT, samples=2)
    made = calibrate_in(tmp_path, model, PROMPTS[:3], other)
    assert_equal(made, calibrate(model, PROMPTS[:3], settings=other))


def test_a_damaged_interrupted_calibration_is_refused_by_name(model, tmp_path):
    (tmp_path / "partial.safetensors").write_bytes(b"damaged")
    with pytest.raises(
        InputError, match=r"partial\.safetensors is not an interrupted calibration .*remove it"
    ):
        calibrate_in(tmp_path, model, PROMPTS, LIGHT)


# files --------------------------------------------------------------------------------------------


def test_a_saved_calibration_is_the_same_to_the_last_bit(calibration, tmp_path):
    for made in (
        calibration,
        replace(calibration, fpr=0.05, tau=0.1 + 0.2),
    ):  # the second replaces the first
        assert made.save(tmp_path / "calibration") == tmp_path / "calibration"
        assert_equal(Calibration.load(tmp_path / "calibration"), made)
        names = sorted(path.name for path in (tmp_path / "calibration").iterdir())
        assert names == ["calibration.json", "calibration.safetensors"]


@pytest.mark.parametrize("name", ["calibration.json", "calibration.safetensors"])
def test_a_calibration_without_one_of_its_files_is_refused(calibration, tmp_path, name):
    calibration.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"holds no {name}; make one with `findnemo calibrate`"):
        Calibration.load(tmp_path)


def test_something_that_is_no_calibration_directory_is_refused(tmp_path):
    (tmp_path / "file.json").write_text("{}")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file.json"):
        with pytest.raises(InputError, match="is not a calibration"):
            Calibration.load(path)


@pytest.mark.parametrize(
    "content", ["", '{"format": 3', "[]", "{}", '{"format": 3, "layers": ["nowhere"]}']
)
def test_a_damaged_description_is_refused(calibration, tmp_path, content):
    calibration.save(tmp_path)
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(InputError, match="is damaged or not a calibration"):
        Calibration.load(tmp_path)


def describe(folder: Path, **changes) -> None:
    """Change a description, with a digest for it, so that only what does not fit is noticed."""
    description = folder / "calibration.json"
    about = json.loads(description.read_text()) | changes
    del about["digest"]
    about["digest"] = digest_of(about, (folder / "calibration.safetensors").read_bytes())
    description.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has calibration format 99, this version of findnemo reads 3"),
        ({"settings": {"colour": "red"}}, "settings of another findnemo version.*colour"),
        ({"settings": None}, "settings of another findnemo version|is damaged"),
        ({"layers": ["mid"]}, "is damaged.*mean.mid"),
        ({"layers": 7}, "its layers cannot be those of a calibration"),
        ({"layers": [[1]]}, "its layers cannot be those of a calibration"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(calibration, tmp_path, change, message):
    calibration.save(tmp_path)
    describe(tmp_path, **change)
    with pytest.raises(InputError, match=message):
        Calibration.load(tmp_path)


def test_damaged_tensors_are_refused(calibration, tmp_path):
    calibration.save(tmp_path)
    path = tmp_path / "calibration.safetensors"
    whole = path.read_bytes()
    tensors = load_file(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        Calibration.load(tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "trajectories"}, path)
    describe(tmp_path)
    with pytest.raises(InputError, match=r"is damaged.*trajectories"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize("name", ["calibration.json", "calibration.safetensors"])
def test_a_flipped_bit_anywhere_in_a_calibration_is_noticed(calibration, tmp_path, name):
    file = calibration.save(tmp_path) / name
    whole = file.read_bytes()
    random = Random(0)
    for place in random.sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        try:
            made = Calibration.load(tmp_path)
        except InputError:
            continue
        assert_equal(made, calibration)  # white space in the description, say


def test_a_flipped_bit_in_an_interrupted_calibration_is_noticed(tiny, tmp_path):
    interrupt(tiny, tmp_path, 4)
    file = tmp_path / "partial.safetensors"
    random = Random(0)

    whole = file.read_bytes()
    for place in random.sample(range(len(whole)), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        key = f"{tiny.fingerprint} {LIGHT} {PRECISION}"
        try:
            kept = Gathered.load(file, key)
        except InputError:
            continue
        assert kept.count == 0  # the key itself: begun afresh


# precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw", [torch.randn, lambda *size, generator: torch.rand(*size, generator=generator) ** 3]
)
def test_the_interval_of_tau_holds_the_truth_as_often_as_it_says(draw):
    generator = torch.Generator().manual_seed(5)
    truth = threshold(draw(2_000_000, generator=generator))
    inside = 0
    for _ in range(400):
        low, high = tau_interval(draw(300, generator=generator))
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_scoring_stops_once_tau_is_known_well_enough_but_the_statistics_use_all(tiny, monkeypatch):
    prompts = [f"caption {k}" for k in range(20)]
    monkeypatch.setattr("findnemo.calibration._gathered.CHUNK", 5)
    whole = calibrate(tiny, prompts, settings=LIGHT, precision=None)
    widths = [high - low for low, high in (tau_interval(whole.scores[:n]) for n in (5, 10, 15))]
    wanted = min(widths[1:]) * 1.0001
    made = calibrate(tiny, prompts, settings=LIGHT, precision=wanted)
    scored = 5 * (1 + next(k for k, width in enumerate(widths) if width < wanted))
    assert (len(whole.trajectories), len(made.trajectories), made.count) == (20, scored, 20)
    assert made.tau == threshold(whole.scores[:scored])
    for name, mean in whole.mean.items():
        torch.testing.assert_close(made.mean[name], mean)
        torch.testing.assert_close(made.std[name], whole.std[name])


def test_a_false_positive_rate_takes_all_prompts(tiny, monkeypatch):
    monkeypatch.setattr("findnemo.calibration._gathered.CHUNK", 2)
    made = calibrate(tiny, PROMPTS, settings=LIGHT, fpr=0.5, precision=100.0)
    assert len(made.trajectories) == len(PROMPTS)


def test_an_interruption_does_not_change_where_scoring_stops(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("findnemo.calibration._gathered.CHUNK", 2)
    whole = calibrate(tiny, PROMPTS, settings=LIGHT, precision=100.0)
    assert len(whole.trajectories) == 2

    def stop(prompt: str) -> None:
        if prompt == PROMPTS[2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_in(tmp_path, tiny, PROMPTS, LIGHT, Rule(precision=100.0), stop)
    assert_equal(calibrate_in(tmp_path, tiny, PROMPTS, LIGHT, Rule(precision=100.0)), whole)


def test_trajectories_are_the_scores_of_the_first_seeds(model, calibration):
    for row, prompt in zip(calibration.trajectories, PROMPTS, strict=True):
        for n, value in enumerate(row.tolist(), 2):
            assert value == pytest.approx(findnemo.score(model, prompt, samples=range(n)), abs=1e-5)


# use with another model or other settings ---------------------------------------------------------


def test_a_calibration_fits_its_model_and_settings(model, calibration):
    calibration.check(model)
    calibration.check(model, LIGHT)


def test_another_model_is_refused_by_name(calibration):
    other = findnemo.load(tiny_pipeline(seed=1))
    other.source = "another/model"
    with pytest.raises(
        MismatchError, match=r"another model: live StableDiffusionPipeline .*not another/model"
    ):
        calibration.check(other)


def test_other_layers_are_refused(model, calibration):
    mean = {name: value for name, value in calibration.mean.items() if "mid_block" not in name}
    with pytest.raises(MismatchError, match=r"knows layers .* the model has .*mid_block"):
        replace(calibration, mean=mean).check(model)


def test_other_settings_are_refused_and_the_difference_is_named(model, calibration):
    with pytest.raises(
        MismatchError, match=r"other settings: samples 3 instead of 5, seed 0 instead of 7;"
    ):
        calibration.check(model, replace(LIGHT, samples=5, seed=7))


# published statistics -----------------------------------------------------------------------------


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


@pytest.mark.first(1)
@pytest.mark.parametrize("at", range(len(PROMPTS)))
def test_an_interrupt_in_the_midst_of_taking_a_group_leaves_no_half_of_it(
    tiny, tmp_path, at, monkeypatch
):
    """A second Ctrl-C comes anywhere: between the scores of a group and its prompts, too."""
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 3)
    monkeypatch.setattr("findnemo.calibration._calibrate.SAVE_EVERY", 0.0)
    whole = calibrate(tiny, PROMPTS, settings=LIGHT)
    chained = Gathered.take.__globals__["chained"]
    left = iter(range(100))

    def interrupted(digest, prompt):
        if next(left) == at:
            raise KeyboardInterrupt
        return chained(digest, prompt)

    with monkeypatch.context() as patch:
        patch.setattr("findnemo.calibration._gathered.chained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            calibrate_in(tmp_path, tiny, PROMPTS, LIGHT)
    assert_equal(calibrate_in(tmp_path, tiny, PROMPTS, LIGHT), whole)
