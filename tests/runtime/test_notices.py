"""Notices: who is told, and that one who tells by warning is heard too."""

from __future__ import annotations

import warnings

import pytest

from findnemo.errors import FindnemoWarning
from findnemo.runtime.notices import notice, told_to


def test_notices_go_to_the_function_and_other_warnings_on():
    heard = []
    with pytest.warns(UserWarning, match="other"), told_to(heard.append):
        notice("first")
        warnings.warn("other", UserWarning, stacklevel=1)
        notice("second")
    assert heard == ["first", "second"]


def test_a_function_that_warns_itself_is_heard_outside_once_a_notice():
    """So are the tasks' defaults in Python: what a model says while it loads is warned of."""
    with pytest.warns(FindnemoWarning) as caught, told_to(notice):
        notice("first")
        with told_to(notice):
            notice("second")
    assert [str(one.message) for one in caught] == ["first", "second"]
