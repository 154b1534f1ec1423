"""`make audit`: nothing looked up is not nothing found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "known_holes.py"
WHOLE = {"name": "a", "version": "1.0", "vulns": []}
HOLED = {
    "name": "b",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "GHSA-2", "fix_versions": []}],
}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "status", "says"),
    [
        (
            [WHOLE, SKIPPED],
            0,
            ["1 package looked up: 0 known holes", "1 package could not be looked up: c"],
        ),
        (
            [WHOLE, HOLED],
            1,
            [
                "b 2.0: PYSEC-1, mended in 2.1",
                "b 2.0: GHSA-2, not mended yet",
                "2 packages looked up: 2 known holes",
            ],
        ),
        ([SKIPPED] * 30, 2, ["was not reached, nothing was looked up"]),
        ([WHOLE, *[SKIPPED] * 30], 0, ["30 packages could not be looked up", "and 20 more"]),
        (None, 2, ["was not reached, nothing was looked up"]),
    ],
)
def test_the_status_and_the_words_follow_what_was_looked_up(tmp_path, packages, status, says):
    if packages is not None:
        (tmp_path / "audit.json").write_text(json.dumps({"dependencies": packages, "fixes": []}))
    done = subprocess.run(
        [sys.executable, RECIPE, tmp_path / "audit.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert [text for text in says if text not in done.stdout] == []
