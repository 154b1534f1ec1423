"""What a run names is opened only if its user made it, or says so."""

from __future__ import annotations

import stat

import pytest

from findnemo.errors import InputError
from findnemo.runs import Run
from findnemo.runs.trust import key_file, named_places, require, vouch, vouched

SETTINGS = {"judges": {"descriptor": "sscd.pt", "clip": "openai/clip"}}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that names a model and two judges, of a user who has no key yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with Run.create(tmp_path / "run", SETTINGS) as run:
        run.set_meta("source", "owner/model")
        yield run


def test_a_run_of_somebody_else_names_what_would_be_opened(run):
    assert named_places(run) == {
        "model": "owner/model",
        "descriptor": "sscd.pt",
        "clip": "openai/clip",
    }
    assert not vouched(run)
    with pytest.raises(
        InputError, match=r"model 'owner/model'.*a descriptor is a program.*--model"
    ):
        require(run)
    with pytest.raises(InputError) as refused:
        require(run, opens=("clip",))
    assert "program" not in str(refused.value)
    assert "owner/model" not in str(refused.value)
    require(run, opens=())


def test_a_shipped_model_is_nobodys(tmp_path):
    with Run.create(tmp_path / "run", {"judges": {}}) as run:
        run.set_meta("source", "demo")
        assert named_places(run) == {}
        require(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "other/model"),
        ("source_options", {"lora": "other"}),
        ("folder", "/elsewhere"),
        ("settings", SETTINGS | {"judges": {"descriptor": "other.pt"}}),
    ],
)
def test_a_run_is_ones_own_until_what_it_names_changes(run, key, value):
    vouch(run)
    assert vouched(run)
    require(run)
    run.set_meta("quality", {"prompts": 3, "failed": 0, "neurons": 2})  # names nothing
    assert vouched(run)
    run.set_meta(key, value)
    assert not vouched(run)


def test_another_descriptor_in_the_place_of_the_signed_one_is_noticed(run, tmp_path):
    file = tmp_path / "sscd.pt"
    file.write_bytes(b"a program")
    run.set_meta("settings", {"judges": {"descriptor": str(file)}})
    vouch(run)
    assert vouched(run)
    file.write_bytes(b"another one")
    assert not vouched(run)


def test_the_users_word_makes_a_run_theirs(run):
    require(run, trusted=True)
    assert vouched(run)


def test_the_key_is_the_users_alone_and_without_a_sound_one_nothing_is_vouched_for(run):
    vouch(run)
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert len(key_file().read_bytes()) == 32
    key_file().write_bytes(bytes(32))
    assert not vouched(run)  # signed with another key
    key_file().write_bytes(b"short")
    vouch(run)
    assert not vouched(run)
