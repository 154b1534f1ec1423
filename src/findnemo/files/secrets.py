"""Keep secrets out of files and logs: passwords and tokens in URLs, tokens of the hub, and keys in
the environment.

>>> without_secrets("https://me:secret@host/a.png?size=2&token=abc")
'https://***@host/a.png?size=2&token=***'
"""

from __future__ import annotations

import os
import re

NAMES = "access[-_]?token|token|api[-_]?key|apikey|key|secret|password|passwd|pwd|auth|sig|signature|credential|code|session"
_RULES = (
    (re.compile(r"(?<=://)[^\s/?#@]*@(?=[^\s/])"), "***@"),  # user:password@
    (re.compile(rf"([?&;#](?:[\w.-]*[-_])?(?:{NAMES})=)[^\s&#;\"'<>]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "hf_***"),
    (re.compile(r"\bBearer +[\w.~+/=-]{8,}"), "Bearer ***"),
)
_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """The text with three asterisks in place of every secret."""
    for secret in _of_environment():
        text = text.replace(secret, "***")
    for rule, instead in _RULES:
        text = rule.sub(instead, text)
    return text


def _of_environment() -> list[str]:
    """Values of variables such as WANDB_API_KEY, the longest first.

    Short values and paths do not count.
    """
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    secrets = (v for v in values if len(v) >= 12 and not v.startswith(("/", "~")))
    return sorted(secrets, key=len, reverse=True)
