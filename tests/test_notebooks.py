"""The notebooks run as they are, and are stored without outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) > 3
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert path.stat().st_size < 20_000


def texts(notebook) -> str:
    """All that the cells printed or gave, as text."""
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in outputs(notebook)
    )


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(notebook) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


SAYS = {
    "start": ("1 of the 1 found are among", "under tau", 3),
    "compare": ("bright-ending", "random-1", 2),
    "fine_tune": ("stopped at step", "of 28 images are copies", "findnemo audit demo --lora", 4),
}
LIMIT = 180  # seconds for a notebook: it only ends one that hangs
SECONDS = {"fine_tune": 480}  # it trains
LIMITED = [
    pytest.param(path, marks=pytest.mark.timeout(SECONDS.get(path.stem, LIMIT)), id=path.stem)
    for path in NOTEBOOKS
]


@pytest.mark.slow
@pytest.mark.parametrize("path", LIMITED)
def test_a_notebook_runs(path, monkeypatch, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    notebook = nbformat.read(path, as_version=4)
    beside = {"metadata": {"path": str(tmp_path)}}  # a notebook may write into its folder
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=beside).execute()
    *words, shown = SAYS[path.stem]
    assert all(word in texts(notebook) for word in words)
    assert pictures(notebook) == shown
    if path.stem == "start":
        shown_as_html = "".join(o.get("data", {}).get("text/html", "") for o in outputs(notebook))
        assert "Scores of hold-out captions" in shown_as_html
        assert "Likeness to the copy" in shown_as_html
