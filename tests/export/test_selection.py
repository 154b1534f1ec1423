"""What an export switches off: all captions, some, or the neurons that most of them share."""

import json

import pytest
from _tiny_files import as_model, make_run, tiny_family

from findnemo import NeuronSet
from findnemo.errors import InputError, MismatchError
from findnemo.export import by_hand, model_card, select
from findnemo.runs import Run, all_neurons

DOWN = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
HELD = {
    "a red fox": NeuronSet({DOWN: [1, 2], MID: [5]}),
    "a grey owl": NeuronSet({MID: [5, 6]}),
    "a moon": NeuronSet({MID: [5], DOWN: [2]}),
    "out of reach": NeuronSet({MID: [9]}),
    "a tree": NeuronSet(),
    "3": NeuronSet({MID: [7]}),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("selection") / "run"
    with Run.open(make_run(path, as_model(tiny_family("sd1")), HELD, ("out of reach",))) as run:
        yield run


def test_all_neurons_are_those_of_the_run_shared_ones_once_and_none_that_is_out_of_reach(run):
    chosen = select(run)
    assert (
        chosen.neurons == all_neurons(run.captions()) == NeuronSet({DOWN: [1, 2], MID: [5, 6, 7]})
    )
    assert [c.text for c in chosen.captions] == ["a red fox", "a grey owl", "a moon", "3"]
    assert (chosen.about["audited"], chosen.about["memorized"]) == (6, 5)
    assert [c.text for c in chosen.about["left"]] == ["out of reach"]


@pytest.mark.parametrize(
    ("captions", "texts"),
    [
        (["a grey owl"], ["a grey owl"]),
        (["2"], ["a grey owl"]),
        (["GREY"], ["a grey owl"]),
        (["moon", "1", "a moon"], ["a red fox", "a moon"]),
        (["3"], ["a moon"]),  # a row number comes first
    ],
)
def test_captions_are_named_by_row_text_or_a_part_of_it(run, captions, texts):
    chosen = select(run, captions)
    assert [c.text for c in chosen.captions] == texts
    assert chosen.neurons == NeuronSet.of(n for t in texts for n in HELD[t])


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a blue whale", "no caption 'a blue whale' in this run: give a row number"),
        ("", "no caption ''"),
        ("a ", r"'a ' names 5 captions \(rows 1, 2, 3, 4, 5\)"),
        ("a tree", "row 5, 'a tree': not memorized; there is nothing to switch off"),
        ("out of reach", "row 4, 'out of reach': its memory is out of reach"),
    ],
)
def test_a_caption_that_names_none_several_or_one_without_neurons_is_refused(run, caption, message):
    with pytest.raises(InputError, match=message):
        select(run, ["a moon", caption])


def test_the_neurons_that_most_captions_share(run):
    wanted = [(MID, 5), (DOWN, 2), (DOWN, 1), (MID, 6), (MID, 7)]  # 3, 2, 1, 1, 1 captions
    for count in range(1, 6):
        assert select(run, most=count).neurons == NeuronSet.of(wanted[:count])
    assert select(run, most=99).neurons == select(run).neurons
    assert [c.text for c in select(run, most=1).captions] == ["a red fox", "a grey owl", "a moon"]
    assert select(run, ["a grey owl", "a red fox"], most=1).neurons == NeuronSet({MID: [5]})
    with pytest.raises(InputError, match="0 is not a number of neurons"):
        select(run, most=0)


PRICED = {  # what the default search keeps: an order, and the sets that it tried
    "order": [[MID, 9], [DOWN, 4], [DOWN, 3]],
    "points": [[1, 0.9, 0.01], [3, 0.5, None]],
}


@pytest.fixture(scope="module")
def priced(tmp_path_factory):
    path = tmp_path_factory.mktemp("priced") / "run"
    model = as_model(tiny_family("sd1"))
    with Run.open(make_run(path, model, HELD, ("out of reach",), {"out of reach": PRICED})) as run:
        yield run


@pytest.mark.parametrize(("neurons", "off"), [(1, {MID: [9]}), (3, {MID: [9], DOWN: [3, 4]})])
def test_a_point_of_a_price_list_is_the_beginning_of_the_order(priced, neurons, off):
    chosen = select(priced, ["out of reach"], neurons=neurons)
    assert chosen.neurons == NeuronSet(off)
    assert chosen.about["point"] == tuple(PRICED["points"][neurons // 2])
    assert [c.text for c in chosen.captions] == ["out of reach"]
    assert "out of reach" not in [c.text for c in chosen.about["left"]]
    assert f"chosen by its price: likeness left {chosen.about['point'].left:.3f}" in model_card(
        chosen
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"captions": ["out of reach"], "neurons": 2},
            "a set of 2 neurons was not tried; those that were: 1, 3",
        ),
        (
            {"captions": ["out of reach"]},
            r"no set that was tried removes it \(--neurons takes one all the same: 1, 3\)",
        ),
        ({"captions": ["a moon"], "neurons": 1}, "the search left no list of sets"),
        (
            {"captions": ["a moon", "out of reach"], "neurons": 1},
            "a set of 1 neuron is a point of one caption's price list: name that caption",
        ),
        ({"neurons": 1}, "name that caption"),
        ({"captions": ["out of reach"], "neurons": 1, "most": 1}, "leave --most out"),
    ],
)
def test_a_point_that_was_not_tried_or_is_of_no_one_caption_is_refused(priced, options, message):
    with pytest.raises(InputError, match=message):
        select(priced, **options)


def test_neurons_chosen_by_hand_are_of_the_model_of_a_run_and_of_no_caption(run, tmp_path):
    neurons = NeuronSet({MID: [3]}, run.meta("settings")["model"])
    file = tmp_path / "neurons.json"
    neurons.save(file)
    chosen = by_hand(file, run)
    assert (chosen.neurons, chosen.captions, chosen.factor) == (neurons, (), 0.0)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"factor": -0.5}))
    assert by_hand(file, run).factor == -0.5
    assert by_hand(file, run, 0.25).factor == 0.25
    model = as_model(tiny_family("sd1"))
    assert by_hand(neurons, model).fingerprint == chosen.fingerprint
    card = model_card(by_hand(file, run))
    assert "Chosen by hand, not verified." in card
    assert "1 neuron of 1 layer" in card
    assert "multiplied by -0.5" in card
    assert not any(
        text in card for text in HELD if " " in text
    )  # what the audit found is not in it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layers": {}}, "no neurons are chosen"),
        ({"layers": {MID: [1]}, "factor": "half"}, "its factor 'half' is not a number"),
        ({"layers": {MID: [1]}, "factor": True}, "its factor True is not a number"),
        ({"layers": {MID: [1]}, "factor": 10**400}, "factor inf is not a number to multiply by"),
        ({"layers": {MID: [1]}, "factor": 1e999}, "factor inf is not a number to multiply by"),
        ({"layers": {MID: [1]}, "model": "f" * 32}, "chosen in the model ffffffffffff, and"),
        ({"neurons": 3}, "is not a neuron file"),
    ],
)
def test_a_file_of_no_neurons_or_of_another_model_is_refused(run, tmp_path, content, message):
    file = tmp_path / "neurons.json"
    file.write_text(json.dumps(content))
    with pytest.raises((InputError, MismatchError), match=message):
        by_hand(file, run)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_that_is_not_finite_is_refused(run, factor):
    with pytest.raises(InputError, match=f"factor {factor} is not a number to multiply by"):
        select(run, factor=factor)


def test_a_run_without_localized_captions_has_nothing_to_export(tmp_path):
    path = make_run(tmp_path / "run", as_model(tiny_family("sd1")), {"a tree": NeuronSet()})
    with (
        Run.open(path) as run,
        pytest.raises(
            InputError, match="holds no localized neurons: there is nothing to switch off"
        ),
    ):
        select(run)
