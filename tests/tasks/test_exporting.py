"""Exports in Python."""

from __future__ import annotations

import pytest
import torch

from findnemo import tasks
from findnemo.errors import InputError


def test_an_export_and_its_check_take_threads(finished_run, tmp_path, monkeypatch):
    from findnemo.tasks import exporting

    seen = []
    for name in ("write_each", "deviations"):
        own = getattr(exporting.forms_of, name)
        monkeypatch.setattr(
            exporting.forms_of,
            name,
            lambda *given, own=own: (seen.append(torch.get_num_threads()), own(*given))[1],
        )
    before = torch.get_num_threads()
    one = tasks.Workers(threads=before + 1)
    tasks.export(finished_run, out=tmp_path / "clean", workers=one)
    assert tasks.check_export(finished_run, tmp_path / "clean", workers=one) == []
    assert seen == [before + 1] * 2
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="--force"):
        tasks.export(finished_run, out=tmp_path / "clean")
    tasks.export(finished_run, out=tasks.Writing(tmp_path / "clean", force=True))
    for task in (tasks.export, tasks.check_export):
        with pytest.raises(InputError, match="runs in one process"):
            task(finished_run, tmp_path / "clean", workers=tasks.Workers(workers=2))
