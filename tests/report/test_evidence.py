"""The evidence pack says what the run holds and no more, and any change of it is found."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import sqlite3

import pytest
from _command import cli
from _page import Page
from _runs import LAYERS, TAU, Told, make_run, memorized, under

from findnemo.errors import InputError
from findnemo.prompts import Prompt
from findnemo.report import evidence, verify_evidence, write_evidence
from findnemo.runs import Run
from findnemo.stats import clopper_pearson

FIRST, SECOND, MID = LAYERS
SETTINGS = {
    "model": "0123456789abcdef",
    "dtype": "float32",
    "image_settings": {"steps": 50, "guidance": 7.0, "seed": 0},
}
ATTACK = {
    **{"x": "steps", "y": "similarity", "n": 3, "known": 3},
    "curves": {
        "memorized, neurons off": [[0, 0.1], [50, 0.5]],
        "memorized, untouched": [[0, 0.3], [50, 0.9]],
    },
    "bands": {"memorized, neurons off": [[0, 0.0, 0.2], [50, 0.4, 0.6]]},
    "gaps": {"neurons off: memorized less never seen": [[0, 0.0, -0.2, 0.2], [50, 0.25, 0.1, 0.4]]},
}
CELL = {"images": 0.5, "captions": 1, "n": 2, "low": 0.09, "high": 0.91}
HALF = {"n": 2, "works": 2, "back": 1, "beyond": 0, "silent": [], "low": 0.09, "high": 0.91}
MUTE = HALF | {"works": 0, "back": 0, "silent": [0.17, 0.2], "low": None, "high": None}
ATTEMPTS = {
    "columns": ["untouched", "neurons off"],
    "table": {
        "seeds: fresh": {"untouched": CELL | {"captions": 2}, "neurons off": CELL | {"told": HALF}},
        "script: Greek": {
            "untouched": CELL | {"captions": 0},
            "neurons off": CELL | {"captions": 0, "told": MUTE},
        },
        "image to image: 0.5": {
            "untouched": CELL | {"captions": 2},
            "neurons off": CELL | {"captions": 2, "told": HALF | {"back": 2}},
        },
    },
}
HOSTILE = "</template><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }}"


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The score interval by its formula."""
    z = 1.959963984540054
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * (hits * (n - hits) / n + z * z / 4) ** 0.5
    return middle - half, middle + half


def attacked(text: str, off: float, untouched: float, known: bool = True) -> Told:
    """A memorized caption under attack, with similarities at the last of two steps."""
    told = memorized(text, {FIRST: [1]}, sscd_orig_before=0.9, sscd_orig_after=0.2)
    results = {
        f"attack:{state}": {
            "basis": "b",
            "known": known,
            "curves": {"caption": {"0": [0.0, 0.1], "50": [0.1]}, "random": {"50": [near, near]}},
        }
        for state, near in (("neurons off", off), ("untouched", untouched))
    }
    return Told(text, told.results | results, "VM")


def told() -> list[Told]:
    """Three attacked memories that are gone, one out of reach, one still copied, one suspected,
    one that failed, two ordinary ones.
    """
    suspect = memorized("suspect", {MID: [3]}, type=None, copies_before=0.25, copies_after=0.25)
    return [
        attacked("gone one", 0.8, 0.9),
        attacked("gone two", 0.2, 0.9),
        attacked("gone three", 0.1, 0.6, known=False),
        memorized("beyond reach", {MID: [30]}, reached=False),
        memorized("still copied", {SECOND: [2]}, type="TM", copies_after=0.5),
        suspect,
        Told("it failed", {"detect": "the noise prediction holds NaN in /home/me/models"}),
        under("an ordinary one"),
        under("another", 0.3),
    ]


def made(path, captions=None, **meta):
    bases = {"attack:neurons off": "b", "attack:untouched": "b"}
    about = {"attack": ATTACK, "attempts": ATTEMPTS, "bases": bases}
    return make_run(path, told() if captions is None else captions, **(about | meta))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("evidence") / "run")


@pytest.fixture(scope="module")
def pack(run):
    with Run.open(run) as opened:
        return evidence(opened, "weights", "A. Tester", "2026-01-31")


@pytest.fixture
def written(run, tmp_path):
    """A run of its own with its pack."""
    shutil.copytree(run, tmp_path / "run")
    with Run.open(tmp_path / "run") as opened:
        write_evidence(opened, release="api", by="A. Tester")
    return tmp_path / "run"


def row_of(pack, name: str) -> dict:
    return next(row for row in pack["attacks"] if row["attack"].startswith(name))


def figure_of(row: dict, name: str) -> dict:
    (found,) = [one for one in row["figures"] if one["name"] == name]
    return found


def is_share(row: dict, name: str, hits: int, n: int) -> None:
    """A figure is this share, with Wilson's interval."""
    one = figure_of(row, name)
    low, high = wilson(hits, n)
    assert (one["hits"], one["n"], one["interval"]) == (hits, n, "Wilson")
    assert [one["value"], one["low"], one["high"]] == pytest.approx(
        [hits / n, max(low, 0), min(high, 1)], abs=6e-5
    )


# The rows


def test_every_class_has_a_row_and_says_what_it_does_not_cover(pack):
    assert [row["attack"].partition(" ")[0] for row in pack["attacks"]] == [
        *("Membership", "Regurgitation", "Regurgitation", "Regurgitation,", "Exfiltration"),
        *("Inversion", "Reconstruction", "Attribute"),
    ]
    assert all(row["not_covered"] and row["measures"] for row in pack["attacks"])
    executed = [row["executed"] for row in pack["attacks"]]
    assert executed == [True, True, False, True, True, True, True, False]


def test_regurgitation_counts_captions_before_and_after(pack):
    """Of six looked at five copied; then the one that still copies and the one out of reach."""
    row = row_of(pack, "Regurgitation")
    is_share(row, "captions that give copies, untouched model", 5, 6)
    is_share(row, "captions that give copies, neurons off", 2, 6)
    is_share(row, "of type TM: captions that give copies, neurons off", 1, 1)
    is_share(row, "of type VM: captions that give copies, neurons off", 1, 4)
    is_share(row, "captions with SSCD_orig of 0.7 or more, before", 3, 3)
    is_share(row, "captions with SSCD_orig of 0.7 or more, after", 0, 3)
    middle = figure_of(row, "SSCD_orig, similarity to the training image, before")
    assert (middle["value"], middle["n"], middle["low"], middle["interval"]) == (0.9, 3, None, None)
    assert "4 images each" in row["how"][0]
    assert "no descriptor" in row["how"][1]


def test_extraction_counts_what_was_scanned(pack):
    row = row_of(pack, "Exfiltration")
    is_share(row, "score at or over tau", 6, 8)
    is_share(row, "memorized: over tau, and copies were seen or it is listed", 5, 8)
    is_share(row, "suspected: over tau, and no copy was seen", 1, 8)
    is_share(row, "copies seen in finished images of the untouched model", 5, 8)
    assert "9 captions in the table; 1 of them without a result" in row["how"][0]


def test_membership_ranks_scores_of_what_the_table_says(pack):
    """Five memories at .9 against a suspect at .9 and ordinary ones at .2 and .3."""
    row = row_of(pack, "Membership")
    area = figure_of(row, "audit score: AUROC")
    assert area["value"] == pytest.approx((2 + 0.5) / 3, abs=1e-4)
    assert area["low"] <= area["value"] <= area["high"]
    is_share(row, "audit score: true positives at 1 % false positives", 0, 5)
    is_share(row, "audit, at tau: true positives", 5, 5)
    is_share(row, "audit, at tau: false positives", 1, 3)
    assert any("1 % of 3 is less than one caption" in text for text in row["told"])


def test_a_score_that_ended_early_under_tau_is_told(tmp_path):
    early = {"detect": {"memorized": False, "score": 0.1, "tau": TAU, "samples": 3}}
    for name, caption, said in (("early", Told("b", early), True), ("whole", under("b"), False)):
        path = make_run(tmp_path / name, [memorized("a", {}), caption])
        with Run.open(path) as opened:
            row = row_of(evidence(opened, "weights", "A. Tester", "2026-01-31"), "Membership")
        assert figure_of(row, "audit score: AUROC")
        assert any("of 1 caption under tau" in text for text in row["told"]) == said


def test_a_score_that_stopped_early_is_not_ranked(tmp_path):
    early = {"detect": {"memorized": True, "score": 0.5, "tau": TAU, "samples": 2}}
    path = make_run(tmp_path / "run", [Told("a", early, "VM"), under("b")])
    with Run.open(path) as opened:
        row = row_of(evidence(opened), "Membership")
    assert [one["name"].partition(":")[0] for one in row["figures"]] == ["audit, at tau"] * 2


def test_without_known_answers_membership_is_not_executed(tmp_path):
    path = make_run(tmp_path / "run", [under("a"), under("b")])
    with Run.open(path) as opened:
        row = row_of(evidence(opened), "Membership")
    assert (row["executed"], row["figures"], row["result"]) == (False, [], [])
    assert "no caption of the table has a type" in row["why"]
    assert "findnemo detect" in row["command"]


def test_detectors_alone_give_their_figures(tmp_path):
    scores = {"a": ("VM", 0.9), "b": ("VM", 0.4), "c": (None, 0.5), "d": (None, 0.1)}
    with Run.create(tmp_path / "run", SETTINGS) as opened:
        ids = opened.add(
            Prompt(text, k, kind) for k, (text, (kind, _)) in enumerate(scores.items())
        )
        for id_, (_, value) in zip(ids, scores.values(), strict=True):
            answer = {"value": value, "evaluations": 1, "seconds": 0.1}
            opened.record(id_, "detect:ssim", answer, 0.1)
        opened.set_meta("detectors", ["ssim"])
        opened.set_meta("holdout:ssim", {"x": 0.1, "y": 0.2, "z": 0.3})
    with Run.open(tmp_path / "run") as opened:
        pack = evidence(opened)
    row = row_of(pack, "Membership")
    assert figure_of(row, "detector ssim: AUROC")["value"] == 0.75
    is_share(row, "detector ssim: true positives at 1 % false positives", 1, 2)
    # mean .2, standard deviation .1
    name = "detector ssim: at or over mean + 1 std of hold-out scores"
    is_share(row_of(pack, "Exfiltration"), name, 3, 4)
    assert not row_of(pack, "Regurgitation")["executed"]
    assert row_of(pack, "Regurgitation")["command"].startswith("findnemo audit MODEL")
    assert pack["run"]["calibration"] is None


def test_attempts_are_told_one_by_one_and_the_best_that_is_not_given_the_picture(pack):
    row = row_of(pack, "Regurgitation, other")
    assert len(row["figures"]) == 5, "what tells nothing of the edited model is no figure of it"
    is_share(row, "script: Greek; untouched", 0, 2)
    assert any("1 of 2 attempts tell nothing" in line for line in row["told"])
    is_share(row, "seeds: fresh; neurons off", 1, 2)
    is_share(row, "image to image: 0.5; neurons off", 2, 2)
    assert "untouched model, the attempt that gets most (seeds: fresh): 2 of 2" in row["result"][0]
    assert "neurons off, the attempt that gets most (seeds: fresh): 1 of 2" in row["result"][1]


def test_inversion_has_its_curves_gaps_and_positive_control(pack):
    row = row_of(pack, "Inversion")
    gap = figure_of(row, "gap, neurons off: own picture less never seen, after 50 steps")
    assert (gap["value"], gap["low"], gap["high"]) == (0.25, 0.1, 0.4)
    bare = figure_of(row, "mean similarity, own picture, untouched, at the start")
    assert (bare["value"], bare["low"], bare["interval"]) == (0.3, None, None)
    assert row["told"][0].startswith("Positive control: in the untouched model")
    assert row["told"][0].endswith("goes from 0.300 at the start to 0.900 after 50 steps.")


def test_inversion_without_a_positive_control_says_so(tmp_path):
    curves = {"memorized, neurons off": [[0, 0.1], [50, 0.5]]}
    path = made(tmp_path / "run", attack=ATTACK | {"curves": curves})
    with Run.open(path) as opened:
        assert row_of(evidence(opened), "Inversion")["told"][0].startswith("No positive control")


def test_reconstruction_counts_known_pictures_alone(pack):
    row = row_of(pack, "Reconstruction")
    is_share(row, "neurons off: as near as a copy within 50 steps", 1, 2)
    is_share(row, "untouched model: as near as a copy within 50 steps", 2, 2)
    assert "findnemo harden" in row["told"][0]


def test_a_picture_that_the_attack_gives_back_from_no_model_is_not_counted_as_safe(tmp_path):
    captions = [attacked("a", 0.1, 0.9), attacked("b", 0.1, 0.17)]
    with Run.open(made(tmp_path / "run", captions)) as opened:
        row = row_of(evidence(opened), "Reconstruction")
    is_share(row, "neurons off: as near as a copy within 50 steps", 0, 1)
    is_share(row, "untouched model: as near as a copy within 50 steps", 1, 2)
    assert row["told"][0].startswith("neurons off: of 1 picture the attack tells nothing")


def test_results_on_another_basis_are_left_out(tmp_path):
    path = made(tmp_path / "run", bases={"attack:neurons off": "c", "attack:untouched": "c"})
    with Run.open(path) as opened:
        row = row_of(evidence(opened), "Reconstruction")
    assert not row["executed"]
    assert "findnemo verify" in row["command"]


def test_an_empty_run_has_no_figure_at_all(tmp_path):
    path = make_run(tmp_path / "run", [Told("nothing yet")])
    with Run.open(path) as opened:
        pack = evidence(opened)
    assert not any(row["executed"] or row["figures"] or row["result"] for row in pack["attacks"])
    assert all(row["why"] for row in pack["attacks"])
    assert len([text for text in pack["residual"] if "not executed" in text]) == 8


def test_copies_of_training_pictures_are_counted_for_each_model(tmp_path):
    picture = {
        "file": "a.png",
        "caption": "a secret caption",
        "group": 0,
        "state": "copied",
        "similarity": 0.9,
        "level": 0.7,
        "margin": 0.4,
        "ways": {"own": [2, 4]},
        "nearest": [],
        "begins": "LoRA",
    }
    counts = {"checkpoint": None, "strength": 1.0, "verdict": "copies", "nearly": 0}
    counts |= {"failed": 0, "alike": 0}
    lora = counts | {"name": "LoRA", "copied": 1, "copies": 2, "of": 8, "low": 0.03, "high": 0.66}
    about = {
        "sentence": "1 of 1 training picture is copied.",
        "main": "LoRA",
        "rate": 0.05,
        "needed": 59,
        "descriptor": True,
        "pictures": [picture],
        "variants": [lora | {"controls": [0, 24]}],
        "notes": [],
    }
    path = make_run(tmp_path / "run", [Told("nothing yet")])
    with Run.create(path, Run.open(path).meta("settings")) as run:
        run.set_meta("training", about)
        pack = evidence(run)
    (row,) = (r for r in pack["attacks"] if r["attack"] == "Regurgitation of training pictures")
    assert row["executed"]
    shares = [(one["name"], one["hits"], one["n"]) for one in row["figures"]]
    assert shares == [
        ("LoRA: training pictures copied", 1, 1),
        ("LoRA: images that are copies", 2, 8),
        ("LoRA: controls as like a training picture", 0, 24),
    ]
    low, high = clopper_pearson(2, 8)
    assert (row["figures"][1]["low"], row["figures"][1]["high"]) == pytest.approx(
        (low, high), abs=1e-4
    )
    assert "a secret caption" not in json.dumps(pack)
    assert "a.png" not in json.dumps(pack)


# What else it says


def test_what_is_left_is_told(pack):
    left = " ".join(pack["residual"])
    assert "2 memories that were checked are not gone" in left
    assert "1 caption failed" in left
    assert "1 caption over the threshold gave no copies" in left
    assert "Attribute and PII inference: not executed" in left
    assert "against somebody who already has the picture" in left


@pytest.mark.parametrize("release", ["weights", "api", "internal", None])
def test_a_release_is_told_or_told_to_be_undeclared(run, release):
    with Run.open(run) as opened:
        found = evidence(opened, release)
    assert found["release"]["declared"] == release
    assert ("Not declared" in found["release"]["means"]) == (release is None)
    assert any("was not declared" in text for text in found["residual"]) == (release is None)


def test_what_cannot_be_said_is_refused(run):
    with Run.open(run) as opened:
        for wrong in ({"release": "cloud"}, {"by": " "}, {"by": "a\nb"}, {"by": "x" * 201}):
            with pytest.raises(InputError):
                evidence(opened, **wrong)
        with pytest.raises(InputError, match="no day"):
            evidence(opened, on="yesterday")


def test_captions_are_given_by_hash_unless_their_texts_are_asked_for(run):
    with Run.open(run) as opened:
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


def test_the_same_run_gives_the_same_pack(run, pack):
    with Run.open(run) as opened:
        assert evidence(opened, "weights", "A. Tester", "2026-01-31") == pack


def test_sources_say_how_they_were_read(pack):
    how = {says["read"] for source in pack["sources"] for says in source["says"]}
    assert len(pack["sources"]) == 6
    assert how >= {"read in the document itself", "known from what others say of the document"}


# The digest


def test_the_digest_is_sha_256_over_sorted_json(pack):
    rest = {name: value for name, value in pack.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert pack["digest"] == hashlib.sha256(text.encode()).hexdigest()


def leaves(value, place=()):
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in list(pairs):
            yield from leaves(one, (*place, key))
    else:
        yield place


def other(value):
    """Another value that looks much alike."""
    if isinstance(value, bool) or value is None:
        return not value
    return value + 0.0001 if isinstance(value, (int, float)) else f"{value} "


def test_a_change_of_any_single_value_is_found(pack, tmp_path):
    file = tmp_path / "pack.json"
    file.write_text(json.dumps(pack), encoding="utf-8")
    assert verify_evidence(file).differences == ()
    places = [place for place in leaves(pack) if place not in (("kind",), ("format",))]
    assert len(places) > 300
    for place in places:
        changed = copy.deepcopy(pack)
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = other(holder[place[-1]])
        file.write_text(json.dumps(changed), encoding="utf-8")
        (difference,) = verify_evidence(file).differences
        assert difference.startswith("digest: "), place


@pytest.mark.parametrize("key", ["residual", "made", "digest", "hashes"])
def test_what_is_taken_out_or_put_in_is_found(pack, tmp_path, key):
    file = tmp_path / "pack.json"
    for changed in ({k: v for k, v in pack.items() if k != key}, pack | {"more": 1}):
        file.write_text(json.dumps(changed), encoding="utf-8")
        assert verify_evidence(file).differences


def test_layout_of_the_file_does_not_matter(pack, tmp_path):
    file = tmp_path / "pack.json"
    file.write_text(json.dumps(pack, indent=4), encoding="utf-8")
    assert verify_evidence(file).differences == ()


def test_a_page_must_show_what_its_data_say(written):
    page = written / "evidence.html"
    assert verify_evidence(page).differences == ()
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("2 of 6", "0 of 6", 1), encoding="utf-8")
    assert verify_evidence(page).differences == (
        "page: it shows something else than the data in it say",
    )
    page.write_text(text.replace('"hits":2', '"hits":0', 1), encoding="utf-8")
    assert [d.partition(":")[0] for d in verify_evidence(page).differences] == ["digest", "page"]


def test_page_and_json_hold_the_same(written):
    data = json.loads((written / "evidence.json").read_text(encoding="utf-8"))
    page = (written / "evidence.html").read_text(encoding="utf-8")
    inside = page.partition('<template id="evidence-json">')[2].partition("</template>")[0]
    assert json.loads(inside) == data
    assert data["digest"] in Page(page.replace(inside, "")).text


# The run beside it


def checked(path, file="evidence.json"):
    with Run.open(path) as opened:
        return verify_evidence(path / file, opened)


@pytest.mark.parametrize("file", ["evidence.json", "evidence.html"])
def test_a_run_that_stayed_as_it_was_fits(written, file):
    found = checked(written, file)
    assert (found.differences, found.notes, found.run) == ((), (), written)


def named(path) -> list[str]:
    return [line.partition(":")[0] for line in checked(path).differences]


def test_a_changed_result_is_named(written):
    with Run.create(written, Run.open(written).meta("settings")) as opened:
        verified = opened.result(5, "verify") | {"copies_after": 0.0}
        opened.record(5, "verify", verified, 1.0)
    assert named(written) == ["results"]


def test_a_changed_summary_is_named(written):
    with Run.create(written, Run.open(written).meta("settings")) as opened:
        opened.set_meta("attack", None)
    assert named(written) == ["settings and summaries"]


def test_a_new_caption_is_named(written):
    with Run.create(written, Run.open(written).meta("settings")) as opened:
        opened.add([Prompt("one more", 10)])
    assert named(written) == ["captions"]


def test_another_calibration_and_another_picture_are_named(written):
    with (written / "calibration" / "calibration.json").open("a", encoding="utf-8") as file:
        file.write(" ")
    folder = written / "images" / "00001-gone-one"
    folder.mkdir(parents=True)
    (folder / "before-00.png").write_bytes(b"a picture")
    assert named(written) == ["calibration", "pictures", "number of pictures"]


def test_figures_that_the_run_does_not_give_are_named_whatever_the_digest(written, pack):
    """Somebody who makes a new digest for other figures is found by the run."""
    file = written / "evidence.json"
    false = json.loads(file.read_text(encoding="utf-8"))
    row = row_of(false, "Regurgitation")
    figure_of(row, "captions that give copies, neurons off")["hits"] = 0
    false["residual"] = false["residual"][1:]
    del false["digest"]
    text = json.dumps(false, sort_keys=True, separators=(",", ":"))
    false["digest"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(false), encoding="utf-8")
    assert verify_evidence(file).differences == ()
    found = named(written)
    assert found[0] == "attacks.1.figures.1.hits"
    assert all(name.startswith("residual.") for name in found[1:])


def test_of_another_version_hashes_alone_are_compared(written):
    file = written / "evidence.json"
    older = json.loads(file.read_text(encoding="utf-8"))
    older["made"]["findnemo"] = "0.0.1"
    older["attacks"] = []
    del older["digest"]
    text = json.dumps(older, sort_keys=True, separators=(",", ":"))
    older["digest"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(older), encoding="utf-8")
    found = checked(written)
    assert found.differences == ()
    assert "'0.0.1'" in found.notes[0]


# Files that are none


FOREIGN = {
    "empty": b"",
    "no JSON": b"{oops",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "another kind": b'{"kind": "something"}',
    "deep": b"[" * 100_000,
    "deep and closed": b'{"kind":"findnemo evidence","format":1,"a":' + b"[" * 400 + b"]" * 400 + b"}",
    "no number": b'{"kind": "findnemo evidence", "format": 1, "a": NaN}',
    "infinity": b'{"kind": "findnemo evidence", "format": 1, "a": 1e999}',
    "digits": b'{"kind": "findnemo evidence", "format": 1, "a": ' + b"9" * 5000 + b"}",
    "twice": b'{"kind": "findnemo evidence", "format": 1, "format": 1}',
    "a newer format": b'{"kind": "findnemo evidence", "format": 99}',
    "a page": b"<html><body>nothing</body></html>",
    "two packs": b'<template id="evidence-json">{}</template><template id="evidence-json">{}</template>',
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_in_words(tmp_path, name):
    file = tmp_path / "pack"
    file.write_bytes(FOREIGN[name])
    with pytest.raises(InputError, match=r"is no evidence pack|has evidence format"):
        verify_evidence(file)
    result = cli("report", "--verify", file)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: ")


def test_a_huge_file_is_not_read(tmp_path):
    file = tmp_path / "pack.json"
    with file.open("wb") as huge:
        huge.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match="more than the 64 MiB"):
        verify_evidence(file)


def test_a_pack_of_another_shape_is_told_to_differ(written):
    """Its digest fits, and nothing else: no error, whatever is where a pack has something else."""
    strange = {"kind": "findnemo evidence", "format": 1, "made": {"findnemo": None}, "hashes": [1]}
    from findnemo import __version__

    for made_by in (None, {"findnemo": __version__, "by": 5, "on": []}):
        strange["made"] = made_by
        strange["release"] = {"declared": []}
        strange.pop("digest", None)
        text = json.dumps(strange, sort_keys=True, separators=(",", ":"))
        strange["digest"] = hashlib.sha256(text.encode()).hexdigest()
        file = written / "evidence.json"
        file.write_text(json.dumps(strange), encoding="utf-8")
        assert "results" in named(written)
        page = written / "evidence.html"
        inside = json.dumps(strange)
        page.write_text(f'<template id="evidence-json">{inside}</template>', encoding="utf-8")
        assert (verify_evidence(page).differences == ()) == (made_by is None)


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


def test_files_go_where_they_are_told(run, tmp_path):
    with Run.open(run) as opened:
        for given, page in (("a.html", "a.html"), ("b", "b.html"), ("c.json", "c.html")):
            found = write_evidence(opened, tmp_path / given)
            assert found == (tmp_path / page, (tmp_path / page).with_suffix(".json"))
            assert all(file.is_file() for file in found)
        (tmp_path / "d").mkdir()
        with pytest.raises(InputError, match="is a directory"):
            write_evidence(opened, tmp_path / "d")


def test_nothing_is_left_where_one_of_the_files_cannot_be_written(run, tmp_path, monkeypatch):
    from findnemo.report import _evidence

    def fails(pack):
        raise InputError("no page")

    monkeypatch.setattr(_evidence, "page_of", fails)
    with Run.open(run) as opened, pytest.raises(InputError, match="no page"):
        write_evidence(opened, tmp_path / "out.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_commands_and_their_statuses(run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(run, path)
    shown = cli("report", path, "--evidence", "--release", "api", "--by", "A. Tester")
    assert (shown.status, "evidence.json" in shown.out, shown.err) == (0, True, "")
    pack = json.loads((path / "evidence.json").read_text(encoding="utf-8"))
    assert (pack["made"]["by"], pack["release"]["declared"]) == ("A. Tester", "api")
    assert cli("report", path, "--evidence", "-q").err.startswith("warning: release not declared")

    for file in ("evidence.json", "evidence.html"):
        for arguments in (("--verify", path / file), (path, "--verify", path / file)):
            fits = cli("report", *arguments)
            assert (fits.status, "still is what it says" in fits.out) == (0, True)
            assert cli("report", *arguments, "-q") == (0, "", "")
    shutil.copy(path / "evidence.json", tmp_path / "alone.json")
    alone = cli("report", "--verify", tmp_path / "alone.json")
    assert (alone.status, "only the digest was checked" in alone.out) == (0, True)

    db = sqlite3.connect(path / "run.sqlite")
    db.execute("DELETE FROM results WHERE caption = 5 AND stage = 'verify'")
    db.commit()
    db.close()
    changed = cli("report", path, "--verify", tmp_path / "alone.json")
    assert (changed.status, changed.out.startswith("differs: results: the pack says")) == (1, True)


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
def test_what_cannot_be_done_is_refused(run, tmp_path, wrong):
    places = {"RUN": run, "FILE": tmp_path / "none.json"}
    result = cli("report", *(places.get(one, one) for one in wrong))
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
