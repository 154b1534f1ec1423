"""Workers of Ray: on this machine, killed, and on clusters that do not answer."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from _audited import PLAN, PROMPTS
from _divided import everything

from findnemo.errors import InputError
from findnemo.runs import Facts, Loader, Work, audit, start, write_results
from findnemo.runs.cluster import RayPool

pytestmark = pytest.mark.usefixtures("small_groups")


@pytest.fixture(scope="module")
def ray_pool(saved_model):
    pytest.importorskip("ray")
    with RayPool(Loader(str(saved_model), device="cpu"), workers=2) as pool:
        yield pool


@pytest.mark.slow
def test_ray_workers_give_the_same_and_one_killed_in_mid_task_loses_nothing(
    tmp_path, ray_pool, model, calibration, undivided
):
    assert isinstance(ray_pool.model, Facts)
    assert (ray_pool.model.fingerprint, ray_pool.model.widths()) == (
        model.fingerprint,
        model.widths(),
    )
    before = ray_pool.replaced
    victim = ray_pool.pids[0]
    killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
    killer.start()
    with start(tmp_path / "run", ray_pool.model, calibration, PLAN) as run:
        audit(Work(run, ray_pool.model, calibration, PLAN), PROMPTS, pool=ray_pool)
        write_results(run)
    killer.join()
    assert everything(tmp_path / "run") == everything(undivided)
    deadline = time.monotonic() + 60
    while ray_pool.alive < 2 and time.monotonic() < deadline:
        ray_pool.wait()
    assert ray_pool.replaced - before <= 1
    assert (
        victim not in ray_pool.pids or ray_pool.replaced == before
    )  # killed after its last task: found out at the next


@pytest.mark.slow
def test_a_step_that_kills_its_ray_worker_is_set_aside(ray_pool):
    import ray

    from findnemo.runs import Dispatch, Unit, drive

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    units = [Unit((k,)) for k in range(3)]
    events = list(drive(ray_pool, dies_over_one, Dispatch(iter(units), 3, ray_pool.size, 0.0)))
    assert sorted((e.unit.items[0], e.answers) for e in events) == [(0, [0]), (1, []), (2, [4])]
    assert "died over it alone" in next(e.aside for e in events if e.aside)


def dies_over_one(model, items):
    if items == (1,):
        os.kill(os.getpid(), signal.SIGKILL)
    return [item * item for item in items]


def test_without_ray_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install findnemo\[ray\]"):
        RayPool(Loader("demo"), workers=2)


def ray_that(monkeypatch, **does):
    """Ray is installed, has no open session, and does so."""
    fake = SimpleNamespace(is_initialized=lambda: False, exceptions=SimpleNamespace(), **does)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", fake.exceptions)


@pytest.mark.parametrize(("mode", "asks"), [(None, True), ("token", False)])
def test_a_cluster_that_does_not_answer_is_named_with_the_likely_reason(monkeypatch, mode, asks):
    def init(**options):
        raise ConnectionError("Failed to connect to Ray cluster")

    ray_that(monkeypatch, init=init)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(InputError, match="cluster at head:6379: Failed to connect") as problem:
        RayPool(Loader("demo"), address="head:6379")
    assert ("RAY_AUTH_MODE=token" in str(problem.value)) is asks


def test_a_cluster_without_a_gpu_is_refused_unless_a_cpu_is_asked_for(monkeypatch):
    """Right after a cluster is started its GPUs may not be there yet: one slow
    worker is nobody's wish.
    """
    closed = []
    ray_that(
        monkeypatch,
        init=lambda **options: None,
        cluster_resources=lambda: {"CPU": 4.0},
        shutdown=lambda: closed.append(1),
    )
    with pytest.raises(
        InputError, match=r"the cluster at head:6379 has no GPU, or none yet.*--device cpu"
    ):
        RayPool(Loader("demo"), address="head:6379")
    assert closed
