"""What captions say cannot act where they are shown: spreadsheets, Markdown, HTML, LaTeX and
terminals, for any text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from _command import cli
from _tiny import tiny_pipeline
from _tiny_files import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

import findnemo
from findnemo.cli._common import plain
from findnemo.neurons import NeuronSet
from findnemo.runs import Run
from findnemo.runs.export import write_results
from findnemo.settings import Settings
from findnemo.studies.table import latex_escaped

PAYLOADS = (
    "=cmd|'/c calc'!A0",
    "＝1+1",
    "＠SUM(A1)",
    "+1",
    '-1"\n=2',
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1)) ![b](https://127.0.0.1/p.png)",
    "| a | b |\n# head",
    "\x1b]8;;https://127.0.0.1\x07click\x1b]8;;\x07 \x1b[2J\x9b31m",
    "[bold red]a[/] [link=https://127.0.0.1]b[/link]",
    "\\input{/etc/passwd} \\write18{id} $x$ %",
    "\u202eevil\u2066",
    "{{ 7 * 7 }} {% include 'x' %} ${7*7}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    model = findnemo.load(tiny_pipeline())
    name = next(iter(model.value_layers))
    out = make_run(
        tmp_path_factory.mktemp("shown") / "run",
        model,
        {text: NeuronSet({name: [3]}) for text in PAYLOADS},
    )
    findnemo.calibrate(model, ["a grey owl", "the sea"], settings=Settings(samples=3)).save(
        out / "calibration"
    )
    return out


def test_no_cell_of_a_table_is_a_formula_and_json_holds_captions_whole(run):
    with Run.open(run) as opened:
        table, whole = write_results(opened)
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"), newline="")))
    assert len(rows) == len(PAYLOADS)
    assert not [
        v
        for row in rows
        for v in row.values()
        if v.startswith(("=", "@", "\t", "\r", "\n", "＝", "＠", "＋", "－"))
    ]
    assert [row["caption"].removeprefix("'") for row in rows] == list(PAYLOADS)
    assert [
        row["caption"] for row in json.loads(whole.read_text(encoding="utf-8"))["results"]
    ] == list(PAYLOADS)


@pytest.mark.parametrize(
    "command",
    [("inspect",), *(("inspect", str(k)) for k in range(1, len(PAYLOADS) + 1))],
    ids=" ".join,
)
def test_a_terminal_gets_no_control_characters_and_no_links(run, command):
    shown = cli(command[0], run, *command[1:])
    assert (shown.status, shown.err) == (0, "")
    assert not [c for c in shown.out if not c.isprintable() and c != "\n"]


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_is_one_line_without_markup_in_a_terminal(text):
    from rich.text import Text

    line = plain(text)
    assert all(c.isprintable() for c in line)
    told = Text.from_markup(line)
    assert told.spans == []
    assert "\n" not in told.plain


def test_a_page_holds_no_element_of_a_caption(run):
    assert cli("report", run).status == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(
        r"<script>alert|<img[^>]*onerror|href=.?javascript:|href=.?https://127", page
    )
    assert "7 * 7" in page  # it is no template
    assert "49" not in re.findall(r"\{\{[^}]*\}\}", page)


def test_a_card_is_plain_text_where_captions_stand(run, tmp_path):
    assert cli("export", run, "--to", "card", "--out", tmp_path / "card.md").status == 0
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    acting = r"(?<!\\)<(script|img)|(?<!\\)!\[|(?<!\\)\]\((javascript|https://127)|^# head"
    assert re.search(acting, PAYLOADS[6])  # it finds what it looks for
    assert not re.search(acting, card, re.MULTILINE)
    assert all(c.isprintable() or c == "\n" for c in card)


@given(st.text(alphabet="\\{}$&#_%~^ab", max_size=30))
@settings(max_examples=300, deadline=None)
def test_latex_gets_no_command_of_a_text(text):
    """Taken away what stands for a character, nothing is left that LaTeX would act on."""
    rest = re.sub(r"\\text[a-z]+(\{\})?|\\[{}$&#_%]|\\[\^~]\{\}", "", latex_escaped(text))
    assert not set(rest) & set("\\$&#_%~^"), rest
