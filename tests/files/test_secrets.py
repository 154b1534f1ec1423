"""Secrets do not get into what is shown or written."""

from __future__ import annotations

import pytest

from findnemo.files.secrets import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@host/a?x=1", "https://***@host/a?x=1"),
        ("https://host/a?api_key=abc&n=2", "https://host/a?api_key=***&n=2"),
        ("https://host/a?X-Amz-Signature=abc", "https://host/a?X-Amz-Signature=***"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer ***"),
        ("hf_" + "A1" * 10, "hf_***"),
        (
            "a key on a table; see http://host/monkey=1",
            "a key on a table; see http://host/monkey=1",
        ),
    ],
)
def test_tokens_are_starred_and_the_rest_stays(text, shown):
    assert without_secrets(text) == shown


def test_values_of_the_environment(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789ab")
    monkeypatch.setenv("SHORT_KEY", "abc")
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id_ed25519")
    assert (
        without_secrets("0123456789ab abc /home/me/.ssh/id_ed25519")
        == "*** abc /home/me/.ssh/id_ed25519"
    )
