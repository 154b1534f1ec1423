"""What a single file says of its noise prediction is believed, or a contradiction is refused; it
is never passed over in silence.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from _hub import cached
from _tiny_files import FAMILIES, save_file, tiny_family
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

import findnemo
from findnemo.errors import FindnemoWarning, InputError, ModelError
from findnemo.models.marks import LAST_NORM
from findnemo.models.single_file import KINDS

V = torch.zeros(0)
ZERO = torch.zeros(0)
LDM = {"model": {"params": {"linear_start": 0.00085, "unet_config": {"params": {}}}}}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Family -> a directory whose scheduler predicts noise, as the usual configuration of 1.x
    and SDXL does, and a file of its weights.
    """
    made = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        pipeline = tiny_family(family)
        kind = EulerDiscreteScheduler if family == "sdxl" else PNDMScheduler
        options = {"skip_prk_steps": True} if kind is PNDMScheduler else {}
        pipeline.scheduler = kind(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            prediction_type="epsilon",
            **options,
        )
        pipeline.save_pretrained(folder / "directory")
        made[family] = pipeline, folder / "directory"
    return made


@pytest.fixture
def usual(places, tmp_path, monkeypatch):
    """Makes a file with marks, and puts the usual configuration of its
    family into the hub's cache.
    """

    def make(family="sd1", tensors=None, metadata=None, beside=None) -> Path:
        pipeline, directory = places[family]
        bare = tmp_path / f"bare-{family}"
        if not bare.exists():
            shutil.copytree(directory, bare, ignore=shutil.ignore_patterns("*.safetensors"))
            cached(monkeypatch, tmp_path / "cache", KINDS[FAMILIES[family]].hub, bare)
        if beside is not None:
            (tmp_path / "model.yaml").write_text(
                beside if isinstance(beside, str) else json.dumps(beside)
            )
        return save_file(pipeline, tmp_path / "model.safetensors", tensors, metadata)

    return make


def scheduler_of(file: Path, **options):
    return findnemo.load(file, **options).pipeline.scheduler


@pytest.mark.first(1)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zero", [False, True])
def test_tensors_without_values_are_believed_against_the_usual_configuration(usual, family, zero):
    file = usual(family, {"v_pred": V, **({"ztsnr": ZERO} if zero else {})})
    with pytest.warns(
        FindnemoWarning,
        match=r"says that prediction_type is v_prediction.*the tensor v_pred.*believed",
    ):
        scheduler = scheduler_of(file)
    config = scheduler.config
    assert config.prediction_type == "v_prediction"
    assert bool(config.get("rescale_betas_zero_snr", False)) is zero
    assert config.timestep_spacing == (
        "trailing" if zero else "leading" if family != "sdxl" else "linspace"
    )
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (
        0.00085,
        0.012,
        "scaled_linear",
    )
    if zero:  # by its own definition (Lin et al. 2024): the last step holds nothing of the image
        assert scheduler.alphas_cumprod[-1] < 1e-6
        assert isinstance(scheduler, EulerDiscreteScheduler if family == "sdxl" else DDIMScheduler)
        assert not config.get("clip_sample", False)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "metadata",
    [
        {"modelspec.prediction_type": "v"},
        {"modelspec.prediction_type": " V-Prediction "},
        {"modelspec.predict_key": "v"},
        {"modelspec.predict_key": "v_pred"},
        {"prediction_type": "v_prediction"},
        {"ss_v_parameterization": "True"},
        {"modelspec.architecture": "stable-diffusion-v2-768-v"},
        {
            "modelspec.prediction_type": "velocity",
            "ss_v_parameterization": "true",
            "modelspec.title": "mine",
        },
    ],
)
def test_metadata_are_believed(usual, metadata):
    with pytest.warns(FindnemoWarning, match="prediction_type is v_prediction"):
        assert (
            scheduler_of(usual("sd2", metadata=metadata)).config.prediction_type == "v_prediction"
        )


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["ss_zero_terminal_snr", "rescale_betas_zero_snr", "ztsnr"])
def test_metadata_of_zero_terminal_snr_are_believed(usual, name):
    with pytest.warns(FindnemoWarning, match="rescale_betas_zero_snr is True"):
        config = scheduler_of(usual("sdxl", {"v_pred": V}, {name: "True"})).config
    assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing) == (
        "v_prediction",
        True,
        "trailing",
    )


@pytest.mark.parametrize(
    "params",
    [
        {"parameterization": "v"},
        {
            "denoiser_config": {
                "params": {
                    "scaling_config": {
                        "target": "sgm.modules.diffusionmodules.denoiser_scaling.VScaling"
                    }
                }
            }
        },
    ],
)
def test_the_configuration_beside_a_file_is_believed(usual, params):
    with pytest.warns(FindnemoWarning, match=r"model\.yaml beside it"):
        config = scheduler_of(
            usual(beside={"model": {"params": {**params, "zero_terminal_snr": True}}})
        ).config
    assert (config.prediction_type, config.rescale_betas_zero_snr) == ("v_prediction", True)


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"modelspec.prediction_type": "epsilon"},
        {"ss_v_parameterization": "None", "x": "v_pred"},
    ],
)
@pytest.mark.parametrize("beside", [None, LDM, "just: notes\n", "", "- a\n- b\n"])
def test_what_agrees_or_says_nothing_changes_nothing_and_is_not_spoken_of(
    usual, places, metadata, beside
):
    file = usual(metadata=metadata, beside=beside)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FindnemoWarning)
        config = scheduler_of(file).config
    wanted = places["sd1"][0].scheduler.config
    assert {k: v for k, v in config.items() if k[0] != "_"} == {
        k: v for k, v in wanted.items() if k[0] != "_"
    }


CONTRADICTIONS = {
    "tensor and ModelSpec": ({"v_pred": V}, {"modelspec.prediction_type": "epsilon"}, None, "by the tensor v_pred .* by the metadata modelspec"),
    "ModelSpec and ComfyUI": ({}, {"modelspec.prediction_type": "v", "modelspec.predict_key": "epsilon"}, None, "by the metadata modelspec.predict_key"),
    "tensor and kohya": ({"v_pred": V}, {"ss_v_parameterization": "False"}, None, "ss_v_parameterization"),
    "tensor and architecture": ({"v_pred": V}, {"modelspec.architecture": "stable-diffusion-v2-512"}, None, "modelspec.architecture"),
    "ModelSpec and yaml": ({}, {"modelspec.prediction_type": "epsilon"}, {"model": {"params": {"parameterization": "v"}}}, r"model\.yaml beside"),
    "tensor and yaml without parameterization": ({"v_pred": V}, {}, LDM, r"model\.yaml beside it it is epsilon"),
    "tensor and kohya on zero SNR": ({"v_pred": V, "ztsnr": ZERO}, {"ss_zero_terminal_snr": "False"}, None, "rescale_betas_zero_snr is True"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTRADICTIONS)
@pytest.mark.parametrize("asked", [False, True])
def test_a_file_that_contradicts_itself_is_refused_before_it_is_loaded(
    usual, places, monkeypatch, what, asked
):
    tensors, metadata, beside, message = CONTRADICTIONS[what]
    file = usual("sd1", tensors, metadata or None, beside)
    monkeypatch.setattr(
        places["sd1"][0].__class__, "from_single_file", lambda *a, **k: pytest.fail("was loaded")
    )
    with pytest.raises(ModelError, match=message) as error:
        findnemo.load(file, **({"config": places["sd1"][1]} if asked else {}))
    assert "contradicts itself" in str(error.value)
    assert "correct or remove the wrong one" in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (
            {"v_pred": V},
            {},
            (
                r"the tensor v_pred of .* says that it predicts v_prediction, the configuration"
                r" says epsilon"
            ),
        ),
        (
            {},
            {"modelspec.predict_key": "v"},
            r"modelspec\.predict_key of .* says that it predicts v_prediction",
        ),
        (
            {"ztsnr": ZERO},
            {},
            (
                r"the tensor ztsnr of .* says that it has rescale_betas_zero_snr True, the"
                r" configuration says False"
            ),
        ),
    ],
)
def test_a_configuration_that_was_asked_for_and_contradicts_the_file_is_refused(
    places, usual, tensors, metadata, message
):
    with pytest.raises(ModelError, match=message) as error:
        findnemo.load(usual("sd1", tensors, metadata or None), config=places["sd1"][1])
    assert "leave --config (in Python: config=) out" in str(error.value)


def test_a_configuration_that_was_asked_for_and_agrees_is_taken_as_it_is(places, usual, tmp_path):
    directory = Path(shutil.copytree(places["sdxl"][1], tmp_path / "v"))
    place = directory / "scheduler" / "scheduler_config.json"
    about = json.loads(place.read_text()) | {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "leading",
    }
    place.write_text(json.dumps(about))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FindnemoWarning)
        config = scheduler_of(usual("sdxl", {"v_pred": V, "ztsnr": ZERO}), config=directory).config
    assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing) == (
        "v_prediction",
        True,
        "leading",
    )


@pytest.mark.parametrize(
    ("tensors", "metadata", "beside", "what"),
    [
        ({"edm_mean": torch.zeros(1), "edm_std": torch.zeros(1)}, None, None, "'edm'"),
        ({"edm_vpred.sigma_max": torch.tensor(120.0), "v_pred": V}, None, None, "'edm'"),
        ({}, {"modelspec.prediction_type": "sample"}, None, "'sample'"),
        ({}, {"modelspec.prediction_type": "rectified flow"}, None, "'rectified flow'"),
        ({}, None, {"model": {"params": {"parameterization": "x0"}}}, "'x0'"),
    ],
)
def test_what_is_not_read_is_refused_by_its_name(usual, tensors, metadata, beside, what):
    with pytest.raises(
        ModelError, match=f"says that it predicts {what}: findnemo reads epsilon and v_prediction"
    ):
        findnemo.load(usual("sdxl", tensors, metadata, beside))


@pytest.mark.parametrize(
    "text",
    [
        "model: [",
        "model: &a\n  *a",
        "model:\n  params: {parameterization: v}",
        "{" * 5000,
        "\x00",
        "x" * (2 << 20),
    ],
)
def test_a_configuration_beside_a_file_that_cannot_be_read_is_named(usual, text):
    with pytest.raises(InputError, match=r"model\.yaml"):
        findnemo.load(usual(beside=text))


def test_a_configuration_beside_a_file_makes_no_objects(usual, tmp_path):
    text = f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']"
    with pytest.raises(InputError, match=r"model\.yaml cannot be read"):
        findnemo.load(usual(beside=text))
    assert not (tmp_path / "made").exists()


@pytest.mark.first(1)
@pytest.mark.parametrize(("spread", "looks"), [(0.02, "epsilon"), (0.2, "v_prediction")])
@pytest.mark.parametrize("configured", ["epsilon", "v_prediction"])
def test_a_2x_file_that_says_nothing_is_refused_where_its_values_look_otherwise(
    usual, tmp_path, spread, looks, configured
):
    name = f"model.diffusion_model.{LAST_NORM}"
    file = usual("sd2", {name: spread * torch.tensor([1.0, -1.0] * 160, dtype=torch.float16)})
    (snapshot,) = (tmp_path / "cache").glob("*/snapshots/*")
    place = snapshot / "scheduler" / "scheduler_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"prediction_type": configured}))
    if looks == configured:
        assert scheduler_of(file).config.prediction_type == configured
    else:
        with pytest.raises(
            ModelError,
            match=rf"does not say whether it predicts noise or v, and its values look like {looks}",
        ) as error:
            findnemo.load(file)
        assert "stabilityai/stable-diffusion-2-1-base for epsilon" in str(error.value)
    assert scheduler_of(file, config=snapshot).config.prediction_type == configured
