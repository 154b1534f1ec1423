"""A repair keeps what is sound, and opens what is damaged again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from findnemo.errors import InputError
from findnemo.images import save_png
from findnemo.prompts import Prompt
from findnemo.runs import Run, repair
from findnemo.runs.store import checksum

PROMPTS = [
    Prompt(f"caption {k} " + "of a picture " * (k % 5), k, "VM" if k % 3 else None)
    for k in range(1, 41)
]


def picture(path: Path) -> Path:
    return save_png(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)),
        path,
    )


@pytest.fixture
def pictured(tmp_path) -> Path:
    path = tmp_path / "run"
    with Run.create(path, {"images": 2}) as run:
        for number in run.add(PROMPTS[:3]):
            run.record(number, "verify", {"same_seed": 0.1}, 1)
            run.record(number, "compare:none", {"images": 2}, 1)
            run.record(number, "compare:embedding:target=3.0", {"images": 2}, 1)
            run.record(number, "compare@1a2b3c4d:none", {"images": 10}, 1)
        for caption in run.captions():
            picture(path / "compare" / caption.slug / "embedding-target-3.0.png")
            picture(path / "compare@1a2b3c4d" / caption.slug / "none.png")
            for name in ("before-00", "before-01", "after-00", "after-01"):
                picture(path / "images" / caption.slug / f"{name}.png")
                picture(path / "noise" / caption.slug / f"{name}.png")
            picture(path / "sheets" / f"{caption.slug}.png")
            picture(path / "compare" / caption.slug / "none.png")
    return path


@pytest.mark.parametrize(
    ("how", "folder", "stage"),
    [
        ("damaged", "images", "verify"),
        ("missing", "images", "verify"),
        (
            "damaged",
            "noise",
            "verify",
        ),  # a missing one cannot be told: how many there are depends on the seeds
        ("damaged", "compare", "compare:none"),
        ("missing", "compare", "compare:none"),
        ("damaged", "compare@1a2b3c4d", "compare@1a2b3c4d:none"),
        ("missing", "compare@1a2b3c4d", "compare@1a2b3c4d:none"),
    ],
)
def test_results_whose_pictures_are_damaged_or_missing_are_opened_again(
    pictured, how, folder, stage
):
    file = sorted((pictured / folder).rglob("*.png"))[-1]  # of the third caption
    file.unlink() if how == "missing" else file.write_bytes(file.read_bytes()[:-9])
    found = repair(pictured)
    assert found.open == (f"the result '{stage}' of caption 3",)
    assert not found.kept
    assert not file.exists()
    with Run.open(pictured) as run:
        assert [stage in c.results for c in run.captions()] == [True, True, False]
    assert repair(pictured).open == ()


def test_a_whole_run_is_left_as_it_is(pictured):
    before = {
        p: p.read_bytes() for p in sorted(pictured.rglob("*")) if p.is_file() and p.name != ".lock"
    }
    assert "nothing is damaged" in repair(pictured).text()
    assert {
        p: p.read_bytes() for p in sorted(pictured.rglob("*")) if p.is_file() and p.name != ".lock"
    } == before


@pytest.mark.parametrize("settings", [{"shard": 5}, {"shard": "9/3"}, {"shard": "1/2"}])
def test_a_repair_stands_settings_of_any_kind(tmp_path, settings):
    """Where settings do not say which captions a shard has, it is taken to have had all."""
    assert repair(damaged(tmp_path / "run", settings)).lost == ("caption 2",)


def test_a_repair_names_settings_that_are_none(tmp_path):
    with pytest.raises(InputError, match="'settings' is not what a run keeps"):
        repair(damaged(tmp_path / "run", 5))


def damaged(path: Path, settings: Any) -> Path:
    """A run with such settings, whose second caption does not fit its checksum."""
    with Run.create(path, {}) as run:
        run.add(PROMPTS[:3])
        values = {"settings": settings, "table": {"captions": 3, "digest": "0", "group": 0}}
        for key, value in values.items():
            stored = (key, json.dumps(value))
            sealed = (*stored, checksum("meta", stored))
            run.query("INSERT OR REPLACE INTO meta (key, value, checksum) VALUES (?, ?, ?)", sealed)
    with closing(sqlite3.connect(path / "run.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE captions SET row = 9 WHERE id = 2")
    (path / "backup.sqlite").unlink(missing_ok=True)
    return path
