"""Judges are opened `once` in a process, however often they are sent to it."""

from __future__ import annotations

import pickle
import shutil

import torch
from PIL import Image

from findnemo import demo
from findnemo.metrics import Descriptor


def test_a_process_opens_a_judge_once_and_another_file_by_itself(tmp_path):
    for name in ("one.pt", "other.pt"):
        shutil.copy(demo.DESCRIPTOR, tmp_path / name)
    sent = [pickle.dumps(Descriptor(tmp_path / name)) for name in ("one.pt", "one.pt", "other.pt")]
    one, again, other = map(pickle.loads, sent)
    assert again is one
    assert other is not one
    assert other.path == tmp_path / "other.pt"


def test_a_judge_that_was_sent_says_the_same():
    judge = Descriptor(demo.DESCRIPTOR, preprocessing="half")
    images = [Image.linear_gradient("L"), Image.new("RGB", (9, 5), "teal")]
    sent = pickle.loads(pickle.dumps(judge))
    assert torch.equal(sent(images), judge(images))
    assert sent.preprocessing == judge.preprocessing
