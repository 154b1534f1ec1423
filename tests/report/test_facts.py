"""The page says what the run holds, counts it right, and says the worst first."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3

import pytest
from _page import page_of
from _runs import HOLDOUT, LAYERS, QUALITY, TAU, Told, make_run, memorized, under

from findnemo.errors import InputError
from findnemo.report import render
from findnemo.report._facts import LEAST, median
from findnemo.runs import Run

FIRST, SECOND, MID = LAYERS


def test_counts_are_those_of_the_database(run, page):
    """Counted anew from the rows of SQLite, without findnemo's reading of them."""
    db = sqlite3.connect(run / "run.sqlite")
    rows = db.execute("SELECT caption, stage, status, payload FROM results").fetchall()
    known = {
        (c, stage): json.loads(payload) for c, stage, status, payload in rows if status == "done"
    }
    over = [c for (c, stage), p in known.items() if stage == "detect" and p["memorized"]]
    audited = sum(stage == "detect" for _, stage in known)
    memories = {
        c: known[c, "verify"] for c in over if known.get((c, "verify"), {}).get("copies_before")
    }
    reached = [c for c in over if known.get((c, "localize"), {}).get("reached")]
    gone = [c for c, v in memories.items() if c in reached and not v["copies_after"]]
    verified = len(memories)
    off = {
        (name, k)
        for c in reached
        for name, some in known[c, "localize"]["neurons"].items()
        for k in some
    }
    assert (len(over), audited, len(gone), verified, len(off)) == (7, 9, 2, 4, 5)
    assert f"memorized{len(memories)} of {audited}" in page.text
    assert f"gone on fresh seeds{len(gone)} of {verified}" in page.text
    assert f"not gone{verified - len(gone)} of {verified}" in page.text
    assert f"neurons switched off{len(off)} of {sum(LAYERS.values())}" in page.text


def test_what_is_not_gone_is_said_first(page):
    text = page.text
    verdict = text.index("Of 4 memorized captions, 1 stayed out of reach and 1 still gave copies")
    assert verdict < text.index("2 memories are gone on the fresh seeds that were tried")
    assert (
        "3 are over the threshold and suspected: none of their images was looked at. 2 neurons are"
        " switched off for 2 of them all the same; on fresh seeds the noise differences of 1 of 1"
        " still resemble those before." in text
    )
    cards = re.findall(r"caption-(\d+)", " ".join(a["id"] for t, a in page.tags if t == "article"))
    assert cards == ["7", "5", "4", "3", "1", "2", "6", "10", "8", "9"]
    lines = page.of("content").split("Before and after")[1]
    assert lines.index("beyond reach") < lines.index("gone one")
    folded = page.tags[next(k for k, (_, a) in enumerate(page.tags) if a.get("class") == "fold") :]
    assert [a["id"] for t, a in folded if t == "article"] == [f"caption-{k}" for k in (10, 8, 9)]


def test_a_clean_result_does_not_promise_more_than_it_shows(tmp_path):
    page = page_of(
        make_run(
            tmp_path / "run",
            [memorized("a", {FIRST: [1]}), memorized("b", {FIRST: [2]}), under("c")],
        )
    )
    assert (
        "All 2 memories are gone on the fresh seeds that were tried, with 2 of 56 neurons switched"
        " off." in page.text
    )
    assert "Anyone with the weights can bring pictures back" in page.of("content")


def test_intervals_of_shares_are_beside_them(page):
    """Wilson's formula written out for 2 of 4 and for 4 of 9."""
    for hits, of in ((2, 4), (4, 9)):
        p = hits / of
        z = 1.959964
        low, high = (
            (p + z * z / (2 * of) + s * z * (p * (1 - p) / of + z * z / (4 * of * of)) ** 0.5)
            / (1 + z * z / of)
            for s in (-1, 1)
        )
        low, high = (f"{100 * end:.1f}".removesuffix(".0") for end in (low, high))
        assert f"95 % interval {low} % to {high} %, n = {of}" in page.text


def test_how_it_was_done_is_there(page):
    for fact in (
        "0123456789abcdef",
        "10 given, 1 failed, 1 open",
        "tau = 0.400",
        "4 seeds a caption, 50 steps, guidance 7",
        "findnemo 0.1.0",
    ):
        assert fact in page.text
    over = sum(score >= TAU for score in HOLDOUT)
    assert f"{over} of {len(HOLDOUT)} hold-out captions reach tau themselves" in page.text


def test_shared_neurons_name_their_captions(page):
    assert "layer 1, #1 2 gone one gone two" in page.of("content")
    marks = [a for t, a in page.tags if t == "rect" and a["class"] in ("single", "shared")]
    assert [a["class"] for a in marks].count("shared") == 1
    assert len(marks) == 5  # what is out of reach stays on


def test_neurons_out_of_reach_are_in_no_chart(page):
    assert "#30" not in page.of("content").split("Before and after")[0]


def test_quality_has_an_interval_where_the_run_knows_every_caption(tmp_path, page):
    assert "median change of pixels, of 1, all neurons off n = 6" in page.text
    each = [{"pixel_change": x} for x in (0.01, 0.02, 0.02, 0.03, 0.04, 0.05)]
    other = page_of(
        make_run(
            tmp_path / "run",
            [memorized("a", {FIRST: [1]})],
            quality=QUALITY | {"each": each, "pixel_change": 0.025},
        )
    )
    low, high = map(
        float,
        re.search(
            r"median change of pixels, of 1, all neurons off 95 % interval ([\d.]+) to ([\d.]+), n = 6;"
            r" the worst changes by 0\.050",
            other.text,
        ).groups(),
    )
    assert 0.01 <= low <= 0.025 <= high <= 0.05


def test_medians_before_and_after_are_those_of_the_captions(tmp_path):
    told = [
        memorized(f"c{k}", {FIRST: [k]}, score_before=0.80 + k / 100, same_seed=0.1 + k / 100)
        for k in range(5)
    ]
    page = page_of(make_run(tmp_path / "run", told))
    assert "Memorization score on fresh seeds 0.820" in page.text
    assert re.search(
        r"Largest similarity of a seed's noise difference to itself before \u2013 0\.120\s?0\.1\d\d"
        r" to 0\.1\d\d 5 low",
        page.text,
    )


def test_mitigations_are_shown_if_they_were_compared_and_left_out_if_not(tmp_path, page):
    assert "mitigations" not in page.by_id
    told = memorized("a", {FIRST: [1]}, type="VM")
    values = {"images": 4, "sscd_gen": 0.125, "a_clip": 0.5, "evaluations": 30, "copies": 0.25}
    stages = {
        "compare:none": values | {"sscd_gen": 1.0},
        "compare:neurons": values,
        "compare:wanda": values | {"sscd_gen": -0.875},
    }
    other = page_of(make_run(tmp_path / "run", [Told(told.text, told.results | stages, "VM")]))
    section = other.of("content").split("Beside other mitigations")[1].split("What was audited")[0]
    assert "Deactivated neurons (findnemo) VM 1 1 0.12 ± 0.00" in section
    assert "Wanda pruning VM 1 0 \u22120.88 ± 0.00" in section
    assert "paper" not in section
    wanda = "Wanda pruning VM 1 0 \u22120.88 ± 0.00\u22120.88 to \u22120.88 0.50 ± 0.000.50 to 0.50 0.25 "
    assert wanda in section  # the last figure is the share of copies left
    assert "Wanda pruning 1 30 \u2013 yes no" in section
    assert re.search(r"Deactivated neurons \(findnemo\) 1 30 \d+ yes yes", section)


def test_what_to_do_is_said_first_and_what_is_in_trouble_stands_open(page, tmp_path):
    assert page.text.index("Do not release yet: 2 of 4 memories are still there.") < 400
    assert "Next: findnemo audit MODEL --prompts FILE" in page.text
    lines = {}
    for number, (tag, attributes) in enumerate(page.tags):
        if tag == "article":
            is_card, details = page.tags[number + 1]
            lines[attributes["id"]] = is_card == "details" and "open" in details
    opened = [id_ for id_, is_open in lines.items() if is_open]
    assert opened == ["caption-7", "caption-5", "caption-4", "caption-3"]
    clean = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]}, pictures=1)]))
    assert (
        "Release it with this one neuron off. Next: findnemo export RUN --out clean (RUN is the run"
        " directory)" in clean.text
    )
    assert [a["alt"] for t, a in clean.tags if t == "img"][:3] == [
        "training image",
        "before",
        "neurons off",
    ]


def test_after_detection_alone_nothing_is_an_alarm(tmp_path):
    over = {"memorized": True, "score": 0.5, "tau": TAU, "copies": True}
    page = page_of(make_run(tmp_path / "run", [Told(f"c{k}", {"detect": over}) for k in range(3)]))
    assert "Not decided yet: 3 of 3 memories are not verified." in page.text
    assert "had no search for neurons:" not in page.text
    assert not [a for _, a in page.tags if "trouble" in (a.get("class") or "")]


def test_a_median_does_not_hide_the_worst_caption(tmp_path):
    told = [memorized(f"c{k}", {FIRST: [k]}, copies_after=float(k == 4)) for k in range(5)]
    page = page_of(make_run(tmp_path / "run", told))
    share = "Share of finished images that copy another seed's untouched image"
    assert re.search(rf"{share} 1\.000.*? 0\.000.*? 5 low 1\.000 ", page.text)


@pytest.mark.parametrize(
    ("captions", "says"),
    [
        ([Told("nothing yet")], "No caption has been looked at yet."),
        (
            [under("a"), under("b")],
            "None of the 2 captions looked at reaches the threshold on the seeds that were tried.",
        ),
        (
            [under("a"), Told("b", {"detect": "NaN"})],
            "on the seeds that were tried (1 more failed or are open).",
        ),
        (
            [Told("a", {"detect": {"memorized": True, "score": 0.9, "tau": TAU}})],
            "None of the 1 caption looked at is known to be a memory. 1 is over the threshold and"
            " suspected: none of its images was looked at.",
        ),
    ],
)
def test_an_unfinished_audit_says_so(tmp_path, captions, says):
    page = page_of(make_run(tmp_path / "run", captions))
    assert says in page.text
    assert "gone on fresh seeds\u2013" in page.text


def test_without_images_and_with_imported_statistics(tmp_path):
    bare = memorized("a", {FIRST: [1]})
    del bare.results["verify"]["copies_before"], bare.results["verify"]["copies_after"]
    page = page_of(make_run(tmp_path / "run", [bare], holdout=()))
    assert "imported statistics" in page.text
    assert not [t for t, _ in page.tags if t == "img"]


def test_a_run_of_detectors_is_refused(tmp_path, run):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "calibration")
    with Run.open(tmp_path / "run") as opened, pytest.raises(InputError, match="holds no audit"):
        render(opened)


def test_utility_is_shown_beside_random_neurons(tmp_path):
    each = [{"pixel_change": 0.02 + k / 1000, "random_pixel_change": 0.01} for k in range(6)]
    one = {"value": 1.25, "low": 1.0, "high": 1.5}
    change = {"median": 0.5, "low": 0.25, "high": 0.75, "ninth": 0.9}
    utility = {
        "captions": 64,
        "neurons": 4,
        "sets": {"KID": {"untouched": one, "found": one}},
        "changes": {"impact": {"found": change}},
    }
    quality = QUALITY | {"each": each, "pixel_change": 0.0225, "utility": utility}
    page = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], quality=quality))
    assert re.search(
        r"the median change of pixels is 0\.01\d more \(95 % interval 0\.01\d more to 0\.01\d more\)",
        page.text,
    )
    assert "Change of pixels with random neurons off instead" in page.text
    assert "64 captions that are not memorized, with all 4 neurons off" in page.text
    assert re.search(r"KID 1\.250\s?1\.000 to 1\.500 1\.250\s?1\.000 to 1\.500", page.text)
    assert re.search(
        r"Impact: 1 \u2212 SSIM of noise differences \u2013 0\.500\s?0\.250 to 0\.750 \u2013",
        page.text,
    )


def test_a_median_has_an_interval_from_five_values_on_and_knows_its_worst_value():
    values = [0.1, 0.2, 0.3, 0.4, 0.9]
    assert len(values) == LEAST
    few = median(values[:-1])
    assert (few.value, few.n, few.low, few.high) == (pytest.approx(0.25), 4, None, None)
    enough = median(values)
    assert enough.value == 0.3
    assert 0.1 <= enough.low <= 0.3 <= enough.high <= 0.9
    assert (enough.worst("low"), enough.worst("high"), enough.worst("")) == (0.9, 0.1, None)
    assert median([]) is None
