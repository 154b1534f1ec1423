"""What is written for people is held to plain English: `recipes/prose.py`, which `make lint` runs."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "recipes" / "prose.py"
PROSE = runpy.run_path(str(RECIPE), run_name="prose")
LONG = " ".join(f"w{k}" for k in range(PROSE["LONGEST"] + 1))
BAD = {
    "It shows what it costs other captions.": "the effect on other captions",
    "The the model is loaded.": "lexical illusion",
    "It runs for ever.": "archaic",
    f"{LONG}.": f"a sentence of {PROSE['LONGEST'] + 1} words",
    f"- one point\n- {LONG}": f"a sentence of {PROSE['LONGEST'] + 1} words",
}


@pytest.mark.parametrize(("text", "told"), BAD.items(), ids=range(len(BAD)))
def test_a_sentence_to_stumble_over_is_named_with_its_line(text, told):
    (fault,) = PROSE["faults"]("page.md", f"# Title\n\nAll is well.\n\n{text}\n")
    line = 5 + text.count("\n")
    assert fault.startswith(f"page.md:{line}: ")
    assert told in fault


def test_code_tables_and_addresses_are_left_out():
    text = (
        "Run `the the` now.\n\n"
        f"```python\n{LONG}\n```\n\n"
        f"    {LONG}\n\n"
        f"| {LONG} |\n\n"
        f"[here](https://example.org/{LONG.replace(' ', '/the-the/')})\n"
    )
    assert PROSE["faults"]("page.md", text) == []


def test_long_points_of_a_list_are_sentences_of_their_own():
    half = " ".join(f"w{k}" for k in range(PROSE["LONGEST"] - 5))
    assert PROSE["faults"]("page.md", f"- {half}\n- {half}\n\n{half}\n\n{half}: {half}\n") == []


@pytest.mark.parametrize(("text", "status"), [("All is well.\n", 0), ("It is is bad.\n", 1)])
def test_the_exit_status_says_whether_something_was_found(text, status, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, RECIPE, page], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stderr
