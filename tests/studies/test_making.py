"""Studies by name: what they write, that nothing is computed twice, and that none takes others with
it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from _workshop import cells
from PIL import Image

from findnemo.errors import InputError
from findnemo.studies import STUDIES, Bench, make, study


@pytest.mark.slow
def test_all_of_them_are_written(made):
    done, folder, _ = made
    assert list(done) == list(STUDIES)
    for name, one in done.items():
        assert not isinstance(one, Exception), (name, one)
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {STUDIES[name].heading}\n")
        assert f"({name}.md)" in (folder / "README.md").read_text()
        for stem in one.figures:
            assert f"]({stem}.png)" in page
            assert (folder / f"{stem}.svg").read_text().lstrip().startswith("<?xml")
            assert (
                np.asarray(Image.open(folder / f"{stem}.png").convert("L")).std() > 5
            )  # not empty
        for k in range(1, len(one.tables) + 1):
            stem = name if len(one.tables) == 1 else f"{name}-{k}"
            assert (folder / f"{stem}.tex").read_text().startswith("\\begin{table}")
            assert len(cells(folder, stem)) > 1


@pytest.mark.slow
def test_doing_them_again_computes_nothing(made, monkeypatch, tmp_path):
    folder = made.folder
    monkeypatch.setattr("findnemo.runs.compare.generate", None)
    monkeypatch.setattr("findnemo.studies.nemo.Probe", None)
    bench = Bench(made.work, [c.text for c in made.work.run.captions() if not c.type], limit=1)
    study(["table1", "table2", "table4", "fig4", "fig5a"], bench, tmp_path)
    for name in ("table1-1", "table2", "table4-1", "fig4-1", "fig5a"):
        assert (tmp_path / f"{name}.csv").read_bytes() == (folder / f"{name}.csv").read_bytes()


@pytest.mark.slow
def test_a_folder_of_studies_can_be_moved(made, tmp_path):
    """Pages name their pictures beside them."""
    shutil.copytree(made.folder, tmp_path / "moved")
    for page in (tmp_path / "moved").glob("*.md"):
        for target in [
            part.split(")")[0] for part in page.read_text(encoding="utf-8").split("](")[1:]
        ]:
            assert (page.parent / target).is_file(), (page, target)


def test_an_unknown_study_is_refused_before_anything_is_done(bench, tmp_path):
    with pytest.raises(InputError, match=r"'table9' is not known: use all, fig2a"):
        study(["table2", "table9"], bench, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_that_fails_does_not_stop_the_others(bench, tmp_path, monkeypatch):
    def fails(bench):
        raise InputError("nothing to show")

    monkeypatch.setattr("findnemo.studies.fig13.fig13", fails)
    done = study(["fig13", "fig2a"], bench, tmp_path)
    assert str(done["fig13"]) == "nothing to show"
    assert (tmp_path / "fig2a.png").is_file()


def test_a_study_that_is_wrong_does_not_take_the_others_with_it(work, tmp_path, monkeypatch):
    monkeypatch.setattr("findnemo.studies.fig2.fig2b", lambda bench: 1 / 0)
    bench = Bench(work, [c.text for c in work.run.captions() if not c.type], limit=1)
    done = study(["fig2b", "fig2a"], bench, tmp_path)
    assert "ZeroDivisionError (unexpected)" in str(done["fig2b"])
    assert (tmp_path / "fig2a.md").is_file()


def test_without_descriptor_or_training_image_it_says_what_is_needed(work):
    bare = replace(work, judges=replace(work.judges, descriptor=None))
    nowhere = replace(work, original=lambda caption: None)
    for name in ("fig6", "fig9"):
        with pytest.raises(InputError, match="--descriptor"):
            make(name, Bench(bare, (), limit=1))
        with pytest.raises(InputError, match="has an available training image"):
            make(name, Bench(nowhere, (), limit=1))


def test_an_unknown_study_is_refused_by_its_name_when_made_alone(bench):
    with pytest.raises(InputError, match=r"'tabel3' is not known: .*; did you mean table3\?"):
        make("tabel3", bench)
