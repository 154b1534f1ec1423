"""The search to the end, on planted and natural memories."""

import json
from dataclasses import replace

import pytest
import torch

import findnemo
from findnemo import demo
from findnemo.images import generate
from findnemo.localization import Bystanders, TrajectorySearch, localize, localize_copies
from findnemo.localization.points import CAPTIONS
from findnemo.localization.trajectory import COPIES, MANY, Copies, by_trajectory, prices
from findnemo.metrics.copies import COPY
from findnemo.neurons import NeuronSet
from findnemo.passes import Denoising, Path, likeness, spending
from findnemo.runs.results import Localized, as_stored_type
from findnemo.seeds import FRESH

ONE = "Brantwood Roasters first cup, a large brown ring"  # held by one planted neuron

# few steps do not show its copy
LATE = "Thunderhoof of Zephyr Ranch, a gray house with a dotted ground"

ORDINARY = "a small teal heart on dots"


def nearest(model, caption, neurons, source, images=4):
    """Largest similarity of fresh finished images to the training image, by the descriptor,
    which no search has seen.
    """
    with findnemo.deactivate(model, neurons):
        made = generate(model, caption, range(FRESH, FRESH + images), demo.image_settings())
    return float(
        demo.judges().descriptor.similarity(made, [demo.training_image(caption, source)]).max()
    )


def test_one_neuron_is_found_where_one_is_enough(demo_model):
    found = localize(demo_model, ONE, demo.calibration())
    assert (found.search, found.scope, found.memorized, found.reached) == (
        "trajectory",
        "all",
        True,
        True,
    )
    assert found.neurons == demo.planted()[ONE]
    assert found.copy_before > 0.6 > 0.4 > found.copy_after
    assert found.evaluations < 250
    ((neurons, left, change),) = found.points
    assert (neurons, left) == (1, found.copy_after)
    assert 0 <= change < 0.05
    assert found.at(1) == (found.neurons, found.points[0])


@pytest.mark.slow
def test_a_memory_that_takes_shape_late_is_seen_and_removed(demo_model):
    copies = Copies(Denoising(demo_model, LATE, 8, 2.0), 3, 15)
    assert copies.has_copies
    assert copies.steps == 15
    found = localize(demo_model, LATE, demo.calibration())
    assert found.reached
    assert nearest(demo_model, LATE, found.neurons, "demo") < COPY


@pytest.mark.slow
@pytest.mark.xfail(reason="gradients of one seed take 74 neurons here, of two 50", strict=True)
def test_a_quick_search_takes_no_more_of_a_natural_memory_than_of_two_seeds(natural):
    caption = demo.memorized("demo-natural")[1].text
    found = localize(natural, caption, demo.calibration("demo-natural"))
    assert len(found.neurons) <= 64


@pytest.mark.slow
@pytest.mark.parametrize(("thorough", "most"), [(False, 80), (True, 59)])
def test_a_natural_memory_is_gone_from_finished_pictures(natural, thorough, most):
    caption = demo.memorized("demo-natural")[1].text
    assert nearest(natural, caption, NeuronSet(), "demo-natural") > COPY
    search = TrajectorySearch(thorough=thorough)
    found = localize(natural, caption, demo.calibration("demo-natural"), search)
    assert found.reached
    assert nearest(natural, caption, found.neurons, "demo-natural") < COPY
    assert any(name.startswith("up_blocks") for name in found.neurons.layers)
    assert len(found.neurons) <= most
    assert found.points[-1].change < 0.02  # of ordinary captions
    assert found.evaluations < 1000
    sizes = [point.neurons for point in found.points]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == len(found.neurons) == len(found.order)
    sets = [found.at(size)[0] for size in sizes]
    assert sets[-1] == found.neurons
    assert all(
        len(small) == size and small & large == small
        for size, small, large in zip(sizes, sets, sets[1:], strict=False)
    )
    others = Bystanders(natural, demo.calibration("demo-natural").ordinary[:CAPTIONS])
    assert [point.change for point in found.points] == pytest.approx(others.impacts(sets), abs=1e-4)
    kept = as_stored_type(Localized, json.loads(json.dumps(found.to_json())), "a run")
    assert (kept.order, kept.points) == (found.order, found.points)
    again = localize(natural, caption, demo.calibration("demo-natural"), search)
    assert again == found  # the same to the last bit


@pytest.mark.slow
def test_ordinary_captions_have_nothing_to_remove(natural):
    assert not localize(natural, ORDINARY, demo.calibration("demo-natural")).memorized
    low = findnemo.Calibration(**{**demo.calibration("demo-natural").__dict__, "tau": 0.37})
    found = localize(natural, ORDINARY, low)  # a false alarm
    assert (found.search, found.scope, found.copy_after) == ("trajectory", "paper", None)
    assert found.copy_before < 0.6
    assert (
        found.neurons == localize(natural, ORDINARY, low, "gradient").neurons
    )  # the trace, for those who want it


@pytest.mark.parametrize(("guidance", "samples"), [(2.0, 1), (7.0, 2)])
def test_gradients_are_of_the_seed_that_is_most_like_a_copy(demo_model, guidance, samples):
    """And of a second under strong guidance: guided, in the first and the last of the few steps,
    each pass with its gradient three times as dear.
    """
    copies = Copies.of(Denoising(demo_model, ONE, 8, guidance), 50, thorough=False)
    alike = copies.resemblance(copies.untouched.image, copies.samples)
    assert copies.witnesses[0] == copies.samples[int(alike.argmax())]
    with spending() as spent:
        slopes = copies.gradient(NeuronSet(), copies.untouched_path, demo_model.widths("all"))
    assert spent.evaluations == samples * 2 * 2 * 3
    ((layer, (index,)),) = demo.planted()[ONE].layers.items()
    assert int(slopes[layer].argmax()) == index


def test_neurons_of_ordinary_captions_are_dear(natural):
    widths = natural.widths("all")
    price = prices(natural, demo.holdout()[:4], widths, 3, 2.0)
    layer = "up_blocks.2.attentions.2.transformer_blocks.0.attn2.to_v"
    values = price[layer]
    dearest = int(values.argmax())
    cheapest = int(values.argmin())
    bystanders = Bystanders(natural, demo.unrelated()[:8])
    dear, cheap = bystanders.impacts([NeuronSet({layer: [k]}) for k in (dearest, cheapest)])
    assert dear > cheap
    assert all(float(v.min()) >= 0 for v in price.values())
    assert set(price) == set(widths)
    assert all(
        torch.equal(v, torch.ones(widths[n]))
        for n, v in prices(natural, (), widths, 3, 2.0).items()
    )


@pytest.mark.slow
def test_a_limit_of_impact_asks_for_gentler_sets(natural):
    caption = demo.memorized("demo-natural")[0].text
    calibration = demo.calibration("demo-natural")
    unrelated = demo.unrelated()[:8]
    free = localize(natural, caption, calibration, max_impact=2.0, unrelated=unrelated)
    gentle = localize(
        natural, caption, calibration, max_impact=free.impact * 0.7, unrelated=unrelated
    )
    assert free.tried == 1 < gentle.tried
    assert gentle.impact <= free.impact
    assert gentle.reached


@pytest.mark.slow
def test_no_more_than_a_quarter_of_the_neurons(natural, monkeypatch):
    caption = demo.memorized("demo-natural")[0].text
    copies = Copies(Denoising(natural, caption, 8, 2.0), 3, 15)
    monkeypatch.setattr("findnemo.localization.trajectory.GONE", -1.0)  # nothing is ever enough
    widths = natural.widths("paper")
    found = by_trajectory(copies, widths, lambda: prices(natural, (), widths, 3, 2.0))
    assert not found.gone
    assert len(found.neurons) == sum(widths.values()) // 4
    assert [count for count, _ in found.tried] == sorted({count for count, _ in found.tried})
    assert len(copies.untouched.image) == COPIES


def test_a_known_picture_is_enough_whatever_the_score_is(demo_model):
    """Detection missed it, and its copy is known: the neurons are those that hold it."""
    picture = demo.training_image(ONE)
    blind = replace(demo.calibration(), tau=2.0)
    found = localize_copies(demo_model, ONE, blind, [demo.training_image(LATE), picture])
    assert found.reached
    assert found.neurons == demo.planted()[ONE]
    assert found.copy_before > 0.6 > 0.4 > found.copy_after
    assert not localize(demo_model, ONE, blind).neurons


@pytest.mark.slow
def test_a_picture_that_no_seed_gives_needs_no_neurons(demo_model):
    picture = demo.training_image(LATE)
    few = TrajectorySearch(replace(demo.image_settings(), steps=2))
    found = localize_copies(demo_model, ORDINARY, demo.calibration(), [picture], few)
    assert not found.neurons
    assert not found.reached
    assert found.copy_before < 0.6
    assert found.evaluations >= 2 * 2 * MANY  # all seeds were tried, with guidance


class Given:
    """Denoising whose pictures are given: sample k is the k-th latent, whatever is off."""

    guidance = None

    def __init__(self, pictures):
        self.pictures = pictures
        self.asked = []

    def run(self, samples, steps, scales=None, whole=None):
        self.asked += samples
        image = self.pictures[list(samples)]
        return Path((image,), (999.0,), image)


def test_seeds_that_copy_are_found_among_others_and_each_has_its_own_target():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(MANY, 4, 8, 8, generator=generator)
    originals = torch.stack([pictures[9], pictures[6] + 0.1, torch.zeros(4, 8, 8)])
    copies = Copies(Given(pictures), 3, 15, originals)
    assert copies.has_copies
    assert set(copies.witnesses) == {6, 9}
    assert copies.denoising.asked == list(range(12))  # none was looked at in vain
    path = copies.untouched_path
    targets = copies.targets(copies.witnesses, path.image)
    for k, target in zip(copies.witnesses, targets, strict=True):
        assert torch.equal(target, originals[0 if k == 9 else 1])
        assert torch.equal(path.image[copies.witnesses.index(k)], pictures[k])


@pytest.mark.slow
def test_quick_steps_see_a_memory_that_few_steps_of_ddim_do_not(demo_model):
    quick = Copies.of(Denoising(demo_model, LATE, 8, 2.0), 15, thorough=False)
    assert (quick.few, quick.steps, quick.has_copies) == (3, 3, True)
    found = localize(demo_model, LATE, demo.calibration())
    assert found.reached
    assert nearest(demo_model, LATE, found.neurons, "demo", 2) < COPY


def test_a_set_is_confirmed_on_more_seeds_where_it_is_not_clear():
    """Sample 6 gives a copy whatever is off, the others nothing alike: four samples tell of it only
    where one of them is a little like a copy.
    """
    generator = torch.Generator().manual_seed(0)
    memory, *rest = torch.randn(9, 4, 8, 8, generator=generator)
    untouched = torch.stack([memory] * 4)

    def copies(a_little):
        off = torch.stack(rest)
        off[2] = off[2] + a_little * memory
        off[6] = memory
        made = Copies(Given(untouched), 3, 15, None, False)
        made.denoising.model = None
        made.path_without = lambda neurons, samples, steps: (
            Path((), (), off[list(samples)]),
            likeness(off[list(samples)], memory[None])[:, 0],
        )
        return made

    assert copies(0.0).gone(NeuronSet()) is None
    doubted = copies(0.35)
    assert 0.25 < float(doubted.path_without(NeuronSet(), [2], 3)[1]) < 0.4
    assert doubted.gone(NeuronSet()) is not None
    assert doubted.witnesses[0] == 6


class Needing:
    """Copies that are gone with so many neurons off, which are ranked by their numbers."""

    untouched_path = Path((), (), torch.zeros(0))
    off = NeuronSet()

    def __init__(self, needed, quick=True):
        self.needed = needed
        self.quick = quick
        self.tried = []

    def gone(self, neurons):
        enough = len(neurons) >= self.needed
        self.tried.append((len(neurons), 0.1 if enough else 0.9))
        return None if enough else self.untouched_path

    def gradient(self, neurons, path, widths):
        return {name: torch.arange(width, 0.0, -1.0) for name, width in widths.items()}


@pytest.mark.parametrize(
    ("needed", "quick", "found", "tried"),
    [
        (20, True, 20, [1, 2, 4, 8, 16, 20]),  # 32 were enough, and 24
        (30, True, 32, [1, 2, 4, 8, 16, 24, 28, 32]),
        (20, False, 32, [1, 2, 4, 8, 16, 32]),
        (7, True, 8, [1, 2, 4, 8]),  # a small block stays whole
    ],
)
def test_the_last_block_is_cut_to_what_is_needed(needed, quick, found, tried):
    widths = {"a": 400}
    trail = by_trajectory(Needing(needed, quick), widths, lambda: {"a": torch.ones(400)})
    assert trail.gone
    assert trail.neurons == NeuronSet({"a": range(found)})
    assert [count for count, _ in trail.tried] == tried


def test_a_guess_is_tried_as_a_whole_and_the_search_goes_on_from_it():
    guess = [("a", 7), ("a", 3), ("a", 399)]
    enough = by_trajectory(Needing(3), {"a": 400}, lambda: 1 / 0, guess)  # prices are not asked
    assert enough.order == tuple(guess)
    assert enough.tried == ((3, 0.1),)
    more = by_trajectory(Needing(5), {"a": 400}, lambda: {"a": torch.ones(400)}, guess)
    assert more.order == (*guess, ("a", 0), ("a", 1), ("a", 2))
    assert more.gone
