"""Tables of attempts and attacks in the terminal."""

from __future__ import annotations

from findnemo.cli._robustness import COUNTED, attack_table, attempts_table, show_robustness

PLAIN = {"captions": 1, "n": 2, "low": 0.09, "high": 0.91}
WORKS = PLAIN | {"told": {"n": 2, "works": 1, "back": 0, "beyond": 0, "low": 0.0, "high": 0.79}}
MUTE = PLAIN | {"told": {"n": 2, "works": 0, "back": 0, "beyond": 0, "low": None, "high": None}}
ATTACK = {
    "curves": {"memorized, neurons off": [[0, 0.1], [50, 0.5]], "[/]": [[50, 0.25]]},
    "gaps": {
        "neurons off: memorized less never seen": [[0, 0.0, None, None], [50, -0.2, -0.3, -0.1]]
    },
}


def columns(table) -> list[list[str]]:
    return [[column.header, *column.cells] for column in table.columns]


def test_a_cell_of_attempts_is_a_count_with_its_interval_a_dash_or_tells_nothing():
    found = {"columns": ["untouched", "neurons off"], "table": {
        "works": {"untouched": PLAIN, "neurons off": WORKS},
        "mute": {"neurons off": MUTE},
    }}  # fmt: skip
    assert columns(attempts_table(found)) == [
        ["captions copied by", "works", "mute"],
        ["untouched", "1/2 [dim]0.09-0.91[/]", "-"],
        ["neurons off", "0/1 [dim]0.00-0.79[/]", "[dim]tells nothing[/]"],
    ]


def test_four_models_leave_no_room_for_intervals():
    names = [f"model {k}" for k in range(4)]
    found = {"columns": names, "table": {"works": dict.fromkeys(names, PLAIN)}}
    assert [column[1] for column in columns(attempts_table(found))[1:]] == ["1/2"] * 4


def test_curves_and_gaps_have_a_column_for_every_step_that_any_of_them_has():
    assert columns(attack_table(ATTACK)) == [
        [
            "similarity after steps",
            "own picture, neurons off",
            "\\[/]",
            "gap, neurons off: own picture less never seen",
        ],
        ["0", "0.10", "-", "+0.00"],
        ["50", "0.50", "0.25", "-0.20\n[dim]-0.30\n-0.10[/]"],
    ]


def test_what_was_not_tried_is_not_shown(capsys):
    show_robustness(None, None)
    show_robustness({"columns": ["untouched"], "table": {}}, {"curves": {"neurons off": []}})
    assert capsys.readouterr().out == ""
    show_robustness({"columns": ["untouched"], "table": {"works": {"untouched": PLAIN}}}, None)
    told = " ".join(capsys.readouterr().out.split())
    assert "works 1/2 0.09-0.91" in told
    assert COUNTED in told
