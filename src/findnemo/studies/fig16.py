"""Figures 16 to 19: whole key and value layers off. Figure 20: convolutional channels off. Both for contrast: neither is a memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from findnemo.edits import check_called
from findnemo.errors import InputError
from findnemo.files.originals import picture
from findnemo.models import Model
from findnemo.runs.audit import Answer
from findnemo.runs.compare import kept_images, made
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.studies._bench import NONE_THERE, Bench, Desk, Job, Study, by_type, edited
from findnemo.studies._figure import picture_grid
from findnemo.studies._images import EFFECTS, medians
from findnemo.studies._table import Table

if TYPE_CHECKING:
    from PIL import Image

CAPTIONS = 3  # of each type
CHANNELS = (8, 32, 128)
UNRELATED = 16  # captions against which channels are unusual
HEADS = ["captions", *EFFECTS.values()]


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
    check_called(model, channels)
    with ExitStack() as stack:
        for name, module in modules.items():
            axis = 1 if isinstance(module, nn.Conv2d) else -1
            stack.callback(module.register_forward_hook(hook(channels[name], axis)).remove)
        yield


def fig16(bench: Bench) -> Study:
    """Every value layer, and the key layer beside it, off as a whole."""
    groups, layers = _chosen(bench), bench.layers
    stems = {
        f"layer-{k}-{part}": layer.removesuffix("to_v") + part
        for part in ("to_v", "to_k")
        for k, layer in enumerate(layers, 1)
    }
    changes = {stem: partial(_layer_off, name=name) for stem, name in stems.items()}
    found, shown = _tried(bench, "fig16", _all(groups), changes)
    figures, rows, number = {}, [], 16
    heads = ["all on", *(f"layer {k}" for k in range(1, len(layers) + 1))]
    for part, title in (("to_v", "value layer"), ("to_k", "key layer")):
        for kind, captions in groups.items():
            names = [f"layer-{k}-{part}" for k in range(1, len(layers) + 1)]
            for k, stem in enumerate(names, 1):
                rows.append([f"{title} {k}, {kind}", *_summed(found, captions, stem)])
            figures[f"fig{number}"] = picture_grid(_rows(shown, captions, names), heads)
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
    groups = _chosen(bench)
    captions, others = _all(groups), bench.others[:UNRELATED]
    if len(others) < 2:
        raise InputError(
            f"channels are unusual against two or more captions that are not memorized: {NONE_THERE}"
        )
    usual = bench.over("fig20, channels", _channel_means, others)
    stems = {count: f"channels-{count}" for count in CHANNELS}
    changes = {
        stem: partial(_channels_off, usual=usual, count=count) for count, stem in stems.items()
    }
    found, shown = _tried(bench, "fig20", captions, changes)
    rows = [
        [f"{count} channels, {kind}", *_summed(found, group, stem)]
        for count, stem in stems.items()
        for kind, group in groups.items()
    ]
    off = iter(bench.off("fig20", [(c, neurons_of(c), 0.0) for c in captions]))
    for kind, group in groups.items():
        known = [p for p in islice(off, len(group)) if p is not None]
        rows.append([f"the memory's value neurons, {kind}", *_line(known)])
    heads = ["all on", *(f"{count} channels" for count in CHANNELS)]
    text = "Switching off convolutional channels, however unusual, does not take a memory away where a few value neurons do."
    note = "Channels of the residual blocks' convolutions in the down and mid blocks with the largest |z| of their mean |activation| at the first timestep."
    note += f" Captions that are not memorized: {bench.whence(others)}."
    figures = {}
    if captions:
        figures["fig20"] = picture_grid(_rows(shown, captions, stems.values()), heads, tile=1.2)
    return Study(
        "Figure 20: convolutional channels off",
        text,
        [Table("Channels off", ["", *HEADS], rows, note)],
        figures,
    )


Line = list[float | int | None]
Pictures = dict[tuple[int, str], "Image.Image"]  # (caption id, name of the change) -> first image


def _chosen(bench: Bench) -> dict[str, list[Caption]]:
    """Type -> its first captions."""
    return {kind: group[:CAPTIONS] for kind, group in by_type(bench.memorized()).items()}


def _all(groups: Mapping[str, Sequence[Caption]]) -> list[Caption]:
    return [caption for group in groups.values() for caption in group]


def _tried(
    bench: Bench,
    name: str,
    captions: Sequence[Caption],
    changes: Mapping[str, Callable[..., Answer]],
) -> tuple[dict[tuple[int, str], dict[str, Any]], Pictures]:
    """What the images of captions are like under every change, where it did not fail, and the first of them; that of no change is "untouched"."""
    jobs, files = [], {}
    for stem, change in changes.items():
        for caption in captions:
            file = f"studies-images/{caption.slug}/{stem}.png"
            files[caption.id, stem] = bench.work.run.path / file
            jobs.append(Job(stem, caption, partial(change, file=file), pictures=True))
    payloads = bench.results(name, jobs)
    known = zip(jobs, payloads, strict=True)
    found = {(job.caption.id, job.name): payload for job, payload in known if payload is not None}
    kept = {c.id: kept_images(bench.work, c) for c in captions}
    missing = [c for c in captions if kept[c.id] is None]
    remade = dict(
        zip(
            (c.id for c in missing),
            bench.over(f"{name}, untouched", _untouched, missing),
            strict=True,
        )
    )
    shown: Pictures = {
        (i, "untouched"): images[0] if images else remade[i] for i, images in kept.items()
    }
    return found, shown | {key: picture(file) for key, file in files.items() if file.is_file()}


def _untouched(desk: Desk, caption: Caption) -> Image.Image:
    return made(desk, caption, nullcontext())[0]


def _layer_off(desk: Desk, caption: Caption, name: str, file: str) -> Answer:
    return edited(desk, caption, channels_off(desk.model, {name: None}), file)


def _channels_off(
    desk: Desk, caption: Caption, usual: Sequence[Mapping[str, Tensor]], count: int, file: str
) -> Answer:
    channels = _unusual(desk, caption.text, usual, count)
    return edited(desk, caption, channels_off(desk.model, channels), file)


def _summed(found: Mapping[tuple[int, str], Any], captions: Sequence[Caption], stem: str) -> Line:
    return _line([found[c.id, stem] for c in captions if (c.id, stem) in found])


def _line(payloads: Sequence[Mapping[str, Any]]) -> Line:
    """How many captions, and their medians."""
    return [len(payloads), *medians(payloads).values()]


def _rows(
    shown: Pictures, captions: Sequence[Caption], stems: Iterable[str]
) -> list[tuple[str, list[Image.Image]]]:
    """A row of pictures a caption: untouched, then every change that has one."""
    names = ["untouched", *stems]
    return [(c.text, [shown[c.id, n] for n in names if (c.id, n) in shown]) for c in captions]


def _convolutions(model: Model) -> dict[str, nn.Module]:
    first = ("down_blocks.", "mid_block.")
    return model.find(
        "convolutions",
        lambda n, m: (
            isinstance(m, nn.Conv2d) and n.startswith(first) and n.endswith((".conv1", ".conv2"))
        ),
    )


@torch.no_grad()
def _channel_means(desk: Desk, prompt: str) -> dict[str, Tensor]:
    """Mean |activation| of every channel at the first timestep, (channels,), for one seed."""
    model = desk.model
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
    desk: Desk, prompt: str, usual: Sequence[Mapping[str, Tensor]], count: int
) -> dict[str, list[int]]:
    """The `count` channels that are most unusual on a prompt, by |z| against those of other captions."""
    mine, scored = _channel_means(desk, prompt), []
    for name, values in mine.items():
        others = torch.stack([means[name] for means in usual])
        z = (values - others.mean(0)) / others.std(0).clamp(min=1e-9)
        scored += [(abs(float(v)), name, k) for k, v in enumerate(z)]
    chosen: dict[str, list[int]] = {}
    for _, name, k in sorted(scored, reverse=True)[:count]:
        chosen.setdefault(name, []).append(k)
    return chosen
