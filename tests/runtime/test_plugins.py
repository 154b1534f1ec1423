"""Methods of installed packages: those that docs/extending.md shows are written to a folder as
pip would install them, and used; others are broken on purpose.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from _tiny import tiny_pipeline
from diffusers import StableDiffusionPAGPipeline

import findnemo
from findnemo.detection import DETECTORS, Score
from findnemo.errors import FindnemoWarning, InputError
from findnemo.localization import ONE_STEP, Evidence, check_search
from findnemo.localization.search import find
from findnemo.mitigation import MITIGATIONS, Case
from findnemo.models.loading import ADAPTERS
from findnemo.prompts import Prompt
from findnemo.runs import compare, detectors
from findnemo.runs.workers import Serial
from findnemo.runtime import plugins
from findnemo.studies.table1 import rows
from findnemo.tasks.opening import plan_for
from findnemo.tasks.options import Localizing, Pictures

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
PROMPT = "a cat"
PAPER = [  # the rows of Table 1, and that of findnemo's own search
    "All neurons active",
    "Random neurons",
    "Embedding adjustment (Wen et al.)",
    "Attention scaling (Ren et al.)",
    *("1 random token", "4 random tokens", "10 random tokens"),
    *("1 random number", "4 random numbers", "10 random numbers"),
    *("1 repeated word", "4 repeated words", "10 repeated words"),
    "Wanda pruning",
    "ConceptPrune",
    "Deactivated neurons (NeMo)",
    "Deactivated neurons (findnemo)",
]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package into a folder on the path: its code, and the metadata that pip writes."""
    monkeypatch.syspath_prepend(tmp_path)

    modules = set(sys.modules)

    def put(name: str, entry_points: str, code: str = "") -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        about = tmp_path / f"{module}-1.5.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Name: {name}\nVersion: 1.5\n", encoding="utf-8")
        (about / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        plugins.installed.cache_clear()

    yield put
    monkeypatch.undo()
    plugins.installed.cache_clear()
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


@pytest.fixture
def shown(install):
    """The package of docs/extending.md."""
    text = PAGE.read_text(encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    ini = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", toml).replace('"', "")
    install("my-package", ini, code)


@pytest.fixture
def model():
    return findnemo.load(tiny_pipeline())


def broken(name: str, group: str = "detectors", value: str = "broken:method") -> str:
    return f"[findnemo.{group}]\n{name} = {value}\n"


def test_what_the_page_shows_is_listed_and_nothing_of_it_imported(shown):
    assert list(DETECTORS)[-1] == "alike"
    assert list(MITIGATIONS)[-1] == "quiet"
    assert list(ONE_STEP) == ["gradient", "listing", "loudest"]
    assert "StableDiffusionPAGPipeline" in ADAPTERS
    assert plugins.also("searches") == " Of installed packages: loudest."
    assert plugins.packages() == {"my-package": "1.5"}
    assert "my_package" not in sys.modules


def test_a_detector_of_the_page(shown, model):
    settings = findnemo.ImageSettings(seed=4)
    (name,) = detectors.distinct_detectors(["alike"])
    score = DETECTORS[name](model, PROMPT, settings)
    two = findnemo.Settings(seed=4, samples=2)
    assert score == Score(findnemo.score(model, PROMPT, settings=two), 2)
    assert (DETECTORS[name].label, DETECTORS[name].gradients) == ("Two seeds", False)


def test_a_mitigation_of_the_page(shown, model):
    neurons = findnemo.NeuronSet({next(iter(model.value_layers)): (0, 3)})
    settings = findnemo.ImageSettings(2, 3.0)
    with MITIGATIONS["quiet"](model, Case(PROMPT, neurons)):
        quiet = findnemo.generate(model, PROMPT, [0], settings)[0]
    with findnemo.deactivate(model, neurons, 0.5):
        assert findnemo.generate(model, PROMPT, [0], settings)[0].tobytes() == quiet.tobytes()
    assert "quiet" in compare.methods()
    assert compare.methods(["quiet"]) == ("none", "quiet")


def test_a_search_of_the_page(shown, demo_model):
    calibration = findnemo.demo.calibration()
    caption = next(iter(findnemo.demo.planted()))
    found = findnemo.localize(demo_model, caption, calibration, "loudest")
    z = {
        (name, i): abs(float(v))
        for name, values in calibration.z_scores(findnemo.activations(demo_model, caption)).items()
        for i, v in enumerate(values)
    }
    assert set(found.neurons) == set(sorted(z, key=z.__getitem__)[-8:])
    assert (found.search, found.memorized) == ("loudest", True)
    assert found.reached == (found.score_after <= calibration.tau)
    assert plan_for("demo", Localizing("loudest"), Pictures(), 0).search == "loudest"


def test_an_adapter_of_the_page(shown):
    pipeline = StableDiffusionPAGPipeline(
        **tiny_pipeline().components, requires_safety_checker=False
    )
    model = findnemo.load(pipeline)
    assert type(model).__name__ == "PerturbedAttention"
    assert findnemo.score(model, PROMPT) == findnemo.score(findnemo.load(tiny_pipeline()), PROMPT)


def test_the_table_has_the_papers_rows_and_then_those_of_packages(install):
    install("more", broken("late", "mitigations", "more:late"), "def late(model, case): ...\n")
    labels = list(rows(["none", *MITIGATIONS]))
    assert [label for label in labels if label in PAPER] == PAPER
    assert labels[-2:] == [PAPER[-1], "late"]
    assert rows(["none", "gone"]) == {"All neurons active": ["none"], "gone": ["gone"]}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("method = 3", "TypeError: 3 is not a function"),
        ("", "AttributeError"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
def test_a_broken_package_is_named_by_those_who_use_it_and_by_no_others(install, code, reason):
    every = [*DETECTORS]
    groups = ("detectors", "mitigations", "searches", "adapters")
    install("broken", "".join(broken("bad", group) for group in groups), code)
    uses = {
        "detector": lambda: detectors.distinct_detectors(["bad"]),
        "mitigation": lambda: compare.methods(["bad"]),
        "search": lambda: check_search("bad"),
        "adapter": lambda: ADAPTERS.require("bad"),
    }
    for kind, use in uses.items():
        what = f"{kind} 'bad' of the package broken 1.5 cannot be used ("
        with pytest.raises(InputError, match=re.escape(what)) as refused:
            use()
        if not (kind == "adapter" and code == "method = 3"):
            assert reason in str(refused.value)
    assert detectors.distinct_detectors(every) == tuple(every)
    with pytest.warns(FindnemoWarning, match="left out: mitigation 'bad' of the package broken"):
        assert "bad" not in compare.methods()
    assert rows(["none", "bad"])["bad"] == ["bad"]


def test_an_own_name_stays_findnemos_and_two_packages_cannot_share_one(install):
    own = DETECTORS["ssim"]
    install("first", broken("ssim") + "both = first:both\n")
    install("second", broken("both"))
    with pytest.warns(FindnemoWarning, match="'ssim' is findnemo's own, not that of the package"):
        detectors.distinct_detectors(["ssim"])
    assert DETECTORS["ssim"] is own
    assert list(DETECTORS).count("ssim") == 1
    with pytest.raises(InputError, match=r"'both' is given by the package \w+ 1.5 and the package"):
        detectors.distinct_detectors(["both"])


def test_what_is_no_score_and_no_set_of_neurons_is_refused(install, model, tmp_path):
    install(
        "odd",
        broken("odd", value="odd:odd") + broken("odd", "searches", "odd:odd"),
        "def odd(*given): return 3\n",
    )
    settings = findnemo.ImageSettings()
    refused = pytest.raises(
        InputError, match=r"detector 'odd' gives 3: a findnemo\.detection\.Score"
    )
    with detectors.start_detectors(tmp_path / "run", model, settings) as run, refused:
        detectors.run_detectors(
            run, [Prompt(PROMPT, 1)], ["two dogs"], ["odd"], settings, Serial(model)
        )
    with pytest.raises(InputError, match="search 'odd' gives 3: a NeuronSet"):
        find("odd", Evidence(None, {}, {}))


def test_errors_name_what_packages_add(shown):
    for use, names in (
        (lambda: detectors.distinct_detectors(["x"]), "latent-updates, alike"),
        (lambda: compare.methods(["x"]), "neurons, quiet"),
        (lambda: check_search("x"), "trajectory, gradient, listing, loudest"),
    ):
        with pytest.raises(InputError, match=f"'x' is not known: use .*{names}$"):
            use()
