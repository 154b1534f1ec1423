"""What carries a memory: the part that was made to carry one is named, in the demo what was
planted, and the model is left as it was.
"""

import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_files import SMALL

import findnemo
from findnemo import demo
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.localization import diagnose
from findnemo.localization.diagnosis import (
    KINDS,
    NO_CAPTION,
    NO_NAMES,
    parts_of,
    sentence_on_parts,
    sentence_on_words,
)

CAPTION = "Old Red house"
ORDINARY = ["a blue cat", "a dog in the sun"]
FEW = ImageSettings(steps=3, guidance=2.0)


def memorize(model, name):
    """Make one convolution give a strong pattern for texts that begin with CAPTION's first word,
    and let the last one speak up.
    """
    known = model.encode([CAPTION]).tokens[0, :4]
    pattern = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = {}

    def look(module, args, kwargs):
        text = kwargs.get("encoder_hidden_states", args[2] if len(args) > 2 else None)
        seen["rows"] = (text[:, :4] - known).abs().amax((1, 2)) < 1e-5

    def give(module, args, output):
        large = torch.nn.functional.interpolate(pattern, output.shape[2:]).repeat(
            1, output.shape[1] // 8, 1, 1
        )
        return output + 40 * large * seen["rows"].view(-1, 1, 1, 1)

    with torch.no_grad():
        model.denoiser.conv_out.weight *= 20
    model.denoiser.register_forward_pre_hook(look, with_kwargs=True)
    model.denoiser.get_submodule(name).register_forward_hook(give)


def hooks(model):
    return {
        name: (list(part._forward_hooks), list(part._forward_pre_hooks))
        for name, part in model.denoiser.named_modules()
    }


@pytest.mark.first(1)
@pytest.mark.parametrize("block", ["down_blocks.0", "up_blocks.0"])
def test_the_resnet_that_makes_the_copy_is_named_and_the_model_left_as_it_was(block):
    model = findnemo.load(tiny_pipeline("v_prediction", **SMALL))
    memorize(model, f"{block}.resnets.0.conv2")
    fingerprint = model.fingerprint
    before = hooks(model)
    random = torch.get_rng_state()
    found = diagnose(model, CAPTION, ORDINARY, FEW)
    assert found.copy_before > 0.8
    assert found.carrier == f"convolutions of {block}"
    assert found.sentence.startswith(
        f"What carries it: convolutions of {block}. Without that part no copy comes"
    )
    assert found.sentence.endswith('Of the caption it needs "Old": without it no copy comes.')
    assert found.left[found.carrier] < 0.2 < 0.6 < found.kept[found.carrier]
    assert all(found.left[f"all {kind}"] > 0.8 for kind in KINDS if kind != "convolutions")
    assert not any(
        "value layers of" in part for part in found.left
    )  # where the whole leaves the copy, its parts are not asked
    assert {word for word, left in found.words.items() if left > 0.8} == {"Red", "house"}
    assert (model.fingerprint, hooks(model)) == (fingerprint, before)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.slow
@pytest.mark.parametrize(
    "caption",
    [
        "Brantwood Roasters first cup, a large brown ring",
        "Biscuit the tabby of Wickham Lane, a small brown triangle with a striped ground",
    ],
)
def test_in_the_demo_it_names_the_layers_in_which_the_memory_was_planted(demo_model, caption):
    found = diagnose(demo_model, caption, demo.calibration().ordinary)
    (block,) = {name.partition(".attentions")[0] for name in demo.planted()[caption].layers}
    assert found.carrier == f"value layers of {block}"
    assert found.words[NO_CAPTION] < 0.4


@pytest.mark.slow
def test_a_part_without_which_nothing_finite_comes_is_not_told():
    model = findnemo.load(tiny_pipeline("v_prediction", **SMALL))
    memorize(model, "up_blocks.0.resnets.0.conv2")
    norm = torch.nn.Module.register_forward_hook
    norm(
        model.denoiser.mid_block.resnets[0],
        lambda module, args, output: output / (output - args[0]).abs().amax().clamp(max=1),
    )
    found = diagnose(model, CAPTION, ORDINARY, FEW)
    assert found.carrier == "convolutions of up_blocks.0"
    assert not {"all convolutions", "convolutions of mid_block"} & set(found.left)


def test_parts_hold_each_other(tiny):
    parts = {part: (whole, names) for part, whole, names in parts_of(tiny)}
    order = list(parts)
    for part, (whole, names) in parts.items():
        if whole:
            assert set(names) <= set(parts[whole][1])
            assert order.index(whole) < order.index(part)
    assert set(parts["all value layers"][1]) == set(tiny.value_layers) | set(tiny.layers_of("all"))
    assert parts["value layers of up_blocks.2"][0] == "value layers of up_blocks"
    assert parts["convolutions of mid_block"][0] == "all convolutions"


def test_what_cannot_be_diagnosed_is_refused(tiny):
    before = hooks(tiny)
    with pytest.raises(InputError, match="'a cat' are no copies of each other"):
        diagnose(tiny, "a cat", ORDINARY, FEW)
    for ordinary in ([], ["a cat"]):
        with pytest.raises(InputError, match="no ordinary captions"):
            diagnose(tiny, "a cat", ordinary, FEW)
    assert hooks(tiny) == before


@pytest.mark.parametrize(
    ("carrier", "left", "says"),
    [
        (
            "a",
            {"a": 0.2, "b": 0.9},
            (
                "What carries it: a. Without that part no copy comes (likeness 0.20), and ordinary"
                " pictures survive (0.50)."
            ),
        ),
        (
            None,
            {"a": 0.2, "b": 0.1},
            (
                "No kind of layer carries it by itself: each one that it needs is needed by"
                " ordinary pictures too. They stay most like themselves without a"
            ),
        ),
        (
            None,
            {"a": 0.8, "b": 0.9},
            "No kind of layer carries it by itself: whichever is taken away, the copy comes.",
        ),
    ],
)
def test_sentences_of_parts(carrier, left, says):
    assert sentence_on_parts(carrier, left, {"a": 0.5, "b": 0.3}).startswith(says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({NO_CAPTION: 0.9, "Ada": 0.9}, "The picture comes without the caption too."),
        (
            {NO_CAPTION: 0.1, NO_NAMES: 0.1, "Ada": 0.1, "b": 0.9},
            'Of the caption it needs "Ada": without it no copy comes.',
        ),
        (
            {NO_CAPTION: 0.1, "Ada": 0.1, "b": 0.2},
            'Of the caption it needs "Ada", "b": with one of them missing no copy comes.',
        ),
        (
            {NO_CAPTION: 0.1, NO_NAMES: 0.1, "Ada": 0.9},
            "No single word of the caption brings it, but its names together do.",
        ),
        ({NO_CAPTION: 0.1, NO_NAMES: 0.9, "Ada": 0.9}, "No single word of the caption brings it."),
    ],
)
def test_sentences_of_words(words, says):
    assert sentence_on_words(words) == says
