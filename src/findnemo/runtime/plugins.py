"""Methods by name: findnemo's own, and those that installed packages add.

A package adds one by an entry point in the group "findnemo.detectors", "findnemo.mitigations",
"findnemo.searches" or "findnemo.adapters" (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from findnemo.errors import FindnemoError, InputError, first_line
from findnemo.runtime.notices import notice

T = TypeVar("T")
KINDS = ("detectors", "mitigations", "searches", "adapters")


@dataclass(frozen=True)
class Method(Generic[T]):
    """A detector or a mitigation, with its texts for tables.

    `call`: the function itself. `label`: in tables, by default its name. Methods with one label
    share a row. `source`: paper, section. `gradients`: whether it needs gradients, including those
    to find its neurons. `permanent`: whether its effect could be written into the weights.

    >>> loudness = Method(lambda prompt: prompt.count("!"), "Loudness", "nobody, 2026")
    >>> loudness("Starry Night!!"), loudness.gradients
    (2, False)
    """

    call: Callable[..., T]
    label: str = ""
    source: str = ""
    gradients: bool = False
    permanent: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        return self.call(*args, **kwargs)


def as_method(name: str, found: Any) -> Method:
    """A `Method` with a label, from a method or a function. Raises TypeError for anything else.

    >>> as_method("length", len).label
    'length'
    """
    method = found if isinstance(found, Method) else Method(found)
    if not callable(method.call):
        raise TypeError(f"{method.call!r:.60} is not a function")
    return replace(method, label=method.label or name)


class Methods(MutableMapping[str, T]):
    """A table of methods by name: `own` ones, then those of installed packages.

    `kind`, `kinds`: singular and plural, such as "detector" and "detectors"; packages use the group
    "findnemo.detectors". `ready`: (name, given object) -> a method, or an error. A package is
    imported on the first use of one of its methods. An own name always means the own method, even
    if packages use it too.

    >>> sizes = Methods("size", "sizes", {"length": len}, as_method)
    >>> list(sizes), sizes["length"]("abc"), "width" in sizes
    (['length'], 3, False)
    """

    def __init__(
        self, kind: str, kinds: str, own: Mapping[str, Any], ready: Callable[[str, Any], T]
    ):
        self.kind = kind
        self.kinds = kinds
        self._ready = ready
        self._own = {name: ready(name, found) for name, found in own.items()}

    def __getitem__(self, name: str) -> T:
        """Raises InputError for an unusable method of a package, KeyError for an unknown name."""
        if name in self._own:
            return self._own[name]
        given = installed(self.kinds)[name]
        packages = self._packages(name)
        if len(given) > 1:
            raise InputError(f"{self.kind} {name!r} is given by {packages}: uninstall one of them")
        try:
            return self._ready(name, given[0].load())
        except Exception as error:  # foreign code raises anything
            raise InputError(
                f"{self.kind} {name!r} of {packages} cannot be used ({type(error).__name__}:"
                f" {first_line(error)}): repair the package, or uninstall it"
            ) from error

    def __setitem__(self, name: str, found: Any) -> None:
        self._own[name] = self._ready(name, found)

    def __delitem__(self, name: str) -> None:
        del self._own[name]

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys((*self._own, *installed(self.kinds)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in installed(self.kinds)

    def require(self, name: str) -> T:
        """The method of a name from a user. Raises InputError, for an unknown name too."""
        if name not in self:
            raise InputError(f"{self.kind} {name!r} is not known: use {', '.join(self)}")
        if name in self._own and (packages := self._packages(name)):
            notice(f"{self.kind} {name!r} is findnemo's own, not that of {packages}")
        return self[name]

    def _packages(self, name: str) -> str:
        """The packages that give a method, in words; empty if there are none."""
        return " and ".join(map(_package, installed(self.kinds).get(name, ())))

    def usable(self) -> list[str]:
        """All names except those of unusable packages; a notice says why."""
        names = []
        for name in self:
            try:
                self.require(name)
            except InputError as problem:
                notice(f"left out: {problem}")
            else:
                names.append(name)
        return names

    def label(self, name: str) -> str:
        """The label of a method in tables; its name if the package is missing or unusable."""
        try:
            return getattr(self[name], "label", name)
        except (KeyError, InputError):
            return name


@contextmanager
def answering(method: str) -> Iterator[None]:
    """Raise a method's errors as an InputError that names the method, except those of findnemo and
    of the machine.

    The code of a package is foreign, and other work waits for its turn.

    >>> with answering("mitigation 'mine'"):
    ...     [][0]
    Traceback (most recent call last):
    ...
    findnemo.errors.InputError: mitigation 'mine' failed (IndexError: list index out of range)
    """
    try:
        yield
    except (FindnemoError, RuntimeError, MemoryError):
        raise
    except Exception as problem:
        raise InputError(
            f"{method} failed ({type(problem).__name__}: {first_line(problem)})"
        ) from problem


@cache
def installed(kinds: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Name -> entry points that packages have under it; nothing is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=f"findnemo.{kinds}"):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return dict(sorted(found.items()))


def packages() -> dict[str, str]:
    """Name -> version of the packages that add methods."""
    entries = (entry for kinds in KINDS for given in installed(kinds).values() for entry in given)
    return {entry.dist.name: entry.dist.version for entry in entries if entry.dist}


def also(kinds: str) -> str:
    """The names that installed packages add, for a help text; empty if there are none."""
    names = ", ".join(installed(kinds))
    return f" Of installed packages: {names}." if names else ""


def _package(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
