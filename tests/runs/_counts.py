"""Counts of verdicts on attempts, as a run keeps them."""

from findnemo.stats import wilson

NAME = "neurons off: memorized less never seen"


def told(works=5, back=0, n=None, silent=(), beyond=0):
    """What an attempt says of captions, counted by hand but for Wilson's interval."""
    low, high = wilson(back, works) if works else (None, None)
    n = works + len(silent) + beyond if n is None else n
    counts = {"n": n, "works": works, "back": back, "beyond": beyond, "silent": list(silent)}
    return counts | {"low": low, "high": high}


def cell(captions, n=5, **of):
    return {"images": captions / n, "captions": captions, "n": n, "low": 0.0, "high": 0.43, **of}


def attempts(words, given, ordinary):
    table = {
        "seeds: fresh": {
            "untouched": cell(5),
            "neurons off": cell(0, told=told(5)),
            "ordinary, neurons off": cell(2),
        },
        "words: synonyms": {
            "untouched": cell(4),
            "neurons off": cell(words, told=told(4, words, silent=[0.41])),
        },
        "script: Greek": {
            "untouched": cell(0),
            "neurons off": cell(0, told=told(0, silent=[0.17, 0.2, 0.3, 0.1, 0.0])),
        },
        "image to image: 0.9": {
            "untouched": cell(5),
            "neurons off": cell(given, told=told(5, given)),
            "ordinary, neurons off": cell(ordinary),
        },
    }
    return {"columns": ["untouched", "neurons off", "ordinary, neurons off"], "table": table}
