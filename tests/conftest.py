"""Shared fixtures. Everything runs offline and on the CPU."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest

from findnemo.models import Model


def pytest_configure() -> None:
    """Ctrl-C interrupts here and in every process that is started: what a shell starts in its
    background ignores it, and tests of interrupts would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# the file whose one fixture takes longest: begun late, it would run alone at the end
LONGEST = "tasks/test_fine_tunes.py"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `first(n)`, the cases after the first n are slow. The longest file comes
    first.
    """
    items.sort(key=lambda item: not item.path.match(LONGEST))
    cases: Counter[str] = Counter()
    for item in items:
        if (mark := item.get_closest_marker("first")) is not None:
            name = item.nodeid.split("[")[0]
            cases[name] += 1
            if cases[name] > mark.args[0]:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """What is imported by now stays until the end: collections of garbage leave it out. They took
    an eighth of the time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs are vouched for with a key of the tests, not with that of whoever runs them."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def few_ordinary_captions() -> Iterator[None]:
    """What is usual is learned from three captions and not from fifty, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.detection.latent_updates.CAPTIONS", 3)
        yield


@pytest.fixture
def tiny() -> Model:
    """A fresh model of the tiny pipeline: tests may change it."""
    from _tiny import tiny_pipeline

    import findnemo

    return findnemo.load(tiny_pipeline())


@pytest.fixture(scope="module")
def model() -> Model:
    """A model of the tiny pipeline for each file of tests: these must leave it as it is."""
    from _tiny import tiny_pipeline

    import findnemo

    return findnemo.load(tiny_pipeline())


@pytest.fixture(scope="session")
def demo_model() -> Model:
    """The shipped model, loaded once; tests must leave it as it is."""
    import findnemo

    return findnemo.load("demo", device="cpu")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a pipeline of a kind ("sd", "sdxl", ...), made when it is asked for."""
    from _makers import MAKERS

    root = tmp_path_factory.mktemp("bases")

    def base(kind: str) -> Path:
        if not (root / kind).exists():
            MAKERS[kind]().save_pretrained(root / kind)
        return root / kind

    return base
