"""What a session asks of the app, and its answers as a reader of HTML sees them."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from findnemo.app.edit import Edit
from findnemo.app.events import SessionState, Who, under_edit
from findnemo.neurons import NeuronSet
from findnemo.runs import Run, neurons_of

SILENT = lambda done: None  # noqa: E731
ME = Who("me")


def pixels(image) -> np.ndarray:
    """Height x width x RGB."""
    return np.asarray(image)


def ids(subject) -> dict[str, int]:
    """Caption -> its id in the run."""
    with Run.open(subject.run) as run:
        return {c.text: c.id for c in run.captions()}


def found_for(subject, text: str) -> NeuronSet:
    """The neurons that the audit found for a caption."""
    with Run.open(subject.run) as run:
        return next(neurons_of(c) for c in run.captions() if c.text == text)


def with_edit(text: str, off: NeuronSet, factor: float = 0) -> SessionState:
    """A caption of which some neurons are off, or scaled by another factor."""
    edit = Edit(off) if factor == 0 else Edit(scaled=off, factor=factor)
    return under_edit(SessionState(text), edit)


class Reader(HTMLParser):
    """The tags of a piece of HTML, and the text outside of them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags = set()
        self.text = ""
        self.images = []
        self.alts = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attributes)["src"])
            self.alts.append(dict(attributes)["alt"])

    def handle_data(self, data):
        self.text += data
