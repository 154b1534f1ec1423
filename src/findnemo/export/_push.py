"""Push the audit's section into the model card of a repository on the hub.

This is done only on request; nothing else in the repository changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from findnemo.errors import FindnemoError, InputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
BEGIN = "<!-- findnemo: begin -->"
END = "<!-- findnemo: end -->"


def with_section(card: str, section: str) -> str:
    """A model card with the section between its marks: in place of an earlier one, else at the end.

    All other text stays unchanged. Raises InputError unless the marks of the card are one pair.

    >>> print(with_section("# Model", "## Audit"))
    # Model
    <BLANKLINE>
    <!-- findnemo: begin -->
    ## Audit
    <!-- findnemo: end -->
    <BLANKLINE>
    """
    block = f"{BEGIN}\n{section.strip()}\n{END}"
    if BEGIN not in card and END not in card:
        gap = "" if not card.strip() else "\n" if card.endswith("\n") else "\n\n"
        return f"{card}{gap}{block}\n"
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise InputError(
            f"the card's marks {BEGIN} and {END} are not exactly one pair: correct them, then push"
            " again"
        )
    return before + block + after


def push_card(section: str, repo: str, api: HfApi | None = None) -> str:
    """Write a section into the model card of a model repository on the hub, as one commit; return
    the commit's address.

    A missing card is created. `huggingface_hub` finds the token (`hf auth login`, HF_TOKEN);
    findnemo neither reads nor writes it. If somebody else commits in between, the push fails and
    overwrites nothing.

    Raises InputError (no such repository, no right to it, marks that are not one pair),
    FindnemoError (no network, refused by the hub).

        with Run.open("run") as run:
            push_card(model_card(select(run)), "me/my-model")
    """
    from huggingface_hub import HfApi, errors

    no_answer: tuple[type[Exception], ...] = (OSError, errors.HTTPError)  # type: ignore[attr-defined]
    api = api or HfApi()
    try:
        head = api.model_info(repo).sha
        card = with_section(_card(api, repo, head), section)
        done = api.upload_file(
            path_or_fileobj=card.encode(),
            path_in_repo=CARD,
            repo_id=repo,
            parent_commit=head,
            commit_message="Memorization audit by findnemo",
        )
    except errors.HFValidationError as error:
        raise InputError(f"{repo!r} is not the name of a repository: give owner/name") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"there is no model repository {repo}, or your token has no right to it: `hf auth"
            " login`"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise FindnemoError(
            "HF_HUB_OFFLINE is set: nothing was pushed; unset it, or write the card to a file"
            " (--out)"
        ) from error
    except errors.HfHubHTTPError as error:
        raise FindnemoError(
            f"the hub refused to write to {repo}: {error.response.status_code}"
            f" {error.response.reason_phrase}"
        ) from error
    except no_answer as error:
        raise FindnemoError(f"the hub cannot be reached: {error}; nothing was pushed") from error
    return str(done.commit_url)


def _card(api: HfApi, repo: str, revision: str | None) -> str:
    """The text of a repository's card, to the byte; empty if there is none."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return Path(api.hf_hub_download(repo, CARD, revision=revision)).read_bytes().decode()
    # LocalEntryNotFoundError would mean that the hub was not reached
    except RemoteEntryNotFoundError:
        return ""
