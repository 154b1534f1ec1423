"""Notices: who is told, and that one who tells by warning is heard too."""

from __future__ import annotations

import warnings

from findnemo.runtime.notices import notice, notices_to


def recorded(function):
    """The warnings of a call, as `category: text`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [f"{one.category.__name__}: {one.message}" for one in caught]


def test_notices_go_to_the_function_and_other_warnings_on():
    heard = []

    def work():
        with notices_to(heard.append):
            notice("first")
            warnings.warn("other", UserWarning, stacklevel=1)
            notice("second")

    assert recorded(work) == ["UserWarning: other"]
    assert heard == ["first", "second"]


def test_a_function_that_warns_itself_is_heard_outside_once_a_notice():
    """So are the tasks' defaults in Python: what a model says while it loads is warned of."""

    def work():
        with notices_to(notice):
            notice("first")
            with notices_to(notice):
                notice("second")

    assert recorded(work) == ["FindnemoWarning: first", "FindnemoWarning: second"]
