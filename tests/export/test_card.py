"""The section for a model card: its figures are those of the run, and no caption
acts as Markdown or HTML.
"""

import re

import pytest
from _tiny_files import as_model, make_run, tiny_family
from hypothesis import given, settings
from hypothesis import strategies as st

from findnemo import NeuronSet
from findnemo.export import markdown, model_card, select, write
from findnemo.runs import Run

MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
HOSTILE = (
    "| x | y |\n| --- | --- |",
    "<script>alert(1)</script>",
    "![](https://tracker.example/p.png)",
    "[click](javascript:alert(1))",
    "```\n# Not memorized\n```",
    "</td></table><h1>clean</h1>",
    "&lt;b&gt; &#x3C;",
    "right\u202eleft \x1b[2J bell\x07",
    "a\\| b | c",
    "---\nlicense: mit\n---",
)


@pytest.fixture(scope="module")
def model():
    return as_model(tiny_family("sd1"), "/home/somebody/secret/model.safetensors")


def card_of(path, model, captions, **options) -> str:
    if not path.exists():
        make_run(path, model, captions)
    with Run.open(path) as run:
        return model_card(select(run, **options))


def cells(line: str) -> list[str]:
    """The cells of a row of a table, as GitHub splits it: at bars that no
    backslash stands before.
    """
    return [c.strip() for c in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def shown(text: str) -> str:
    """What a reader sees of escaped text (CommonMark: a backslash before
    punctuation is that character).
    """
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def test_hostile_captions_stay_one_cell_of_plain_text(tmp_path, model):
    captions = {text: NeuronSet({MID: [k]}) for k, text in enumerate(HOSTILE)}
    card = card_of(tmp_path / "run", model, captions)
    section = card.split("### Captions\n")[1].split("### Limits")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == len(HOSTILE)
    for row, text in zip(rows, HOSTILE, strict=True):
        assert len(cells(row)) == 8
        written = cells(row)[1]
        assert not re.search(r"(?<!\\)(?:\\\\)*[<>\[\]`!#*_&|]", written), written
        assert shown(written) == "".join(c for c in " ".join(text.split()) if c.isprintable())
    assert re.findall(r"^#.*", card, re.MULTILINE) == [
        "## Memorization audit",
        "### Before and after",
        "### Captions",
        "### Limits",
    ]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_one_line_that_reads_as_itself(text):
    written = markdown(text)
    assert "\n" not in written
    assert shown(written) == "".join(c for c in " ".join(text.split()) if c.isprintable())
    assert not set("<>|`[]*_&#!\\") & set(re.sub(r"\\[!-/:-@\[-`{-~]", "", written))


def test_every_caption_has_its_figures_and_the_failure_comes_first_by_name(tmp_path, model):
    captions = {
        "one": NeuronSet({MID: [1, 2]}),
        "two *": NeuronSet({MID: [2, 3]}),
        "three": NeuronSet(),
        "four": NeuronSet({MID: [4]}),
    }
    path = make_run(tmp_path / "run", model, captions, out_of_reach=("four",))
    with Run.create(path, _settings(path)) as run:
        for id_, figures in (
            (1, {"largest_before": 0.99, "largest_after": 0.31}),
            (2, {"copies_after": 0.25, "largest_before": 0.98, "largest_after": 0.83}),
        ):
            (caption,) = run.captions([id_])
            run.record(id_, "verify", caption.results["verify"] | figures, 1)
    card = card_of(path, model, {})
    lines = {cells(line)[0]: cells(line)[1:] for line in card.splitlines() if line.startswith("|")}
    order = [cells(line)[0] for line in card.splitlines() if re.match(r"\| \d", line)]
    assert order == ["4", "2", "1"]
    left = "out of reach, left as it is"
    assert lines["4"] == ["four", left, "100 %", "100 %", "\u2013", "\u2013", "0"]
    assert lines["2"] == [r"two \*", "copies", "100 %", "25 %", "0.980", "0.830", "2"]
    assert lines["1"] == ["one", "gone", "100 %", "0 %", "0.990", "0.310", "2"]
    assert lines["captions"] == [
        "4 audited, 3 memorized, 2 switched off here, 1 memorized and left as they are"
    ]
    assert lines["edit"] == [
        "3 neurons of 1 layer (outputs of cross-attention value projections), switched off"
    ]
    assert f"`{model.fingerprint}`" in lines["fingerprint"][0]
    assert card.startswith(
        "## Memorization audit\n\nOf 3 memorized captions, 1 stayed out of reach and 1 still gave"
        " copies. 1 memory is gone on the fresh seeds that were tried, with 3 neurons switched off."
    )
    assert (
        "1 of 2 captions whose untouched images were copies still gives copies with the neurons"
        r" off. The worst: row 2, two \*: 25 % of its images are copies, the largest similarity is"
        " 0.830." in card
    )
    assert "(n = 3): pixels change by 0.012 of 1." in card
    assert "not verified as a whole: the figures are with the neurons of each caption off" in card
    assert "median over" not in card


def _settings(path):
    with Run.open(path) as run:
        return run.meta("settings")


@pytest.mark.parametrize("options", [{"most": 1}, {"factor": 0.5}])
def test_an_export_that_does_less_than_was_verified_says_so(tmp_path, model, options):
    card = card_of(tmp_path / "run", model, {"one": NeuronSet({MID: [1, 2]})}, **options)
    assert "was not verified as it is" in card
    assert ("multiplied by 0.5" in card) == ("factor" in options)


def test_a_run_that_was_not_verified_says_so(tmp_path, model):
    path = make_run(tmp_path / "run", model, {"one": NeuronSet({MID: [1]})})
    with Run.create(path, _settings(path)) as run:
        run.record(1, "verify", {}, 1, "NaN")
    assert "Not verified on fresh seeds: 1 of 1 caption." in card_of(path, model, {})


def test_a_card_names_the_model_but_not_where_it_lies(tmp_path, model):
    card = card_of(tmp_path / "run", model, {"one": NeuronSet({MID: [1]})})
    assert r"model\.safetensors" in card
    assert "somebody" not in card
    hub = as_model(tiny_family("sd1"), "CompVis/stable-diffusion-v1-4")
    assert r"CompVis\/stable\-diffusion\-v1\-4" in card_of(
        tmp_path / "hub", hub, {"one": NeuronSet({MID: [1]})}
    )


def test_a_card_needs_no_model(tmp_path, model):
    path = make_run(tmp_path / "run", model, {"one": NeuronSet({MID: [1]})})
    with Run.open(path) as run:
        chosen = select(run)
    assert write("card", chosen, tmp_path / "card.md").read_text() == model_card(chosen)


def test_the_card_of_a_fine_tune_begins_with_what_its_audit_advises(tmp_path, model):
    row = {"checkpoint": None, "strength": 1.0, "failed": 0, "alike": 0, "nearly": 0, "of": 8}
    row |= {"low": 0.1, "high": 0.6, "controls": [0, 24]}
    lora = row | {"name": "LoRA", "verdict": "copies", "copied": 1, "copies": 2}
    picture = {"caption": "a", "group": 0, "state": "copied", "similarity": 0.9, "level": 0.7}
    picture |= {"file": "<b>.png", "margin": 0.4, "ways": {"own": [2, 4]}, "nearest": []}
    about = {"sentence": "LoRA copies <b>.png. " * 40, "main": "LoRA", "rate": 0.05, "needed": 59}
    about |= {"descriptor": True, "notes": [], "variants": [lora]}
    about |= {"pictures": [picture | {"begins": "LoRA"}]}
    make_run(tmp_path / "run", model, {"a": NeuronSet({MID: [1]})})
    with Run.open(tmp_path / "run") as run:
        settings = run.meta("settings")
    with Run.create(tmp_path / "run", settings) as run:
        run.set_meta("training", about)
    card = card_of(tmp_path / "run", model, {})
    said = shown(card).split("\n\n")
    assert said[1].startswith("**The audit says: Do not release it: it copies 1 of 1 training")
    assert said[2].strip() == about["sentence"].strip()
    assert "<b>" not in card.replace("\\<b\\>", "")
