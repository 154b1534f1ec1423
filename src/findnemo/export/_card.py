"""A section for a model card: what was audited, what was switched off, how that was verified, and what it does not prove."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from findnemo.export._selection import Selection
from findnemo.runs import STANDINGS, Caption, neurons_of, standing
from findnemo.runs.overview import BEFORE_AFTER, name_of, sampler_of

LONGEST, MOST = 160, 100  # letters of a caption and captions that are listed
PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
LIMITS = (
    "This covers the captions that were audited, on the seeds that were tried. Other captions may be memorized, and a paraphrase "
    "may bring a picture back.",
    "Neurons that are off hide a memory from ordinary use. Who has the weights can bring pictures back with an optimised text "
    "embedding (Kowalczuk et al. 2025).",
    "As a LoRA the edit acts at strength 1 only, and anyone can leave it out.",
)


def model_card(chosen: Selection) -> str:
    """The section in Markdown. Captions and names are escaped: nothing in them acts as Markdown or HTML."""
    parts = [
        "## Memorization audit\n",
        _table(("", ""), _facts(chosen)),
        "### Before and after\n",
        *_figures(chosen),
        "### Captions\n",
        *_captions(chosen.captions),
        "### Limits\n",
        "\n".join(f"- {limit}" for limit in LIMITS) + "\n",
        "Made with [findnemo](https://github.com/findnemo/findnemo) after *Finding NeMo* (Hintersdorf, Struppek et al., 2024).\n",
    ]
    return "\n".join(parts)


def markdown(text: str, longest: int = LONGEST) -> str:
    """Text of unknown origin as one line of plain words in Markdown, wherever it stands, in tables too.

    >>> print(markdown("a | b <img src=x>\\n# c"))
    a \\| b \\<img src\\=x\\> \\# c
    """
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join(f"\\{c}" if c in PUNCTUATION else c for c in line)


def _facts(chosen: Selection) -> list[tuple[str, str]]:
    about, settings = chosen.about, chosen.about["settings"]
    found, layers = settings.get("calibration", {}), chosen.neurons.layers
    versions = ", ".join(f"{name} {version}" for name, version in (about["versions"] or {}).items())
    counts = f"{about['audited']} audited, {about['memorized']} memorized, {len(chosen.captions)} switched off here"
    if about["suspected"]:
        counts += f", {about['suspected']} suspected (over tau, but their images are no copies)"
    if about["out_of_reach"]:
        counts += f", {about['out_of_reach']} out of reach of any value neurons and left alone"
    size = f"{_count(len(chosen.neurons), 'neuron')} of {_count(len(layers), 'layer')}"
    how = "switched off" if chosen.factor == 0 else f"multiplied by {chosen.factor:g}"
    score = f"{markdown(str(found.get('pairs', 'largest')))} {markdown(str(found.get('similarity')))} of the noise differences of {found.get('samples')} seeds"
    whose = f"variant {markdown(str(found.get('variant')))}, base seed {found.get('seed')}"
    # of a price list, if the user chose one
    images, point = (settings.get("image_settings", {}), about.get("point"))
    return [
        ("model", markdown(name_of(about["source"]))),
        (
            "fingerprint",
            f"`{chosen.fingerprint}` (SHA-256 over all that scores depend on: schedule, tokenizers, text encoders, denoiser and adapters; "
            "first 32 digits)",
        ),
        ("versions", markdown(versions)),
        ("captions", counts),
        (
            "memorized is",
            f"a score of tau = {settings.get('tau', float('nan')):.4f} or more: {score}; {whose}",
        ),
        ("search", markdown(str(settings.get("search")))),
        (
            "finished images",
            f"{settings.get('images')} a caption, {images.get('steps')} steps, guidance {images.get('guidance')}"
            + (f", sampler {markdown(known)}" if (known := sampler_of(settings)) else ""),
        ),
        (
            "edit",
            f"{size} (outputs of cross-attention value projections), {how}"
            + (f"; chosen by its price: {point}" if point else ""),
        ),
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _figures(chosen: Selection) -> list[str]:
    rows = []
    for measured in BEFORE_AFTER:
        known = [pair for c in chosen.captions if (pair := measured.of(c)) is not None]
        if known:
            before = [old for old, _ in known if old is not None]
            old = f"{statistics.median(before):.3f}" if before else ""
            new = f"{statistics.median(new for _, new in known):.3f}"
            rows.append((measured.label, old, new, str(len(known))))
    told = [_table(("median over captions", "before", "after", "n"), rows)]
    checked = sum(c.verified is not None for c in chosen.captions)
    if checked < len(chosen.captions):
        told.append(
            f"{len(chosen.captions) - checked} of {len(chosen.captions)} captions were not verified on fresh seeds.\n"
        )
    whole = sum(len(neurons_of(c)) for c in chosen.captions)
    kept = sum(len(neurons_of(c) & chosen.neurons) for c in chosen.captions)
    if chosen.factor or kept < whole:
        told.append(
            "The figures were measured with all neurons of a caption switched off. **This export does less, and was not verified as "
            "it is.**\n"
        )
    else:
        told.append("The figures of a caption were measured with its own neurons switched off.\n")
    quality = chosen.about["quality"]
    if quality and quality.get("prompts"):
        told.append(_quality(quality))
    return told


def _quality(quality: dict[str, Any]) -> str:
    text = (
        f"Captions that are not memorized, with {_count(quality['neurons'], 'neuron')} of the audit switched off together "
        f"(n = {quality['prompts']}): pixels change by {quality['pixel_change']:.3f} of 1"
    )
    if "a_clip_before" in quality:
        text += f"; fit with the caption (CLIP) {quality['a_clip_before']:.3f} before, {quality['a_clip_after']:.3f} after"
    return text + ".\n"


def _captions(captions: Sequence[Caption]) -> list[str]:
    rows = [
        (str(c.row), markdown(c.text), str(len(neurons_of(c))), standing(c))
        for c in captions[:MOST]
    ]
    more = [f"And {len(captions) - MOST} more.\n"] if len(captions) > MOST else []
    words = sorted({standing(c) for c in captions[:MOST]}, key=list(STANDINGS).index)
    told = "".join(f"- {word}: {STANDINGS[word]}\n" for word in words)
    return [_table(("row", "caption", "neurons found", "after the audit"), rows), *more, told]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
