"""Every mitigation: the same images in every batch, and a pipeline that
is afterwards what it was.
"""

import copy
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from _mitigated import CASE, MID, OTHER, PROMPT, call, hooks, small_model

import findnemo
from findnemo import NeuronSet, deactivate
from findnemo.errors import EditError, InputError
from findnemo.mitigation import (
    MITIGATIONS,
    Case,
    adjusted_embedding,
    adjusted_noise,
    conceptprune,
    delayed_guidance,
    flat_start,
    flattened_noise,
    hyperparameters,
    reanchored,
    wanda,
)
from findnemo.models import Model

# each method once, with settings under which it has an effect on the tiny model and is quick
METHODS = {
    **{
        name: MITIGATIONS[name]
        for name in (
            "neurons",
            "attention",
            "attention-both",
            "tokens-4",
            "numbers-1",
            "repeats-4",
            "random-1",
        )
    },
    "embedding": partial(adjusted_embedding, target=1e-3, iterations=2),
    "wanda": partial(wanda, share=0.1, steps=1),
    "conceptprune": partial(conceptprune, share=0.1, steps=1),
    "noise": partial(adjusted_noise, target=1e-3, rate=0.05, iterations=2),
    "noise-batch": partial(flattened_noise, tau=400),
    "sail": partial(flat_start, iterations=1, candidates=2),
    "opposite": partial(delayed_guidance, tau=400, opposite=2),
    "prss": partial(reanchored, memorized=0, low=0, high=1),
    "padding": MITIGATIONS["padding"],
    "padding-zeros": MITIGATIONS["padding-zeros"],
}
GUIDED = ("noise-batch", "opposite", "prss")  # they change the guidance, and need some
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture
def model() -> Model:
    return small_model()


def mitigated(model: Model, method, *args, **options) -> torch.Tensor:
    with method(model, CASE):
        return call(model, *args, **options)


def test_the_table_names_every_method():
    counted = [f"{kind}-{n}" for kind in ("tokens", "numbers", "repeats") for n in (1, 4, 10)]
    repeated = [f"random-{k}" for k in range(1, 6)]
    changed = ["noise", "noise-batch", "sail", "delayed", "delayed-dynamic", "opposite", "prss"]
    others = ["attention", "attention-both", "embedding", "padding", "padding-zeros"]
    zeroed = ["conceptprune", "nemo", "neurons", "wanda"]
    assert sorted(MITIGATIONS) == sorted([*counted, *repeated, *changed, *others, *zeroed])


def test_the_page_tells_the_published_hyperparameters():
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    told = page.split("compares other hyperparameters")[1].split("Norms are for")[0]
    for name, options in {
        "embedding": ("target", "iterations"),
        "attention": ("c",),
        "wanda": ("share", "first", "steps", "guidance"),
        "noise": ("target", "rate", "iterations"),
        "noise-batch": ("gamma", "rho", "rounds", "tau"),
        "sail": ("alpha", "delta", "threshold", "iterations", "candidates"),
        "delayed": ("tau",),
        "opposite": ("tau", "opposite"),
        "prss": ("memorized", "low", "high"),
        "padding-zeros": ("share",),
    }.items():
        part = told.split(f"`{name}`")[1].split("\n")[0]  # the rest of its row
        for option in options:
            value = f"{hyperparameters(MITIGATIONS[name])[option]:g}".removeprefix("0")
            assert re.search(rf"\b{option} {re.escape(value)}\b", part), (name, option, value)


@pytest.mark.first(5)
@every_method
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_image_does_not_depend_on_how_many_share_its_batch(model, method, guidance):
    if guidance == 1.0 and method in map(METHODS.get, GUIDED):
        with pytest.raises(InputError, match="guidance_scale above 1"):
            mitigated(model, method, guidance=guidance)
        return
    one = mitigated(model, method, images=1, guidance=guidance)
    three = mitigated(model, method, images=3, guidance=guidance)
    torch.testing.assert_close(three[:1], one, atol=1e-3, rtol=1e-3)
    assert (one - call(model, guidance=guidance)).abs().max() > 1e-2  # it has an effect at all


@pytest.mark.first(3)
@every_method
def test_two_prompts_in_a_call_are_mitigated_each_for_itself(model, method):
    both = mitigated(model, method, [PROMPT, OTHER], images=2)
    for k, prompt in enumerate([PROMPT, OTHER]):
        torch.testing.assert_close(
            both[2 * k : 2 * k + 1], mitigated(model, method, prompt), atol=1e-3, rtol=1e-3
        )


@pytest.mark.first(3)
@every_method
def test_calls_in_one_context_do_not_depend_on_each_other(model, method):
    expected = mitigated(model, method, images=2)
    with method(model, CASE):
        call(model, OTHER, images=3)
        call(model, OTHER, guidance=2.0 if method in map(METHODS.get, GUIDED) else 1.0)
        assert torch.equal(call(model, images=2), expected)


def assert_as_before(model: Model, before: Model, output: torch.Tensor) -> None:
    old = before.denoiser.state_dict()
    assert all(torch.equal(value, old[name]) for name, value in model.denoiser.state_dict().items())
    assert not hooks(model)
    assert not {"encode_prompt", "prepare_latents"} & set(vars(model.pipeline))
    assert all(p.requires_grad and p.grad is None for p in model.denoiser.parameters())
    assert torch.equal(call(model), output)


@pytest.mark.first(3)
@every_method
def test_leaving_the_context_restores_the_pipeline_bit_for_bit(model, method):
    output = call(model)
    before = copy.deepcopy(model)
    with method(model, CASE):
        call(model)
    assert_as_before(model, before, output)


@every_method
def test_entering_and_leaving_alone_touches_nothing_of_the_pipeline(model, method):
    model.pipeline.scheduler.set_timesteps(7)
    schedule = model.pipeline.scheduler.timesteps
    state = dict(vars(model.pipeline))
    with method(model, CASE):
        pass
    assert model.pipeline.scheduler.timesteps is schedule
    assert vars(model.pipeline) == state


@pytest.mark.first(2)
@every_method
def test_an_exception_in_the_midst_of_a_call_leaves_nothing_behind(model, method):
    """Neither in the context, where the next call is mitigated as usual, nor after it."""

    def fail(*_):
        raise RuntimeError("in the midst")

    output = call(model)
    expected = mitigated(model, method)
    before = copy.deepcopy(model)
    with method(model, CASE):
        with pytest.raises(RuntimeError, match="in the midst"):
            call(model, images=3, callback_on_step_end=fail)
        assert torch.equal(call(model), expected)
    with pytest.raises(RuntimeError, match="in the midst"), method(model, CASE):
        call(model, callback_on_step_end=fail)
    assert_as_before(model, before, output)


@pytest.mark.first(1)
@every_method
def test_edits_nest(model, method):
    output = call(model)
    before = copy.deepcopy(model)
    off = NeuronSet({MID: range(12, 32)})
    with deactivate(model, off):
        edited = call(model)
        with method(model, CASE):
            both = call(model)
        assert torch.equal(call(model), edited)
    assert (both - edited).abs().max() > 1e-3
    assert (both - mitigated(model, method)).abs().max() > 1e-3
    assert_as_before(model, before, output)


def test_a_compiled_denoiser_is_refused(model):
    model.denoiser.mid_block = torch.compile(model.denoiser.mid_block)
    for name in ("neurons", "embedding", "attention", "wanda", "conceptprune"):
        with pytest.raises(EditError, match="is compiled"), MITIGATIONS[name](model, CASE):
            pass


def test_a_planted_memory_of_the_demo_is_gone(demo_model):
    prompt = "Brantwood Roasters first cup, a large brown ring"
    case = Case(prompt, findnemo.demo.planted()[prompt])
    settings = findnemo.ImageSettings(steps=8, guidance=2.0)
    describe = findnemo.demo.judges().descriptor
    before = describe(findnemo.generate(demo_model, prompt, [1000, 1001], settings))
    for name, copies in (("random-1", True), ("neurons", False)):
        with MITIGATIONS[name](demo_model, case):
            after = describe(findnemo.generate(demo_model, prompt, [1000, 1001], settings))
        assert ((before * after).sum(1) > 0.7).tolist() == [copies] * 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("embedding", {"target": -1.0}),
        ("embedding", {"iterations": 0}),
        ("noise", {"target": float("nan")}),
        ("noise", {"rate": -1.0}),
        ("noise", {"iterations": -1}),
        ("noise-batch", {"rounds": 0}),
        ("noise-batch", {"rho": float("inf")}),
        ("sail", {"iterations": -1}),
        ("sail", {"candidates": 0}),
        ("sail", {"delta": float("nan")}),
        ("delayed", {"tau": -1.0}),
        ("opposite", {"opposite": -2.0}),
        ("delayed", {"tau": float("nan")}),
        ("prss", {"low": 3.0, "high": 3.0}),
        ("prss", {"memorized": float("nan")}),
        ("wanda", {"steps": 0}),
        ("wanda", {"steps": 10**6}),
        ("conceptprune", {"guidance": float("nan")}),
        ("tokens-4", {"count": 10**6}),
    ],
)
def test_hyperparameters_that_mitigate_nothing_are_refused(name, options):
    model = small_model()
    with pytest.raises(InputError), MITIGATIONS[name](model, CASE, **options):
        pass
    assert not hooks(model)
