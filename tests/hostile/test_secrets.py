"""Tokens enter no file of a run, no log, no traceback and no export: canaries are put everywhere
and looked for everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _command import cli
from _tiny import tiny_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

import findnemo
from findnemo.files import fetch
from findnemo.files.originals import Originals
from findnemo.files.secrets import without_secrets
from findnemo.runs import Run
from findnemo.settings import Settings

TOKEN = "hf_" + "CanaryCanary" * 3
PASSWORD = "canary-password-71"
SIGNED = "canary-signature-72"
SECRETS = (TOKEN, PASSWORD, SIGNED)
IMAGES = (
    f"https://me:{PASSWORD}@127.0.0.1/a.png",
    f"https://127.0.0.1/b.png?size=2&X-Amz-Signature={SIGNED}",
    f"https://127.0.0.1/c.png?access_token={TOKEN}",
)


def found(folder: Path) -> list[str]:
    """Files below a folder in whose bytes a secret is."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert files
    return [str(p) for p in files if any(secret.encode() in p.read_bytes() for secret in SECRETS)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    tiny_pipeline().save_pretrained(folder / "model")
    model = findnemo.load(folder / "model")
    findnemo.calibrate(model, ["a grey owl", "the sea"], settings=Settings(samples=3)).save(
        folder / "calibration"
    )
    return folder


@pytest.mark.slow
def test_no_secret_is_left_by_an_audit_and_what_comes_after_it(place, tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    table = tmp_path / "captions.jsonl"
    out = tmp_path / "made" / "run"
    rows = [{"caption": f"a red fox {k}", "image": image} for k, image in enumerate(IMAGES)]
    table.write_text("\n".join(map(json.dumps, rows)))
    audit = (
        "audit",
        place / "model",
        "--prompts",
        table,
        "--calibration",
        place / "calibration",
        "--images",
        2,
        "--image-steps",
        2,
    )
    results = [cli(*audit, "--out", out)]
    results += [
        cli(*command) for command in (("report", out), ("inspect", out), ("inspect", out, "--json"))
    ]
    results.append(
        cli("export", out, "--to", "neurons", "--to", "card", "--out", tmp_path / "made" / "export")
    )
    assert results[0].status == 0, results[0].err
    assert [r for r in results for secret in SECRETS if secret in r.out + r.err] == []
    assert found(tmp_path / "made") == []
    with Run.open(out) as run:
        kept = [c.image for c in run.captions()]
    assert kept == [
        "https://***@127.0.0.1/a.png",
        "https://127.0.0.1/b.png?size=2&X-Amz-Signature=***",
        "https://127.0.0.1/c.png?access_token=***",
    ]


@pytest.mark.parametrize("image", IMAGES)
def test_a_picture_that_cannot_be_had_is_recorded_without_its_secret(tmp_path, image):
    original = Originals(tmp_path, tmp_path, references=[image])
    assert original(image) is None
    assert found(tmp_path) == []
    assert not any(secret in reason for reason in original.failures.values() for secret in SECRETS)


def test_the_whole_url_is_asked_and_only_the_hidden_one_kept(tmp_path, monkeypatch):
    asked: list[str] = []

    def get(parts, deadline):
        asked.append(parts.geturl())
        raise fetch.RefusedError("answers 404")

    monkeypatch.setattr(
        fetch, "checked_url", lambda url: __import__("urllib.parse").parse.urlsplit(url)
    )
    monkeypatch.setattr(fetch, "get", get)
    url = "https://example.org/b.png?sig=" + SIGNED
    assert Originals(tmp_path, tmp_path, pause=0, references=[url])(without_secrets(url)) is None
    assert asked == [url]  # the canary is there to be found: it went to the one that may have it
    assert found(tmp_path) == []


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["line", "traceback"])
def test_an_error_that_holds_a_token_does_not_show_it(monkeypatch, debug):
    def fails(*arguments, **options):
        raise RuntimeError(
            f"401 for https://me:{PASSWORD}@huggingface.co/x?sig={SIGNED} with Authorization:"
            f" Bearer {TOKEN}"
        )

    monkeypatch.setattr(Run, "open", fails)
    result = cli(*debug, "inspect", "run")
    assert result.status == 1
    assert "401 for" in result.err
    assert not any(secret in result.out + result.err for secret in SECRETS)


def test_an_error_of_a_stage_is_kept_without_its_token(tmp_path):
    with Run.create(tmp_path / "run", {"model": "x"}) as run:
        from findnemo.prompts import Prompt

        (number,) = run.add([Prompt("a red fox", 1)])
        run.record(
            number, "detect", {}, 1.0, f"no access with {TOKEN} to https://me:{PASSWORD}@host/"
        )
        assert next(run.captions()).failed["detect"] == "no access with hf_*** to https://***@host/"
    assert found(tmp_path) == []


@given(
    st.text(max_size=40), st.from_regex(r"[A-Za-z0-9]{16,40}", fullmatch=True), st.text(max_size=40)
)
@settings(max_examples=200, deadline=None)
def test_a_token_in_any_text_is_hidden_and_twice_is_as_once(before, token, after):
    text = f"{before} hf_{token} {after}"
    assert f"hf_{token}" not in without_secrets(text)
    assert without_secrets(without_secrets(text)) == without_secrets(text)


def test_what_the_environment_calls_a_key_is_hidden_whatever_it_looks_like(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789canary/+=")
    monkeypatch.setenv("MY_PASSWORD", "short")
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id")
    assert without_secrets("401: 0123456789canary/+= is no key") == "401: *** is no key"
    assert (
        without_secrets("a short story in /home/me/.ssh/id") == "a short story in /home/me/.ssh/id"
    )
