"""A section for a model card: what was audited, what was switched off, how that was verified,
and what it does not prove.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
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

MADE = (
    "Made with [findnemo](https://github.com/findnemo/findnemo) after *Finding NeMo* (Hintersdorf,"
    " Struppek et al., 2024).\n"
)


def model_card(chosen: Selection) -> str:
    """The section in Markdown.

    Captions and names are escaped: nothing in them acts as Markdown or HTML.
    """
    if chosen.is_by_hand:
        return _by_hand(chosen)
    parts = [
        "## Memorization audit\n",
        _table(("", ""), _facts(chosen)),
        "### Before and after\n",
        *_figures(chosen),
        "### Captions\n",
        *_captions(chosen.captions),
        "### Limits\n",
        "\n".join(f"- {limit}" for limit in LIMITS) + "\n",
        MADE,
    ]
    return "\n".join(parts)


def _by_hand(chosen: Selection) -> str:
    """The section for neurons that no audit chose: what they are, and that nothing is known of
    what they do.
    """
    versions = ", ".join(f"{n} {v}" for n, v in (chosen.about["versions"] or {}).items())
    facts = [
        ("model", markdown(name_of(chosen.about["source"]))),
        ("fingerprint", f"`{chosen.fingerprint}`"),
        ("versions", markdown(versions)),
        ("edit", edit_of(chosen)),
        *((markdown(n), " ".join(map(str, i))) for n, i in chosen.neurons.layers.items()),
    ]
    parts = [
        "## Neurons switched off\n",
        _table(("", ""), facts),
        (
            "**Chosen by hand, not verified.** No audit chose these neurons, and no images were"
            " judged with just these off: which pictures they keep from being copied, and what they"
            " cost other captions, was not measured.\n"
        ),
        "### Limits\n",
        "\n".join(f"- {limit}" for limit in LIMITS[1:]) + "\n",
        MADE,
    ]
    return "\n".join(parts)


def edit_of(chosen: Selection) -> str:
    """What is done to which neurons, in words."""
    neurons = (
        f"{_count(len(chosen.neurons), 'neuron')} of {_count(len(chosen.neurons.layers), 'layer')}"
    )
    how = "switched off" if chosen.factor == 0 else f"multiplied by {chosen.factor:g}"
    return f"{neurons} (outputs of cross-attention value projections), {how}"


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
    edit = edit_of(chosen)
    if point := about.get("point"):  # of a price list, if the user chose one
        edit += f"; chosen by its price: {point}"
    training = about.get("training")
    told = [("training pictures", markdown(training["sentence"], 3 * LONGEST))] if training else []
    told += _attacked(about["attack"] or {})
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


def _attacked(attack: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What optimised embeddings bring back with the neurons off, where that was tried with a
    control.
    """
    if not (told := (attack.get("told") or {}).get("neurons off")):
        return []
    silent = len(told["silent"])
    said = (
        f"with all neurons of the audit off, an optimised embedding gives a copy of {told['back']}"
        f" of the {_count(told['works'], 'caption')} attacked for which the attack works on the"
        " untouched model"
    )
    return [("attack", said + (f"; it tells nothing of {silent} more" if silent else ""))]


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
            "The figures were measured with all neurons of a caption switched off. **This export"
            " does less, and was not verified as it is.**\n"
        )
    else:
        parts.append("The figures of a caption were measured with its own neurons switched off.\n")
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
