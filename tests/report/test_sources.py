"""What the evidence pack says of laws, judgments and guidelines, and how it was read."""

from __future__ import annotations

import re

import pytest

from findnemo.errors import InputError
from findnemo.report import RELEASES, evidence
from findnemo.report._sources import HEADNOTES, INFERRED, PRIMARY, SECOND, SOURCES
from findnemo.runs import Run


def test_sources_say_how_they_were_read(pack):
    how = {says["read"] for source in pack["sources"] for says in source["says"]}
    assert len(pack["sources"]) == 6
    assert how >= {"read in the document itself", "known from what others say of the document"}


def test_every_statement_has_a_document_with_a_date_and_a_way_it_was_read():
    assert len({source.title for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])(-[0-3]\d)?", source.date), source.title
        assert source.says
        for text, read in source.says:
            assert text.endswith("."), text
            assert read in (PRIMARY, HEADNOTES, SECOND, INFERRED), text


def test_an_unknown_release_is_refused_with_all_that_are_known(evidence_run):
    known = f"release 'cloud' is not known: use {', '.join(RELEASES)}"
    with Run.open(evidence_run) as opened, pytest.raises(InputError, match=known):
        evidence(opened, "cloud")
