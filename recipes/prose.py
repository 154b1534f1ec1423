"""Reads what findnemo writes for people, and names every sentence that a reader would stumble over:

    python recipes/prose.py               # README, CONTRIBUTING, docs, the newest changes, help
    python recipes/prose.py text.md       # other files

Three checks: those of proselint (cliches, needless words, misspellings, doubled words); a
vocabulary of our own (STUMBLES), in which every entry was once met by a reader; and sentences of
more than LONGEST words. Code, tables and addresses are left out. Exits with status 1 where
something was found.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from proselint.checks import __register__
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

ROOT = Path(__file__).parents[1]
FILES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md")
LONGEST = 45  # words
# typographic quotes, forms of dates, terms of the field ("discriminative", "multiply-add")
LEFT_OUT = ("typography", "dates_times", "needless_variants", "misc.phrasal_adjectives")
STUMBLES = {  # what a reader read twice -> what to write
    r"\bso many (processes|images|seeds|captions)\b": "a number, or what N stands for",
    r"(?<!anyone )\bwho has the\b": "'anyone with the'",
    r"\bthe same one by one\b": "say what is done, and to what",
    r"\bwhat (it|this|that) costs other\b": "'the effect on other captions'",
    r"\bbeside (other work|three others|a single busy)\b": "'while other processes run'",
    r"\bneurons of usual activation\b": "'neurons whose activation is not unusual'",
    r"\bwith to without\b": "'before and after'",
    r"\bof which it is known\b": "'which are known to be'",
    r"\bas (it|they) (is|are)\b(?= (read|written|exported|given|opened|loaded))": "say the state",
    r"\b1 more neurons\b": "'1 more neuron'",
    r"\bby -\d": "name the direction and give the amount without a sign",
    r"\bhas of (it|them|its|their)\b": "name the noun",
}
CODE = (
    re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL),
    re.compile(r"^(?: {4}|\t).*$", re.MULTILINE),  # indented blocks
    re.compile(r"^\s*\|.*$", re.MULTILINE),  # tables
    re.compile(r"`[^`]*?`"),
    re.compile(r"\d+(?: x \d+)+"),  # sizes
    re.compile(r"<[^>]*>"),
    re.compile(r"\]\([^)]*\)"),
    re.compile(r"https?://\S+"),
    re.compile(r"^:::.*$", re.MULTILINE),
)
CheckRegistry().register_many(__register__)


def plain(text: str) -> str:
    """The text without code, tables and addresses; every line keeps its number and its place."""
    for pattern in CODE:
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return re.sub(r"^(#+ .*\w)$", r"\1.", text, flags=re.MULTILINE)  # a heading is a sentence


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Line of its begin -> sentence. One ends with its paragraph, or its point of a list."""
    for part in re.finditer(r"(?:(?!\n\s*\n|\n\s*(?:[-*#]|\d+\.) ).)+", text, re.DOTALL):
        for found in re.finditer(r"\S.*?(?:[.!?:;](?=\s|$)|\Z)", part[0], re.DOTALL):
            yield text.count("\n", 0, part.start() + found.start()) + 1, found[0]


def faults(name: str, text: str) -> list[str]:
    """`name:line: what is wrong`, in the order of the text."""
    text = plain(text)
    off = dict.fromkeys(LEFT_OUT, False)
    config = DEFAULT | {"checks": off | DEFAULT["checks"] | off}  # the first that fits counts
    found = []
    for result in LintFile(name, text).lint(config):
        begin = result.check_result.span[0] - 1  # the linter puts a line break before the text
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        found.append((text.count("\n", 0, begin) + 1, result.check_result.message))
    for pattern, instead in STUMBLES.items():
        for match in re.finditer(pattern, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, f"'{match[0]}': write {instead}"))
    for line, sentence in sentences(text):
        words = len(re.findall(r"[A-Za-z][\w'-]*", sentence))
        if words > LONGEST:
            found.append((line, f"a sentence of {words} words ({LONGEST}): {sentence[:60]!r}..."))
    return [f"{name}:{line}: {' '.join(message.split())}" for line, message in sorted(found)]


def newest(changes: str) -> str:
    """The first section of a changelog."""
    return "\n## ".join(changes.split("\n## ")[:2])


def texts(files: list[str]) -> Iterator[tuple[str, str]]:
    """Name -> text of what is looked at."""
    if files:
        yield from ((file, Path(file).read_text(encoding="utf-8")) for file in files)
        return
    for pattern in FILES:
        for path in sorted(ROOT.glob(pattern)):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    changes = ROOT / "CHANGELOG.md"
    yield changes.name, newest(changes.read_text(encoding="utf-8"))


def main(files: list[str]) -> int:
    found = [fault for name, text in texts(files) for fault in faults(name, text)]
    print("\n".join(found) or "Nothing to stumble over.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
