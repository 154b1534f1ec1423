"""The card's section on the hub: one section between its marks, nothing else changes, and
nothing is pushed without being asked.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from huggingface_hub import errors
from hypothesis import given
from hypothesis import strategies as st

from findnemo.errors import FindnemoError, InputError
from findnemo.export import markdown, push_card, with_section
from findnemo.export._push import BEGIN, END

CARD = "---\nlicense: mit\n---\r\n# A model\r\n\nwords   \n\n\n"


class Hub:
    """A repository with one file, that keeps what is done to it."""

    def __init__(self, folder, card: str | None):
        self.file = folder / "README.md"
        self.commits = []
        if card is not None:
            self.file.write_bytes(card.encode())

    def model_info(self, repo):
        return SimpleNamespace(sha=f"head-{len(self.commits)}")

    def hf_hub_download(self, repo, name, revision):
        assert (name, revision) == ("README.md", f"head-{len(self.commits)}")
        if not self.file.exists():
            raise errors.RemoteEntryNotFoundError("404", response=response(404))
        return str(self.file)

    def upload_file(self, path_or_fileobj, path_in_repo, repo_id, parent_commit, commit_message):
        assert (path_in_repo, repo_id, parent_commit) == (
            "README.md",
            "me/model",
            f"head-{len(self.commits)}",
        )
        self.file.write_bytes(path_or_fileobj)
        self.commits.append(commit_message)
        return SimpleNamespace(commit_url="https://hub/commit")


def response(status: int):
    return errors.Response(status, request=SimpleNamespace(headers={}))


def test_a_section_is_appended_then_replaced_and_all_else_stays(tmp_path):
    hub = Hub(tmp_path, CARD)
    assert push_card("## Audit\n\none\n", "me/model", hub) == "https://hub/commit"
    first = hub.file.read_bytes().decode()
    assert first == f"{CARD}\n{BEGIN}\n## Audit\n\none\n{END}\n"
    hub.file.write_bytes((first + "what comes after\n").encode())
    push_card("## Audit\n\ntwo\n", "me/model", hub)
    assert hub.file.read_bytes().decode() == first.replace("one", "two") + "what comes after\n"
    assert len(hub.commits) == 2


def test_a_card_is_made_where_there_is_none(tmp_path):
    hub = Hub(tmp_path, None)
    push_card("## Audit", "me/model", hub)
    assert hub.file.read_text() == f"{BEGIN}\n## Audit\n{END}\n"


@pytest.mark.parametrize(
    "card",
    [
        f"{BEGIN}\nold",
        f"old {END}",
        f"{END} {BEGIN}",
        f"{BEGIN}{END}{BEGIN}{END}",
        f"{BEGIN}{BEGIN}{END}",
    ],
)
def test_marks_that_are_no_pair_are_refused_and_nothing_is_pushed(tmp_path, card):
    hub = Hub(tmp_path, card)
    with pytest.raises(InputError, match="not exactly one pair"):
        push_card("new", "me/model", hub)
    assert (hub.commits, hub.file.read_text()) == ([], card)


@given(st.text(), st.text(), st.text())
def test_any_card_gets_the_last_section_once(card, first, second):
    if BEGIN in card or END in card:
        return
    one = markdown(first)
    two = markdown(second)
    twice = with_section(with_section(card, one), two)
    assert twice == with_section(card, two)
    assert twice.startswith(card)
    assert (twice.count(BEGIN), twice.count(END)) == (1, 1)


FAILURES = {
    "no model repository": (
        errors.RepositoryNotFoundError("404", response=response(404)),
        InputError,
    ),
    "refused to write to me/model: 403": (
        errors.HfHubHTTPError("403", response=response(403)),
        FindnemoError,
    ),
    "HF_HUB_OFFLINE is set": (errors.OfflineModeIsEnabled("offline"), FindnemoError),
    "cannot be reached": (errors.LocalEntryNotFoundError("no network"), FindnemoError),
    "give owner/name": (errors.HFValidationError("bad"), InputError),
}


@pytest.mark.parametrize("step", ["model_info", "hf_hub_download", "upload_file"])
@pytest.mark.parametrize("says", FAILURES)
def test_what_the_hub_refuses_is_one_plain_error(tmp_path, monkeypatch, says, step):
    hub = Hub(tmp_path, CARD)
    raised, kind = FAILURES[says]

    def fails(*arguments, **options):
        raise raised

    monkeypatch.setattr(hub, step, fails)
    with pytest.raises(kind, match=says):
        push_card("new", "me/model", hub)
    assert (hub.commits, hub.file.read_bytes().decode()) == ([], CARD)


def test_a_hub_out_of_reach_is_a_plain_error():
    """Not a fake: a port at which nobody listens."""
    from huggingface_hub import HfApi

    with pytest.raises(FindnemoError, match="nothing was pushed"):
        push_card("new", "me/model", HfApi(endpoint="http://127.0.0.1:9"))
