"""The number of threads in PyTorch: at most the cores of this process, and one if more would only
wait for each other.

    with threads(suited(model.denoiser, model.latent_shape)):
        ...  # passes of that model

PyTorch uses all cores of the machine, even if a container may use two of its sixty-four. The
threads of a small model meet thousands of times a second. If another process occupies a core, each
meeting waits for that core (docs/scaling.md has the figures).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import torch
from torch import nn

# a user's own settings of threads, which nothing here overrides
OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# parameters times latent positions for which a pass takes a third of a second on one core. Below
# that, two threads that sleep while they wait are no faster than one (measured on two cores)
SMALL = 10**11


def cores(root: Path = Path("/")) -> int:
    """CPU cores that this process may use, at least one.

    They are limited by its affinity, and by whole cores of the quota of its control groups.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota(root)
    return here if limit is None else max(1, min(here, int(limit)))


def quota(root: Path = Path("/")) -> float | None:
    """The CPU quota of this process: the smallest of its control groups, from its own to the
    outermost visible one; None without a limit.

    `root`: where /proc and the file systems of control groups (version 1 or 2) are.
    """
    limits = [limit for group in _groups(root) if (limit := _limit(group)) is not None]
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that limit CPUs, outermost first."""
    own: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)  # version 2 names no controller
    for line in _text(root / "proc/self/mountinfo").splitlines():
        place, _, kind = line.partition(" - ")
        base, mount = place.split()[3:5]
        system, *options = kind.split()
        is_first = system == "cgroup" and "cpu" in options[-1].split(",")
        controller = "cpu" if is_first else ""
        if controller not in own or not (is_first or system == "cgroup2"):
            continue
        path = own[controller]
        # a container sees its own group as the mount, under any name outside
        is_below = PurePosixPath(path).is_relative_to(base) and ".." not in path
        below = PurePosixPath(path).relative_to(base).parts if is_below else ()
        for depth in range(len(below) + 1):
            yield root.joinpath(mount.lstrip("/"), *below[:depth])


def _limit(group: Path) -> float | None:
    """CPUs that a group may use; None without a readable limit."""
    files = (group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")
    words = (_text(group / "cpu.max") or " ".join(map(_text, files))).split()
    try:
        allowed, period = map(int, words)
    except ValueError:  # "max", or nothing
        return None
    return allowed / period if allowed > 0 and period > 0 else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def suited(
    denoiser: nn.Module, shape: tuple[int, ...], environment: Mapping[str, str] = os.environ
) -> int | None:
    """Threads for a denoiser: one for a small one, else `cores()`, but at most PyTorch's own
    number.

    None if the user has set a number (`OWN`). `shape`: of one latent, (channels, height, width).

    >>> suited(nn.Linear(8, 8), (4, 16, 16), {})
    1
    >>> suited(nn.Linear(8, 8), (4, 16, 16), {"OMP_NUM_THREADS": "3"}) is None
    True
    """
    if any(environment.get(name) for name in OWN):
        return None
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    if parameters * shape[-2] * shape[-1] < SMALL:
        return 1
    return min(cores(), torch.get_num_threads())


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Set the number of PyTorch's threads while the context lasts; None leaves it unchanged.

    >>> before = torch.get_num_threads()
    >>> with threads(before + 1):
    ...     torch.get_num_threads() - before
    1
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)
