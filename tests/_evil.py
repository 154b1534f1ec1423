"""What a pickle can do."""

from pathlib import Path


class Evil:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")
