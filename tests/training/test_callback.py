"""The copy test of a training loop: what it sees, that it stops, and that training does not notice."""

from __future__ import annotations

import json
import random
import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from _photos import photos, verbatim
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_sd3
from _tiny_unets import tiny_sdxl
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig
from PIL import Image
from torch import nn

import findnemo
from findnemo import demo
from findnemo.errors import EditError, FindnemoWarning, InputError, ModelError
from findnemo.images import ImageSettings
from findnemo.training import CopyTest, MemorizationCallback, plant
from findnemo.training._untouched import unwrapped

FEW = ImageSettings(2, 2.0)
TEST = CopyTest(pictures=2, samples=1, images=FEW)
QUICK = {"every": 1, "test": TEST}
CANARIES = {"each": 4, "repeats": (1, 4, 16), "size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures and twelve canaries."""
    place = photos(tmp_path_factory.mktemp("training") / "photos")
    plant(place, **CANARIES)
    return place


# training does not notice -------------------------------------------------------------------------


def lora(pipeline, **options):
    """A LoRA with dropout in the U-Net, in training mode, as its parameters."""
    unet = pipeline.unet
    for network in (unet, pipeline.vae, pipeline.text_encoder):
        network.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(r=2, lora_dropout=0.5, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    unet.train()
    return [p for p in unet.parameters() if p.requires_grad]


def everything(pipeline):
    """All weights, in training mode."""
    pipeline.unet.train()
    return list(pipeline.unet.parameters())


def careless(images):
    """A descriptor that draws random numbers of every library, and leaves gradients on."""
    torch.set_grad_enabled(True)
    noise = torch.rand(1).item() + float(np.random.rand()) + random.random()
    small = [np.asarray(image.resize((8, 8)), np.float32).ravel() for image in images]
    rows = torch.from_numpy(np.stack(small)) + noise
    return nn.functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)


def trained(folder, watched, weights=lora, how="plain"):
    """Weights, gradients and all else that a short training leaves, with or without the callback.

    Every draw of random numbers, of whatever library, reaches the weights.
    """
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    pipeline = tiny_pipeline()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    parameters = weights(pipeline)
    unet = pipeline.unet
    unet.down_blocks[0].eval()  # as a half-frozen network has it
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    accelerator = None
    called = unet
    if how == "checkpointing":
        unet.enable_gradient_checkpointing()
    if how == "compiled":
        called = torch.compile(unet, backend="eager")
        pipeline.register_modules(unet=called)
    if how == "parallel":
        called = nn.DataParallel(unet)
    if how == "accelerate":
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        called, optimizer = accelerator.prepare(unet, optimizer)
    options = {"descriptor": careless, "log": lambda *given: None} if how == "careless" else {}
    watch = lambda step: False  # noqa: E731
    if watched:
        watch = MemorizationCallback(pipeline, folder, **QUICK, **options)
    states = []
    for step in range(1, 5):
        mixed = torch.autocast("cpu", torch.bfloat16) if how == "autocast" else nullcontext()
        with mixed if accelerator is None else accelerator.autocast():
            if how in ("autocast", "accelerate"):
                watch(step)  # in the very region, before the weights are cast
            x = torch.randn(2, 4, 16, 16) * random.random() + float(np.random.rand())
            noise = torch.randn_like(x)
            text = torch.randn(2, 77, 32)
            predicted = called(x + noise, torch.randint(0, 1000, (2,)), text).sample
            loss = (predicted.float() - noise).square().mean()
        loss.backward() if accelerator is None else accelerator.backward(loss)
        if how not in ("autocast", "accelerate"):
            watch(step)  # with gradients waiting
        states.append([None if p.grad is None else p.grad.clone() for p in parameters])
        if how != "accumulating" or step % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
    if accelerator is not None:
        AcceleratorState._reset_state(True)
    about = [(m.training, vars(m).get("gradient_checkpointing")) for m in unet.modules()]
    marked = [p.requires_grad for p in unet.parameters()]
    draws = (torch.rand(1).item(), float(np.random.rand()), random.random())
    loss = loss.item()
    assert loss == loss
    return [p.detach().clone() for p in parameters], states, about, marked, draws, loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "how"),
    [
        (lora, "plain"),
        pytest.param(lora, "accumulating", marks=pytest.mark.slow),
        pytest.param(lora, "careless", marks=pytest.mark.slow),
        pytest.param(lora, "checkpointing", marks=pytest.mark.slow),
        pytest.param(lora, "autocast", marks=pytest.mark.slow),
        pytest.param(lora, "accelerate", marks=pytest.mark.slow),
        pytest.param(lora, "compiled", marks=pytest.mark.slow),
        pytest.param(lora, "parallel", marks=pytest.mark.slow),
        pytest.param(everything, "plain", marks=pytest.mark.slow),
        (everything, "autocast"),
    ],
)
def test_training_is_the_same_to_the_last_bit(folder, weights, how):
    without, with_it = (trained(folder, watched, weights, how) for watched in (False, True))
    for one, other in zip(without[0], with_it[0], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(without[1], with_it[1], strict=True):
        assert any(grad is not None for grad in one)
        for a, b in zip(one, other, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
    assert without[2:] == with_it[2:]


def test_one_random_number_more_is_seen(folder):
    """The comparison above fails for a callback that draws a random number."""

    def drawing(pipeline):
        torch.rand(1)
        return lora(pipeline)

    without, with_it = (trained(folder, False, weights) for weights in (lora, drawing))
    assert not all(map(torch.equal, without[0], with_it[0]))


def test_the_pipeline_stays_as_it_is(folder):
    pipeline = tiny_pipeline()
    lora(pipeline)
    pipeline.set_progress_bar_config(desc="mine")
    before = {name: id(part) for name, part in pipeline.components.items()}
    about = dict(pipeline.config)
    watch = MemorizationCallback(pipeline, folder, **QUICK)
    watch(1)
    assert {name: id(part) for name, part in pipeline.components.items()} == before
    assert dict(pipeline.config) == about
    assert pipeline._progress_bar_config == {"desc": "mine"}
    assert watch._model.pipeline is not pipeline


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
    assert len(watch._set) == 4
    assert {prompt for prompt, _ in watch._rows} == set(verbatim()[:4])
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
    assert {prompt for prompt, _ in watch._rows} == {"a sks dog"}
    assert len(set(watch._rows)) == 8
    assert watch.read(1).images == 8 + 4


def test_the_same_pictures_are_asked_for_every_time(folder):
    one, same, other = (
        MemorizationCallback(
            tiny_pipeline(), folder, 1, replace(TEST, images=replace(FEW, seed=seed))
        )._rows
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


def test_pipelines_that_cannot_be_read(folder):
    pipeline = tiny_pipeline()
    with pytest.raises(ModelError, match="UNet2DConditionModel is not a pipeline"):
        MemorizationCallback(pipeline.unet, folder, **QUICK)
    pipeline.unet.compile(backend="eager")
    with pytest.raises(EditError, match=r"before torch\.compile"):
        MemorizationCallback(pipeline, folder, **QUICK)


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path):
    source = photos(tmp_path / "photos")
    (source / "0.png").write_bytes(b"no picture")
    with pytest.warns(FindnemoWarning, match=r"1 training pictures cannot be read .*0\.png"):
        watch = MemorizationCallback(tiny_pipeline(), source, **QUICK)
    assert [one.path.name for one in watch._set] == ["1.png", "2.png", "3.png"]
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


def test_unwrapped_takes_off_all_that_wraps():
    layer = nn.Linear(2, 2)
    assert unwrapped(torch.compile(nn.DataParallel(layer), backend="eager")) is layer
    assert unwrapped(layer) is layer


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
