"""Check that plain libraries can load a part of a pipeline from its weights, or from what was
written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from findnemo.edits._effect import MERGE
from findnemo.errors import EditError
from findnemo.files.tensors import DTYPES, Entry
from findnemo.models.modules import COMPUTED

# names under which PyTorch, peft and quantizing libraries keep something other than weights
ODD = re.compile(
    r"(^|\.)(parametrizations|base_layer|lora_\w+|\w+_orig|weight_[guv]|"
    r"SCB|quant_state|quant_map|absmax|weight_scale)(\.|$)"
)
QUANTIZED = "if it is quantized, load the model without quantization for this"
WAY_OUT = (
    f"make parametrizations and pruning masks permanent; if it carries a LoRA, {MERGE}; {QUANTIZED}"
)

Held = Mapping[str, Tensor | Entry]  # name -> tensor in a network or entry of a file


def check_part(name: str, part: Any, held: Held) -> None:
    """Raises EditError for a part that plain libraries could not load completely."""
    if reason := next(filter(None, unfit(name, part, held)), None):
        raise EditError(reason)


def unfit(name: str, part: Any, held: Held) -> tuple[str | None, str | None]:
    """Why a plain part could not be loaded from these weights, and which of them a plain part would
    leave out.

    Each is None if there is no reason. Names and shapes are compared with those of diffusers' own
    parts. Names in other libraries change with the version: for them, only names that no plain
    model has are faults.
    """
    kind = type(part).__name__
    for key, value in held.items():
        if ODD.search(key) or type(value) not in (Tensor, nn.Parameter, Entry):
            odd = (
                f"a checkpoint of the {name} would hold {key}, which no plain {kind} can load:"
                f" {WAY_OUT}"
            )
            return odd, None
    if not hasattr(part, "from_config"):
        return None, None
    wanted = _plain_state(part)
    if wanted is None:
        way_out = "if an IP-Adapter is loaded, pipeline.unload_ip_adapter() first"
        return None, f"diffusers cannot make a {kind} from its configuration: {way_out}"
    for key, value in wanted.items():
        if not _fits(held.get(key), value):
            want = f"{key} {tuple(value.shape)}, which {described(held.get(key))}"
            return f"a checkpoint of the {name} would not load: it wants {want}; {WAY_OUT}", None
    if extra := next((key for key in held if key not in wanted), None):
        left_out = "diffusers leaves it out of a saved checkpoint"
        return None, f"a {kind} of this configuration has no {extra}: {left_out}"
    return None, None


def _plain_state(part: Any) -> dict[str, Tensor] | None:
    """Names and shapes of a plain part of the same class and configuration; None if there is
    none.
    """
    from accelerate import init_empty_weights

    try:
        with init_empty_weights():
            state: dict[str, Tensor] = type(part).from_config(part.config).state_dict()
    except Exception:  # a prepared configuration can raise anything
        return None
    return state


def _fits(found: Tensor | Entry | None, wanted: Tensor) -> bool:
    if found is None or tuple(found.shape) != tuple(wanted.shape):
        return False
    dtype = DTYPES.get(found.dtype) if isinstance(found, Entry) else found.dtype
    return not wanted.is_floating_point() or dtype in COMPUTED


def described(value: Tensor | Entry | None) -> str:
    if value is None:
        return "is not there"
    dtype = str(value.dtype).removeprefix("torch.")
    return f"is {type(value).__name__} {dtype} {tuple(value.shape)}"
