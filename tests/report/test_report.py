"""The report escapes what it does not trust, needs nothing but itself, and stays small."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from _page import Page, page_of
from _runs import LAYERS, Told, make_run, memorized, under

from findnemo.errors import InputError
from findnemo.report import write
from findnemo.runs import Run

FIRST, SECOND, MID = LAYERS
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</bdi></article></main><h1>All clean</h1>",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; &amp; &#x3C;",
    "javascript:alert(1) https://tracker.example/p.png",
    "right\u202eleft \u2066isolate \u05e9\u05dc\u05d5\u05dd",
    "bell\x07 and escape\x1b[2J",
    "</style><style>body{display:none}</style>",
)


# What is not trusted


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    texts = [*HOSTILE, "word " * 2000, "x" * 10_000]
    told = [memorized(text, {FIRST: [k % 8]}, type="<b>VM</b>") for k, text in enumerate(texts)]
    told += [under(f"{text} again") for text in HOSTILE] + [
        Told("f <i>", {"detect": "reason <script>x</script>"})
    ]
    path = make_run(
        tmp_path_factory.mktemp("hostile") / "<run> & \"'", told, source="<script>model</script>"
    )
    return page_of(path)


def test_captions_cannot_act(hostile):
    names = {name for name, _ in hostile.tags}
    assert not names & {"iframe", "object", "embed", "form", "i", "b", "base"}
    assert [sum(name == one for name, _ in hostile.tags) for one in ("style", "script")] == [1, 1]
    assert not [k for _, attributes in hostile.tags for k in attributes if k.startswith("on")]
    assert all(source.startswith(("data:", "#")) for source in hostile.sources())
    assert sum(name == "h1" for name, _ in hostile.tags) == 1


@pytest.mark.parametrize("k", range(len(HOSTILE)))
def test_captions_are_shown_as_they_are(hostile, k):
    want = HOSTILE[k].replace("\x07", "\ufffd").replace("\x1b", "\ufffd")
    assert hostile.by_id[f"title-{k + 1}"].strip() == want


def test_every_caption_stands_in_an_isolate(hostile):
    """A mark that turns the direction of writing must not reach the text behind it."""
    with_marks = HOSTILE.index(next(t for t in HOSTILE if "\u202e" in t)) + 1
    start = next(
        k
        for k, (t, a) in enumerate(hostile.tags)
        if t == "h3" and a.get("id") == f"title-{with_marks}"
    )
    assert hostile.tags[start + 1][0] == "bdi"


def test_a_long_caption_begins_in_its_title_and_is_whole_in_a_fold(hostile):
    for number, text in (
        (len(HOSTILE) + 1, ("word " * 2000).strip()),
        (len(HOSTILE) + 2, "x" * 10_000),
    ):
        assert len(hostile.of(f"title-{number}")) <= 240
        assert text in hostile.of(f"caption-{number}")


# One file


@pytest.mark.slow
def test_fifty_captions_stay_under_five_megabytes_with_all_their_pictures(tmp_path):
    told = [memorized(f"caption number {k}", {FIRST: [k % 8]}, pictures=4) for k in range(50)]
    path = make_run(tmp_path / "run", told, side=128)
    file = write_of(path)
    html = file.read_text(encoding="utf-8")
    assert file.stat().st_size < 5_000_000
    assert len(re.findall(r"<img ", html)) == 50 * (1 + 8 + 8 + 2) + 3
    assert "left out" not in html


def test_nothing_is_asked_of_the_world_and_one_script_may_run_by_its_hash(run, page):
    html = write_of(run).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert html.count("<script") == 1
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|Function\(|storage|cookie", script)
    assert all(source.startswith(("data:", "#")) for source in page.sources())
    assert not re.search(r"url\(|@import|https?://", html)
    policy = next(
        a["content"]
        for t, a in page.tags
        if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


def write_of(path):
    with Run.open(path) as run:
        return write(run)


def test_the_same_run_gives_the_same_page(run):
    first = write_of(run).read_bytes()
    assert write_of(run).read_bytes() == first


def test_it_is_written_where_it_is_asked_for(run, tmp_path):
    with Run.open(run) as opened:
        assert write(opened, tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
        with pytest.raises(InputError, match="is a directory"):
            write(opened, tmp_path)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]


@pytest.mark.slow
def test_a_thousand_captions_stay_under_five_megabytes(tmp_path):
    """Of 1,000 captions 320 are memories with pictures and long texts."""
    told = [
        memorized(f"memory {k} {'long ' * 20}", {MID: [k % 32]}, pictures=1) for k in range(320)
    ]
    told += [under(f"ordinary caption number {k}", score=k / 2000) for k in range(680)]
    file = write_of(make_run(tmp_path / "run", told))
    assert 1_000_000 < file.stat().st_size < 5_000_000
    page = Page(file.read_text(encoding="utf-8"))
    assert sum(tag == "article" for tag, _ in page.tags) == 1000
    assert "20 captions have a line only" in page.text
    assert "260 more captions over tau" in page.text
    assert "680 captions not memorized" in page.text
