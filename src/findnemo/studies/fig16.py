"""Figures 16 to 19: whole key and value layers off. Figure 20: convolutional channels off. Both for contrast: neither is a memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from findnemo.edits import check_called
from findnemo.errors import InputError
from findnemo.files.originals import picture
from findnemo.images import save_png
from findnemo.models import Model
from findnemo.runs.compare import judged, made, untouched
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.studies._bench import NONE_THERE, Bench, Study
from findnemo.studies._figure import picture_grid
from findnemo.studies._table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = 3  # of each type
CHANNELS = (8, 32, 128)
UNRELATED = 16  # captions against which channels are unusual
HEADS = ["captions", "SSCD_orig", "SSCD_gen", "D_SSCD", "A_CLIP"]
KEYS = ("sscd_orig", "sscd_gen", "d_sscd", "a_clip")


@contextmanager
def channels_off(model: Model, channels: Mapping[str, Sequence[int] | None]) -> Iterator[None]:
    """Set output channels of modules of the denoiser to 0: module name -> indices, None for all. Channels of a convolution are its
    second axis, those of a projection its last."""

    def hook(indices: Sequence[int] | None, axis: int) -> Callable[..., Tensor]:
        def zero(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if indices is None:
                return torch.zeros_like(output)
            return output.index_fill(axis, torch.tensor(list(indices), device=output.device), 0)

        return zero

    modules = {name: model.denoiser.get_submodule(name) for name in channels}
    check_called(model, modules)
    with ExitStack() as stack:
        for name, module in modules.items():
            axis = 1 if isinstance(module, nn.Conv2d) else -1
            stack.callback(module.register_forward_hook(hook(channels[name], axis)).remove)
        yield


def fig16(bench: Bench) -> Study:
    """Every value layer, and the key layer beside it, off as a whole."""
    figures, rows = {}, []
    number = 16
    for part, title in (("to_v", "value layer"), ("to_k", "key layer")):
        for kind in _kinds(bench):
            captions = _chosen(bench, kind)
            shown = {c.id: [_first(bench, c, "untouched")] for c in captions}
            for k, layer in enumerate(bench.model.value_layers, 1):
                name = layer.removesuffix("to_v") + part
                stem = f"layer-{k}-{part}"
                results = bench.each(stem, captions, partial(_layer_off, bench, name, stem))
                rows.append([f"{title} {k}, {kind}", *_medians(list(results.values()))])
                for caption in captions:
                    shown[caption.id].append(_first(bench, caption, stem))
            figures[f"fig{number}"] = _grid(bench, captions, shown)
            number += 1
    text = (
        "A memory does not go with a whole layer alone: some layers take it away, with the rest of what the caption asks for, others do nothing. "
        "Pictures: as the model is, then each layer off."
    )
    return Study(
        "Figures 16 to 19: whole layers off",
        text,
        [Table("Layers off", ["", *HEADS], rows)],
        figures,
    )


def fig20(bench: Bench) -> Study:
    """The most unusual channels of the convolutions of the residual blocks before and in the middle."""
    captions = [c for kind in _kinds(bench) for c in _chosen(bench, kind)]
    if len(bench.others) < 2:
        raise InputError(
            f"channels are unusual against two or more captions that are not memorized: {NONE_THERE}"
        )
    usual = [_channel_means(bench.model, p) for p in bench.others[:UNRELATED]]
    rows, shown = [], {c.id: [_first(bench, c, "untouched")] for c in captions}
    for count in CHANNELS:
        stem = f"channels-{count}"
        results = bench.each(stem, captions, partial(_channels_off, bench, usual, count, stem))
        for kind in _kinds(bench):
            mine = [results[c.id] for c in _chosen(bench, kind) if c.id in results]
            rows.append([f"{count} channels, {kind}", *_medians(mine)])
        for caption in captions:
            shown[caption.id].append(_first(bench, caption, stem))
    for kind in _kinds(bench):
        found = [p for c in _chosen(bench, kind) if (p := bench.off(c, neurons_of(c))) is not None]
        rows.append([f"the memory's value neurons, {kind}", *_medians(found)])
    heads = ["all on", *(f"{count} channels" for count in CHANNELS)]
    drawn = (
        picture_grid(
            [(c.text, [i for i in shown[c.id] if i is not None]) for c in captions], heads, tile=1.2
        )
        if captions
        else None
    )
    text = "Switching off convolutional channels, however unusual, does not take a memory away where a few value neurons do."
    note = "Channels of the residual blocks' convolutions in the down and mid blocks with the largest |z| of their mean |activation| at the first timestep."
    note += f" Captions that are not memorized: {bench.whence(bench.others[:UNRELATED])}."
    figures = {"fig20": drawn} if drawn is not None else {}
    return Study(
        "Figure 20: convolutional channels off",
        text,
        [Table("Channels off", ["", *HEADS], rows, note)],
        figures,
    )


def _kinds(bench: Bench) -> list[str]:
    return list(dict.fromkeys(c.type or "" for c in bench.memorized()))


def _chosen(bench: Bench, kind: str) -> list[Caption]:
    return [c for c in bench.memorized() if (c.type or "") == kind][:CAPTIONS]


def _layer_off(bench: Bench, name: str, stem: str, caption: Caption) -> dict[str, Any]:
    return _off(bench, caption, {name: None}, stem)


def _channels_off(
    bench: Bench, usual: Sequence[Mapping[str, Tensor]], count: int, stem: str, caption: Caption
) -> dict[str, Any]:
    return _off(bench, caption, _unusual(bench.model, caption.text, usual, count), stem)


def _off(
    bench: Bench, caption: Caption, channels: Mapping[str, Sequence[int] | None], stem: str
) -> dict[str, Any]:
    after = made(bench.work, caption, channels_off(bench.model, channels))
    save_png(after[0], _picture(bench, caption, stem))
    return judged(bench.work, caption, after, untouched(bench.work, caption))


def _picture(bench: Bench, caption: Caption, stem: str) -> Path:
    return bench.work.run.path / "studies-images" / caption.slug / f"{stem}.png"


def _first(bench: Bench, caption: Caption, stem: str) -> Image.Image | None:
    if stem == "untouched":
        return untouched(bench.work, caption)[0]
    path = _picture(bench, caption, stem)
    return picture(path) if path.is_file() else None


def _medians(payloads: Sequence[Mapping[str, Any]]) -> list[float | int | None]:
    values = [[p[key] for p in payloads if key in p] for key in KEYS]
    return [len(payloads), *(median(v) if v else None for v in values)]


def _grid(
    bench: Bench, captions: Sequence[Caption], shown: Mapping[int, list[Image.Image | None]]
) -> Figure:
    heads = ["all on", *(f"layer {k}" for k in range(1, len(bench.model.value_layers) + 1))]
    return picture_grid(
        [(c.text, [i for i in shown[c.id] if i is not None]) for c in captions], heads
    )


def _convolutions(model: Model) -> dict[str, nn.Module]:
    first = ("down_blocks.", "mid_block.")
    return model.find(
        "convolutions",
        lambda n, m: (
            isinstance(m, nn.Conv2d) and n.startswith(first) and n.endswith((".conv1", ".conv2"))
        ),
    )


@torch.no_grad()
def _channel_means(model: Model, prompt: str) -> dict[str, Tensor]:
    """Mean |activation| of every channel at the first timestep, (channels,), for one seed."""
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in _convolutions(model).items():

            def hook(module: nn.Module, args: Any, output: Tensor, name: str = name) -> None:
                seen[name] = output.float().abs().mean((0, 2, 3)).cpu()

            stack.callback(module.register_forward_hook(hook).remove)
        model.predict_noise(
            model.noise(prompt, [0]), model.timesteps(50)[0], model.encode([prompt])
        )
    return seen


def _unusual(
    model: Model, prompt: str, usual: Sequence[Mapping[str, Tensor]], count: int
) -> dict[str, list[int]]:
    """The `count` channels that are most unusual on a prompt, by |z| against those of other captions."""
    mine, scored = _channel_means(model, prompt), []
    for name, values in mine.items():
        others = torch.stack([means[name] for means in usual])
        z = (values - others.mean(0)) / others.std(0).clamp(min=1e-9)
        scored += [(abs(float(v)), name, k) for k, v in enumerate(z)]
    chosen: dict[str, list[int]] = {}
    for _, name, k in sorted(scored, reverse=True)[:count]:
        chosen.setdefault(name, []).append(k)
    return chosen
