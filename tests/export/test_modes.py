"""Who may read an export: whoever may read what it was made of, and without files whoever the
umask lets.
"""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
import torch
from _tiny_files import as_model, loud, make_run, save_file, tiny_family
from safetensors.torch import save_file as save_lora

import findnemo
from findnemo.export import FORMS, permissions_like, select, write
from findnemo.files.modes import Like, settle
from findnemo.runs import Run

DRAWN = (0o600, 0o640, 0o644, 0o660, 0o664, 0o444, 0o440)
UMASKS = (0o002, 0o022, 0o027, 0o077)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(place: Path) -> dict[str, int]:
    """The permissions of a file or a folder and of all in it, by where it lies there."""
    return {str(p.relative_to(place)): mode(p) for p in (place, *place.rglob("*"))}


@pytest.fixture
def umask():
    """Sets the umask; afterwards it is as before."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A run of each kind of source, all with a LoRA but the live one; the model; its neurons."""
    root = tmp_path_factory.mktemp("sources")
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(root / "directory")
    save_file(pipeline, root / "file.safetensors")
    (root / "file.yaml").write_text("model:\n  params:\n    scale_factor: 0.18215\n")
    layer = next(iter(neurons.layers))
    into = pipeline.unet.get_submodule(layer).in_features
    out = pipeline.unet.get_submodule(layer).out_features
    matrices = {"A": torch.randn(2, into) / 100, "B": torch.randn(out, 2) / 100}
    lora = {f"unet.{layer}.lora_{name}.weight": value for name, value in matrices.items()}
    save_lora(lora, root / "lora.safetensors")
    with_lora = {"lora": str(root / "lora.safetensors")}
    single = {"config": str(root / "directory")}
    models = {
        "directory": findnemo.load(root / "directory"),
        "file": findnemo.load(root / "file.safetensors", **single),
        "directory with a LoRA": findnemo.load(root / "directory", **with_lora),
        "file with a LoRA": findnemo.load(root / "file.safetensors", **single, **with_lora),
        "live": as_model(pipeline),
    }
    chosen = {}
    for name, model in models.items():
        with Run.open(make_run(root / f"run of a {name}", model, {"a fox": neurons})) as run:
            chosen[name] = select(run)
    return root, models, chosen


CASES = [
    (form, source)
    for form, how in FORMS.items()
    for source in ("directory", "file", "directory with a LoRA", "live")
    if not how.of_lora or "LoRA" in source
] + [("adapter", "file with a LoRA")]


@pytest.mark.first(1)
@pytest.mark.parametrize(("form", "source"), CASES)
def test_an_export_has_the_permissions_of_what_it_was_made_of(
    sources, umask, tmp_path, form, source
):
    root, models, selections = sources
    model = models[source]
    draw = random.Random(f"{form} {source}")
    for file in (p for p in root.glob("*") if not p.name.startswith("run")):
        for one in (file, *file.rglob("*")):
            one.chmod(draw.choice(DRAWN) if one.is_file() else draw.choice((0o700, 0o750, 0o775)))
    masked = draw.choice(UMASKS)
    umask(masked)
    place = tmp_path / "folder" / FORMS[form].name
    write(form, selections[source], place, model)

    by_umask = FORMS[form].describe is not None or source == "live"
    of = root / ("directory" if "directory" in source else "file.safetensors")
    of = root / "lora.safetensors" if FORMS[form].of_lora else of
    weights = of / "unet/diffusion_pytorch_model.safetensors" if of.is_dir() else of
    assert modes(place)
    for name, got in modes(place).items():
        folder = (place / name).is_dir()
        twin = of / name
        if by_umask:
            wanted = (0o777 if folder else 0o666) & ~masked
        elif twin.exists() and twin.is_dir() == folder:
            wanted = mode(twin) | 0o600
        else:
            read = mode(weights) | 0o600
            wanted = read | (read & 0o444) >> 2 if folder else read
        assert oct(got) == oct(wanted), name
    assert [p.name for p in place.parent.iterdir() if p != place and p.suffix != ".yaml"] == []
    if form == "file" and source == "file":
        assert mode(place.with_suffix(".yaml")) == mode(root / "file.yaml") | 0o600


def test_what_others_wrote_for_their_owner_alone_gets_what_the_umask_says(umask, tmp_path):
    umask(0o027)
    folder = tmp_path / "clean"
    (folder / "unet").mkdir(parents=True)
    for file in (folder / "a.safetensors", folder / "unet/b.safetensors"):
        file.touch(0o600)
    (folder / "unet").chmod(0o2700)
    settle(folder)
    assert modes(folder) == {
        ".": 0o750,
        "a.safetensors": 0o640,
        "unet": 0o2750,  # its files stay of its group
        "unet/b.safetensors": 0o640,
    }
    assert list(tmp_path.iterdir()) == [folder]
    (tmp_path / "twin").touch()
    (tmp_path / "twin").chmod(0o604)
    settle(folder / "a.safetensors", Like(tmp_path / "twin", folder))
    assert mode(folder / "a.safetensors") == 0o604


def test_a_shipped_model_is_as_readable_as_its_files(umask, tmp_path):
    like = permissions_like(findnemo.load("demo"))
    assert like is not None
    assert (like.place / "model_index.json").is_file()
    assert like.weights.parent == like.place / "unet"
