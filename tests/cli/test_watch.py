"""The command `watch`."""

from __future__ import annotations

from _command import cli
from _refused import refused


def test_watch_is_refused_without_pictures_a_directory_and_a_lora(place, tmp_path):
    out = ("--out", tmp_path / "out")
    pictures = ("--train-images", tmp_path / "none")
    refused(cli("watch", place / "model", *out), 2, "give --train-images DIR")
    refused(
        cli("watch", place / "model", *out, *pictures), 2, "either --lora, on MODEL, or --tuned"
    )
    lora = ("--lora", tmp_path / "checkpoints")
    refused(cli("watch", place / "model", *out, *pictures, *lora), 2, "is not a directory")
    (tmp_path / "checkpoints").mkdir()
    refused(cli("watch", place / "model", *out, *pictures, *lora), 2, "no training pictures")
    assert not (tmp_path / "out").exists()
