"""One run, however it is divided: serial, by several workers that die, by Ray, in shards;
and tables of any length.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from _audited import PLAN, PROMPTS, SETTINGS, TEXTS, outcome, small_model
from _pool import FakePool

import findnemo
from findnemo.calibration import Rule
from findnemo.errors import InputError, MismatchError
from findnemo.prompts import Prompt
from findnemo.runs import (
    Facts,
    Loader,
    Run,
    Shard,
    Work,
    answer,
    audit,
    calibrate_with,
    counts,
    enter,
    merge,
    repair,
    start,
    write_results,
)
from findnemo.runs.trust import vouch, vouched
from findnemo.runs.worklist import groups, list_open

HOLDOUT = [f"hold out {k}" for k in range(130)]


@pytest.fixture(scope="module", autouse=True)
def small_groups():
    """Two captions share passes: three groups."""
    patch = pytest.MonkeyPatch()
    patch.setattr("findnemo.passes.deltas.GROUP", 2)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(place):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield findnemo.load(place)  # as workers do
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def calibration(model):
    made = findnemo.calibrate(model, HOLDOUT[:3], settings=SETTINGS)
    scores = sorted(findnemo.score(model, text, settings=SETTINGS) for text in TEXTS)
    return replace(made, tau=(scores[2] + scores[3]) / 2)


def run_with(out, model, calibration, pool=None, shard=None, prompts=PROMPTS):
    with start(out, model, calibration, PLAN, shard) as run:
        enter(run, prompts, shard, size=2)
        answer(Work(run, model, calibration, PLAN), pool=pool)
        write_results(run)
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model, calibration):
    return run_with(tmp_path_factory.mktemp("whole") / "run", model, calibration)


def everything(out: Path) -> dict:
    """Results, numbers of captions, files and the table of a run, to the
    last bit; without seconds.
    """
    with Run.open(out) as run:
        ids = run.query("SELECT id, text, row, type FROM captions ORDER BY id")
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)]
    files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.png"))}
    return outcome(out) | {"ids": ids, "csv": rows, "files": files}


# Workers


@pytest.mark.first(1)
@pytest.mark.parametrize(("size", "deaths", "aim"), [(1, 0, 0.0), (3, 2, 0.0), (5, 2, 60.0)])
def test_the_same_to_the_last_bit_whoever_answers(
    tmp_path, model, calibration, whole, size, deaths, aim
):
    pool = FakePool(model, size, seed=size, deaths=deaths, aim=aim)
    want = everything(whole)
    assert (
        len(want["files"]) == 3 * 9
    )  # of three memorized captions four images, four noise differences and a sheet
    assert everything(run_with(tmp_path / "run", model, calibration, pool)) == want
    assert pool.deaths == 0


@pytest.mark.slow
def test_a_caption_that_kills_workers_is_set_aside_and_the_rest_is_answered(
    tmp_path, model, calibration, whole
):
    pool = FakePool(
        model,
        2,
        deadly=lambda item: (
            item[0].text == TEXTS[1] if isinstance(item[0], findnemo.runs.Caption) else False
        ),
    )
    out = run_with(tmp_path / "run", model, calibration, pool)
    have = outcome(out)["captions"]
    want = outcome(whole)["captions"]
    results, failed = have.pop(TEXTS[1])
    assert results == {}
    assert "workers died over it alone" in failed["detect"]
    del want[TEXTS[1]]
    assert {t: set(r) for t, (r, _) in have.items()} == {t: set(r) for t, (r, _) in want.items()}
    with_its_neighbour = {t: r for t, (r, _) in have.items() if t != TEXTS[0]}
    assert with_its_neighbour == {t: r for t, (r, _) in want.items() if t != TEXTS[0]}
    have, want = (
        everything(run) for run in (run_with(out, model, calibration), whole)
    )  # a later run tries it again
    alone, shared = (
        run["captions"].pop(TEXTS[0])[0] for run in (have, want)
    )  # its neighbour was answered by itself: other rounding
    assert alone["detect"].pop("score") == pytest.approx(shared["detect"].pop("score"), abs=1e-5)
    assert alone == shared
    assert have == want


@pytest.mark.slow
def test_stopped_between_tasks_and_gone_on_with(tmp_path, model, calibration, whole):
    asked = iter([False] * 4 + [True] * 1000)
    with start(tmp_path / "run", model, calibration, PLAN) as run:
        enter(run, PROMPTS, size=2)
        work = Work(run, model, calibration, PLAN)
        assert not answer(work, pool=FakePool(model, 2), stop=lambda: next(asked))
        done = run.query("SELECT COUNT(*) FROM results")[0][0]
    assert 0 < done < 12
    assert everything(run_with(tmp_path / "run", model, calibration)) == everything(whole)


@pytest.mark.slow
def test_calibration_by_parts_is_the_same_to_the_last_bit(model, tmp_path):
    want = findnemo.calibrate(model, HOLDOUT, settings=SETTINGS)
    wide = findnemo.calibrate(
        model, HOLDOUT, settings=SETTINGS, precision=1.0
    )  # settled after the first chunk
    for made, alone in (
        (calibrate_with(FakePool(model, 3, seed=1), tmp_path / "a", HOLDOUT, SETTINGS), want),
        (
            calibrate_with(
                FakePool(model, 3, seed=2, deaths=2),
                tmp_path / "b",
                HOLDOUT,
                SETTINGS,
                Rule(precision=1.0),
            ),
            wide,
        ),
    ):
        assert (made.tau, made.count, made.prompts) == (alone.tau, alone.count, alone.prompts)
        assert torch.equal(made.trajectories, alone.trajectories)
        assert all(
            torch.equal(made.mean[n], alone.mean[n]) and torch.equal(made.std[n], alone.std[n])
            for n in alone.mean
        )
    assert (len(want.trajectories), len(wide.trajectories)) == (130, 64)


# Shards


@pytest.fixture(scope="module")
def three(tmp_path_factory, model, calibration):
    place = tmp_path_factory.mktemp("three")
    return [run_with(place / f"run-{k}", model, calibration, shard=Shard(k, 3)) for k in (1, 2, 3)]


@pytest.fixture
def shards(three, tmp_path):
    """Copies that a test may change."""
    return [shutil.copytree(one, tmp_path / one.name) for one in three]


def test_merged_shards_are_the_undivided_run(tmp_path, model, calibration, whole, shards):
    made = merge(tmp_path / "run", reversed(shards))
    assert (made.captions, made.open, made.failed, made.missing) == (6, 0, 0, ())
    have = everything(tmp_path / "run")
    want = everything(whole)
    assert have.pop("quality") is None  # it looks at all neurons together
    del want["quality"]
    assert have == want
    assert everything(run_with(tmp_path / "run", model, calibration)) == everything(whole)
    assert not list(tmp_path.glob(".*.part"))


def test_a_missing_shard_is_named_and_its_captions_find_their_places_later(
    tmp_path, model, calibration, whole, shards
):
    with pytest.raises(InputError, match=r"shards 2/3 are missing"):
        merge(tmp_path / "run", [shards[0], shards[2]])
    assert not (tmp_path / "run").exists()
    assert merge(tmp_path / "run", [shards[0], shards[2]], partial=True).missing == ("2/3",)
    assert everything(run_with(tmp_path / "run", model, calibration)) == everything(whole)


def test_what_does_not_belong_together_is_refused(tmp_path, model, calibration, whole, shards):
    other = run_with(
        tmp_path / "other",
        model,
        calibration,
        shard=Shard(3, 3),
        prompts=[*PROMPTS, Prompt("more", 7)],
    )
    with start(
        tmp_path / "strict", model, replace(calibration, tau=0.99), PLAN, Shard(3, 3)
    ) as run:
        enter(run, PROMPTS, Shard(3, 3), size=2)
    for given, message in (
        ([*shards[:2], other], "another table"),
        ([*shards[:2], tmp_path / "strict"], r"different settings .*tau"),
        ([*shards, shards[0]], "in use|are both shard 1/3"),
        ([whole], "was made without --shard"),
        ([], "no shards"),
    ):
        with pytest.raises((InputError, MismatchError), match=message):
            merge(tmp_path / "run", given)
        assert not (tmp_path / "run").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        merge(tmp_path / "full", shards)
    with pytest.raises(MismatchError, match="another table"):
        run_with(shards[0], model, calibration, shard=Shard(1, 3), prompts=PROMPTS[::-1])


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/0", "a/b", "1", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="give i/n"):
        Shard.of(text)


# Tables of any length


def test_a_table_enters_whole_or_not_at_all(tmp_path):
    def broken():
        yield from PROMPTS
        raise InputError("row 7")

    with Run.create(tmp_path / "run", {}) as run:
        with pytest.raises(InputError, match="row 7"):
            enter(run, broken())
        assert counts(run)["captions"] == 0
        entered = enter(run, [*PROMPTS, replace(PROMPTS[0], row=7)], limit=None)
        assert (entered.captions, entered.repeats, entered.some) == (6, 1, ((7, 1),))
        assert enter(run, PROMPTS, limit=2).captions == 2
        assert list_open(run, "detect", size=2) == (2, 1)
        assert [[c.id for c in group] for group in groups(run, 2)] == [[1, 2]]


def fake_stage(out, rows):
    """Peak of memory while a table enters and is answered by workers that do nothing."""
    table = (
        Prompt(f"caption number {k} of a long table of captions", k) for k in range(1, rows + 1)
    )
    tracemalloc.start()
    with Run.create(out, {"shard": "1/1"}) as run:
        enter(run, table)
        from functools import partial

        from findnemo.runs import Dispatch, Unit, drive
        from findnemo.runs.work import commit

        captions, count = list_open(run, "detect", size=32)
        units = (Unit(tuple((c, None) for c in group)) for group in groups(run, 32))
        for event in drive(
            FakePool(None, 4, send=False), partial(nothing), Dispatch(units, count, 4, 0.0)
        ):
            commit(run, "detect", [event])
        assert captions == rows
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def nothing(model, items):
    from findnemo.runs import Answer

    return [Answer({"memorized": False, "score": 0.1, "tau": 0.4, "evaluations": 2}) for _ in items]


@pytest.mark.slow
def test_memory_is_the_same_for_five_thousand_captions_and_for_fifty_thousand(tmp_path):
    small, large = (fake_stage(tmp_path / str(rows), rows) for rows in (5_000, 50_000))
    assert large < 1.2 * small
    assert large < 2**20


# Ray


@pytest.fixture(scope="module")
def ray_pool(place):
    pytest.importorskip("ray")
    from findnemo.runs.cluster import RayPool

    with RayPool(Loader(str(place), device="cpu"), workers=2) as pool:
        yield pool


@pytest.mark.slow
def test_ray_workers_give_the_same_and_one_killed_in_mid_task_loses_nothing(
    tmp_path, ray_pool, model, calibration, whole
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
    assert everything(tmp_path / "run") == everything(whole)
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


def test_a_live_pipeline_cannot_be_sent_to_workers():
    with pytest.raises(InputError, match="live"):
        Loader.of(small_model())


def test_without_ray_the_way_out_is_named(monkeypatch):
    from findnemo.runs import cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install findnemo\[ray\]"):
        cluster.RayPool(Loader("demo"), workers=2)


@pytest.mark.parametrize(("mode", "asks"), [(None, True), ("token", False)])
def test_a_cluster_that_does_not_answer_is_named_with_the_likely_reason(monkeypatch, mode, asks):
    from findnemo.runs.cluster import _connect

    def init(**options):
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(InputError, match="cluster at head:6379: Failed to connect") as problem:
        _connect(SimpleNamespace(is_initialized=lambda: False, init=init), "head:6379", None)
    assert ("RAY_AUTH_MODE=token" in str(problem.value)) is asks


def test_what_a_repair_of_a_shard_calls_lost_is_its_own(shards):
    """Captions of other shards are not there, and were never."""
    path = shards[1]
    with closing(sqlite3.connect(path / "run.sqlite", isolation_level=None)) as db:
        (number,) = db.execute("SELECT id FROM captions ORDER BY id").fetchone()
        db.execute("UPDATE captions SET row = row + 1 WHERE id = ?", (number,))
    (path / "backup.sqlite").unlink()
    lost = repair(path).lost
    assert f"caption {number}" in lost
    assert [line for line in lost if line.startswith("caption ")] == [f"caption {number}"]


def test_a_run_merged_from_ones_own_shards_is_ones_own(tmp_path, shards):
    for path in shards:
        with Run.create(path, Run.open(path).meta("settings")) as run:
            vouch(run)
    merge(tmp_path / "run", shards)
    with Run.open(tmp_path / "run") as merged:
        assert vouched(merged)


@pytest.mark.parametrize("settings", [5, {"shard": 5}, {"shard": "9/3"}, {"shard": "1/2"}])
def test_a_repair_stands_settings_of_any_kind(settings):
    from findnemo.runs.repair import _holds

    meta = {
        ("settings",): (1, ("settings", json.dumps(settings))),
        ("table",): (2, ("table", '{"group": 0}')),
    }
    assert _holds(meta)(7)


def test_a_cluster_without_a_gpu_is_refused_unless_a_cpu_is_asked_for(monkeypatch):
    """Right after a cluster is started its GPUs may not be there yet: one slow
    worker is nobody's wish.
    """
    from findnemo.runs import cluster

    closed = []
    fake = SimpleNamespace(
        cluster_resources=lambda: {"CPU": 4.0}, shutdown=lambda: closed.append(1)
    )
    monkeypatch.setattr(cluster, "_imported", lambda: fake)
    monkeypatch.setattr(cluster, "_connect", lambda *given: True)
    with pytest.raises(
        InputError, match=r"the cluster at head:6379 has no GPU, or none yet.*--device cpu"
    ):
        cluster.RayPool(Loader("demo"), address="head:6379")
    assert closed
