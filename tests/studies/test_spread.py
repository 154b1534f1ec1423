"""Studies by any number of workers are the same, and tell of all layers in which
the neurons of a run lie.
"""

from __future__ import annotations

import csv
from dataclasses import replace

import _workshop
import pytest
import torch
from _workshop import Brightness, Pixels, Sent

import findnemo
from findnemo.metrics import Judges
from findnemo.prompts import Prompt
from findnemo.runs import audit, start
from findnemo.runs.standing import all_neurons, neurons_of
from findnemo.runs.workers import Facts, Loader
from findnemo.studies import Bench, study

STUDIES = ("fig2a", "fig2b", "fig4", "fig5b", "fig10", "fig13", "fig14", "table3", "utility")
UP = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"


def a_run(work, folder):
    """The memories of the run of all tests, and two captions that are
    none, in a run of their own.
    """
    captions = list(work.run.captions())
    chosen = [c for c in captions if c.type] + [c for c in captions if not c.type][:2]
    run = start(folder, work.model, work.calibration, work.plan)
    mine = replace(work, run=run)
    audit(mine, [Prompt(c.text, c.row, c.type) for c in chosen], ("detect", "localize"))
    return mine


def done(work, pool, names, folder):
    """What studies write, and what they keep in the run, without the seconds that it took."""
    clean = [c.text for c in work.run.captions() if not c.type]
    made = study(names, Bench(work, clean, limit=1, pool=pool), folder)
    assert {name: str(one) for name, one in made.items() if isinstance(one, Exception)} == {}
    kept = {
        (c.text, stage): {k: v for k, v in payload.items() if k != "seconds"}
        for c in work.run.captions()
        for stage, payload in c.results.items()
        if stage.startswith("study:")
    }
    values = {name: work.run.meta(f"study:{name}") for name in ("fig2a", "table3", "utility")}
    return {file.name: file.read_bytes() for file in folder.iterdir()}, kept, values


@pytest.fixture(scope="module")
def alone(work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    mine = a_run(work, folder / "run")
    with mine.run:
        return done(mine, None, STUDIES, folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_workers_that_have_the_model_give_the_same(work, alone, tmp_path, deaths):
    mine = a_run(work, tmp_path / "run")
    pool = Sent(work.model, deaths=deaths)
    assert isinstance(pool.model, Facts)
    with mine.run:
        given = done(replace(mine, model=pool.model), pool, STUDIES, tmp_path / "out")
    assert pool.replaced == deaths
    assert given == alone


@pytest.mark.slow
def test_two_ray_workers_give_the_same(work, tmp_path):
    ray = pytest.importorskip("ray")
    from findnemo.runs.cluster import RayPool

    ray.cloudpickle.register_pickle_by_value(_workshop)  # workers cannot import a test's helper
    work.model.pipeline.save_pretrained(tmp_path / "model")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers do
    model = findnemo.load(tmp_path / "model")
    judges = Judges(Pixels(), Brightness())
    given = []
    with RayPool(Loader(str(tmp_path / "model"), device="cpu"), workers=2) as pool:
        for name, workers in (("alone", None), ("ray", pool)):
            mine = a_run(replace(work, model=model, judges=judges), tmp_path / name / "run")
            with mine.run:
                of_run = replace(mine, model=workers.model) if workers else mine
                given.append(done(of_run, workers, STUDIES, tmp_path / name / "out"))
    torch.set_num_threads(threads)
    assert given[0] == given[1]


# neurons in layers that the paper does not look at ------------------------------------------------


@pytest.fixture
def above(work, tmp_path):
    """A run of which every memory has two neurons in an up block beside
    those that its search found.
    """
    mine = a_run(work, tmp_path / "run")
    with mine.run as run:
        for caption in [c for c in run.captions() if c.type]:
            more = neurons_of(caption) | findnemo.NeuronSet({UP: [0, 1]})
            payload = run.result(caption.id, "localize") | {"neurons": more.to_json()}
            run.record(caption.id, "localize", payload, 0.1)
        yield mine


def rows(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_studies_tell_of_all_layers_where_neurons_lie_in_up_blocks(above, tmp_path):
    model = above.model
    off = all_neurons(above.run.captions())
    assert UP in model.widths("all")
    assert UP not in model.widths()
    clean = [c.text for c in above.run.captions() if not c.type]
    names = ("table3", "fig2b", "fig5a", "fig16", "utility")
    made = study(names, Bench(above, clean, limit=1), tmp_path / "out")
    assert {name: str(one) for name, one in made.items() if isinstance(one, Exception)} == {}

    layers = list(model.widths("all"))
    head, *lines = rows(tmp_path / "out", "table3")
    assert head == ["", "neurons off", *map(str, range(1, len(layers) + 1)), "lowest"]
    last = next(row for row in lines[::-1] if row[0] == "found")
    assert int(last[1]) == len(off)
    assert float(last[2 + layers.index(UP)]) < 1  # what lies there is off, and seen

    off_as_a_whole = {tuple(row[:3]) for row in rows(tmp_path / "out", "fig16")}
    assert ("value layer", "all up", "VM") in off_as_a_whole

    counts = [int(row[1]) for row in rows(tmp_path / "out", "fig5a") if row[0] == "found"]
    assert max(counts) == len(off)
    assert above.run.meta("quality")["utility"]["neurons"] == len(off)


def test_where_all_neurons_lie_in_the_papers_layers_those_are_told_of(work):
    assert Bench(work, ()).layers == list(work.model.widths())
