"""The path from options to a run: what is checked before any work."""

from __future__ import annotations

from findnemo import tasks


def test_the_training_images_of_a_shipped_model_come_with_it(tmp_path):
    """Its captions lie in no folder, from which their images would be read instead."""
    from findnemo.tasks.path import PATH, Request, ready

    asked = ready(Request("demo", None, tasks.Output(tmp_path), PATH), tasks.Listener())
    assert asked.folder is None
    table = tmp_path / "captions.csv"
    table.write_text("caption\na cat\n", encoding="utf-8")
    assert (
        ready(Request("demo", table, tasks.Output(tmp_path), PATH), tasks.Listener()).folder
        == tmp_path
    )
