"""Every error has an exit status, and a first line that can be shown."""

from __future__ import annotations

import pytest

from findnemo import errors
from findnemo.errors import FindnemoError, StoppedError, exit_status, first_line

RAISED = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FindnemoError)
]


@pytest.mark.parametrize("kind", RAISED)
def test_what_findnemo_raises_is_unusable_input_or_an_interruption(kind):
    assert exit_status(kind("x")) == (130 if kind is StoppedError else 2)


@pytest.mark.parametrize("kind", [KeyError, TypeError, RuntimeError, AssertionError])
def test_a_fault_of_findnemo_is_a_failure(kind):
    assert exit_status(kind("x")) == 1


def test_damage_can_be_caught_as_bad_input():
    assert issubclass(errors.DamageError, errors.InputError)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n one\ntwo"), "one"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_the_first_line_is_never_empty(error, line):
    assert first_line(error) == line
