"""Edits: scale the outputs of neurons, by a temporary hook, in the weights or as a LoRA. Each
checks its own effect before it returns.

May be imported: the names below. May import: models, neurons and what lies
under them.
"""

from findnemo.edits._edits import (
    LIMITS,
    LORA_FILE,
    deactivate,
    effects,
    lora_weights,
    masks,
    muted,
    prune,
    save_lora,
    scaled,
)
from findnemo.edits._effect import (
    Effect,
    check_called,
    layer_weights,
    never_called,
    refuse_made,
    refuse_offloaded,
)
from findnemo.edits._loadable import check_part
from findnemo.edits._plain import rebuilt
from findnemo.edits._probing import times
from findnemo.edits._targets import widths_of

__all__ = [
    "LIMITS",
    "LORA_FILE",
    "Effect",
    "check_called",
    "check_part",
    "deactivate",
    "effects",
    "layer_weights",
    "lora_weights",
    "masks",
    "muted",
    "never_called",
    "prune",
    "rebuilt",
    "refuse_made",
    "refuse_offloaded",
    "save_lora",
    "scaled",
    "times",
    "widths_of",
]
