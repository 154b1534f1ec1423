"""Coverage-guided fuzzing of the files that findnemo reads, beside the tests of `tests/hostile`:
one target until its time is up.

    pip install atheris
    PYTHONPATH=tests:tests/hostile python recipes/coverage_fuzz.py "JSON Lines" -max_total_time=60

Targets are those of `tests/hostile/test_fuzz.py`. A file is read, or refused by a FindnemoError
that names it; anything else ends the run and leaves the file that did it. Arguments after the
target are those of libFuzzer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=[
        "findnemo.prompts",
        "findnemo.neurons",
        "findnemo.files.sizes",
        "findnemo.files.tensors",
    ]
):
    from test_fuzz import TARGETS, told

MOST = 4096  # bytes of a file


def main() -> None:
    name = sys.argv[1]
    options = sys.argv[2:]
    file, _, read = TARGETS[name]
    folder = Path(tempfile.mkdtemp())
    path = folder / file

    def one(data: bytes) -> None:
        path.write_bytes(data)
        told(lambda: read(path), path)
        assert os.listdir(folder) == [file]

    atheris.Setup([sys.argv[0], f"-max_len={MOST}", *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
