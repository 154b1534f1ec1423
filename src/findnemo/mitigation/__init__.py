"""Mitigations:

NeMo's and those it is compared with, each a context in which the pipeline is used as usual.

>>> import findnemo
>>> from findnemo.mitigation import MITIGATIONS, Case
>>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
>>> with MITIGATIONS["attention"](model, Case(prompt)):
...     len(model.pipeline(prompt, num_inference_steps=2, num_images_per_prompt=3).images)
3

May be imported: the names below and the modules here. May import: passes, edits and what lies under
them.
"""

from functools import partial

from findnemo.mitigation._case import Case, Mitigation
from findnemo.mitigation.attention import scaled_attention
from findnemo.mitigation.embedding import adjusted_embedding
from findnemo.mitigation.neurons import found_neurons, random_neurons
from findnemo.mitigation.pruning import conceptprune, wanda
from findnemo.mitigation.tokens import inserted_words

MITIGATIONS: dict[str, Mitigation] = {
    "neurons": found_neurons,
    "embedding": adjusted_embedding,
    "attention": scaled_attention,
    "attention-both": partial(scaled_attention, both=True),
    **{
        f"{kind}-{n}": partial(inserted_words, kind=kind, count=n)
        for kind in ("tokens", "numbers", "repeats")
        for n in (1, 4, 10)
    },
    **{f"random-{k}": partial(random_neurons, repeat=k) for k in range(1, 6)},
    "wanda": wanda,
    "conceptprune": conceptprune,
}

__all__ = [
    "MITIGATIONS",
    "Case",
    "Mitigation",
    "adjusted_embedding",
    "conceptprune",
    "found_neurons",
    "inserted_words",
    "random_neurons",
    "scaled_attention",
    "wanda",
]
