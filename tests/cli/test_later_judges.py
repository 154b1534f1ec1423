"""Judges and image settings that are given to a run later: what stands, what is judged anew from
stored pictures, what is made again; and what a command says of judges before it begins.
"""

import csv
import shutil

import pytest
import torch
from _command import cli
from _place import make_place

from findnemo.runs import Run, audit, judging
from findnemo.verification import effect

IMAGES = ("--images", 2, "--image-steps", 5)
WORDS = "no descriptor: "


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = make_place(tmp_path_factory.mktemp("place"))
    for name, size in (("descriptor.pt", 4), ("other.pt", 2)):
        pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(size), torch.nn.Flatten())
        torch.jit.trace(pooled, torch.rand(1, 3, 320, 320)).save(str(folder / name))
    return folder


@pytest.fixture(scope="module")
def usual(place):
    table = ("--prompts", place / "captions.csv", "--calibration", place / "calibration")
    return (place / "model", *table)


@pytest.fixture(scope="module")
def judged(place, usual, tmp_path_factory):
    """Audits without a judge, and with one from the start; tests leave them as they are."""
    out = tmp_path_factory.mktemp("judged")
    first = cli("audit", *usual, *IMAGES, "--out", out / "without")
    given = ("--descriptor", place / "descriptor.pt")
    second = cli("audit", *usual, *IMAGES, *given, "--out", out / "with")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    return out, first


def rows(out):
    """results.csv without what time and the way to it decide."""
    with (out / "results.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "evaluations")}
            for row in csv.DictReader(file)
        ]


def never(*arguments, **options):
    raise AssertionError("this was to be kept")


def said(result):
    return " ".join(result.err.split())


def test_try(judged, place, usual, tmp_path):
    out, first = judged
    print(first.err)
    shutil.copytree(out / "without", tmp_path / "run")
    r = cli("audit", *usual, "--descriptor", place / "descriptor.pt", "--out", tmp_path / "run")
    print(r.err)
    print(r.out)
    for a, b in zip(rows(tmp_path / "run"), rows(out / "with")):
        print({k: (a[k], b[k]) for k in a if a[k] != b[k]}, a["sscd_gen"])
    raise SystemExit
