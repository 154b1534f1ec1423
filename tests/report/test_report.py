"""The report says what the run holds, escapes what it does not trust, and
needs nothing but itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sqlite3

import pytest
from _command import cli
from _page import Page
from _runs import HOLDOUT, LAYERS, TAU, Told, make_run, memorized, under

from findnemo.errors import InputError
from findnemo.report import render, write
from findnemo.runs import Run
from findnemo.training import VERDICTS

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
QUALITY = {
    "prompts": 6,
    "failed": 0,
    "neurons": 4,
    "pixel_change": 0.02,
    "a_clip_before": 0.5,
    "a_clip_after": 0.49,
}


def page_html(path) -> str:
    with Run.open(path) as run:
        return render(run)


def page_of(path) -> Page:
    page = Page(page_html(path))
    assert page.balanced
    return page


def mixed() -> list[Told]:
    """Of four memories two are gone, and two are not, each in its own way; of three captions over
    tau no image was looked at.
    """
    failed = memorized("it failed", {MID: [9]})
    return [
        memorized("gone one", {FIRST: [1]}, pictures=2),
        memorized("gone two", {FIRST: [1], MID: [5]}, pictures=2, type="TM"),
        memorized("still copied", {SECOND: [2]}, copies_after=0.25),
        memorized(
            "back again", {SECOND: [3]}, same_seed=0.7, copies_before=None, copies_after=None
        ),
        memorized("beyond reach", {MID: [30, 31]}, reached=False, same_seed=0.9),
        Told(
            "not looked for",
            {"detect": {"memorized": True, "score": 0.5, "tau": TAU, "samples": 4}},
        ),
        Told("it failed", failed.results | {"verify": "holds NaN"}, "VM"),
        under("an ordinary one"),
        under("another"),
        Told("nothing yet"),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("mixed") / "run", mixed(), quality=QUALITY)


@pytest.fixture(scope="module")
def page(run):
    return page_of(run)


# What it says


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


def test_a_caption_shows_its_scores_neurons_and_pictures(page):
    card = page.of("caption-2")
    for fact in (
        "gone two",
        "gone on fresh seeds",
        "type TM",
        "layer 1, #1 11.0",
        "layer 3, #5 15.0",
        "0.800 0.300",
        "20 U-Net evaluations",
    ):
        assert fact in card, fact
    start = next(
        k for k, (t, a) in enumerate(page.tags) if t == "article" and a["id"] == "caption-2"
    )
    end = next(
        (k for k in range(start + 1, len(page.tags)) if page.tags[k][0] == "article"),
        len(page.tags),
    )
    alts = [a["alt"] for t, a in page.tags[start:end] if t == "img"]
    assert alts == [
        "", "",  # small ones in its line, shown again below
        "training image", "before, seed 1 of 2", "before, seed 2 of 2", "after, seed 1 of 2", "after, seed 2 of 2",
        "noise difference before, seed 1 of 2", "noise difference before, seed 2 of 2",
        "noise difference after, seed 1 of 2", "noise difference after, seed 2 of 2",
    ]  # fmt: skip


def priced(text, points, reached=True, **more) -> Told:
    told = memorized(text, {MID: [1, 2, 3]}, reached=reached)
    found = (
        told.results["localize"]
        | {"copy_before": 0.97, "order": [[MID, 3], [MID, 1], [MID, 2]], "points": points}
        | more
    )
    return Told(text, told.results | {"localize": found}, "VM")


DIAGNOSIS = {
    "sentence": "What carries it: <b>all</b> key layers.",
    "left": {"all key layers": 0.1},
    "kept": {"all key layers": 0.8},
    "words": {"<i>a": 0.3},
}


def test_prices_are_a_table_and_a_chart_where_there_is_something_to_choose_and_a_line_elsewhere(
    tmp_path,
):
    cheap = priced("cheap", [[1, 0.8, 0.001], [3, 0.2, 0.02]])
    dear = priced("dear", [[1, 0.8, 0.01], [2, 0.6, None], [3, 0.2, 0.06]])
    far = priced("far", [[1, 0.9, 0.001], [3, 0.7, 0.002]], reached=False, diagnosis=DIAGNOSIS)
    with Run.open(
        make_run(tmp_path / "run", [cheap, dear, far, memorized("older", {MID: [1]})])
    ) as run:
        html = render(run)
    of = {
        text: html.split(f"<bdi>{text}</bdi></h3>")[1].split("</article>")[0]
        for text in ("cheap", "dear", "far", "older")
    }
    assert (
        "Sets tried: 1, 3 neurons; with the last one off ordinary captions change by 0.020"
        in of["cheap"]
    )
    assert "<svg" not in of["cheap"]
    for text in ("dear", "far"):
        assert "What it costs" in of[text]
        assert of[text].count("<polyline") == 2
        assert "export RUN --caption" in of[text]
    rows = re.findall(
        r'<tr><td class="n">(.*?)</td><td class="n">(.*?)</td><td class="n">(.*?)</td></tr>',
        of["dear"],
    )
    assert rows == [("1", "0.800", "0.010"), ("2", "0.600", "\u2013"), ("3", "0.200", "0.060")]
    assert "Sets tried" not in of["older"]
    assert "What it costs" not in of["older"]
    assert "What carries it: &lt;b&gt;all&lt;/b&gt; key layers." in of["far"]
    assert "&lt;i&gt;a" in of["far"]
    assert "What carries it" not in of["dear"]


def test_the_terminal_shows_them_too(tmp_path):
    run = make_run(
        tmp_path / "run",
        [priced("far", [[1, 0.9, None], [3, 0.7, 0.002]], reached=False, diagnosis=DIAGNOSIS)],
    )
    lines = cli("inspect", run, "far").out.splitlines()
    assert "What carries it: <b>all</b> key layers." in lines
    assert [re.findall(r"[\d.]+", line) for line in lines if "\u2502" in line][-2:] == [
        ["1", "0.900"],
        ["3", "0.700", "0.002"],
    ]
    assert "row 1 (far): What carries it: <b>all</b> key layers." in cli("inspect", run).out


@pytest.mark.parametrize(
    "damage",
    [
        {"points": [[1, 0.9]]},
        {"points": [["1", 0.9, None]]},
        {"order": [["a", -1]]},
        {"diagnosis": {"sentence": 3}},
    ],
)
def test_prices_of_another_shape_are_damage(tmp_path, damage):
    run = make_run(tmp_path / "run", [priced("far", **({"points": [[1, 0.9, None]]} | damage))])
    with pytest.raises(InputError, match="is damaged or not made by findnemo"):
        page_of(run)


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


def test_attack_curves_are_shown_if_the_run_holds_them(tmp_path, page):
    assert "attack" not in page.by_id
    attack = {
        "x": "steps",
        "y": "SSCD",
        "n": 3,
        "curves": {"attacked <b>": [[0, 0.1], [50, 0.9]], "control": [[0, 0.0], [50, 0.3]]},
    }
    other = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], attack=attack))
    assert "SSCD over steps, n = 3" in other.text
    assert "curve 0 50 attacked <b> 0.100 0.900 control 0.000 0.300" in other.text
    lines = [a["points"].split() for t, a in other.tags if t == "polyline"]
    heights = [[float(p.split(",")[1]) for p in line] for line in lines]
    assert [h[0] > h[1] for h in heights] == [True, True]  # both rise, the attack more
    assert heights[0][1] < heights[1][1]


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


def test_the_picture_at_the_head_is_of_what_is_advised(tmp_path):
    gone = memorized("gone", {FIRST: [1]}, pictures=1)
    left = memorized("left", {FIRST: [2]}, pictures=1, copies_after=1.0)
    other = memorized("other", {FIRST: [3]}, pictures=1)
    for captions, want in ([[gone, other], "gone"], [[gone, left], "left"]):
        html = page_html(make_run(tmp_path / want, captions))
        head = html.split('class="example"')[1].split("</section>")[0]
        assert f"<bdi>{want}</bdi>" in head


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


TRAINING = {
    "sentence": "1 of 2 training pictures is copied: 2 of 8 images are copies.",
    "main": "LoRA",
    "rate": 0.05,
    "needed": 59,
    "descriptor": True,
    "pictures": [
        {
            **{"file": f"{k}.png", "caption": f"picture {k}", "group": k, "state": "copied"},
            **{"similarity": 0.9, "level": 0.7, "margin": 0.4, "ways": {"own": [2, 4]}},
            **{"nearest": [], "begins": "LoRA"},
        }
        for k in range(2)
    ],
    "variants": [
        {
            **{"name": "LoRA", "checkpoint": None, "strength": 1.0, "verdict": "copies"},
            **{"nearly": 1, "failed": 0, "alike": 0, "copied": 1, "copies": 2, "of": 8},
            **{"low": 0.03, "high": 0.66, "controls": [0, 24]},
        }
    ],
    "notes": [],
}


def test_a_fine_tune_is_advised_by_its_copies(tmp_path):
    page = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], training=TRAINING))
    advice = page.text.index("Do not release it: it copies 1 of 2 training pictures.")
    copied = page.text.index("training pictures copied1 of 2 1 more nearly")
    assert advice < page.text.index(TRAINING["sentence"]) < copied
    assert copied < page.text.index("The one memory found is gone")


def test_a_fine_tune_without_controls_has_a_page(tmp_path):
    (lora,) = TRAINING["variants"]
    known = TRAINING | {"variants": [lora | {"controls": [0, 0]}]}
    page = page_of(make_run(tmp_path / "run", [under("a")], training=known))
    assert "no controls" in page.text


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_fine_tune_has_a_page_whatever_its_verdict(verdict, tmp_path, capsys):
    from findnemo.cli._show import show_training

    (lora,) = TRAINING["variants"]
    base = lora | {"name": "base", "strength": None, "verdict": "copies"}
    known = TRAINING | {"variants": [base, lora | {"verdict": verdict}]}
    path = make_run(tmp_path / "run", [under("a")], training=known)
    with Run.open(path) as run:
        show_training(run)
    assert verdict in page_of(path).text
    assert verdict in capsys.readouterr().out


def test_the_models_of_a_fine_tune_follow_its_five_figures(tmp_path):
    """A repair whose images leave the captions is no model to release, whatever it copies."""
    (lora,) = TRAINING["variants"]
    fits = {"subject": 0.5, "a_clip": 0.4}
    base = lora | {"name": "base", "copied": 0, "copies": 0, "verdict": "does not copy"} | fits
    off = base | {"name": "neurons off", "a_clip": 0.04}
    known = TRAINING | {"variants": [base, lora | fits, off]}
    page = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], training=known))
    figure = page.text.index("or its images do not follow the captions")
    models = page.text.index("What each model copies")
    assert figure < models < page.text.index("Training pictures, and what the model gives")
    assert "off the captions" in page.text[models:]


def test_the_next_command_of_a_page_names_no_place_and_no_secret(tmp_path):
    begun = ["/home/me/models/sd", "--lora", "/home/me/my lora.safetensors"]
    begun += ["--config", "https://me:word@host/c"]
    known = TRAINING | {"begun": begun}
    page = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], training=known))
    command = page.text[page.text.index("Next: findnemo audit") :].partition("(RUN is")[0]
    assert command.split() == [
        "Next:",
        "findnemo",
        "audit",
        "…/sd",
        "--lora",
        "…/'my",
        "lora.safetensors'",
        "--config",
        "'https://***@host/c'",
        "--lora-scale",
        "0.4,0.6,0.8,1",
        "--out",
        "RUN",
    ]
    assert "… are folders that this page leaves out" in page.text
    assert "/home/me" not in page.text
    assert "me:word" not in page.text


# What is unfinished


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


def test_broken_pictures_are_left_out_and_said(tmp_path):
    path = make_run(tmp_path / "run", [memorized("a", {FIRST: [1]}, pictures=2)])
    broken = next((path / "images").glob("*/after-01.png"))
    broken.write_bytes(b"not a picture")
    page = page_of(path)
    assert "Some pictures are not in this file" in page.of("caption-1")
    assert "1 picture would make this file too large, or cannot be read" in page.text


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
