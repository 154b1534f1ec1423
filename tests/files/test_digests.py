"""Digests of files, read in pieces."""

from __future__ import annotations

import hashlib

import pytest

from findnemo.files.digests import PIECE, sha256


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1])
def test_the_digest_is_that_of_all_bytes(tmp_path, size):
    data = bytes(k % 251 for k in range(size))
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
