"""Exports appear whole or not at all, and replace nothing that is not an export."""

from contextlib import suppress

import pytest
from _tiny_files import as_model, loud, make_run, tiny_family

from findnemo.errors import InputError, MismatchError
from findnemo.export import FORMS, check_target, select, whole, write
from findnemo.runs import Run


@pytest.fixture
def small(tmp_path):
    """A model, its neurons, and what is selected of its run."""
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "original")
    model = as_model(pipeline, str(tmp_path / "original"))
    with Run.open(make_run(tmp_path / "run", model, {"a red fox": neurons})) as run:
        return model, neurons, select(run)


@pytest.mark.first(1)
@pytest.mark.parametrize("form", [form for form, how in FORMS.items() if not how.of_lora])
def test_a_target_that_is_there_is_replaced_only_by_force(small, tmp_path, form):
    model, _, chosen = small
    target = tmp_path / "out" / FORMS[form].name
    write(form, chosen, target, model)
    first = {p: p.stat().st_ino for p in target.parent.rglob("*")}
    with pytest.raises(
        InputError, match=r"already exists: give another --out, or --force to replace it"
    ):
        write(form, chosen, target, model)
    assert {p: p.stat().st_ino for p in target.parent.rglob("*")} == first
    write(form, chosen, target, model, force=True)
    assert set(target.parent.rglob("*")) == set(first)
    assert {p: p.stat().st_ino for p in target.parent.rglob("*")} != first


def test_force_replaces_exports_only(small, tmp_path):
    model, _, chosen = small
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    for form in ("checkpoint", "lora"):
        with pytest.raises(InputError, match="is not an export, so it is not replaced"):
            write(form, chosen, tmp_path / "thesis", model, force=True)
        with pytest.raises(InputError, match="original is the audited model itself"):
            write(form, chosen, tmp_path / "original", model, force=True)
        with pytest.raises(InputError, match="is a file: give a directory"):
            write(form, chosen, tmp_path / "thesis" / "thesis.tex", model, force=True)
    for form in ("file", "kohya", "neurons", "card"):
        with pytest.raises(InputError, match="is a directory: give a file"):
            write(form, chosen, tmp_path / "thesis", model, force=True)
        with pytest.raises(InputError, match="must end in"):
            write(form, chosen, tmp_path / "clean.txt", model)
    with pytest.raises(InputError, match=rf"'paper' is not known: use {', '.join(FORMS)}"):
        write("paper", chosen, tmp_path / "clean", model)
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "years of work"
    assert {p.name for p in tmp_path.iterdir()} == {"thesis", "original", "run"}


def test_an_export_that_fails_leaves_the_earlier_one(small, tmp_path, monkeypatch):
    model, _, chosen = small
    write("checkpoint", chosen, tmp_path / "clean", model)
    before = {p: p.read_bytes() for p in (tmp_path / "clean").rglob("*") if p.is_file()}
    monkeypatch.setattr("findnemo.export._weights.model_card", lambda chosen: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write("checkpoint", chosen, tmp_path / "clean", model, force=True)
    assert {p: p.read_bytes() for p in (tmp_path / "clean").rglob("*") if p.is_file()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"clean", "original", "run"}


def test_what_a_killed_export_left_is_in_nobodys_way(small, tmp_path):
    model, _, chosen = small
    (tmp_path / ".clean.part" / "unet").mkdir(parents=True)
    (tmp_path / ".clean.part" / "unet" / "half.safetensors").write_text("half")
    (tmp_path / ".lora.safetensors.part").write_text("half")
    write("checkpoint", chosen, tmp_path / "clean", model)
    write("kohya", chosen, tmp_path / "lora.safetensors", model)
    assert {p.name for p in tmp_path.iterdir()} == {"clean", "lora.safetensors", "original", "run"}
    assert not list((tmp_path / "clean").rglob("half.safetensors"))


def test_a_folder_is_in_its_place_only_once_it_is_whole(tmp_path):
    target = tmp_path / "clean"
    target.mkdir()
    (target / "old.txt").touch()
    for fails in (True, False):
        with suppress(KeyError), whole(target) as part:
            part.mkdir()
            (part / "new.txt").touch()
            assert [file.name for file in target.iterdir()] == ["old.txt"]
            if fails:
                raise KeyError
        assert [file.name for file in tmp_path.iterdir()] == ["clean"]
        assert [file.name for file in target.iterdir()] == ["old.txt" if fails else "new.txt"]


def test_the_audited_model_is_refused_under_any_name_and_an_empty_folder_is_not(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (source / "model_index.json").touch()
    (tmp_path / "link").symlink_to(source)
    for place in (tmp_path / "link", tmp_path / "model" / ".." / "model"):
        with pytest.raises(InputError, match="is the audited model itself"):
            check_target(place, directory=True, force=True, source=str(source))
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "new"):
        check_target(place, directory=True, force=False, source=str(source))


def test_another_model_than_the_runs_is_refused(small, tmp_path):
    _, _, chosen = small
    with pytest.raises(MismatchError, match="is not the model of this run: its fingerprint is"):
        write("checkpoint", chosen, tmp_path / "clean", as_model(tiny_family("sd1", seed=1)))
    assert not (tmp_path / "clean").exists()
    with pytest.raises(InputError, match="checkpoint holds weights: give the model"):
        write("checkpoint", chosen, tmp_path / "clean")
