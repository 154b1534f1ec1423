"""What carries a memory where value neurons do not: parts of the model taken away in turn (after
Finding NeMo, appendices C.8 and C.9).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from findnemo.edits import muted
from findnemo.errors import EditError, InputError, NumericalError
from findnemo.images import ImageSettings, usual
from findnemo.localization.trajectory import COPIES, GONE, SAME, Copies, few_steps
from findnemo.models import Model, Text
from findnemo.passes import Denoising, likeness, spending
from findnemo.runtime.state import undisturbed

ORDINARY = 2  # captions whose pictures have to survive
WORDS = 16  # of a caption that are left out in turn, its first
# what is taken away -> how the names of its layers end: with zeros in their place there is what
# runs past them
KINDS = {
    "value layers": ("attn2.to_v", "add_v_proj"),
    "key layers": ("attn2.to_k", "add_k_proj"),
    "cross-attention": ("attn2.to_out.0",),
    "self-attention": ("attn1.to_out.0",),
    "feed-forward layers": ("ff.net.2",),
    "convolutions": ("conv2",),  # the branches of the resnets
}
NO_CAPTION = "no caption"
NO_NAMES = "without its names"


@dataclass(frozen=True)
class Diagnosis:
    """What carries the memory of a caption.

    All likenesses are cosines of latents: under .4 there is no copy, from .6 on pictures are the
    same.

    `copy_before`: of untouched pictures of different seeds. `left`: part of the denoiser ->
    likeness to the copy without it. `kept`: part -> likeness of pictures of ordinary captions to
    what they were on the same seed, mean. `words`: what is left out of the caption -> likeness to
    the copy. `carrier`: the part with the fewest outputs without which no copy comes and ordinary
    pictures survive; None if there is none. `sentence` says it. `evaluations`: U-Net sample
    evaluations spent.
    """

    copy_before: float
    left: dict[str, float]
    kept: dict[str, float]
    words: dict[str, float]
    carrier: str | None
    sentence: str
    evaluations: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@undisturbed
def diagnose(
    model: Model,
    prompt: str,
    ordinary: Sequence[str],
    images: ImageSettings | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Remove parts of the model, and words of the caption, in turn, and check whether the copy
    still comes.

    Each kind of layer (KINDS) is first removed as a whole. If that removes the copy, its down
    blocks, mid block and up blocks are removed, then single blocks. The two samples whose untouched
    pictures are most alike are used. `ordinary`: captions that are not memorized; the first two
    show whether the rest of the model still works. `images`: steps and guidance of finished images.
    A part takes four denoised pictures in few steps, a word two. The model is left unchanged. Parts
    without finite pictures are left out. Raises InputError for a caption that gives no copies, and
    without ordinary captions.

        found = diagnose(findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring", findnemo.demo.calibration().ordinary)
        found.carrier  # 'value layers of down_blocks.1', where that memory was planted
    """
    images = images or usual(model.source)
    captions = [caption for caption in ordinary if caption != prompt][:ORDINARY]
    others = [Denoising(model, caption, 1, images.guidance, seed) for caption in captions]
    if not others:
        raise InputError(
            "no ordinary captions: give one that is not memorized, to tell a memory's place from"
            " the model's"
        )
    with model.steady(), spending() as spent:
        denoising = Denoising(model, prompt, COPIES, images.guidance, seed)
        copies = Copies(denoising, few_steps(images.steps), images.steps)
        if not copies.has_copies:
            raise InputError(
                f"the pictures of {prompt!r:.100} are no copies of each other: there is no memory"
                " to diagnose"
            )
        untouched = [other.run([0], copies.steps).image for other in others]
        left: dict[str, float] = {}
        kept: dict[str, float] = {}
        sizes: dict[str, int] = {}
        divided = {""}  # parts whose own parts are asked
        for part, whole, names in parts_of(model):
            if whole not in divided:
                continue
            # no pictures without it, or it never runs
            with suppress(NumericalError, EditError), muted(model, names):
                without = _left(copies, denoising)
                kept[part] = _kept(others, untouched, copies.steps)
                left[part] = without
                sizes[part] = _outputs(model, names)
            if left.get(part, 0.0) < GONE:
                divided.add(part)
        words: dict[str, float] = {}
        for without_words, text in _shortened(model, prompt):
            changed = copy(denoising)  # with the same initial latents
            changed.text = text
            words[without_words] = _left(copies, changed)
    carriers = [part for part in left if left[part] < GONE and kept[part] >= SAME]
    carrier = min(carriers, key=lambda part: sizes[part], default=None)
    sentence = f"{sentence_on_parts(carrier, left, kept)} {sentence_on_words(words)}"
    before = round(copies.alike, 4)
    return Diagnosis(before, left, kept, words, carrier, sentence, spent.evaluations)


def _kept(others: Sequence[Denoising], untouched: Sequence[Tensor], steps: int) -> float:
    """Mean likeness of pictures to what they were."""
    pictures = [other.run([0], steps).image for other in others]
    same = [float(likeness(a, b)) for a, b in zip(pictures, untouched, strict=True)]
    return round(sum(same) / len(same), 4)


def _left(copies: Copies, denoising: Denoising) -> float:
    pictures = denoising.run(copies.witnesses, copies.steps).image
    return round(float(copies.resemblance(pictures, copies.witnesses).max()), 4)


def parts_of(model: Model) -> list[tuple[str, str, list[str]]]:
    """Parts of the denoiser, each with the part that holds it ("" for none) and the names of its
    layers; larger ones come first.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for kind, endings in KINDS.items():
        for name in (n for n, _ in model.denoiser.named_modules() if n.endswith(endings)):
            whole = ""
            first = name.partition(".")[0]
            block = name.partition(".attentions")[0].partition(".resnets")[0]
            for part in dict.fromkeys((f"all {kind}", f"{kind} of {first}", f"{kind} of {block}")):
                found.setdefault(part, (whole, []))[1].append(name)
                whole = part
    return sorted(((part, *held) for part, held in found.items()), key=lambda part: -len(part[2]))


def _outputs(model: Model, names: Sequence[str]) -> int:
    layers: list[Any] = [model.denoiser.get_submodule(name) for name in names]
    return sum(len(getattr(layer, "weight", ())) for layer in layers)


def _shortened(model: Model, prompt: str) -> Iterator[tuple[str, Text]]:
    """The caption without something: all of it, its names (words with a capital
    letter or a digit), each word.
    """
    yield NO_CAPTION, model.unconditional()
    words = prompt.split()
    names = {word for word in words if word != word.lower() or any(c.isdigit() for c in word)}
    without = {NO_NAMES: names} if len(names) > 1 else {}
    for what, gone in (without | {word.strip(",.;:!?"): {word} for word in words[:WORDS]}).items():
        if rest := [word for word in words if word not in gone]:
            yield what, model.encode([" ".join(rest)])


def sentence_on_parts(carrier: str | None, left: dict[str, float], kept: dict[str, float]) -> str:
    """What carries a memory, in a sentence.

    `carrier`: the part that does, if one was found. `left`, `kept`: part -> likeness of the picture
    to the copy, and of ordinary pictures to themselves, without that part.
    """
    if carrier is not None:
        here = (
            f"no copy comes (likeness {left[carrier]:.2f}), and ordinary pictures survive"
            f" ({kept[carrier]:.2f})"
        )
        return f"What carries it: {carrier}. Without that part {here}."
    gone = [part for part in left if left[part] < GONE]
    if not gone:
        return "No kind of layer carries it by itself: whichever is taken away, the copy comes."
    mildest = max(gone, key=lambda part: kept[part])
    return (
        "No kind of layer carries it by itself: each one that it needs is needed by ordinary"
        f" pictures too. They stay most like themselves without {mildest} (likeness"
        f" {kept[mildest]:.2f} of 1)."
    )


def sentence_on_words(words: dict[str, float]) -> str:
    """Which words a memory needs, in a sentence. `words`: word -> likeness to the copy without it."""
    if words[NO_CAPTION] >= SAME:
        return "The picture comes without the caption too."
    needed = [
        f'"{word}"'
        for word, value in words.items()
        if value < GONE and word not in (NO_CAPTION, NO_NAMES)
    ]
    if needed:
        return (
            f"Of the caption it needs {', '.join(needed)}:"
            f" {'without it' if len(needed) == 1 else 'with one of them missing'} no copy comes."
        )
    return "No single word of the caption brings it" + (
        ", but its names together do." if words.get(NO_NAMES, 1.0) < GONE else "."
    )
