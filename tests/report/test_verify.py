"""Any change of an evidence pack is found, and what a run says otherwise is named."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import sqlite3

import pytest
from _command import cli
from _pack import figure_of, row_of
from _runs import LAYERS

from findnemo.errors import InputError
from findnemo.prompts import Prompt
from findnemo.report import verify_evidence
from findnemo.runs import Run

FIRST, SECOND, MID = LAYERS


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


@pytest.mark.slow
def test_commands_and_their_statuses(evidence_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(evidence_run, path)
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
