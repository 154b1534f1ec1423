"""The evidence pack says what the run holds and no more, and any change of it is found."""

from __future__ import annotations

import hashlib
import json

import pytest
from _command import cli
from _pack import ATTACK, CELL, made
from _page import Page
from _runs import LAYERS, make_run, memorized, under

from findnemo.errors import InputError
from findnemo.report import evidence, verify_evidence, write_evidence
from findnemo.runs import Run

FIRST, SECOND, MID = LAYERS
HOSTILE = "</template><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }}"


def test_what_is_left_is_told(pack):
    left = " ".join(pack["residual"])
    assert "2 memories that were checked are not gone" in left
    assert "1 caption failed" in left
    assert "1 caption over the threshold gave no copies" in left
    assert "Attribute and PII inference: not executed" in left
    assert "against somebody who already has the picture" in left


@pytest.mark.parametrize("release", ["weights", "api", "internal", None])
def test_a_release_is_told_or_told_to_be_undeclared(evidence_run, release):
    with Run.open(evidence_run) as opened:
        found = evidence(opened, release)
    assert found["release"]["declared"] == release
    assert ("Not declared" in found["release"]["means"]) == (release is None)
    assert any("was not declared" in text for text in found["residual"]) == (release is None)


def test_what_cannot_be_said_is_refused(evidence_run):
    with Run.open(evidence_run) as opened:
        for wrong in ({"release": "cloud"}, {"by": " "}, {"by": "a\nb"}, {"by": "x" * 201}):
            with pytest.raises(InputError):
                evidence(opened, **wrong)
        with pytest.raises(InputError, match="no day"):
            evidence(opened, on="yesterday")


def test_captions_are_given_by_hash_unless_their_texts_are_asked_for(evidence_run):
    with Run.open(evidence_run) as opened:
        plain = evidence(opened)
        named = evidence(opened, captions=True)
    texts = ("gone one", "gone two", "beyond reach", 'still copied"', "an ordinary one")
    assert not any(text in json.dumps(plain) for text in texts)
    listed = plain["captions"]["listed"]
    assert [one["row"] for one in listed] == [1, 2, 3, 4, 5, 6]
    assert listed[0]["sha256"] == hashlib.sha256(b"gone one").hexdigest()
    assert [one["text"] for one in named["captions"]["listed"]][:2] == ["gone one", "gone two"]


def test_no_path_and_no_secret_of_this_machine_gets_out(tmp_path):
    where = "/home/jdoe/secret-project/sd"
    options = {"lora": "/home/jdoe/adapters/x.safetensors", "config": "https://me:pw@host/c"}
    path = made(tmp_path / "run", source=where, source_options=options, folder="/home/jdoe")
    with Run.open(path) as opened:
        text = json.dumps(evidence(opened))
    assert "jdoe" not in text
    assert "secret-project" not in text
    assert "pw@" not in text
    assert str(tmp_path) not in text
    assert "x.safetensors" in text


def test_the_same_run_gives_the_same_pack(evidence_run, pack):
    with Run.open(evidence_run) as opened:
        assert evidence(opened, "weights", "A. Tester", "2026-01-31") == pack


def test_page_and_json_hold_the_same(written):
    data = json.loads((written / "evidence.json").read_text(encoding="utf-8"))
    page = (written / "evidence.html").read_text(encoding="utf-8")
    inside = page.partition('<template id="evidence-json">')[2].partition("</template>")[0]
    assert json.loads(inside) == data
    assert data["digest"] in Page(page.replace(inside, "")).text


# The page


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    captions = [memorized(f"{HOSTILE} \u202e", {FIRST: [1]}, type=HOSTILE), under("fine")]
    path = make_run(
        tmp_path_factory.mktemp("hostile") / "run",
        captions,
        source=HOSTILE,
        versions={HOSTILE: HOSTILE},
        detectors=[HOSTILE],
        attempts={"columns": [HOSTILE], "table": {HOSTILE: {HOSTILE: CELL}}},
        attack=ATTACK
        | {"curves": {HOSTILE: [[0, 0.1]]}, "gaps": {HOSTILE: [[0, 0.1, None, None]]}},
    )
    with Run.open(path) as opened:
        page, _ = write_evidence(opened, path.parent / "out.html", by=HOSTILE, captions=True)
    return page


def test_nothing_in_a_page_acts(hostile, written):
    for file in (hostile, written / "evidence.html"):
        page = Page(file.read_text(encoding="utf-8"))
        tags = {tag for tag, _ in page.tags}
        assert page.balanced
        assert not tags & {"script", "img", "iframe", "object", "embed", "form", "svg"}
        assert not any(name.startswith("on") for _, found in page.tags for name in found)
        assert all(place.startswith(("#", "data:,")) for place in page.sources())
        assert sum(tag == "template" for tag, _ in page.tags) == 1
        policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
        assert policy.startswith("default-src 'none'")
        assert verify_evidence(file).differences == ()


def test_hostile_names_are_shown_as_they_are(hostile):
    page = Page(hostile.read_text(encoding="utf-8"))
    assert "</template><script>alert(1)</script>" in page.text
    assert page.text.count("{{ 7 * 7 }}") >= 6


def test_the_page_says_what_matters_in_words(written):
    page = Page((written / "evidence.html").read_text(encoding="utf-8"))
    for text in (
        "A result counts only for the attacks that were tried.",
        "no legal advice",
        "not executed",
        "Release: api",
        "A. Tester",
        "known from what others say of the document",
        "it is no signature",
    ):
        assert text in page.text


# Files and commands


def test_files_go_where_they_are_told(evidence_run, tmp_path):
    with Run.open(evidence_run) as opened:
        for given, page in (("a.html", "a.html"), ("b", "b.html"), ("c.json", "c.html")):
            found = write_evidence(opened, tmp_path / given)
            assert found == (tmp_path / page, (tmp_path / page).with_suffix(".json"))
            assert all(file.is_file() for file in found)
        (tmp_path / "d").mkdir()
        with pytest.raises(InputError, match="is a directory"):
            write_evidence(opened, tmp_path / "d")


def test_nothing_is_left_where_one_of_the_files_cannot_be_written(
    evidence_run, tmp_path, monkeypatch
):
    from findnemo.report import _evidence

    def fails(pack):
        raise InputError("no page")

    monkeypatch.setattr(_evidence, "page_of", fails)
    with Run.open(evidence_run) as opened, pytest.raises(InputError, match="no page"):
        write_evidence(opened, tmp_path / "out.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [
    [],
    ["RUN", "--evidence", "--release", "cloud"],
    ["RUN", "--release", "api"],
    ["RUN", "--by", "me"],
    ["RUN", "--captions"],
    ["RUN", "--evidence", "--verify", "FILE"],
    ["RUN", "--verify", "FILE"],
    ["--verify", "FILE", "--out", "FILE"],
])  # fmt: skip
def test_what_cannot_be_done_is_refused(evidence_run, tmp_path, wrong):
    places = {"RUN": evidence_run, "FILE": tmp_path / "none.json"}
    result = cli("report", *(places.get(one, one) for one in wrong))
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
