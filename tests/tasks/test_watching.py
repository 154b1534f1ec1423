"""A watch judges each checkpoint as it comes, and ends when it is told to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from findnemo import tasks
from findnemo.tasks import FineTune, Source, watching
from findnemo.tasks.tuned_input import Candidate
from findnemo.tasks.watching import new_candidates


@pytest.mark.parametrize(("stop_at_copies", "judged"), [(True, 2), (False, 3)])
def test_a_watch_may_end_at_the_first_copies(stop_at_copies, judged, tmp_path, monkeypatch):
    verdicts = ("does not copy", "copies", "does not copy")
    coming = [Candidate(verdict, tasks.Source("base")) for verdict in verdicts]
    stubs = {
        "check": lambda *given: None,
        "material": lambda *given: SimpleNamespace(notes=(), subject=None, root=tmp_path),
        "Looks": lambda *given: SimpleNamespace(at=lambda one, base: {"verdict": one.name}),
        "new_candidates": lambda *given: iter(coming),
        "summary": lambda subject, variants, *others: {"variants": [*variants]},
        "write_table": lambda *given: None,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(watching, name, stub)
    source = tasks.Source("base", lora=str(tmp_path))
    found = tasks.watch(source, tasks.FineTune("p"), tmp_path, stop_at_copies=stop_at_copies)
    assert [about["variants"][-1]["verdict"] for about in found] == list(verdicts[:judged])


def test_a_checkpoint_is_judged_once_its_size_stays_and_again_when_it_changes(
    tmp_path, monkeypatch
):
    """Looks at the directory, by what is there at each: name -> bytes."""
    looks = [{}, {"a": 0}, {"a": 5}, {"a": 9}, {"a": 9}, {"a": 9, "b": 3}, {"a": 9, "b": 3}]
    looks += [{"a": 9}, {"a": 12, "b": 3}, {"a": 12, "b": 3}, {"a": 12, "b": 3}]
    now: dict[str, int] = {}

    def stop():
        """Asked before each look: what the training has written by then."""
        if not looks:
            return True
        now.clear()
        now.update(looks.pop(0))
        for file in tmp_path.iterdir():
            file.unlink()
        for name, size in now.items():
            (tmp_path / f"{name}.safetensors").write_bytes(bytes(size))
        return False

    monkeypatch.setattr(watching, "POLL", 0.0)
    source = Source("base", lora=str(tmp_path))
    coming = new_candidates(source, FineTune("photos"), tasks.Listener(stop=stop), None)
    assert [(one.name, now[one.name]) for one in coming] == [("a", 9), ("b", 3), ("a", 12)]


def test_a_file_without_bytes_does_not_keep_the_watch_waiting(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    source = Source("base", lora=str(tmp_path))
    assert list(new_candidates(source, FineTune("photos"), tasks.Listener(), 0.0)) == []
