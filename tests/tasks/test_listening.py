"""How a task reports to who listens, and to who does not."""

from __future__ import annotations

import warnings

import pytest

from findnemo.errors import FindnemoWarning
from findnemo.tasks import Listener


def test_who_does_not_listen_is_warned_and_hears_nothing_else(capsys):
    listener = Listener()
    with pytest.warns(FindnemoWarning, match="row 3 is long"):
        listener.warn("row 3 is long")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listener.say("loading demo")
        listener.progress("detect", 1, 2)
    assert listener.stop() is False
    assert listener.passed is None  # passes are not counted for nobody
    assert capsys.readouterr() == ("", "")
