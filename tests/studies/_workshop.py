"""Judges and workers that can be sent to other processes, runs to study, and what studies wrote."""

from __future__ import annotations

import csv
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _pool import FakePool

from findnemo.errors import FindnemoError
from findnemo.runs import Work, start
from findnemo.runs.workers import Facts
from findnemo.studies import Study
from findnemo.training.drawing import drawn

OTHERS = ("a boat", "two cups", "night", "a red door")  # captions that nothing memorized


class Pixels:
    """A quick descriptor: 8 x 8 pixels as a unit vector."""

    def __call__(self, images):
        rows = [
            np.asarray(image.convert("RGB").resize((8, 8)), np.float32).ravel() for image in images
        ]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)) - 127.5, dim=1)


class Brightness:
    """A quick CLIP: how bright an image is."""

    embed = staticmethod(Pixels())

    def __call__(self, images, captions):
        return torch.tensor([np.asarray(image, np.float32).mean() / 255 for image in images])


class Sent(FakePool):
    """Workers in this process that get copies of steps and items, as another process would,
    and send copies of answers.
    """

    def __init__(self, model, **options):
        super().__init__(Facts.of(model), **options)
        self.loaded = model
        self.own = {}

    def submit(self, step, task):
        sent = pickle.loads(pickle.dumps(task))
        self.own[sent] = task
        super().submit(step, sent)

    def wait(self):
        facts = self.model
        self.model = self.loaded
        outcomes = super().wait()
        self.model = facts
        return [
            replace(o, task=self.own.pop(o.task), results=pickle.loads(pickle.dumps(o.results)))
            for o in outcomes
        ]


class Made(NamedTuple):
    """All studies of a run: what they returned, the folder that they wrote, and the run."""

    studies: dict[str, Study | FindnemoError]
    folder: Path
    work: Work


def a_run(work, folder, calibration=None, plan=None):
    """A new run of the model of `work`; without captions so far."""
    calibration = calibration or work.calibration
    plan = plan or work.plan
    run = start(folder, work.model, calibration, plan)
    return replace(work, run=run, calibration=calibration, plan=plan)


def copied(work, folder):
    """A copy of a run that nothing writes to, open for writing: tests may add to it."""
    shutil.copytree(work.run.path, folder)
    return a_run(work, folder)


def cells(folder, name):
    """The rows of a table that a study wrote, its heads first."""
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.reader(file))


def rows_of(made):
    """First two cells -> head -> cell, of a table."""
    return {
        tuple(map(str, row[:2])): dict(zip(made.columns, row, strict=True)) for row in made.rows
    }


def real_pictures(folder, captions=("a tall ship", "a wide field", "a blue cup")):
    """A folder of pictures as trainers read it, with a caption beside each."""
    folder.mkdir()
    for k, caption in enumerate(captions):
        drawn([7, k], 64).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(caption, encoding="utf-8")
    return folder
