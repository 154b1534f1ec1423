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
from findnemo.mitigation._named import converted, hyperparameters, parsed
from findnemo.mitigation.attention import scaled_attention
from findnemo.mitigation.embedding import adjusted_embedding
from findnemo.mitigation.neurons import found_neurons, random_neurons
from findnemo.mitigation.pruning import conceptprune, wanda
from findnemo.mitigation.tokens import inserted_words
from findnemo.runtime.plugins import Method, Methods, as_method

_NEMO = "Finding NeMo, section 4"
_WORDS = {"tokens": "random token", "numbers": "random number", "repeats": "repeated word"}

# in the order of Table 1: name -> a function, or a Method of it with what tables say
_OWN: dict[str, Mitigation] = {
    **{
        f"random-{k}": Method(
            partial(random_neurons, repeat=k), "Random neurons", _NEMO, permanent=True
        )
        for k in range(1, 6)
    },
    "embedding": Method(
        adjusted_embedding,
        "Embedding adjustment (Wen et al.)",
        "Wen et al. 2024, section 4",
        gradients=True,
    ),
    "attention": Method(
        scaled_attention, "Attention scaling (Ren et al.)", "Ren et al. 2024, section 5"
    ),
    "attention-both": Method(
        partial(scaled_attention, both=True),
        "Attention scaling, both halves (as released)",
        "Ren et al. 2024, released code",
    ),
    **{
        f"{kind}-{n}": Method(
            partial(inserted_words, kind=kind, count=n),
            f"{n} {what}{'s' * (n > 1)}",
            "Somepalli et al. 2023, section 6",
        )
        for kind, what in _WORDS.items()
        for n in (1, 4, 10)
    },
    "wanda": Method(wanda, "Wanda pruning", "Sun et al. 2024", permanent=True),
    "conceptprune": Method(conceptprune, "ConceptPrune", "Chavhan et al. 2024", permanent=True),
    # `nemo` is given the neurons of the listing, `neurons` those of findnemo's own search
    "nemo": Method(found_neurons, "Deactivated neurons (NeMo)", _NEMO, permanent=True),
    "neurons": Method(
        found_neurons,
        "Deactivated neurons (findnemo)",
        "docs/search.md",
        gradients=True,
        permanent=True,
    ),
}
MITIGATIONS = Methods("mitigation", "mitigations", _OWN, as_method)

__all__ = [
    "MITIGATIONS",
    "Case",
    "Method",
    "Mitigation",
    "adjusted_embedding",
    "conceptprune",
    "converted",
    "found_neurons",
    "hyperparameters",
    "inserted_words",
    "parsed",
    "random_neurons",
    "scaled_attention",
    "wanda",
]
