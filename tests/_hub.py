"""A local cache of the hub, made by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import constants


def cached(
    monkeypatch,
    root: Path,
    repository: str,
    directory: Path,
    revision: str = "main",
    commit: str = "c" * 40,
) -> Path:
    """A local cache of the hub that holds a repository."""
    place = root / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / revision).write_text(commit)
    shutil.copytree(directory, place / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    for module in ("huggingface_hub._snapshot_download", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.constants.HF_HUB_CACHE", str(root), raising=False)
    return place
