"""Figure 13: noise differences as pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from findnemo.images import noise_pictures
from findnemo.passes import Probe
from findnemo.runs.standing import neurons_of
from findnemo.studies.fig13 import SEEDS, fig13


def shown(made):
    """Pictures of the figure, in rows of as many as there are seeds."""
    pictures = [np.asarray(axis.images[0].get_array()) for axis in made.figures["fig13"].axes]
    assert len(pictures) % SEEDS == 0
    return [pictures[k : k + SEEDS] for k in range(0, len(pictures), SEEDS)]


def test_rows_are_of_a_caption_of_each_type_with_its_neurons_on_and_off(bench):
    rows = shown(fig13(bench))
    kinds = {c.type: c for c in reversed(bench.memorized_captions())}
    assert len(rows) == 2 * len(kinds) + 1
    expected = []
    for kind in dict.fromkeys(c.type for c in bench.memorized_captions()):
        caption = kinds[kind]
        probe = Probe(bench.model, caption.text, bench.calibration.settings, range(SEEDS))
        expected += [
            noise_pictures(probe.deltas()),
            noise_pictures(probe.deltas(neurons_of(caption))),
        ]
    probe = Probe(bench.model, bench.others[0], bench.calibration.settings, range(SEEDS))
    expected.append(noise_pictures(probe.deltas()))
    for row, pictures in zip(rows, expected, strict=True):
        for one, other in zip(row, pictures, strict=True):
            assert np.array_equal(one, np.asarray(other))


def test_without_other_captions_there_is_no_row_of_them(bench):
    made = fig13(replace(bench, unrelated=()))
    labels = [text.get_text() for text in made.figures["fig13"].texts]
    assert "not\nmemorized" not in labels
    assert len(shown(made)) == 4
