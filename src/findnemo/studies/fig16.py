"""Figures 16 to 19: whole key and value layers off, those of the up blocks too.

Figure 20: convolutional channels off. Both are contrasts: neither holds a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from findnemo.edits import check_called
from findnemo.files.originals import picture
from findnemo.metrics.copies import COPY
from findnemo.models import Model
from findnemo.neurons import EMPTY
from findnemo.runs.compare import comparison_images, kept_images
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.runs.work import StageAnswer
from findnemo.studies._bench import Bench, Desk, Job, Study, by_type, compare_edit
from findnemo.studies.figure import picture_grid
from findnemo.studies.published import EFFECTS
from findnemo.studies.rows import medians
from findnemo.studies.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

CAPTIONS = 3  # of each type
WIDE = 10  # layers in a row of pictures
CHANNELS = (8, 32, 128)
UNRELATED = 16  # captions that define which channels are unusual
HEADS = ["captions", *EFFECTS.values()]


@contextmanager
def channels_off(model: Model, channels: Mapping[str, Sequence[int] | None]) -> Iterator[None]:
    """Set output channels of modules of the denoiser to 0: module name -> indices, None for all.

    Channels of a convolution are its second axis, those of a projection its last.
    """

    def zero(module: nn.Module, args: Any, output: Tensor, indices: Sequence[int] | None) -> Tensor:
        if indices is None:
            return torch.zeros_like(output)
        axis = 1 if isinstance(module, nn.Conv2d) else -1
        return output.index_fill(axis, torch.tensor(list(indices), device=output.device), 0)

    modules = {name: model.denoiser.get_submodule(name) for name in channels}
    check_called(model, channels)
    with ExitStack() as stack:
        for name, module in modules.items():
            hook = partial(zero, indices=channels[name])
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def fig16(bench: Bench) -> Study:
    """Switch off every value layer of the denoiser with its key layer, and all layers of a kind of
    block (down, mid, up) together.
    """
    groups = _first_captions(bench)
    blocks: dict[str, list[str]] = {}
    for layer in bench.model.widths("all"):
        blocks.setdefault(_block(layer), []).append(layer.removesuffix("to_v"))
    parts = {"to_v": "value layer", "to_k": "key layer"}
    labelled = _labelled(blocks)
    stems = {(p, label): f"{label.replace(' ', '-')}-{p}" for p in parts for label in labelled}
    changes = {
        stem: partial(_layers_off, names=[name + part for name in labelled[label]])
        for (part, label), stem in stems.items()
    }
    trials = _trials(bench, "fig16", groups, changes)
    figures: dict[str, Figure] = {}
    rows = []
    number = count(16)
    for part, title in parts.items():
        for kind, captions in groups.items():
            untouched = bench.off("fig16, untouched", {c.id: (c, EMPTY, 0.0) for c in captions})
            rows.append([title, "none", kind, *_line(list(untouched.values()))])
            for label in labelled:
                rows.append([title, label, kind, *trials.line(captions, stems[part, label])])
            name = f"fig{next(number)}"
            for k, labels in enumerate(labels_by_page(blocks)):
                grid = trials.grid(captions, [stems[part, label] for label in labels])
                figures[f"{name}-{k + 1}"] = picture_grid(grid, ["all on", *labels])
    text = (
        "In the paper some layers take a memory away, with the rest of what the caption asks for,"
        f" others do nothing. Pictures: as the model is, then each layer off. {on_up_blocks(rows)}"
    )
    table = Table("Layers off", ["", "off", "type", *HEADS], rows)
    return Study(text, [table], figures)


def _block(layer: str) -> str:
    """The kind of block of a layer: down, mid or up; transformer in a transformer model.

    >>> _block("up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v")
    'up'
    """
    return layer.partition("_block")[0]


def _labelled(blocks: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Label -> layers to switch off together: each layer (`down 1`), then each kind of block (`all
    down`).

    A kind with a single layer has no label of its own.

    >>> _labelled({"down": ["a", "b"], "mid": ["c"]})
    {'down 1': ['a'], 'down 2': ['b'], 'all down': ['a', 'b'], 'all mid': ['c']}
    """
    found: dict[str, Sequence[str]] = {}
    for kind, names in blocks.items():
        if len(names) > 1:
            found |= {f"{kind} {k}": [name] for k, name in enumerate(names, 1)}
    return found | {f"all {kind}": names for kind, names in blocks.items()}


def labels_by_page(blocks: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Labels of what each figure shows off, at most ten a figure; those of the up blocks have
    figures of their own.

    `blocks`: kind of block -> its layers.

    >>> labels_by_page({"down": ["a", "b"], "mid": ["c"], "up": ["d"]})
    [['down 1', 'down 2', 'all down', 'all mid'], ['all up']]
    """
    pages: list[list[str]] = []
    for up in (False, True):
        labels = list(_labelled({k: names for k, names in blocks.items() if (k == "up") == up}))
        pages += [labels[k : k + WIDE] for k in range(0, len(labels), WIDE)]
    return pages


def on_up_blocks(rows: Sequence[Sequence[Any]]) -> str:
    """What the run shows about the paper's claim that the up blocks barely matter, in a sentence;
    empty without a figure of them.

    It is judged by how similar images stay (SSCD_gen) with all value layers of a kind of block off.
    `rows`: of the table of `fig16`.
    """
    at = len(rows[0]) - len(EFFECTS) + list(EFFECTS).index("sscd_gen") if rows else 0
    alike = {
        (kind or "all", label.removeprefix("all ")): row[at]
        for row in rows
        for title, label, kind in [row[:3]]
        if title == "value layer" and label.startswith("all ") and row[at] is not None
    }
    told = []
    for kind in dict.fromkeys(kind for kind, _ in alike):
        if (kind, "up") in alike:
            here = "they barely matter" if alike[kind, "up"] >= COPY else "they do matter"
            values = ", ".join(f"{b} {v:.2f}" for (k, b), v in alike.items() if k == kind)
            told.append(f"{kind}: {values} ({here})")
    if not told:
        return ""
    return (
        "The paper: the up blocks barely matter. Here the images with all value layers of a block"
        f" off are as like the untouched ones of the same seed (SSCD_gen, median) as: {'; '.join(told)}."
        f" Barely: {COPY:g} or more, still a copy."
    )


def fig20(bench: Bench) -> Study:
    """Switch off the most unusual channels of the residual blocks' convolutions in the down and mid
    blocks.
    """
    groups = _first_captions(bench)
    captions = list(chain.from_iterable(groups.values()))
    others = bench.others[:UNRELATED]
    usual = bench.over("fig20, channels", _channel_means, others)
    names = {count: f"channels-{count}" for count in CHANNELS}
    changes = {
        name: partial(_channels_off, usual=usual, count=count) for count, name in names.items()
    }
    trials = _trials(bench, "fig20", groups, changes)
    rows = [
        [f"{count} channels, {kind}", *trials.line(group, name)]
        for count, name in names.items()
        for kind, group in groups.items()
    ]
    off = bench.off("fig20", {c.id: (c, neurons_of(c), 0.0) for c in captions})
    for kind, group in groups.items():
        payloads = [off[c.id] for c in group if c.id in off]
        rows.append([f"the memory's value neurons, {kind}", *_line(payloads)])
    text = (
        "In the paper switching off convolutional channels, however unusual, does not take a memory"
        " away where a few value neurons do."
    )
    note = (
        "Channels of the residual blocks' convolutions in the down and mid blocks with the largest"
        " |z| of their mean |activation| at the first timestep. Captions that are not memorized:"
        f" {bench.whence(others)}."
    )
    heads = ["all on", *(f"{count} channels" for count in CHANNELS)]
    grid = trials.grid(captions, names.values())
    figures = {"fig20": picture_grid(grid, heads, tile=1.2)} if captions else {}
    table = Table("Channels off", ["", *HEADS], rows, note)
    return Study(text, [table], figures)


@dataclass(frozen=True)
class Trials:
    """What changes do to captions, by (caption id, name of the change): the first image, and the
    `effects` on images unless it failed.

    The image without a change is called "untouched".
    """

    effects: Mapping[tuple[int, str], Mapping[str, Any]]
    images: Mapping[tuple[int, str], Image.Image]

    def line(self, captions: Sequence[Caption], name: str) -> list[float | int | None]:
        """The number of captions with a result of a change, and the medians of its effects on
        them.
        """
        return _line([self.effects[c.id, name] for c in captions if (c.id, name) in self.effects])

    def grid(
        self, captions: Sequence[Caption], names: Iterable[str]
    ) -> list[tuple[str, list[Image.Image]]]:
        """A row of pictures for each caption: untouched, then every change that has a picture."""
        names = ["untouched", *names]
        return [
            (c.text, [self.images[c.id, n] for n in names if (c.id, n) in self.images])
            for c in captions
        ]


def _line(payloads: Sequence[Mapping[str, Any]]) -> list[float | int | None]:
    return [len(payloads), *medians(payloads).values()]


def _first_captions(bench: Bench) -> dict[str, list[Caption]]:
    """Type -> its first captions."""
    return {kind: group[:CAPTIONS] for kind, group in by_type(bench.memorized_captions()).items()}


def _trials(
    bench: Bench,
    name: str,
    groups: Mapping[str, Sequence[Caption]],
    changes: Mapping[str, Callable[..., StageAnswer]],
) -> Trials:
    """Every change on every caption, with its image, and the untouched image."""
    captions = list(chain.from_iterable(groups.values()))
    jobs = {}
    files = {}
    for stem, change in changes.items():
        for caption in captions:
            file = f"studies-images{bench.apart}/{caption.slug}/{stem}.png"
            files[caption.id, stem] = bench.work.run.path / file
            compute = partial(change, file=file)
            jobs[caption.id, stem] = Job(stem, caption, compute, pictures=True)
    effects = bench.results(name, jobs)
    kept = {c.id: kept_images(bench.work, c) for c in captions}
    missing = [c for c in captions if kept[c.id] is None]
    again = bench.over(f"{name}, untouched", _untouched, missing)
    images = {(i, "untouched"): shown[0] for i, shown in kept.items() if shown}
    images |= {(c.id, "untouched"): image for c, image in zip(missing, again, strict=True)}
    images |= {key: picture(file) for key, file in files.items() if file.is_file()}
    return Trials(effects, images)


def _untouched(desk: Desk, caption: Caption) -> Image.Image:
    return comparison_images(desk, caption)[0]


def _layers_off(desk: Desk, caption: Caption, names: Sequence[str], file: str) -> StageAnswer:
    return compare_edit(desk, caption, channels_off(desk.model, dict.fromkeys(names)), file)


def _channels_off(
    desk: Desk, caption: Caption, usual: Sequence[Mapping[str, Tensor]], count: int, file: str
) -> StageAnswer:
    channels = _unusual(desk, caption.text, usual, count)
    return compare_edit(desk, caption, channels_off(desk.model, channels), file)


def _convolutions(model: Model) -> dict[str, nn.Module]:
    blocks = ("down_blocks.", "mid_block.")
    ends = (".conv1", ".conv2")

    def chosen(name: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d) and name.startswith(blocks) and name.endswith(ends)

    return model.find("convolutions", chosen)


@torch.no_grad()
def _channel_means(desk: Desk, prompt: str) -> dict[str, Tensor]:
    """Mean |activation| of every channel at the first timestep, (channels,), for one seed."""
    model = desk.model
    means: dict[str, Tensor] = {}

    def hook(module: nn.Module, args: Any, output: Tensor, name: str) -> None:
        means[name] = output.float().abs().mean((0, 2, 3)).cpu()

    with ExitStack() as stack:
        for name, module in _convolutions(model).items():
            stack.callback(module.register_forward_hook(partial(hook, name=name)).remove)
        noise = model.noise(prompt, [0])
        text = model.encode([prompt])
        model.predict_noise(noise, model.timesteps(50)[0], text)
    return means


def _unusual(
    desk: Desk, prompt: str, usual: Sequence[Mapping[str, Tensor]], count: int
) -> dict[str, list[int]]:
    """The `count` most unusual channels on a prompt, by |z| against those of other captions."""
    scored = []
    for name, values in _channel_means(desk, prompt).items():
        others = torch.stack([means[name] for means in usual])
        z = (values - others.mean(0)) / others.std(0).clamp(min=1e-9)
        scored += [(abs(float(v)), name, k) for k, v in enumerate(z)]
    chosen: dict[str, list[int]] = {}
    for _, name, k in sorted(scored, reverse=True)[:count]:
        chosen.setdefault(name, []).append(k)
    return chosen
