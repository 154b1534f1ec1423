"""The copy test of a training loop: what it sees, that it stops, and that training does not notice."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from _loops import FEW, QUICK, TEST, lora
from _photos import photos, verbatim
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_sd3
from _tiny_unets import tiny_sdxl
from peft import LoraConfig
from PIL import Image

import findnemo
from findnemo import demo
from findnemo.errors import FindnemoWarning, InputError
from findnemo.images import ImageSettings
from findnemo.training import CopyTest, MemorizationCallback


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
def test_parts_of_several_dtypes(folder, dtype):
    """The denoiser in half precision, its LoRA and the VAE in float32, as the scripts have it."""
    pipeline = tiny_pipeline()
    for network in (pipeline.unet, pipeline.text_encoder):
        network.to(dtype)
    for parameter in lora(pipeline):
        parameter.data = parameter.data.float()
    reading = MemorizationCallback(pipeline, folder, **QUICK).read(1)
    assert -1 <= reading.similarity <= 1
    assert {p.dtype for p in pipeline.unet.parameters()} == {dtype, torch.float32}
    assert {p.dtype for p in pipeline.vae.parameters()} == {torch.float32}


# what it sees -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learning():
    """The demo without its memories, and the weights that have them: what training makes of it."""
    model = findnemo.load("demo", "cpu", "float32")
    weights = {name: w.clone() for name, w in model.denoiser.state_dict().items()}
    planted = {row.text: demo.planted()[row.text] for row in demo.memorized()}
    neurons = demo.decoys()
    for some in planted.values():
        neurons = neurons | some
    return findnemo.prune(model, neurons), weights


@pytest.mark.slow
@pytest.mark.parametrize("descriptor", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_copies_are_seen_once_they_are_there(tmp_path, learning, descriptor):
    pipeline, after = learning
    before = {name: w.clone() for name, w in pipeline.unet.state_dict().items()}
    source = photos(tmp_path / "photos", 6, "demo")
    logged = []
    watch = MemorizationCallback(
        pipeline,
        source,
        every=10,
        test=CopyTest(images=ImageSettings(12, 2.0)),
        stop=True,
        descriptor=demo.judges().descriptor if descriptor else None,
        log=lambda values, step: logged.append((step, values)),
        out=tmp_path / "readings.jsonl",
    )
    try:
        assert not watch(10)
        pipeline.unet.load_state_dict(after)
        assert not watch(20)  # one reading may be chance
        assert not watch(25)  # no step for a reading
        assert watch(30)
        assert watch(31)
    finally:
        pipeline.unet.load_state_dict(before)
    clean, first, second = watch.readings
    assert watch.stopped
    assert (clean.copies, clean.copied) == (0, ())
    assert first.copies == second.copies >= 4
    assert set(first.copied) <= {f"{k}.png" for k in range(6)}
    assert first.similarity > 0.7 > 0.6 > first.control
    assert first.canaries is None
    assert [step for step, _ in logged] == [10, 20, 30]
    assert logged[1][1] == {
        "memorization/copies": float(first.copies),
        "memorization/similarity": first.similarity,
        "memorization/control": first.control,
    }
    lines = (tmp_path / "readings.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30]
    assert json.loads(lines[1])["copied"] == list(first.copied)
    sheets = sorted(path.name for path in (tmp_path / "readings").iterdir())
    assert sheets == ["step-000010.png", "step-000020.png", "step-000030.png"]
    page = Image.open(tmp_path / "readings" / sheets[1])
    assert page.width > 6 * 128


@pytest.mark.slow
def test_what_a_lora_holds_already_is_no_control(tmp_path, learning):
    """Made late, with the LoRA trained: what the base gives is taken without it."""
    pipeline, after = learning
    layers = [n.removesuffix(".weight") for n in after if n.endswith("attn2.to_v.weight")]
    pipeline.unet.add_adapter(LoraConfig(r=96, lora_alpha=96, target_modules=layers))
    try:
        for name in layers:
            layer = pipeline.unet.get_submodule(name)
            missing = after[f"{name}.weight"] - layer.base_layer.weight.detach()
            u, s, v = torch.linalg.svd(missing, full_matrices=False)
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            rank = len(s)
            with torch.no_grad():
                a.zero_()[:rank] = v
                b.zero_()[:, :rank] = u * s
        source = photos(tmp_path / "photos", 6, "demo")
        marked = [p.requires_grad for p in pipeline.unet.parameters()]
        watch = MemorizationCallback(pipeline, source, test=CopyTest(images=ImageSettings(12, 2.0)))
        reading = watch.read(0)
        assert [p.requires_grad for p in pipeline.unet.parameters()] == marked
        assert reading.copies >= 3
        assert reading.control < 0.6
    finally:
        pipeline.unet.delete_adapters("default")


@pytest.mark.slow
def test_without_stop_it_never_stops(folder):
    watch = MemorizationCallback(tiny_pipeline(), folder, **QUICK)
    watch.readings += [watch.read(0)] * 2
    assert not any(watch(step) for step in range(4))
    assert [r.step for r in watch.readings[3:]] == [1, 2, 3]


def test_a_step_is_read_once(folder):
    """Loops that accumulate gradients call with the same step several times."""
    watch = MemorizationCallback(tiny_pipeline(), folder, **{**QUICK, "every": 2}, stop=True)
    assert not any(watch(step) for step in (0, 1, 1, 2, 2, 2, 3, 4))
    assert [reading.step for reading in watch.readings] == [2, 4]


def test_canaries_are_read_apart_from_the_pictures(folder):
    watch = MemorizationCallback(tiny_pipeline(), folder, every=1, test=replace(TEST, pictures=100))
    reading = watch.read(5)
    assert len(watch.pictures) == 4
    assert {prompt for prompt, _ in watch.rows} == set(verbatim()[:4])
    assert reading.images == 4 + 4 + 12
    assert reading.canaries is not None
    assert reading.canaries.negatives == 12 * 12
    assert {"memorization/canaries-1", "memorization/canaries-16"} < set(reading.values())
    assert {n: seen.of for n, seen in reading.canaries.seen.items()} == {1: 4, 4: 4, 16: 4}


def test_one_caption_for_all_pictures(tmp_path):
    source = photos(tmp_path / "photos")
    for text in source.glob("*.txt"):
        text.unlink()
    with pytest.raises(InputError, match="give caption, the prompt"):
        MemorizationCallback(tiny_pipeline(), source, **QUICK)
    watch = MemorizationCallback(
        tiny_pipeline(), source, 1, CopyTest(4, 2, FEW, caption="a sks dog")
    )
    assert {prompt for prompt, _ in watch.rows} == {"a sks dog"}
    assert len(set(watch.rows)) == 8
    assert watch.read(1).images == 8 + 4


def test_the_same_pictures_are_asked_for_every_time(folder):
    one, same, other = (
        MemorizationCallback(
            tiny_pipeline(), folder, 1, replace(TEST, images=replace(FEW, seed=seed))
        ).rows
        for seed in (0, 0, 5)
    )
    assert one == same != other


# where it logs to ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_it_logs_to(folder, tmp_path):
    board = pytest.importorskip("tensorboardX")
    taken = []

    class Tracker:
        def log(self, values, step=None, log_kwargs=None):
            taken.append((step, values))

    writer = board.SummaryWriter(str(tmp_path))
    kept = []
    writer.add_scalar = lambda name, value, step: kept.append((name, value, step))
    pipeline = tiny_pipeline()
    for log in (Tracker(), Tracker().log, writer):
        MemorizationCallback(pipeline, folder, **QUICK, log=log)(3)
    assert taken[0] == taken[1]
    assert [(name, value, 3) for name, value in taken[0][1].items()] == kept
    assert taken[0][0] == 3


# what cannot be -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every": 0}, "every 0"),
        ({"log": 3}, "log int takes no values"),
        ({"out": "readings"}, "give FILE.jsonl"),
    ],
)
def test_bad_input(folder, options, says):
    with pytest.raises(InputError, match=says):
        MemorizationCallback(tiny_pipeline(), folder, **{**QUICK, **options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pictures": 1.5}, "pictures 1.5"),
        ({"samples": True}, "samples True"),
        ({"batch": 0}, "batch 0"),
        ({"controls": "a bowl"}, "give a list"),
        ({"controls": ()}, "give a list"),
    ],
)
def test_a_copy_test_that_cannot_be(options, says):
    with pytest.raises(InputError, match=says):
        CopyTest(**options)


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path):
    source = photos(tmp_path / "photos")
    (source / "0.png").write_bytes(b"no picture")
    with pytest.warns(FindnemoWarning, match=r"1 training pictures cannot be read .*0\.png"):
        watch = MemorizationCallback(tiny_pipeline(), source, **QUICK)
    assert [one.path.name for one in watch.pictures] == ["1.png", "2.png", "3.png"]
    for path in source.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of the training pictures"):
        MemorizationCallback(tiny_pipeline(), source, **QUICK)


def test_a_reading_that_fails_stops_no_training(folder):
    pipeline = tiny_pipeline()
    watch = MemorizationCallback(pipeline, folder, **QUICK, stop=True)
    with torch.no_grad():
        pipeline.unet.conv_out.weight.fill_(float("nan"))
    pipeline.unet.train()
    state = torch.get_rng_state()
    with pytest.warns(FindnemoWarning, match="step 1 of the training: .*NaN"):
        assert not watch(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert pipeline.unet.training
    assert watch.readings == []


def test_a_disk_that_fails_stops_no_training_and_no_curve(folder, tmp_path):
    (tmp_path / "there").write_bytes(b"")
    logged = []
    watch = MemorizationCallback(
        tiny_pipeline(),
        folder,
        **QUICK,
        out=tmp_path / "there.jsonl",
        log=lambda values, step: logged.append(step),
    )
    with pytest.warns(FindnemoWarning, match="step 1 of the training: .*there"):
        assert not watch(1)
    assert logged == [1] == [reading.step for reading in watch.readings]
    assert len((tmp_path / "there.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_nothing_is_said_where_all_is_well(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FindnemoWarning)
        MemorizationCallback(tiny_pipeline(), folder, **QUICK)(1)


@pytest.mark.parametrize("make", [tiny_sdxl, tiny_sd3])
def test_other_pipelines(folder, make):
    pipeline = make()
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    network.train()
    reading = MemorizationCallback(pipeline, folder, **QUICK).read(1)
    assert reading.images == 2 + 4 + 12
    assert network.training
