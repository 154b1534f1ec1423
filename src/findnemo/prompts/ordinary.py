"""Captions of everyday subjects, for calibration and as controls if a user has none."""

from __future__ import annotations

SUBJECTS = (
    "a bowl of lemons",
    "an old bicycle",
    "a brick lighthouse",
    "two children flying a kite",
    "a grey cat",
    "a plate of noodles",
    "a wooden rowing boat",
    "a woman reading a newspaper",
    "a row of parked cars",
    "a field of sunflowers",
    "a steam locomotive",
    "a man playing the cello",
    "a flock of starlings",
    "a stone bridge",
    "a red telephone box",
    "a pair of hiking boots",
    "a market stall with fish",
    "a snowy mountain hut",
    "a fire engine",
    "a vase of tulips",
    "a horse at a fence",
    "a loaf of bread",
    "an empty swimming pool",
    "a tram in a narrow street",
    "a potter at the wheel",
)
LIGHTS = (
    "in the morning light",
    "seen from above",
    "on a grey day",
    "in black and white",
    "after the rain",
    "at dusk",
    "in an old photograph",
    "painted in watercolour",
)


def ordinary(count: int = 200) -> tuple[str, ...]:
    """The first of 200 captions that name no picture, artist or person.

    >>> ordinary(2), len(set(ordinary()))
    (('a bowl of lemons in the morning light', 'an old bicycle seen from above'), 200)
    """
    many = len(SUBJECTS)
    places = ((k % many, (k % many + k // many) % len(LIGHTS)) for k in range(count))
    captions = [f"{SUBJECTS[subject]} {LIGHTS[light]}" for subject, light in places]
    return tuple(captions[: many * len(LIGHTS)])
