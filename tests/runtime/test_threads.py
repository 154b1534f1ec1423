"""Cores that a process may use, read from file systems of control groups as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from findnemo.runtime import threads as module
from findnemo.runtime.threads import SMALL, cores, quota, suited, threads

SECOND = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
FIRST = "32 31 0:29 {base} /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


def machine(root: Path, cgroup: str, mounts: str, **files: str) -> Path:
    """A root with /proc and control groups: path, with __ for /, -> content."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mounts)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def second(root: Path, cgroup: str = "0::/\n", **limits: str) -> Path:
    """Version 2: group, with __ for /, -> its cpu.max; "" for the mount."""
    files = {f"{group}__" * bool(group) + "cpu.max": limit for group, limit in limits.items()}
    return machine(root, cgroup, SECOND, **files)


def first(root: Path, group: str, base: str = "/", **limits: int) -> Path:
    """Version 1: group below the mount -> microseconds of a period of 100,000."""
    files = {}
    for name, allowed in limits.items():
        folder = "cpu__" + f"{name}__" * (name != "mount")
        files |= {
            f"{folder}cpu.cfs_quota_us": f"{allowed}\n",
            f"{folder}cpu.cfs_period_us": "100000\n",
        }
    cgroup = f"9:memory:/elsewhere\n2:cpu,cpuacct:{group}\n0::/ignored\n"
    return machine(root, cgroup, MEMORY + FIRST.format(base=base), **files)


def test_version_2_in_a_container(tmp_path):
    assert quota(machine(tmp_path, "0::/\n", SECOND, **{"cpu.max": "150000 100000\n"})) == 1.5


def test_version_2_the_smallest_on_the_path(tmp_path):
    root = second(
        tmp_path,
        "0::/pod/job/task\n",
        pod="max 100000",
        pod__job="50000 25000",
        pod__job__task="max 9",
    )
    assert quota(root) == 2
    (root / "sys/fs/cgroup/pod/cpu.max").write_text("100000 100000")
    assert quota(root) == 1


def test_version_2_another_group_says_nothing(tmp_path):
    assert quota(second(tmp_path, "0::/mine\n", mine="max 100000", other="1000 100000")) is None


def test_version_1_nested(tmp_path):
    root = first(tmp_path, "/pod/job", pod=300_000, pod__job=-1)
    assert quota(root) == 3


def test_version_1_in_a_container_whose_group_has_another_name_outside(tmp_path):
    assert quota(first(tmp_path, "/docker/abc", base="/docker/abc", mount=200_000)) == 2


def test_a_group_that_lies_outside_of_the_namespace(tmp_path):
    assert quota(first(tmp_path, "/../other", mount=250_000)) == 2.5


@pytest.mark.parametrize("content", ["", "max", "garbage here", "0 0", "-1 100000", "1 2 3"])
def test_no_limit_or_none_that_can_be_read(tmp_path, content):
    assert quota(machine(tmp_path, "0::/\n", SECOND, **{"cpu.max": content})) is None


def test_a_machine_without_control_groups(tmp_path):
    assert quota(tmp_path) is None


@pytest.mark.parametrize(
    ("here", "limit", "used"),
    [
        (64, "max 100000", 64),
        (64, "250000 100000", 2),
        (64, "50000 100000", 1),
        (2, "800000 100000", 2),
    ],
)
def test_cores_are_the_smaller_of_affinity_and_quota(monkeypatch, tmp_path, here, limit, used):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(here)), raising=False)
    assert cores(machine(tmp_path, "0::/\n", SECOND, **{"cpu.max": limit})) == used


def test_where_there_is_no_affinity_all_cores_count(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores(tmp_path) == 5


# of a model

BIG = nn.Linear(1000, 100, bias=False)  # with latents of 1000 x 1000 exactly at the line
LATENT = (4, 1000, 1000)


@pytest.fixture
def five(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 5)


def test_the_line_between_small_and_not(five):
    assert BIG.weight.numel() * 1000 * 1000 == SMALL
    with threads(7):
        assert suited(BIG, LATENT, {}) == 5
        assert suited(BIG, (4, 1000, 999), {}) == 1


def test_no_more_than_pytorch_would_take(five):
    with threads(3):
        assert suited(BIG, LATENT, {}) == 3


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_what_the_user_says_stands(five, name):
    assert suited(BIG, LATENT, {name: "2"}) is None
    assert suited(BIG, LATENT, {name: ""}) is not None


def test_the_number_is_put_back_after_an_error():
    before = torch.get_num_threads()

    def fails() -> None:
        with threads(before + 2):
            assert torch.get_num_threads() == before + 2
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before
