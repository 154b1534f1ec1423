"""A section for a model card: what was audited, what was switched off, how that was verified, and
what it does not prove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from findnemo.export._selection import Selection
from findnemo.neurons import NeuronSet
from findnemo.runs import STANDINGS, Caption, standing, switched_off
from findnemo.runs.overview import name_of, quickly, sampler_of
from findnemo.runs.results import Verified
from findnemo.runs.standing import (
    copies,
    gives_copies,
    standing_text,
    unseen,
    verification_of,
    with_joined,
)
from findnemo.runs.tuned import CLEANED, row_of, variant_told
from findnemo.runs.wording import count

NONE = "\u2013"  # in place of a missing figure
LONGEST = 160  # characters of a caption
WHOLE = 10_000  # of a sentence that is not cut
MOST = 100  # captions to list
PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
LIMITS = (
    (
        "This covers the captions that were audited, on the seeds that were tried. Other captions"
        " may be memorized, and a paraphrase may bring a picture back."
    ),
    (
        "Neurons that are off hide a memory from ordinary use. Anyone with the weights can bring"
        " pictures back with an optimized text embedding (Kowalczuk et al. 2025)."
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
    if chosen.said:
        return _taken(chosen)
    if chosen.is_by_hand:
        return _by_hand(chosen)
    parts = [
        "## Memorization audit\n",
        *_of_training(chosen.about),
        f"{chosen.about['verdict']}\n",
        _table(("", ""), _facts(chosen)),
        "### Before and after\n",
        *_figures(chosen),
        "### Captions\n",
        *_captions(chosen),
        "### Limits\n",
        "\n".join(f"- {limit}" for limit in LIMITS) + "\n",
        MADE,
    ]
    return "\n".join(parts)


def _of_training(about: Mapping[str, Any]) -> list[str]:
    """What the audit of a fine-tune advises, and why; nothing for others."""
    if not (training := about.get("training")):
        return []
    advice, sentence = (markdown(text, WHOLE) for text in (about["advice"], training["sentence"]))
    if row_of(training, CLEANED) is not None:
        told = markdown(variant_told(training, CLEANED), WHOLE)
        return [f"**With these neurons off: {told}.**\n", f"{sentence}\n", "Of its captions:\n"]
    return [f"**The audit says: {advice}**\n", f"{sentence}\n", "Of its captions:\n"]


def _taken(chosen: Selection) -> str:
    """The section for a LoRA that is taken as it was audited: an earlier checkpoint, or a lower
    strength.
    """
    said = chosen.said[:1].upper() + chosen.said[1:]
    parts = [
        "## Memorization audit\n",
        _table(("", ""), _whose(chosen)),
        f"{markdown(said, WHOLE)}.\n",
        "### Limits\n",
        f"- {LIMITS[0]}",
        "- At a greater strength than 1 it is another model, which may copy.\n",
        MADE,
    ]
    return "\n".join(parts)


def _versions(about: Mapping[str, Any]) -> str:
    """The versions of a run, in a line of Markdown; empty if it does not know them."""
    return markdown(", ".join(f"{n} {v}" for n, v in (about["versions"] or {}).items()))


def _whose(chosen: Selection) -> list[tuple[str, str]]:
    """The model of a selection, as rows of a table."""
    facts = [
        ("model", markdown(name_of(chosen.about["source"]))),
        ("fingerprint", f"`{chosen.fingerprint}`"),
        ("versions", _versions(chosen.about)),
    ]
    return [(name, value) for name, value in facts if value]


def _by_hand(chosen: Selection) -> str:
    """The section for neurons that no audit chose: what they are, and that their effect is
    unknown.
    """
    facts = [
        *_whose(chosen),
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
        f"{count(len(chosen.neurons), 'neuron')} of {count(len(chosen.neurons.layers), 'layer')}"
    )
    how = "switched off" if chosen.factor == 0 else f"multiplied by {chosen.factor:g}"
    return f"{neurons} (outputs of cross-attention value projections), {how}"


def markdown(text: str, longest: int = LONGEST) -> str:
    """Text of unknown origin as one line of plain words in Markdown, safe in tables too.

    >>> print(markdown("a | b <img src=x>\\n# c"))
    a \\| b \\<img src\\=x\\> \\# c
    """
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join(f"\\{c}" if c in PUNCTUATION else c for c in line)


def _facts(chosen: Selection) -> list[tuple[str, str]]:
    about = chosen.about
    settings = about["settings"]
    calibration = settings.get("calibration", {})
    images = settings.get("image_settings", {})
    counts = (
        f"{about['audited']} audited, {about['memorized']} memorized, {len(chosen.captions)}"
        " switched off here"
    )
    if about["suspected"]:
        counts += f", {about['suspected']} suspected (over tau, and no copy was seen)"
    if about["left"]:
        counts += f", {len(about['left'])} memorized and left as they are"
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
    if point := about.get("point"):  # a point of a price list, if the user chose one
        edit += f"; chosen by its price: {point}"
    told = _attacked(about["attack"] or {})
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
        ("versions", _versions(about)),
        ("captions", counts),
        (
            "threshold",
            f"a score of tau = {settings.get('tau', float('nan')):.4f} or more: {score}; {whose}",
        ),
        ("search", markdown(str(settings.get("search")))),
        ("finished images", rendering),
        ("edit", edit),
    ]


def _attacked(attack: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What optimized embeddings bring back with the neurons off, if tried with a control."""
    if not (told := (attack.get("told") or {}).get("neurons off")):
        return []
    silent = len(told["silent"])
    text = (
        f"with all neurons of the audit off, an optimized embedding gives a copy of {told['back']}"
        f" of the {count(told['works'], 'caption')} attacked for which the attack works on the"
        " untouched model"
    )
    return [("attack", text + (f"; it tells nothing of {silent} more" if silent else ""))]


def _figures(chosen: Selection) -> list[str]:
    """What was measured with the neurons off, and the worst captions by name."""
    captions = chosen.captions
    parts = [*_copying(captions), *_unseen(captions)]
    if chosen.factor or not all(with_joined(c) <= chosen.neurons for c in captions):
        parts.append(
            f"{chosen.checked} **This export does less, and was not verified as it is.**\n"
        )
    elif any(c.verified is not None for c in chosen.captions):
        parts.append(f"{chosen.checked}\n")
    quality = chosen.about["quality"]
    if quality and quality.get("prompts"):
        parts.append(_quality(quality))
    return parts


def _copying(captions: Sequence[Caption]) -> list[str]:
    """How many captions that gave copies still do, and the worst of them."""
    copied = [c for c in captions if gives_copies(c)]
    if not copied:
        return []
    still = sum(bool(copies(verification_of(c) or Verified(), "after")) for c in copied)
    worst = max(copied, key=_left)
    share, likeness = _left(worst)
    parts = [
        f"{still} of {count(len(copied), 'caption')} whose untouched images were copies still"
        f" {'gives' if still == 1 else 'give'} copies with the neurons off. The worst: row"
        f" {worst.row}, {markdown(worst.text)}: {100 * share:.0f} % of its images are copies"
        + (f", the largest similarity is {likeness:.3f}.\n" if likeness > -1 else ".\n")
    ]
    if reduced := sum(standing(c) == "reduced" for c in captions):
        parts.append(
            f"**{count(reduced, 'caption')} of this export {'is' if reduced == 1 else 'are'}"
            f" reduced only**: {STANDINGS['reduced']}.\n"
        )
    return parts


def _left(caption: Caption) -> tuple[float, float]:
    """The share of copies among a caption's images with its neurons off, and their largest
    similarity to the copied image, -1 if unknown.
    """
    checked = verification_of(caption) or Verified()
    likeness = checked.largest_after
    return checked.copies_after or 0.0, -1.0 if likeness is None else likeness


def _unseen(captions: Sequence[Caption]) -> list[str]:
    """How many captions have no looked-at image, and what is known about them."""
    unverified = sum(c.verified is None for c in captions)
    blind = sum(map(unseen, captions))
    parts = []
    if blind:
        parts.append(
            f"Only suspected: {blind} of {count(len(captions), 'caption')}. No finished image of them was"
            " looked at, so that nobody saw a copy, nor that it is gone.\n"
        )
    if unverified:
        parts.append(
            f"Not verified on fresh seeds: {unverified} of {count(len(captions), 'caption')}.\n"
        )
    return parts


def _quality(quality: dict[str, Any]) -> str:
    text = (
        f"Captions that are not memorized, with {count(quality['neurons'], 'neuron')} of the audit"
        f" switched off together (n = {quality['prompts']}): pixels change by"
        f" {quality['pixel_change']:.3f} of 1"
    )
    if changes := [one["pixel_change"] for one in quality.get("each") or []]:
        text += f" in the median, {max(changes):.3f} at most"
    if "a_clip_before" in quality:
        text += (
            f"; fit with the caption (CLIP) {quality['a_clip_before']:.3f} before,"
            f" {quality['a_clip_after']:.3f} after"
        )
    return text + ".\n"


COLUMNS = (
    *("row", "caption", "status", "copies before", "copies after"),
    *("largest similarity before", "largest similarity after", "neurons off"),
)


def _captions(chosen: Selection) -> list[str]:
    """A line for each caption, the worst first; memorized captions that this export leaves
    unchanged come before the others.
    """
    left = [(c, False) for c in chosen.about["left"]]
    ordered = sorted(
        [*left, *((c, True) for c in chosen.captions)],
        key=lambda one: (one[1], list(STANDINGS).index(standing(one[0]))),
    )
    rows = [_row(*one, chosen.neurons) for one in ordered[:MOST]]
    more = [f"And {len(ordered) - MOST} more.\n"] if len(ordered) > MOST else []
    words = {standing(c) for c, is_off in ordered[:MOST] if is_off or not switched_off(c)}
    legend = "".join(
        f"- {word}: {STANDINGS[word]}\n" for word in sorted(words, key=list(STANDINGS).index)
    )
    return [_table(COLUMNS, rows), *more, legend]


def _row(caption: Caption, is_off: bool, off: NeuronSet) -> tuple[str, ...]:
    """A line of the table of captions.

    `is_off`: whether the caption's neurons are among those that are `off` in this export; otherwise
    it gives the same images as before.
    """
    checked = verification_of(caption) or Verified()
    shares = (checked.copies_before, checked.copies_after if is_off else checked.copies_before)
    likeness = (checked.largest_before, checked.largest_after if is_off else checked.largest_before)
    if is_off:
        status = standing_text(caption)
    elif switched_off(caption):  # off in the audit, but not in this export
        status = "not in this export, left as it is"
    else:
        status = f"{standing_text(caption)}, left as it is"
    return (
        str(caption.row),
        markdown(caption.text),
        status,
        *(NONE if share is None else f"{100 * share:.0f} %" for share in shares),
        *(NONE if value is None else f"{value:.3f}" for value in likeness),
        str(len(with_joined(caption) & off)),
    )


# not `markdown_table`: `markdown` has escaped the cells, and more in them than `|`
def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
