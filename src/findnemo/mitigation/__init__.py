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
from findnemo.mitigation.guidance import OPPOSITE, TAU_OPPOSITE, delayed_guidance
from findnemo.mitigation.neurons import found_neurons, random_neurons
from findnemo.mitigation.noise import adjusted_noise, flattened_noise
from findnemo.mitigation.padding import SHARE, masked_padding
from findnemo.mitigation.prss import reanchored
from findnemo.mitigation.pruning import conceptprune, wanda
from findnemo.mitigation.sail import flat_start
from findnemo.mitigation.tokens import inserted_words

MITIGATIONS: dict[str, Mitigation] = {
    "neurons": found_neurons,
    "embedding": adjusted_embedding,
    "attention": scaled_attention,
    **{
        f"{kind}-{n}": partial(inserted_words, kind=kind, count=n)
        for kind in ("tokens", "numbers", "repeats")
        for n in (1, 4, 10)
    },
    **{f"random-{k}": partial(random_neurons, repeat=k) for k in range(1, 6)},
    "wanda": wanda,
    "conceptprune": conceptprune,
    "noise": adjusted_noise,
    "noise-batch": flattened_noise,
    "sail": flat_start,
    "delayed": delayed_guidance,
    "delayed-dynamic": partial(delayed_guidance, tau=None),
    "opposite": partial(delayed_guidance, tau=TAU_OPPOSITE, opposite=OPPOSITE),
    "prss": reanchored,
    "padding": masked_padding,
    "padding-zeros": partial(masked_padding, share=SHARE),
}

__all__ = [
    "MITIGATIONS",
    "Case",
    "Mitigation",
    "adjusted_embedding",
    "adjusted_noise",
    "conceptprune",
    "delayed_guidance",
    "flat_start",
    "flattened_noise",
    "found_neurons",
    "inserted_words",
    "masked_padding",
    "random_neurons",
    "reanchored",
    "scaled_attention",
    "wanda",
]
