"""`findnemo app` as a command and as a process."""

from __future__ import annotations

import signal
import sys
import urllib.error
import urllib.request
from unittest import mock

import pytest
from _command import cli
from _place import process, save_model
from _tiny_files import make_run

import findnemo
from findnemo import NeuronSet


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    """A run of a small model, with results made by hand."""
    place = tmp_path_factory.mktemp("place")
    model = findnemo.load(save_model(place / "model"))
    neurons = NeuronSet({next(iter(model.value_layers)): [0, 1]})
    return make_run(place / "run", model, {"a red fox": neurons, "a moon": NeuronSet()})


def test_without_gradio_the_error_says_what_to_install(run_path):
    with mock.patch.dict(sys.modules, {"gradio": None}):
        result = cli("app", run_path)
    assert result.status == 2
    assert 'pip install "findnemo[app]"' in result.err
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_the_app_is_opened_on_what_is_there(tmp_path):
    pytest.importorskip("gradio", reason="the app needs gradio: pip install 'findnemo[app]'")
    for arguments, said in (
        ([tmp_path], str(tmp_path)),
        (["demo", "--model", "demo"], "so --model has no run to apply to"),
        (["demo", "--calibration", tmp_path], "is not a calibration"),
        (["demo", "--host", "192.0.2.1"], "192.0.2.1"),
    ):
        result = cli("app", *arguments, "-q")
        assert result.status != 0
        assert said in result.err
        assert "Traceback" not in result.err


@pytest.mark.slow
def test_the_process_serves_and_ends_without_a_trace(run_path, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the app needs gradio: pip install 'findnemo[app]'")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started = process("app", run_path, "-q")
    try:
        line = started.stdout.readline()
        url = line.split()[3]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=10) as answer:
            page = answer.read().decode()
        assert "findnemo" in page
        assert list(tmp_path.glob("findnemo-app-*"))
        assert status(url) == 200
        for place in (
            "",
            "config",
            "gradio_api/queue/data?session_hash=x",
        ):  # a page of somebody else in the same browser
            assert status(url + place, Host="evil.example") == 403
            assert status(url + place, Origin="http://evil.example") == 403
        assert status(f"{url}gradio_api/file={run_path / 'run.sqlite'}") in (
            403,
            404,
        )  # no file but the page's own pictures
    finally:
        started.send_signal(signal.SIGINT)
        started.communicate(timeout=120)
    assert not list(tmp_path.glob("findnemo-app-*"))


def status(url: str, **headers: str) -> int:
    """What a request is answered with."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=10
        ) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
