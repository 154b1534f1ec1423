"""Mitigations: NeMo's and others for comparison, each a context in which the pipeline is used as
usual.

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
from findnemo.mitigation._named import canonical, hyperparameters, name_and_options, typed_options
from findnemo.mitigation.attention import scaled_attention
from findnemo.mitigation.embedding import adjusted_embedding
from findnemo.mitigation.guidance import OPPOSITE, TAU_OPPOSITE, delayed_guidance
from findnemo.mitigation.neurons import found_neurons, random_draw, random_neurons
from findnemo.mitigation.noise import adjusted_noise, flattened_noise
from findnemo.mitigation.padding import SHARE, masked_padding
from findnemo.mitigation.prss import reanchored
from findnemo.mitigation.pruning import conceptprune, wanda
from findnemo.mitigation.sail import flat_start
from findnemo.mitigation.tokens import inserted_words
from findnemo.runtime.plugins import Method, Methods, as_method

_NEMO = "Finding NeMo, section 4"
_WORDS = {"tokens": "random token", "numbers": "random number", "repeats": "repeated word"}

# in the order of Table 1: name -> a function, or a Method with its texts for tables
_OWN: dict[str, Mitigation] = {
    **{
        f"random-{k}": Method(random_draw(k), "Random neurons", _NEMO, permanent=True)
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
    "noise": Method(
        adjusted_noise, "Initial noise, per sample (Han et al.)", "Han et al. 2025", gradients=True
    ),
    "noise-batch": Method(
        flattened_noise, "Initial noise, batch-wise (Han et al.)", "Han et al. 2025"
    ),
    "sail": Method(flat_start, "Flat start (SAIL)", "Jeon et al. 2025", gradients=True),
    "delayed": Method(delayed_guidance, "Delayed guidance (Jain et al.)", "Jain et al. 2025"),
    "delayed-dynamic": Method(
        partial(delayed_guidance, tau=None),
        "Delayed guidance, dynamic (Jain et al.)",
        "Jain et al. 2025",
    ),
    "opposite": Method(
        partial(delayed_guidance, tau=TAU_OPPOSITE, opposite=OPPOSITE),
        "Opposite guidance (Jain et al.)",
        "Jain et al. 2025",
    ),
    "prss": Method(reanchored, "Prompt re-anchoring (PRSS)", "Chen et al. 2025, PRSS"),
    "padding": Method(masked_padding, "Masked padding", "Kim and No 2026"),
    "padding-zeros": Method(
        partial(masked_padding, share=SHARE), "Zeroed padding", "Kim and No 2026"
    ),
    # `nemo` gets the neurons of the listing, `neurons` those of findnemo's own search
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
    "adjusted_noise",
    "canonical",
    "conceptprune",
    "delayed_guidance",
    "flat_start",
    "flattened_noise",
    "found_neurons",
    "hyperparameters",
    "inserted_words",
    "masked_padding",
    "name_and_options",
    "random_neurons",
    "reanchored",
    "scaled_attention",
    "typed_options",
    "wanda",
]
