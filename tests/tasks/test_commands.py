"""What each command does, in Python: docs/api.md has its functions, and each of them that is new to
Python does without the command line what the command does.
"""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from _command import cli
from _tiny import SMALL, tiny_pipeline
from _tiny_files import make_run

import findnemo
from findnemo import NeuronSet, demo, tasks
from findnemo.benchmark import NATURAL_VERSION, published
from findnemo.benchmark.demo_check import Figure
from findnemo.cli._app import app
from findnemo.detection import Score
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import Run, Serial, any_failed, counts
from findnemo.runs.compare import failed_methods
from findnemo.runs.detectors import Detectors, run_detectors, start_detectors
from findnemo.runs.tuned import newest_copies
from findnemo.tasks import watching
from findnemo.tasks.tuned_input import Candidate

COMMANDS = typer.main.get_command(app).commands
API = Path(__file__).parents[2] / "docs" / "api.md"
TEXTS = ("a red fox", "Foxes", "a moon")
NUMBERS = {"captions": 3, "memorized": 0, "suspected": 0, "unseen": 0}


def functions() -> dict[str, list[str]]:
    """Command -> names of its functions, by the table of docs/api.md."""
    table = API.read_text(encoding="utf-8").split("\n| command | functions in Python |\n")[1]
    lines = [line.split("|") for line in table.split("\n\n")[0].splitlines()[1:]]
    return {
        command.strip(" `"): [name for name in told.split("`") if name.startswith("findnemo.")]
        for _, command, told, _ in lines
    }


def test_every_command_has_its_functions_in_python():
    assert set(functions()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_calls_functions_below_the_command_line(command):
    face = inspect.getsource(inspect.getmodule(inspect.unwrap(COMMANDS[command].callback)))
    for name in functions()[command]:
        module, _, last = name.rpartition(".")
        function = getattr(import_module(module), last)
        assert callable(function), name
        assert function.__doc__, name
        assert not function.__module__.startswith("findnemo.cli"), name
        assert f"{last}(" in face or f"import {last} as" in face, name


# what is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["demo", "demo-natural"])
def test_a_shipped_model_is_audited_with_its_own_calibration(model, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("findnemo.tasks.auditing.audit", lambda *given, **_: asked.append(given))
    tasks.audit_demo(model, tasks.Captions(limit=2), tmp_path)
    ((place, captions, out, detecting),) = asked
    assert (place, captions.limit, out) == (model, 2, tmp_path)
    assert detecting.calibration.same(demo.calibration(model, "findnemo"))
    assert detecting.calibration.fpr == 0.05
    with pytest.raises(InputError, match="no shipped model: use one of demo, demo-natural"):
        tasks.audit_demo("sd", out=tmp_path)


def test_the_demo_model_is_checked(monkeypatch):
    asked = []

    def check(model, progress, limit):
        asked.append((model.source, limit, torch.get_num_threads()))
        progress("memories", 1, 1)
        return [Figure("AUROC", 0.5, ">= 0.99", reached=False, n=1)]

    monkeypatch.setattr("findnemo.tasks.benchmarking.check", check)
    told = []
    listener = tasks.Listener(progress=lambda *given: told.append(given))
    figures = tasks.check_demo(2, tasks.Workers(threads=1), listener)
    assert asked == [("demo", 2, 1)]
    assert told == [("memories", 1, 1)]
    result = cli("demo", "--check", "--limit", 2, "--json", "--quiet")
    assert (result.status, result.json) == (1, [f.to_json() for f in figures])


def test_options_of_a_table_beside_those_of_a_fine_tune():
    table = tasks.Captions("further.csv", column="text", limit=3)
    assert tasks.audited_of(tasks.FineTune(), table) is table
    both = tasks.audited_of(tasks.FineTune("photos"), table)
    assert (both.train_images, both.column, both.limit) == ("photos", "text", 3)
    assert both.prompts == tasks.Captions("further.csv", column="text")  # all of them
    with pytest.raises(InputError, match="--tuned goes with --train-images"):
        tasks.audited_of(tasks.FineTune(tuned="model"), table)
    with pytest.raises(InputError, match="--shard does nothing with --train-images"):
        tasks.audited_of(tasks.FineTune("photos"), tasks.Captions(shard="1/2"))


def test_a_fine_tune_without_training_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="give --train-images DIR"):
        findnemo.audit(tasks.Source("base", lora="l"), tasks.FineTune(), tmp_path / "run")
    with pytest.raises(InputError, match="give --train-images DIR"):
        next(tasks.watch("base", tasks.FineTune(), tmp_path / "run"))


@pytest.mark.parametrize(("stop_at_copies", "judged"), [(True, 2), (False, 3)])
def test_a_watch_may_end_at_the_first_copies(stop_at_copies, judged, tmp_path, monkeypatch):
    verdicts = ("does not copy", "copies", "does not copy")
    coming = [Candidate(verdict, tasks.Source("base")) for verdict in verdicts]
    stubs = {
        "check": lambda *given: None,
        "material": lambda *given: SimpleNamespace(notes=(), subject=None, root=tmp_path),
        "Looks": lambda *given: SimpleNamespace(at=lambda one, base: {"verdict": one.name}),
        "_candidates": lambda *given: iter(coming),
        "summary": lambda subject, variants, *others: {"variants": [*variants]},
        "write_table": lambda *given: None,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(watching, name, stub)
    source = tasks.Source("base", lora=str(tmp_path))
    found = tasks.watch(source, tasks.FineTune("p"), tmp_path, stop_at_copies=stop_at_copies)
    assert [about["variants"][-1]["verdict"] for about in found] == list(verdicts[:judged])


# the benchmark ------------------------------------------------------------------------------------


def test_the_published_results_are_those_of_the_suite(tmp_path):
    shown = tasks.benchmark(tmp_path, tasks.Scoring(natural=True, published=True))
    assert shown == published(NATURAL_VERSION)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scoring", "said"),
    [
        (tasks.Scoring(methods="nemo9"), "'nemo9' is not known: use findnemo"),
        (tasks.Scoring(train=True), "give its folder"),
        (tasks.Scoring(train=True, suite="suite", natural=True), "are of planted memories"),
        (tasks.Scoring(suite="nowhere"), "holds no trained models"),
    ],
)
def test_a_benchmark_that_cannot_be_is_refused(scoring, said, tmp_path):
    with pytest.raises(InputError, match=said):
        tasks.benchmark(tmp_path, scoring)
    assert list(tmp_path.iterdir()) == []


# what a run holds ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "model"
    tiny_pipeline(**SMALL).save_pretrained(place)
    return findnemo.load(place)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A run of three captions, of which the first two have neurons."""
    neurons = NeuronSet({next(iter(model.value_layers)): [0, 1]})
    captions = dict(zip(TEXTS, (neurons, neurons, NeuronSet()), strict=True))
    path = make_run(tmp_path_factory.mktemp("held") / "run", model, captions)
    demo.calibration().save(path / "calibration")
    return path


def shown(found):
    """An inspection, written as JSON and read again."""
    return json.loads(json.dumps(found.to_json()))


def test_a_run_is_inspected_whole_or_by_captions(run):
    with Run.open(run) as opened:
        whole = findnemo.runs.inspect(opened)
        assert whole.chosen is whole.detectors is None
        assert shown(whole) == cli("inspect", run, "--json").json
        for wanted, texts in (("FOX", TEXTS[:2]), ("3", TEXTS[2:]), ("moon", TEXTS[2:])):
            some = findnemo.runs.inspect(opened, wanted)
            assert [c.text for c in some.chosen] == list(texts)
            assert shown(some) == cli("inspect", run, wanted, "--json").json
        with pytest.raises(InputError, match="no caption 'sea' in"):
            findnemo.runs.inspect(opened, "sea")
        with pytest.raises(InputError, match="--fdr 2 is not a rate"):
            findnemo.runs.inspect(opened, fdr=2)


def test_a_run_of_detectors_is_inspected_as_one(tiny, tmp_path, monkeypatch):
    def detector(model, prompt, settings):
        return Score(float(len(prompt)), 3)

    monkeypatch.setitem(findnemo.detection.DETECTORS, "counted", detector)
    prompts = [Prompt(text, k, "VM" if k < 3 else None) for k, text in enumerate(TEXTS, 1)]
    settings = ImageSettings(steps=1, guidance=2.0)
    with start_detectors(tmp_path / "run", tiny, settings) as made:
        run_detectors(made, prompts, ["one", "three"], ["counted"], settings, Serial(tiny))
        found = findnemo.runs.inspect(made)
    assert isinstance(found.detectors, Detectors)
    (result,) = found.detectors.results
    assert (result.detector, result.captions, result.failed) == ("counted", 3, 0)
    assert [row["scores"] for row in found.to_json()["captions"]] == [
        {"counted": len(text)} for text in TEXTS
    ]
    assert shown(found) == cli("inspect", tmp_path / "run", "--json").json


def test_a_failed_caption_or_quality_check_is_a_failure(run, tmp_path):
    with Run.create(tmp_path / "run", {}) as made:
        assert not any_failed(made, NUMBERS | {"failed": 0})
        assert any_failed(made, NUMBERS | {"failed": 1})
        made.set_meta("quality", {"failed": 2, "prompts": 8, "neurons": 4})
        assert any_failed(made, NUMBERS | {"failed": 0})
    with Run.open(run) as opened:
        assert not any_failed(opened, counts(opened))
        assert failed_methods(opened) == {}


def test_the_mitigations_that_failed_are_told_by_row(model, tmp_path):
    path = make_run(tmp_path / "run", model, {text: NeuronSet() for text in TEXTS})
    with Run.open(path) as opened:
        settings = opened.meta("settings")
    with Run.create(path, settings) as made:
        (first, *_) = made.captions()
        made.record(first.id, "compare:early", {}, 0.1, "no early steps")
        made.record(first.id, "compare@other:late", {}, 0.1, "of other settings")
        made.record(first.id, "localize", {}, 0.1, "no mitigation")
        assert failed_methods(made) == {first.row: "early: no early steps"}


def test_only_the_newest_checkpoint_counts():
    copies, clean = {"verdict": "copies"}, {"verdict": "does not copy"}
    assert newest_copies({"variants": [clean, copies]})
    assert not newest_copies({"variants": [copies, clean]})


# the app, and exports -----------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch):
    """What the app was launched with, and the threads that PyTorch then had."""
    pytest.importorskip("gradio", reason="the app needs gradio: pip install 'findnemo[app]'")
    seen = []
    monkeypatch.setattr(
        "findnemo.app.launch", lambda *given: seen.append((given, torch.get_num_threads()))
    )
    return seen


def test_the_app_is_launched_with_the_options_of_a_source(run, served):
    told = []
    listener = tasks.Listener(warn=told.append)
    given = (tasks.Source(dtype="float16"), None, "0.0.0.0", 8000, tasks.Workers(threads=2))
    tasks.launch(run, *given, listener)
    (((place, _, host, port, model, _), threads),) = served
    assert (place, host, port, threads) == (run, "0.0.0.0", 8000, 2)
    assert model.dtype == torch.float16
    assert told == ["everyone who can reach 0.0.0.0 can use this app, its model and its exports"]
    with pytest.raises(InputError, match="--model has no run to apply to"):
        tasks.launch("demo", tasks.Source("demo"))


def test_a_stop_while_the_model_loads_serves_nothing(run, served):
    tasks.launch(run, listener=tasks.Listener(stop=lambda: True))
    assert served == []


def test_an_export_and_its_check_take_threads(run, tmp_path, monkeypatch):
    from findnemo.tasks import exporting

    seen = []
    for name in ("write_each", "deviations"):
        own = getattr(exporting.forms_of, name)
        monkeypatch.setattr(
            exporting.forms_of,
            name,
            lambda *given, own=own: (seen.append(torch.get_num_threads()), own(*given))[1],
        )
    before = torch.get_num_threads()
    one = tasks.Workers(threads=before + 1)
    tasks.export(run, out=tmp_path / "clean", workers=one)
    assert tasks.check_export(run, tmp_path / "clean", workers=one) == []
    assert seen == [before + 1] * 2
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="--force"):
        tasks.export(run, out=tmp_path / "clean")
    tasks.export(run, out=tasks.Writing(tmp_path / "clean", force=True))
    for task in (tasks.export, tasks.check_export):
        with pytest.raises(InputError, match="runs in one process"):
            task(run, tmp_path / "clean", workers=tasks.Workers(workers=2))
