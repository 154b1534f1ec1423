"""Every study on a small run: what it writes, and its figures against computations of their own."""

from __future__ import annotations

import copy
import csv
import shutil
from collections import Counter
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
from _workshop import Sent
from PIL import Image

import findnemo
from findnemo.edits import deactivate
from findnemo.localization import out_of_distribution_neurons
from findnemo.neurons import NeuronSet
from findnemo.passes.deltas import Probe
from findnemo.runs.compare import methods as compared
from findnemo.runs.standing import all_neurons, neurons_of
from findnemo.scores import pairwise, ssim
from findnemo.studies import STUDIES, Bench, study
from findnemo.studies._nemo import listing, with_tau
from findnemo.studies.fig14 import KS, THETAS
from findnemo.studies.fig16 import channels_off
from findnemo.studies.table1 import rows as methods_by_label
from findnemo.studies.table3 import never_found

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(work, tmp_path_factory):
    """All studies by three workers, to which everything is sent; whoever asks for them has facts
    of the model and no model.
    """
    folder = tmp_path_factory.mktemp("out")
    pool = Sent(work.model)
    clean = [c.text for c in work.run.captions() if not c.type]
    bench = Bench(replace(work, model=pool.model), clean, limit=1, pool=pool)
    return study(["all"], bench, folder), folder


def cells(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.reader(file))


def test_all_of_them_are_written(made):
    done, folder = made
    assert list(done) == list(STUDIES)
    for name, one in done.items():
        assert not isinstance(one, Exception), (name, one)
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {STUDIES[name].heading}\n")
        assert f"({name}.md)" in (folder / "README.md").read_text()
        for stem in one.figures:
            assert f"]({stem}.png)" in page
            assert (folder / f"{stem}.svg").read_text().lstrip().startswith("<?xml")
            assert (
                np.asarray(Image.open(folder / f"{stem}.png").convert("L")).std() > 5
            )  # not empty
        for k in range(1, len(one.tables) + 1):
            stem = name if len(one.tables) == 1 else f"{name}-{k}"
            assert (folder / f"{stem}.tex").read_text().startswith("\\begin{table}")
            assert len(cells(folder, stem)) > 1


def test_doing_them_again_computes_nothing(made, work, monkeypatch, tmp_path):
    _, folder = made
    monkeypatch.setattr("findnemo.runs.compare.generate", None)
    monkeypatch.setattr("findnemo.studies._nemo.Probe", None)
    bench = Bench(work, [c.text for c in work.run.captions() if not c.type], limit=1)
    study(["table1", "table2", "table4", "fig4", "fig5a"], bench, tmp_path)
    for name in ("table1-1", "table2", "table4-1", "fig4-1", "fig5a"):
        assert (tmp_path / f"{name}.csv").read_bytes() == (folder / f"{name}.csv").read_bytes()


def test_table_1_has_every_mitigation_and_medians_of_what_was_recorded(made, work):
    head, *rows = cells(made[1], "table1-1")
    methods = methods_by_label(compared())
    assert [r[0] for r in rows if r[1] == "VM"] == list(methods)
    column = head.index("SSCD_gen")
    for label, names in methods.items():
        stages = [
            (c.id, f"compare:{name}")
            for c in work.run.captions()
            for name in names
            if c.type == "VM"
        ]
        values = [p["sscd_gen"] for stage in stages if (p := work.run.result(*stage)) is not None]
        middle = median(values)
        row = next(r for r in rows if r[:2] == [label, "VM"])
        assert row[column] == f"{middle:.2f} ± {median(abs(v - middle) for v in values):.2f}"
        assert row[2] == str(len(values))
    assert (
        next(r for r in rows if r[0] == "All neurons active" and r[1] == "VM")[column]
        == "1.00 ± 0.00"
    )


def test_the_comparison_is_of_the_images_that_the_mitigation_gives(work):
    caption = next(c for c in work.run.captions() if c.type == "TM")
    settings = work.plan.image_settings
    samples = range(1000, 1002)
    before = findnemo.generate(work.model, caption.text, samples, settings)
    with deactivate(work.model, neurons_of(caption)):
        after = findnemo.generate(work.model, caption.text, samples, settings)
    one, other = work.judges.descriptor(before), work.judges.descriptor(after)
    payload = work.run.result(caption.id, "compare:neurons")
    assert payload["sscd_gen"] == pytest.approx(float((one * other).sum(1).median()), abs=2e-4)
    kept = np.asarray(Image.open(work.run.path / "compare" / caption.slug / "neurons.png"))
    assert (kept == np.asarray(after[0])).all()


def test_the_listing_is_the_listing(work):
    caption = next(c for c in work.run.captions() if c.type == "VM")
    found = findnemo.localize(work.model, caption.text, work.calibration, "listing")
    mine = listing(work.model, caption.text, work.calibration)
    assert NeuronSet(mine["refined"]) == found.neurons
    assert NeuronSet(mine["candidates"]) == found.candidates
    assert mine["seconds"]["total"] == pytest.approx(
        sum(v for k, v in mine["seconds"].items() if k != "total")
    )


def test_without_top_k_no_neuron_comes_in_for_its_strength_alone(work):
    caption = next(c for c in work.run.captions() if c.type == "VM")
    absolute = findnemo.activations(work.model, caption.text)
    z = work.calibration.z_scores(absolute)
    chosen = NeuronSet(
        listing(work.model, caption.text, work.calibration, top_k=False)["candidates"]
    )
    lowest = min((abs(float(z[name][i])) for name, i in chosen), default=0)
    everything = {n: (v.abs() > lowest - 1e-9).nonzero().flatten().tolist() for n, v in z.items()}
    assert chosen == NeuronSet(everything)  # a threshold on |z| and nothing else


def test_thresholds_of_the_ablation_are_deviations_of_the_hold_out_scores(work):
    scores = work.calibration.scores.double()
    assert with_tau(work.calibration, 2.0).tau == pytest.approx(
        float(scores.mean() + 2 * scores.std())
    )
    assert with_tau(work.calibration, -1.0).tau == pytest.approx(
        float(scores.mean() - scores.std())
    )


def test_the_heat_map_is_the_similarity_with_those_candidates_off(made, work):
    caption = next(c for c in work.run.captions() if c.type == "TM")
    kinds = list(
        dict.fromkeys(c.type for c in work.run.captions() if c.type and len(neurons_of(c)))
    )
    _, *rows = cells(made[1], f"fig14-{kinds.index('TM') + 1}")
    absolute = findnemo.activations(work.model, caption.text)
    z = work.calibration.z_scores(absolute)
    probe = Probe(work.model, caption.text, work.calibration.settings)
    unblocked = probe.deltas()
    kept = [k for k, best in enumerate(pairwise(unblocked).amax(1)) if best >= work.calibration.tau]
    for i, j in ((0, 0), (2, 1), (4, 4)):
        neurons = out_of_distribution_neurons(z, absolute, THETAS[i], KS[j])
        value = float(ssim(unblocked, probe.deltas(neurons))[kept].max())
        of_theta = {row[0]: row[1:] for row in rows}[f"{THETAS[i]:g}"]
        assert of_theta[j] == f"{value:.2f} ({len(neurons)})"
    assert [float(row[0]) for row in rows] == sorted(THETAS, reverse=True)  # as the picture


def test_figure_10_counts_captions_of_shared_neurons(made, work):
    _, *rows = cells(made[1], "fig10-2")
    layers = list(work.model.value_layers)
    memorized = [c for c in work.run.captions() if len(neurons_of(c))]
    for layer, neuron, count, _ in rows:
        one = (layers[int(layer) - 1], int(neuron.lstrip("#")))
        assert int(count) == sum(one in neurons_of(c) for c in memorized) > 1


def test_quality_without_a_change_is_the_floor_and_counts_are_those_off(made, work):
    head, *rows = cells(made[1], "fig5a")
    counts = [int(r[1]) for r in rows if r[0] == "found"]
    assert max(counts) == len(all_neurons(work.run.captions()))
    assert all(
        0 < int(r[1]) <= n
        for r, n in zip((r for r in rows if r[0] == "random"), counts, strict=True)
    )
    assert rows[0][:2] == ["none", "0"]
    assert all(float(r[head.index("FID (descriptor)")].split()[0]) >= 0 for r in rows)


def test_disentanglement_of_the_neurons_of_most_captions_and_of_others(made, work):
    """Against plain hooks, and weights of the value layers set to zero."""
    _, *rows = cells(made[1], "table3")
    held = Counter(n for c in work.run.captions() if c.type for n in neurons_of(c))
    layers = list(work.model.widths())
    order = sorted(held, key=lambda n: (-held[n], layers.index(n[0]), n[1]))
    counts = sorted({min(n, len(order)) for n in (1, 5, 10, 25, 50, 100, 150)})
    assert [int(r[1]) for r in rows if r[0] == "found"] == counts
    random = [int(r[1]) for r in rows if r[0] == "random"]
    assert all(0 < n <= count for n, count in zip(random, counts, strict=True))
    denoiser = copy.deepcopy(work.model.denoiser)
    seen = {}
    for name in layers:
        block = denoiser.get_submodule(name.removesuffix(".to_v"))
        block.register_forward_hook(lambda m, a, out, n=name: seen.update({n: out.flatten(1)}))
    t = work.model.timesteps(50)[0]

    def outputs(text):
        with torch.no_grad():
            latents = work.model.noise(text, range(3), 0)
            embeds = work.model.encode([text]).expand(3).tokens
            denoiser(latents, t, encoder_hidden_states=embeds)
        return dict(seen)

    prompts = [c.text for c in work.run.captions() if not c.type]
    before = [outputs(text) for text in prompts]
    for layer, index in order:
        denoiser.get_submodule(layer).weight.data[index] = 0
    after = [outputs(text) for text in prompts]
    cosine = torch.nn.functional.cosine_similarity
    last = [r for r in rows if r[0] == "found"][-1]
    for k, name in enumerate(layers, 2):
        values = [cosine(b[name], a[name]).mean() for b, a in zip(before, after, strict=True)]
        assert float(last[k]) == pytest.approx(float(sum(values)) / len(values), abs=2e-4)


def test_random_neurons_were_found_for_no_caption_and_lie_in_the_same_layers():
    order = [("a", 0), ("b", 1), ("a", 3), ("b", 0)]
    for n in range(1, 5):
        drawn = never_found(order[:n], order, {"a": 9, "b": 3})
        assert not set(drawn) & set(order)
        wanted = Counter(layer for layer, _ in order[:n])
        assert {k: len(v) for k, v in drawn.layers.items()} == {
            k: min(v, 1) if k == "b" else v for k, v in wanted.items()
        }


def test_figure_2b_is_of_all_neurons_of_the_first_value_layer(made, work):
    head, *rows = cells(made[1], "fig2b")
    layer = next(iter(work.model.value_layers))
    for row in rows:
        kind = row[0]
        texts = [c.text for c in work.run.captions() if (c.type or "not memorized") == kind]
        z = []
        for text in texts:
            a = findnemo.activations(work.model, text)[layer].double()
            gap = a - work.calibration.mean[layer].double()
            z += (gap / work.calibration.std[layer].double()).abs().clamp(max=100).tolist()
        assert [int(x) for x in row[1:3]] == [len(texts), len(z) // len(texts)]
        at = head.index("share over 5")
        assert float(row[at]) == pytest.approx(sum(x > 5 for x in z) / len(z))
        assert float(row[-1]) == pytest.approx(max(z))


def test_figures_4_and_7_count_prompts_and_mean_neurons(made, work):
    folder = made[1]
    layers = list(work.model.widths())
    captions = [c for c in work.run.captions() if c.type and len(neurons_of(c))]
    sets = {
        kind: [
            findnemo.localize(work.model, c.text, work.calibration, "listing")
            for c in captions
            if c.type == kind
        ]
        for kind in ("VM", "TM")
    }
    head, *rows = cells(folder, "fig4-1")
    for kind, n, _, one, *shares in rows:
        sizes = [len(found.neurons) for found in sets[kind]]
        assert (int(n), int(one)) == (len(sizes), sizes.count(1))
        few, many = sum(s <= 5 for s in sizes), sum(s >= 50 for s in sizes)
        assert [float(x) for x in shares[:3]] == [
            pytest.approx(k / len(sizes)) for k in (sizes.count(1), few, many)
        ]
    assert next(r for r in rows if r[0] == "VM")[head.index("one, paper")] == "28 prompts"
    _, *rows = cells(folder, "fig7-2")
    for label, *means in rows:
        kind, step = label.split(", ")
        chosen = [f.candidates if "initial" in step else f.neurons for f in sets[kind]]
        own = [sum(len(s.layers.get(n, ())) for s in chosen) / len(chosen) for n in layers]
        assert [float(x) for x in means] == pytest.approx(own)
    assert [r[1:] for r in rows if "refined" in r[0]] == [
        r[1:] for r in cells(folder, "fig4-2")[1:]
    ]


def test_captions_that_the_most_shared_neurons_explain(made, work):
    head, *rows = cells(made[1], "fig10-1")
    captions = [c for c in work.run.captions() if c.type]
    held = Counter(n for c in captions for n in neurons_of(c))
    layers = list(work.model.widths("all"))
    order = sorted(held, key=lambda n: (-held[n], layers.index(n[0]), n[1]))
    at = next(k for k, name in enumerate(head) if name.startswith("VM"))
    mine = [set(neurons_of(c)) for c in captions if c.type == "VM"]
    for row in rows:
        top = set(order[: int(row[0])])
        assert float(row[at]) == sum(bool(s & top) for s in mine) / len(mine)
        assert float(row[at + 1]) == sum(not s - top for s in mine) / len(mine)


def test_table_2_has_a_clock_for_the_text_encoder(made):
    _, *rows = cells(made[1], "table2")
    assert rows[0][0] == "text encoder"
    assert "Alg. 2, out-of-distribution neurons" in [r[0] for r in rows]


def test_channels_off_gives_zeros_there_and_leaves_the_rest(work):
    model = work.model
    name = "down_blocks.0.resnets.0.conv1"
    key = next(iter(model.value_layers)).replace("to_v", "to_k")
    seen = {}
    latents = model.noise("a", [0])
    text = model.encode(["a"])

    def run():
        with torch.no_grad():
            handles = [
                model.denoiser.get_submodule(n).register_forward_hook(
                    lambda m, a, out, n=n: seen.update({n: out.clone()})
                )
                for n in (name, key)
            ]
            result = model.predict_noise(latents, 981, text)
        for handle in handles:
            handle.remove()
        return result

    plain = run()
    before = dict(seen)
    with channels_off(model, {name: [1, 3], key: None}):
        run()
    assert seen[name][:, [1, 3]].abs().max() == 0
    assert torch.equal(seen[name][:, [0, 2, 4]], before[name][:, [0, 2, 4]])
    assert seen[key].abs().max() == 0
    assert torch.equal(run(), plain)


def test_a_folder_of_studies_can_be_moved(made, tmp_path):
    """Pages name their pictures beside them."""
    shutil.copytree(made[1], tmp_path / "moved")
    for page in (tmp_path / "moved").glob("*.md"):
        for target in [
            part.split(")")[0] for part in page.read_text(encoding="utf-8").split("](")[1:]
        ]:
            assert (page.parent / target).is_file(), (page, target)


def test_utility_is_measured_on_sets_and_captions_with_the_neurons_off(made, work):
    from findnemo.metrics import fid, kid
    from findnemo.seeds import UNTOUCHED, WANTED

    settings = work.plan.image_settings
    prompts = [c.text for c in work.run.captions() if not c.type]
    off = all_neurons([c for c in work.run.captions() if c.type])

    def images(sample):
        return [findnemo.generate(work.model, p, [sample], settings)[0] for p in prompts]

    real = images(WANTED)
    before = images(UNTOUCHED)
    with deactivate(work.model, off):
        after = images(UNTOUCHED)
    main = work.run.meta("quality")["utility"]
    look = work.judges.descriptor
    assert (main["captions"], main["neurons"]) == (len(prompts), len(off))
    for name, distance in (("FID (descriptor)", fid), ("KID (descriptor)", kid)):
        values = main["sets"][name]
        assert values["untouched"]["value"] == pytest.approx(distance(real, before, look), abs=1e-3)
        assert values["found"]["value"] == pytest.approx(distance(real, after, look), abs=1e-3)
        assert values["found"]["gap"] == pytest.approx(
            values["found"]["value"] - values["untouched"]["value"], abs=2e-6
        )
        assert all(one["low"] <= one["high"] for one in values.values())
    gaps = [
        np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() / 255
        for a, b in zip(before, after, strict=True)
    ]
    assert main["changes"]["pixel_change"]["found"]["median"] == pytest.approx(
        median(gaps), abs=1e-3
    )
    cosines = (look(before) * look(after)).sum(1).tolist()
    assert main["changes"]["sscd_gen"]["found"]["median"] == pytest.approx(
        median(cosines), abs=1e-3
    )


def test_an_interval_is_about_the_figure_and_as_wide_as_theory_says():
    from findnemo.studies.utility import with_interval

    rows = torch.randn(400, generator=torch.Generator().manual_seed(1)).double()
    mean = with_interval(lambda at: float(rows[at].mean()), 400)
    half = 1.96 * float(rows.std()) / 20
    assert mean["high"] - mean["low"] == pytest.approx(2 * half, rel=0.2)
    assert (mean["high"] + mean["low"]) / 2 == pytest.approx(mean["value"], abs=0.3 * half)
    biased = with_interval(
        lambda at: float(len(at.unique())), 400
    )  # a resample has 63 % of the captions; the whole has them all
    assert biased["low"] < biased["value"] == 400 < biased["high"]


def test_the_difference_to_random_neurons_is_paired():
    from findnemo.studies.utility import compared, mean_of_draws

    drawn = [[0.1, 0.2, 0.9], [0.3, 0.2, 0.9]]
    told = compared([0.3, 0.3, 1.0], mean_of_draws(drawn), 0.0)
    assert told["random"]["median"] == pytest.approx(0.2)
    assert told["found less random"]["median"] == pytest.approx(0.1)  # .1, .1, .1
    assert (
        told["found less random"]["low"]
        == pytest.approx(told["found less random"]["high"])
        == pytest.approx(0.1)
    )
    assert told["found"]["ninth"] == 1.0
