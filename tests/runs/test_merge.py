"""Shards of a table become the run that an undivided audit would have made."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from _audited import PLAN, PROMPTS
from _divided import everything, run_with

from findnemo.errors import InputError, MismatchError
from findnemo.prompts import Prompt
from findnemo.runs import Run, Shard, enter, merge, repair, start
from findnemo.runs.trust import vouch, vouched

pytestmark = pytest.mark.usefixtures("small_groups")


@pytest.fixture(scope="module")
def three(tmp_path_factory, model, calibration):
    place = tmp_path_factory.mktemp("three")
    return [run_with(place / f"run-{k}", model, calibration, shard=Shard(k, 3)) for k in (1, 2, 3)]


@pytest.fixture
def shards(three, tmp_path):
    """Copies that a test may change."""
    return [shutil.copytree(one, tmp_path / one.name) for one in three]


def test_merged_shards_are_the_undivided_run(tmp_path, model, calibration, undivided, shards):
    made = merge(tmp_path / "run", reversed(shards))
    assert (made.captions, made.open, made.failed, made.missing) == (6, 0, 0, ())
    have = everything(tmp_path / "run")
    want = everything(undivided)
    assert have.pop("quality") is None  # it looks at all neurons together
    del want["quality"]
    assert have == want
    assert everything(run_with(tmp_path / "run", model, calibration)) == everything(undivided)
    assert not list(tmp_path.glob(".*.part"))


def test_a_missing_shard_is_named_and_its_captions_find_their_places_later(
    tmp_path, model, calibration, undivided, shards
):
    with pytest.raises(InputError, match=r"shards 2/3 are missing"):
        merge(tmp_path / "run", [shards[0], shards[2]])
    assert not (tmp_path / "run").exists()
    assert merge(tmp_path / "run", [shards[0], shards[2]], partial=True).missing == ("2/3",)
    assert everything(run_with(tmp_path / "run", model, calibration)) == everything(undivided)


def test_what_does_not_belong_together_is_refused(tmp_path, model, calibration, undivided, shards):
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
        ([undivided], "was made without --shard"),
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
