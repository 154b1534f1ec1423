"""Mitigations by name; a name may give other hyperparameters than the published ones:
`embedding:target=0.5`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from findnemo.errors import InputError

KINDS = (int, float, str)


def name_and_options(text: str) -> tuple[str, dict[str, str]]:
    """The name of a method, and its options as text.

    Raises InputError for an option without a value, or given twice.

    >>> name_and_options("delayed:until=650:scale=2"), name_and_options("wanda")
    (('delayed', {'until': '650', 'scale': '2'}), ('wanda', {}))
    """
    name, *parts = text.split(":")
    options: dict[str, str] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not (option and equals and value) or option in options:
            raise InputError(
                f"{text[:80]!r} is not a mitigation with options: write NAME:OPTION=VALUE, each"
                " option once"
            )
        options[option] = value
    return name, options


def hyperparameters(method: Callable[..., Any]) -> dict[str, Any]:
    """The numbers and words that a method takes besides a model and a case: name -> default.

    >>> from findnemo.mitigation import adjusted_embedding
    >>> hyperparameters(adjusted_embedding)
    {'target': 1.5, 'iterations': 10}
    """
    _, _, *rest = inspect.signature(getattr(method, "call", method)).parameters.values()
    return {p.name: p.default for p in rest if isinstance(p.default, KINDS)}


def typed_options(
    name: str, method: Callable[..., Any], written: Mapping[str, str]
) -> dict[str, Any]:
    """Options of a method as numbers and words, by the types of their defaults.

    Raises InputError naming an option that the method does not have, or that is no finite number.

    >>> from findnemo.mitigation import adjusted_embedding
    >>> typed_options("embedding", adjusted_embedding, {"target": "3"})
    {'target': 3.0}
    """
    known = hyperparameters(method)
    options = {}
    for option, value in written.items():
        if option not in known:
            has = ", ".join(known) or "none"
            raise InputError(f"{name} has no option {option[:40]!r}: it has {has}")
        options[option] = _value(f"{name}:{option}", value, known[option])
    return options


def canonical(text: str, method: Callable[..., Any]) -> str:
    """The canonical name of a method with a set of options, however they are written.

    Raises InputError as `name_and_options` and `typed_options` do.

    >>> from findnemo.mitigation import adjusted_embedding
    >>> canonical("embedding:iterations=5:target=3.0", adjusted_embedding)
    'embedding:target=3:iterations=5'
    """
    name, written = name_and_options(text)
    options = typed_options(name, method, written)
    told = (
        f":{k}={str(options[k]).removesuffix('.0')}"
        for k in hyperparameters(method)
        if k in options
    )
    return name + "".join(told)


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text not in ("True", "False"):
            raise InputError(f"{name} is True or False, not {text[:40]!r}")
        return text == "True"
    try:
        value = type(default)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise InputError(f"{name} is {kind}, not {text[:40]!r}") from None
