"""A section for a model card: what was audited, what was switched off, how that was verified,
and what it does not prove.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from findnemo.export._selection import Selection
from findnemo.runs import STANDINGS, Caption, neurons_of, standing
from findnemo.runs.overview import BEFORE_AFTER, name_of, quickly, sampler_of

LONGEST = 160  # letters of a caption
MOST = 100  # captions that are listed
PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
LIMITS = (
    (
        "This covers the captions that were audited, on the seeds that were tried. Other captions"
        " may be memorized, and a paraphrase may bring a picture back."
    ),
    (
        "Neurons that are off hide a memory from ordinary use. Who has the weights can bring"
        " pictures back with an optimised text embedding (Kowalczuk et al. 2025)."
    ),
    "As a LoRA the edit acts at strength 1 only, and anyone can leave it out.",
)


def model_card(chosen: Selection) -> str:
    """The section in Markdown.

    Captions and names are escaped: nothing in them acts as Markdown or HTML.
    """
    parts = [
        "## Memorization audit\n",
        _table(("", ""), _facts(chosen)),
        "### Before and after\n",
        *_figures(chosen),
        "### Captions\n",
        *_captions(chosen.captions),
        "### Limits\n",
        "\n".join(f"- {limit}" for limit in LIMITS) + "\n",
        (
            "Made with [findnemo](https://github.com/findnemo/findnemo) after *Finding NeMo*"
            " (Hintersdorf, Struppek et al., 2024).\n"
        ),
    ]
    return "\n".join(parts)


def markdown(text: str, longest: int = LONGEST) -> str:
    """Text of unknown origin as one line of plain words in Markdown, wherever
    it stands, in tables too.

    >>> print(markdown("a | b <img src=x>\\n# c"))
    a \\| b \\<img src\\=x\\> \\# c
    """
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join(f"\\{c}" if c in PUNCTUATION else c for c in line)


def _facts(chosen: Selection) -> list[tuple[str, str]]:
    about = chosen.about
    settings = chosen.about["settings"]
    calibration = settings.get("calibration", {})
    images = settings.get("image_settings", {})
    versions = ", ".join(f"{name} {version}" for name, version in (about["versions"] or {}).items())
    counts = (
        f"{about['audited']} audited, {about['memorized']} memorized, {len(chosen.captions)}"
        " switched off here"
    )
    if about["suspected"]:
        counts += f", {about['suspected']} suspected (over tau, but their images are no copies)"
    if about["out_of_reach"]:
        counts += f", {about['out_of_reach']} out of reach of any value neurons and left alone"
    pairs = markdown(str(calibration.get("pairs", "largest")))
    similarity = markdown(str(calibration.get("similarity")))
    score = f"{pairs} {similarity} of the noise differences of {calibration.get('samples')} seeds"
    variant = markdown(str(calibration.get("variant")))
    whose = f"variant {variant}, base seed {calibration.get('seed')}"
    rendering = (
        f"{settings.get('images')} a caption, {images.get('steps')} steps{quickly(settings)},"
        f" guidance {images.get('guidance')}"
    )
    if sampler := sampler_of(settings):
        rendering += f", sampler {markdown(sampler)}"
    neurons = (
        f"{_count(len(chosen.neurons), 'neuron')} of {_count(len(chosen.neurons.layers), 'layer')}"
    )
    how = "switched off" if chosen.factor == 0 else f"multiplied by {chosen.factor:g}"
    edit = f"{neurons} (outputs of cross-attention value projections), {how}"
    if point := about.get("point"):  # of a price list, if the user chose one
        edit += f"; chosen by its price: {point}"
    training = about.get("training")
    told = [("training pictures", markdown(training["sentence"], 3 * LONGEST))] if training else []
    return [
        ("model", markdown(name_of(about["source"]))),
        *told,
        (
            "fingerprint",
            (
                f"`{chosen.fingerprint}` (SHA-256 over all that scores depend on: schedule,"
                " tokenizers, text encoders, denoiser and adapters; first 32 digits)"
            ),
        ),
        ("versions", markdown(versions)),
        ("captions", counts),
        (
            "memorized is",
            f"a score of tau = {settings.get('tau', float('nan')):.4f} or more: {score}; {whose}",
        ),
        ("search", markdown(str(settings.get("search")))),
        ("finished images", rendering),
        ("edit", edit),
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _figures(chosen: Selection) -> list[str]:
    rows = []
    for measured in BEFORE_AFTER:
        pairs = [pair for c in chosen.captions if (pair := measured.of(c)) is not None]
        if pairs:
            before, after = map(_median, zip(*pairs, strict=True))
            rows.append((measured.label, before, after, str(len(pairs))))
    parts = [_table(("median over captions", "before", "after", "n"), rows)]
    unverified = sum(c.verified is None for c in chosen.captions)
    if unverified:
        parts.append(
            f"{unverified} of {len(chosen.captions)} captions were not verified on fresh seeds.\n"
        )
    if chosen.factor or not all(neurons_of(c) <= chosen.neurons for c in chosen.captions):
        parts.append(
            f"{chosen.checked} **This export does less, and was not verified as it is.**\n"
        )
    elif any(c.verified is not None for c in chosen.captions):
        parts.append(f"{chosen.checked}\n")
    quality = chosen.about["quality"]
    if quality and quality.get("prompts"):
        parts.append(_quality(quality))
    return parts


def _median(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return f"{statistics.median(numbers):.3f}" if numbers else ""


def _quality(quality: dict[str, Any]) -> str:
    text = (
        f"Captions that are not memorized, with {_count(quality['neurons'], 'neuron')} of the audit"
        f" switched off together (n = {quality['prompts']}): pixels change by"
        f" {quality['pixel_change']:.3f} of 1"
    )
    if "a_clip_before" in quality:
        text += (
            f"; fit with the caption (CLIP) {quality['a_clip_before']:.3f} before,"
            f" {quality['a_clip_after']:.3f} after"
        )
    return text + ".\n"


def _captions(captions: Sequence[Caption]) -> list[str]:
    rows = [
        (str(c.row), markdown(c.text), str(len(neurons_of(c))), standing(c))
        for c in captions[:MOST]
    ]
    more = [f"And {len(captions) - MOST} more.\n"] if len(captions) > MOST else []
    words = sorted({standing(c) for c in captions[:MOST]}, key=list(STANDINGS).index)
    legend = "".join(f"- {word}: {STANDINGS[word]}\n" for word in words)
    return [_table(("row", "caption", "neurons found", "after the audit"), rows), *more, legend]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
