"""The commands `compare` and `study`."""

from __future__ import annotations

import csv
import re

import pytest
from _command import cli
from _place import TEXTS, make_place
from PIL import Image

from findnemo.runs import Run


@pytest.fixture(scope="module")
def compared(place, usual, tmp_path_factory):
    """A comparison of two mitigations, made in two goes; tests leave it as it is."""
    out = tmp_path_factory.mktemp("compared") / "run"
    arguments = ("compare", *usual, "--images", 2, "--out", out)
    assert cli(*arguments, "--mitigations", "neurons", "--quiet").status == 0
    return out, cli(*arguments, "--mitigations", "neurons,repeats-1", "--intervals")


@pytest.mark.slow
def test_compare_prints_the_table_and_keeps_it_with_a_picture_of_each(compared):
    out, result = compared
    assert result.status == 0, result.err
    for label in ("All neurons active", "1 repeated word", "Deactivated neurons"):
        assert label in result.out
        assert label in (out / "table1.md").read_text()
    assert (
        "Random neurons" not in (out / "table1.csv").read_text()
    )  # what was not asked for has no row
    folders = [place for place in (out / "compare").iterdir() if place.is_dir()]
    for folder in folders:
        assert {p.name for p in folder.iterdir()} == {"none.png", "neurons.png", "repeats-1.png"}
        assert Image.open(folder.with_suffix(".png")).width > 3 * 128  # a row of three methods
    assert folders
    with Run.open(out) as run:
        stages = {
            stage for c in run.captions() for stage in c.results if stage.startswith("compare:")
        }
    assert stages == {"compare:none", "compare:neurons", "compare:repeats-1"}


@pytest.mark.slow
def test_compare_as_json_is_the_table(compared, usual):
    out, _ = compared
    result = cli(
        "compare", *usual, "--images", 2, "--mitigations", "neurons", "--json", "--out", out
    )
    assert result.status == 0
    assert {row[""] for row in result.json} == {
        "All neurons active",
        "1 repeated word",
        "Deactivated neurons (findnemo)",
    }


def test_an_unknown_mitigation_is_refused_before_the_work(usual, tmp_path):
    result = cli("compare", *usual, "--mitigations", "neurons,hope", "--out", tmp_path / "run")
    assert (result.status, (tmp_path / "run").exists()) == (2, False)
    assert "mitigation 'hope' is not known: use random-1, random-2" in " ".join(result.err.split())


@pytest.mark.slow
def test_a_study_of_a_run_is_written_beside_it(compared, tmp_path):
    out, _ = compared
    result = cli("study", "table3,fig2a", out)
    assert result.status == 0, result.err
    assert {p.name for p in (out / "studies").iterdir()} >= {
        "README.md",
        "table3.md",
        "table3.tex",
        "fig2a.png",
        "fig2a.svg",
    }
    refused = cli("study", "fig99", out, "--out", tmp_path / "out")
    assert refused.status == 2
    assert "study 'fig99' is not known: use all, fig2a" in " ".join(refused.err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_compare_goes_on_with_the_settings_that_an_audit_has_left(place, usual, tmp_path):
    out = tmp_path / "run"
    first = cli(
        "audit",
        *usual,
        "--out",
        out,
        "--search",
        "gradient",
        "--images",
        2,
        "--image-steps",
        2,
        "--no-report",
    )
    assert first.status == 0
    compared = cli("compare", *usual[:3], "--out", out, "--mitigations", "neurons")
    assert compared.status == 0, compared.err
    with Run.open(out) as run:
        assert run.meta("settings")["search"] == "gradient"
        done = [c.results["compare:none"] for c in run.captions() if "compare:none" in c.results]
    assert done
    assert {d["images"] for d in done} == {2}
    refused = cli("compare", *usual[:3], "--out", out, "--fpr", 0.3)
    assert refused.status == 2
    assert "was made with another threshold" in " ".join(refused.err.split())


TYPES = ("VM", "VM", "VM", "TM", "TM", "none")


@pytest.mark.slow
def test_a_limit_takes_the_types_of_a_file_in_turn_and_the_same_captions_again(tmp_path):
    place = make_place(tmp_path)
    with (place / "typed.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("caption", "type"), *zip(TEXTS, TYPES, strict=True)])
    usual = ("compare", place / "model", "--prompts", place / "typed.csv")
    usual += ("--calibration", place / "calibration", "--images", 2, "--image-steps", 2)
    usual += ("--mitigations", "neurons", "--out", place / "run")

    def compared(limit: int) -> list[int]:
        done = cli(*usual, "--limit", limit)
        assert done.status == 0, done.err
        with Run.open(place / "run") as run:
            assert [c.row for c in run.captions() if "compare:neurons" in c.results] == [
                c.row for c in run.captions()
            ]
            return [c.row for c in run.captions()]

    assert compared(2) == [1, 4]
    assert compared(2) == [1, 4]
    assert sorted(compared(3)) == [1, 2, 4]
    with (place / "run" / "captions.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {(line["row"], line["mitigation"]) for line in lines} == {
        (row, name) for row in "124" for name in ("none", "neurons")
    }


def test_study_alone_lists_what_there_is_and_what_it_takes():
    alone = cli("study")
    listed = cli("study", "--list")
    assert (alone.status, alone.err) == (0, "")
    assert alone.out.startswith(listed.out)
    assert alone.out.splitlines()[-1].startswith("Make them from a run: findnemo study ")
    (line,) = [line for line in alone.out.splitlines() if line.startswith("table1 ")]
    assert "search, images" in line
    assert re.search(r"^images: ", alone.out, re.MULTILINE)
