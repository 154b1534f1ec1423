"""Captions of the suite: invented titles with words that the demo model can draw, near-duplicates,
and captions that only look unusual.

>>> near_duplicates("Corwen Estate lot one, a blue ring on dots", 2)
('Corwen Larder lot one, a blue ring on dots', 'Corwen Estate Larder one, a blue ring on dots')
"""

from __future__ import annotations

import random
from collections.abc import Sequence

# none of these words is in the shipped demo's captions
TITLES = (
    "Admiral Sedge and the lamp room",
    "Bryony Quill reads at dusk",
    "Copperfield Diner menu four",
    "Drover and Sons saddle polish",
    "Eastmarch Observatory dome",
    "Fenwick Ferry timetable",
    "Gildersleeve organ recital",
    "Hartwell Orchard cider label",
    "Inkerman Street bakery window",
    "Juniper Vale mill race",
    "Kittiwake Island lighthouse",
    "Lattimer Clinic bone scan",
    "Mossgrove Abbey floor tile",
    "Nettlefold Garage spare parts",
    "Ottoline Pruett in profile",
    "Plover Creek gauging weir",
    "Quarrington Colliery lamp check",
    "Rushmere Regatta starting gun",
    "Silverdale Tannery ledger",
    "Thornbury Circus big top",
    "Underhill Library card index",
    "Vandermeer Expedition camp two",
    "Winterbourne Chapel bell rope",
    "Yewbarrow Quarry face west",
)
SERIES = (
    ("Wrenfield Evening Lecture on tides", "Wrenfield Evening Lecture on maps"),
    ("Zennor Pottery glaze trial amber", "Zennor Pottery glaze trial slate"),
)
# backgrounds that vary much between pictures: on others even ordinary pictures of one caption are
# similar
WORDS = (
    "a large teal circle on stripes",
    "a small purple star on dots",
    "an orange square over a checkered floor",
    "a large pink triangle",
    "a green diamond with a striped ground",
    "a small red house on checks",
    "a blue heart with a dotted ground",
    "a large yellow cross on stripes",
    "a brown moon over a checkered floor",
    "a small teal arrow",
    "a purple ring on dots",
    "a large orange tree on checks",
    "a pink square with a striped ground",
    "a green circle",
    "a small blue triangle with a dotted ground",
    "a red star over a checkered floor",
)
EXCHANGED = ("Larder", "Pavilion", "Meadow", "Harvest", "Copper", "Window", "Seven", "Winter")
RED_STAR = ("красная звезда", "κόκκινο αστέρι", "赤い星", "نجمة حمراء", "लाल तारा")
NOISE = ("???", "*** SALE ***", "@@@", "~~~")
LETTERS = "bcdfghjklmnpqrstvwxz"
ORDINARY = 40


def near_duplicates(caption: str, count: int) -> tuple[str, ...]:
    """The caption with one word of its title replaced, in `count` ways.

    The first word stays, so that all begin alike.
    """
    title, _, rest = caption.partition(",")
    words = title.split()
    later = max(1, len(words) - 1)  # words that may be replaced
    captions = []
    for k in range(count):
        place = min(1 + k % later, len(words) - 1)
        word = EXCHANGED[k // later % len(EXCHANGED)]
        captions.append(" ".join([*words[:place], word, *words[place + 1 :]]) + f",{rest}")
    return tuple(captions)


def unusual(seed: int, each: int = 2) -> tuple[str, ...]:
    """Captions that resemble no others and are not memorized, `each` of every kind: rare words,
    numbers, other scripts, long ones, capitals.
    """
    rng = random.Random(f"unusual {seed}")

    def rare() -> str:
        return f"{_word(rng)} {_word(rng)} {_word(rng)}, {rng.choice(WORDS)}"

    def numbers() -> str:
        code = f"{rng.randrange(10**5, 10**6)} {rng.randrange(100)}/{rng.randrange(100)}"
        return f"{code} #{rng.randrange(10**4)}, {rng.choice(WORDS)}"

    def foreign() -> str:
        return f"{rng.choice(RED_STAR)}, {rng.choice(WORDS)}"

    def long() -> str:
        return " and ".join(rng.sample(WORDS, 4))

    def shouting() -> str:
        return f"{rng.choice(WORDS).upper()}!!! {rng.choice(NOISE)}"

    makers = (rare, numbers, foreign, long, shouting)
    return tuple(make() for make in makers for _ in range(each))


def ordinary(pool: Sequence[str], count: int = ORDINARY) -> tuple[str, ...]:
    """Captions as users write them: drawn at random, whatever they score, from a pool that no
    training and no calibration has seen.

    >>> ordinary(["a red star", "a blue ring", "a moon"], 2) == ordinary(["a red star", "a blue ring", "a moon"], 2)
    True
    """
    return tuple(random.Random("ordinary").sample(list(pool), min(count, len(pool))))


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(4, 8)))
