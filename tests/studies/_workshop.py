"""Judges and workers that can be sent to other processes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import torch
from runs._pool import FakePool

from findnemo.runs.workers import Facts


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
