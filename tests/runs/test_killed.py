"""kill -9 at any moment: after the same audit again nothing is lost, nothing there twice,
nothing different, nothing left over.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import _killing as killing
import pytest
from _waiting import until

from findnemo import demo
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Work, audit, start

AUDIT = [
    *(sys.executable, "-m", "findnemo", "audit", "demo", "--limit", "6"),
    *("--images", "1", "--image-steps", "3", "--no-report"),
]
QUIET: dict[str, Any] = {
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "env": os.environ | {"OMP_NUM_THREADS": "1"},
}


@pytest.fixture(scope="module")
def small() -> killing.Audit:
    return killing.small_audit()


def told(counts: Counter[str], capsys) -> None:
    with capsys.disabled():
        kills = counts.total() - counts["runs compared"]
        print(
            f"\n{kills} kills, {counts['runs compared']} runs compared with an undisturbed one,"
            f" nothing lost: {dict(counts)}"
        )


@pytest.mark.slow
def test_an_audit_killed_ten_times_and_more_ends_as_if_nothing_had_happened(
    tmp_path, small, capsys
):
    counts = killing.kill_often(small, tmp_path, kills=12, seed=3)
    told(counts, capsys)
    assert counts["at a moment"] >= 3
    assert counts.total() - counts["runs compared"] == 12


@pytest.mark.slow
@pytest.mark.timeout(3000)  # a quarter of an hour on one core; the limit tells a hang
def test_an_audit_of_the_demo_model_killed_a_hundred_times(tmp_path, demo_model, capsys):
    prompts = [demo.memorized()[k] for k in (0, 5, 20)] + [
        Prompt(text, 100 + k) for k, text in enumerate(demo.unrelated()[:3])
    ]
    plan = AuditPlan(
        images=2, image_settings=ImageSettings(steps=3, guidance=2.0), quality_prompts=2
    )

    def work(out: Path) -> None:
        with start(out, demo_model, demo.calibration(), plan) as run:
            audit(Work(run, demo_model, demo.calibration(), plan, demo.judges()), prompts)
        killing.finish(out)

    counts = killing.kill_often(work, tmp_path, kills=100, seed=11)
    told(counts, capsys)
    assert counts.total() - counts["runs compared"] == 100


@pytest.mark.slow
def test_workers_and_drivers_of_a_real_audit_killed_in_turn(tmp_path, capsys):
    """`findnemo audit demo --workers 2` as processes: its workers are killed, then the driver
    itself, then workers again.
    """
    pytest.importorskip("ray")
    random = Random(5)
    counts = Counter[str]()
    subprocess.run([*AUDIT, "--out", str(tmp_path / "whole")], check=True, **QUIET)
    for out in (tmp_path / "one", tmp_path / "two"):
        again = [*AUDIT, "--workers", "2", "--out", str(out)]
        for victim in ("a worker", "the driver", "a worker", "a worker", "the driver"):
            goal = min(answered(out) + random.randint(0, 4), answered(tmp_path / "whole"))
            process = subprocess.Popen(again, **QUIET)
            counts[victim] += kill_one(
                process, victim, lambda out=out, goal=goal: answered(out) >= goal, random
            )
            process.wait(timeout=300)
        subprocess.run(again, check=True, timeout=300, **QUIET)
        assert answers(out) == answers(tmp_path / "whole")
        counts["runs compared"] += 1
    told(counts, capsys)
    assert counts["a worker"] >= 3
    assert counts["the driver"] >= 2


@pytest.mark.slow
def test_a_machine_of_a_cluster_that_dies_costs_nothing(tmp_path, capsys):
    """`findnemo audit demo --ray ADDRESS` on a cluster of three nodes, one of which is killed
    with all that runs on it.
    """
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    subprocess.run([*AUDIT, "--out", str(tmp_path / "whole")], check=True, **QUIET)
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        other = cluster.add_node(**node)
        _ = cluster.add_node(**node)
        again = [
            *AUDIT,
            "--device",
            "cpu",
            "--ray",
            cluster.address,
            "--workers",
            "3",
            "--out",
            str(tmp_path / "run"),
        ]
        process = subprocess.Popen(again, **QUIET)
        assert until(lambda: answered(tmp_path / "run") >= 2, still=lambda: process.poll() is None)
        assert process.poll() is None
        cluster.remove_node(other, allow_graceful=False)
        assert process.wait(timeout=300) == 0
    finally:
        cluster.shutdown()
    assert answers(tmp_path / "run") == answers(tmp_path / "whole")
    told(Counter({"a machine with its worker": 1, "runs compared": 1}), capsys)


def answered(out: Path) -> int:
    """Results that are committed."""
    if not (out / "run.sqlite").exists():
        return 0
    with (
        closing(sqlite3.connect(f"file:{out / 'run.sqlite'}?mode=ro", uri=True)) as db,
        suppress(sqlite3.OperationalError),
    ):
        return int(db.execute("SELECT count(*) FROM results").fetchone()[0])
    return 0


def kill_one(
    process: subprocess.Popen, victim: str, reached: Callable[[], bool], random: Random
) -> bool:
    """Kill one of two workers, or their driver, once both work and something is reached; whether
    it was killed before it was done.
    """

    def works() -> bool:
        return process.poll() is None

    if not until(lambda: len(workers(process)) == 2 and reached(), works, 0.2):
        return False
    found = workers(process)
    number = process.pid if victim == "the driver" or not found else random.choice(found)
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)
        return True
    return False


def workers(process: subprocess.Popen) -> list[int]:
    """The numbers of the processes of Ray that work for a command."""
    import psutil

    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:  # it has ended
        return []
    return [p.pid for p in below if "ray::Worker" in title(p)]


def title(process: Any) -> str:
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def answers(out: Path) -> dict:
    whole = killing.outcome(out)
    return {name: whole[name] for name in ("captions", "results", "csv", "pictures")}
