"""The types of what a run stores: results of a caption's stages, and shapes of all other values.

A run may come from somebody else: every value is checked before it is used. A key without a type
may hold anything, since newer versions and studies add keys.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, PlainValidator, Strict, ValidationError
from typing_extensions import Required, TypedDict

from findnemo.errors import InputError
from findnemo.files.shapes import adapter
from findnemo.localization.points import Point
from findnemo.neurons import NeuronSet
from findnemo.seeds import FRESH

LONGEST = 64 << 20  # characters of one stored value
LARGEST = 1e9  # larger than any figure of a run


def _encodable(value: str) -> str:
    value.encode()  # UnicodeEncodeError, a ValueError, for half of a surrogate pair
    return value


def _neurons(value: Any) -> NeuronSet:
    return NeuronSet(adapter(dict[Text, list[Count]]).validate_python(value))


def _point(value: Any) -> Point:
    return Point(*adapter(tuple[Count, Number, Number | None]).validate_python(value))


Text = Annotated[str, Strict(), AfterValidator(_encodable)]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Strict(), Field(ge=0, le=int(LARGEST))]
ZScore = Annotated[float, Strict(), Field(ge=-math.inf)]  # infinite for a neuron without variance
Digest = Annotated[str, Strict(), Field(pattern="^[0-9a-f]{8}$")]  # part of a path
Step = Annotated[str, Strict(), Field(pattern=r"^\d+$")]
Neurons = Annotated[NeuronSet, PlainValidator(_neurons)]
PricePoint = Annotated[Point, PlainValidator(_point)]
Sealed = dict[Text, dict[Text, Any]]


class Carrier(TypedDict):
    """What carries a memory that is out of reach (`localization.Diagnosis`)."""

    sentence: Text
    left: dict[Text, Number]
    kept: dict[Text, Number]
    words: dict[Text, Number]


@dataclass(frozen=True)
class Detected:
    """The stored part of a `detection.Detection`.

    `copies`: whether finished images were seen to be copies of training pictures, which makes the
    caption memorized whatever its score is.
    """

    memorized: Flag
    score: Number
    tau: Number
    evaluations: Count = 0
    samples: Count | None = None
    p: Number | None = None
    copies: Flag = False


@dataclass(frozen=True)
class Localized:
    """The stored part of a `localization.Localization`.

    `diagnosis`: of a memory that is out of reach.
    """

    neurons: Neurons
    reached: Flag
    score_before: Number
    score_after: Number
    candidates: Neurons | None = None
    memorized: Flag | None = None
    tau: Number | None = None
    evaluations: Count = 0
    z: dict[Text, ZScore] = field(default_factory=dict)
    p: Number | None = None
    impact: Number | None = None
    max_impact: Number | None = None
    copy_before: Number | None = None
    order: tuple[tuple[Text, Count], ...] = ()
    points: tuple[PricePoint, ...] = ()
    diagnosis: Carrier | None = None


@dataclass(frozen=True)
class Verified:
    """The stored values of a `verification.Verification`; None where not measured.

    `evaluations`: None in runs that did not count them. `steps`: None if images were made in all
    steps.
    """

    score_before: Number | None = None
    score_after: Number | None = None
    same_seed: Number | None = None
    replicating: Count | None = None
    sscd_gen: Number | None = None
    sscd_orig_before: Number | None = None
    sscd_orig_after: Number | None = None
    d_sscd_before: Number | None = None
    d_sscd_after: Number | None = None
    a_clip_before: Number | None = None
    a_clip_after: Number | None = None
    copies_before: Number | None = None
    copies_after: Number | None = None
    largest_before: Number | None = None
    largest_after: Number | None = None
    evaluations: Count | None = None
    steps: Count | None = None
    confirmed: Number | None = None
    seed: Count | None = None

    def __post_init__(self) -> None:
        if self.copies_before is not None and self.copies_after is None:
            raise ValueError("copies_after is missing")


@dataclass(frozen=True)
class Together(Verified):
    """A verification with the neurons of all captions off together.

    `first`: number of its first sample. `back`: numbers of the samples that gave copies. `whole`: of
    a glance, the images that it made in all steps: "before" or "after", and a position.
    """

    first: Count = FRESH
    back: tuple[Count, ...] = ()
    whole: tuple[tuple[Text, Count], ...] = ()


@dataclass(frozen=True)
class Continued:
    """The stored part of a `localization.Further`."""

    neurons: Neurons
    reached: Flag
    order: tuple[tuple[Text, Count], ...] = ()
    points: tuple[PricePoint, ...] = ()
    evaluations: Count = 0


class Failure(TypedDict):
    error: Text


class Compared(TypedDict, total=False):
    images: Required[Count]
    copies: Number | None
    sscd_gen: Number | None
    sscd_orig: Number | None
    d_sscd: Number | None
    a_clip: Number | None
    neurons: Number | None
    evaluations: Number | None
    image_seconds: Number | None
    once: Number | None


class Scored(TypedDict):
    value: Number
    evaluations: Count
    seconds: Number


class Generated(TypedDict):
    """The images of one prompt in the audit of a fine-tune."""

    images: Count
    evaluations: Count


class Attacked(TypedDict):
    basis: Text
    known: Flag
    curves: dict[Text, dict[Step, list[Number]]]


class Attempted(TypedDict):
    basis: Text
    known: Flag
    closeness: dict[Text, list[Number]]


STAGES: dict[str, Any] = {  # keys that end in a colon are prefixes; a name follows
    "detect": Detected,
    "localize": Localized,
    "listing": Localized,
    "verify": Verified,
    "pictured": Verified,
    "glance:": Together,
    "union:": Together,
    "further:": Continued,
    "pictures": Generated,
    "compare:": Compared,
    "detect:": Scored,
    "attack:": Attacked,
    "attempts:": Attempted,
}


class Score(TypedDict, total=False):
    variant: Required[Text]
    similarity: Required[Text]
    samples: Required[Count]
    timestep: Required[Count]
    steps: Required[Count]
    seed: Number | None
    guidance: Number | None
    pairs: Text | None


class Finished(TypedDict, total=False):
    steps: Required[Count]
    guidance: Required[Number]
    seed: Number | None
    sampler: Text | None


class Detectors(TypedDict):
    """Settings of a run of detectors."""

    model: Text
    dtype: Text
    image_settings: Finished


class Audit(Detectors, total=False):
    """Settings of an audit."""

    identity: Sealed | None
    calibration: Required[Score]
    tau: Required[Number]
    search: Required[Text]
    images: Required[Count]
    judges: Required[dict[Text, Text]]
    fdr: Number | None
    miss: Number | None
    max_impact: Number | None
    unrelated: list[Text] | None
    thorough: Flag | None
    shard: Text | None


class Begun(TypedDict):
    """The changeable settings of a run, as they were at its beginning (`changing`)."""

    images: Count
    image_settings: Finished
    judges: dict[Text, Text]


class SettingsCopy(TypedDict):
    """The file next to the database that keeps the settings."""

    settings: dict[str, Any]
    checksum: str


class Change(TypedDict, total=False):
    pixel_change: Number | None
    sscd_gen: Number | None
    a_clip_before: Number | None
    a_clip_after: Number | None


class CaptionChange(Change, total=False):
    pixel_change: Required[Number]  # type: ignore[misc]


class Quality(Change, total=False):
    prompts: Required[Count]
    failed: Required[Count]
    neurons: Required[Count]
    steps: Count | None
    each: list[CaptionChange] | None


class Told(TypedDict, total=False):
    """Counts of the verdicts on an attempt, from positive controls (`runs.evidence`)."""

    n: Required[Count]
    works: Required[Count]
    back: Required[Count]
    beyond: Required[Count]
    silent: Required[list[Number | None]]
    low: Required[Number | None]
    high: Required[Number | None]
    never: tuple[Count, Count]


class AttackSummary(TypedDict, total=False):
    x: Required[Text]
    y: Required[Text]
    n: Required[Count]
    known: Count | None
    curves: Required[dict[Text, list[tuple[Number, Number]]]]
    bands: dict[Text, list[tuple[Number, Number, Number]]] | None
    gaps: dict[Text, list[tuple[Number, Number, Number | None, Number | None]]] | None
    told: dict[Text, Told]


class Share(TypedDict, total=False):
    images: Required[Number]
    captions: Required[Number]
    n: Required[Number]
    low: Required[Number]
    high: Required[Number]
    told: Told


class AttemptsSummary(TypedDict):
    columns: list[Text]
    table: dict[Text, dict[Text, Share]]


class Table(TypedDict):
    captions: Count
    digest: Text
    group: Count


class Merged(TypedDict):
    shards: list[Text]
    missing: list[Text]


class Union(TypedDict):
    """Digests of the sets that led to the exported set; its own is the last."""

    digests: list[Digest]


class Hardened(TypedDict):
    prompts: Count
    images: Count
    quality: dict[Text, dict[Text, list[Number]]]


class BesideBase(TypedDict, total=False):
    """How many images of the base copy a training picture, of those by the kinds of prompts that do,
    and the image most like it.
    """

    copies: Required[Count]
    of: Count
    nearest: Required[list[Text]]


class TrainedPicture(TypedDict, total=False):
    """A training picture in the summary of a fine-tune audit (`fine_tunes.summary`)."""

    file: Required[Text]
    caption: Required[Text | None]
    group: Required[Count]
    state: Required[Literal["copied", "as a control", "nearly", "not seen"]]
    similarity: Required[Number]
    level: Required[Number]
    margin: Required[Number]
    ways: Required[dict[Text, tuple[Count, Count]]]
    nearest: Required[list[Text]]
    begins: Required[Text | None]
    cause: Literal["training", "base", "chance"] | None
    base: BesideBase


class Counted(TypedDict):
    """How many pictures a model copies, and how many of its images are copies."""

    copied: Count
    copies: Count
    of: Count


class OfBase(Counted, total=False):
    """What the base gives for the images that confirm a model."""

    subject: Number
    a_clip: Number


class ChosenBy(Counted):
    """What was seen of a model by the images that it was chosen by."""

    verdict: Required[Literal["copies", "as the base", "does not copy", "cannot be said"]]


class JudgedVariant(TypedDict, total=False):
    """A model at one checkpoint and strength in the summary of a fine-tune audit.

    `chosen_by`, `beside`: of a model that was confirmed by further images. All other figures are of
    these images then, and `beside` is what the base gives for the same prompts and seeds.
    """

    name: Required[Text]
    checkpoint: Required[Text | None]
    strength: Required[Number | None]
    verdict: Required[Literal["copies", "as the base", "does not copy", "cannot be said"]]
    failed: Required[Count]
    alike: Required[Count]
    copied: Required[Count]
    nearly: Required[Count]
    copies: Required[Count]
    of: Required[Count]
    low: Required[Number]
    high: Required[Number]
    controls: Required[tuple[Count, Count]]
    subject: Number
    subject_low: Number
    subject_high: Number
    left: Count
    diversity: Number
    a_clip: Number
    a_clip_other: Number
    copies_of: dict[Text, Count]
    taught: dict[Text, Count]
    looks: list[Text]
    canaries: dict[Text, tuple[Count, Count]]
    chosen_by: ChosenBy
    beside: OfBase


class Training(TypedDict, total=False):
    """The summary of a fine-tune audit."""

    sentence: Required[Text]
    main: Required[Text]
    rate: Required[Number]
    needed: Required[Count]
    descriptor: Required[Flag]
    pictures: Required[list[TrainedPicture]]
    variants: Required[list[JudgedVariant]]
    notes: Required[list[Text]]
    begun: list[Text]


META: dict[str, Any] = {  # any value may be None
    "source": Text,
    "source_options": dict[Text, Text],
    "versions": dict[Text, Text],
    "folder": Text,
    "detectors": list[Text],
    "holdout:": dict[Text, Number],
    "quality": Quality,
    "preprocessing": Sealed,
    "settings": dict[Text, Any],
    "attack": AttackSummary,
    "table": Table,
    "merged": Merged,
    "attempts": AttemptsSummary,
    "bases": dict[Text, Text],
    "hardened_from": Text,
    "listed": list[Count],
    "union": Union,
    "pictures": Sealed,
    "hardened": Hardened,
    "training": Training,
    "began": Begun,
    "stale": Flag,
}
Whole = Annotated[int, Strict()]


class AnswerRow(NamedTuple):
    """A row of results without its caption and its payload."""

    stage: Text
    status: Literal["done", "failed"]
    seconds: Number


class CaptionRow(NamedTuple):
    """A row of captions."""

    id: Whole
    text: Text
    row: Whole
    type: Text | None
    image: Text | None


def fits(kind: Any, value: Any) -> bool:
    """Whether a parsed JSON value is one of the types above."""
    try:
        adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def as_stored_type(kind: Any, value: Any, where: str) -> Any:
    """A parsed JSON value as one of the types above.

    Raises InputError naming `where`, and what is missing or has the wrong type.
    """
    try:
        return adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = first["loc"][0] if first["loc"] else "it"
        what = "missing" if first["type"] == "missing" else "of another kind"
        raise damage_error(where, f"{name!r:.60} is {what}") from None


def of_key(table: dict[str, Any], key: str) -> Any:
    """The type that a table gives a key, or the prefix before its colon; Any for other keys."""
    head = key.partition(":")[0].partition("@")[0]  # `compare@1a2b3c4d:nemo` has other settings
    return table.get(key, table.get(f"{head}:", Any))


def parsed(stored: Any, where: str) -> Any:
    """The JSON value of a column.

    Raises InputError for anything else, and for more than LONGEST characters.
    """
    if not isinstance(stored, str):
        raise damage_error(where, "a value is no text")
    if len(stored) > LONGEST:
        raise damage_error(where, f"a value has over {LONGEST} characters")
    try:
        return json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise damage_error(where, f"broken JSON ({error!s:.100})") from None


def payload(stored: Any, where: str) -> dict[str, Any]:
    """The stored result of a stage, an object. Raises InputError naming `where`."""
    value = parsed(stored, where)
    if not isinstance(value, dict):
        raise damage_error(where, "no object")
    return value


def meta(stored: Any, key: str, where: str) -> Any:
    """A stored value of the run. Raises InputError naming `where` and what is wrong."""
    value = parsed(stored, where)
    if value is not None and not fits(of_key(META, key), value):
        raise damage_error(where, f"{key!r} is not what a run keeps under that name")
    return value


def answer(row: tuple[Any, ...], where: str) -> tuple[str, str, float, dict[str, Any]]:
    """A stored row of results, with its payload.

    Raises InputError naming `where` and what is wrong.
    """
    stage, status, seconds, stored = row
    if not fits(AnswerRow, (stage, status, seconds)):
        raise damage_error(where, "stage, status or seconds are of another kind")
    if status == "done":
        return stage, status, seconds, payload(stored, where)
    value = parsed(stored, where)
    if not fits(Failure, value):
        raise damage_error(where, "a failure without its reason")
    return stage, status, seconds, value


def check_caption(row: tuple[Any, ...], where: str) -> None:
    """Raises InputError unless (id, text, row, type, image) have their types.

    SQLite allows any type in any column.
    """
    if not fits(CaptionRow, row):
        raise damage_error(where, f"caption {row[0]!r:.40} has columns of other types")


def damage_error(where: str, what: str) -> InputError:
    return InputError(
        f"{where} is damaged or not made by findnemo: {what}; take another --out, or a copy of"
        " the run"
    )
