"""The neurons of all captions together: what comes back is searched further, and the verdict is of
what is exported.
"""

from __future__ import annotations

from types import SimpleNamespace

from findnemo.export import model_card, select
from findnemo.neurons import NeuronSet
from findnemo.prompts import Prompt
from findnemo.runs import Run, all_neurons, ask_all, neurons_of, standing
from findnemo.runs.export import row
from findnemo.runs.standing import joined_neurons, switched_off, verification_of
from findnemo.runs.union import ROUNDS, digest_of, first_sample, grouped, sentence_on_union, settle
from findnemo.runs.work import commit
from findnemo.runs.worklist import list_open
from findnemo.seeds import AGAIN, FRESH
from findnemo.settings import PAPER

TAU = 0.4
OVER = {"memorized": True, "score": 0.9, "tau": TAU}
GONE = {"same_seed": 0.3, "copies_before": 1.0, "copies_after": 0.0}
COPY = GONE | {"copies_after": 0.5}
SETTINGS = {
    "model": "0" * 32,
    "dtype": "float32",
    "calibration": PAPER.to_json(),
    "tau": TAU,
    "search": "gradient",
    "images": 4,
    "image_settings": {"steps": 2, "guidance": 7.0, "seed": 0},
    "judges": {},
}


def found(**neurons):
    return {"score_before": 0.9, "score_after": 0.2, "reached": True, "neurons": neurons}


def run_of(path, **sets) -> Run:
    """A run whose captions are gone, each with its own neurons off."""
    run = Run.create(path, SETTINGS)
    numbers = run.add([Prompt(name, k) for k, name in enumerate(sets, 1)])
    for number, neurons in zip(numbers, sets.values(), strict=True):
        run.record(number, "detect", OVER, 1.0)
        run.record(number, "localize", found(**neurons), 1.0)
        run.record(number, "verify", GONE, 1.0)
    return run


class Model:
    """What is seen with neurons off: a caption copies while one of the layers that it `needs` to be
    off is on, or one that `breaks` it is off. A glance does not see the copies of those `hidden`. A
    search finds what it is `given`.
    """

    def __init__(self, run, needs=None, breaks=None, given=None, hidden=()):
        self.run = run
        self.hidden = hidden
        self.needs = needs or {}
        self.breaks = breaks or {}
        self.given = given or {}
        self.looked = []  # at first, at a glance
        self.confirmed = []
        self.searched = []
        self.stop_at = None

    def look(self, union, captions, glance):
        stage = union.glance_stage if glance else union.look_stage
        for caption in captions:
            if {union.look_stage, stage} & caption.results.keys():
                continue
            off = set(union.neurons.layers)
            copies = not set(self.needs.get(caption.text, ())) <= off
            copies = copies or bool(set(self.breaks.get(caption.text, ())) & off)
            copies = copies and not (glance and caption.text in self.hidden)
            first = first_sample(caption, 4)
            told = {"first": first, **({"back": [first + 2]} if copies else {})}
            (self.looked if glance else self.confirmed).append((caption.text, first))
            self.run.record(caption.id, stage, (COPY if copies else GONE) | told, 1.0)
        return True

    def go_on(self, union, captions):
        for caption in captions:
            if self.stop_at == caption.text:
                return False
            if union.further_stage not in caption.results:
                self.searched.append((caption.text, caption.together.back))
                more = self.given.get(caption.text, {})
                self.run.record(
                    caption.id, union.further_stage, found(**more) | {"reached": bool(more)}, 1
                )
        return True

    def settle(self):
        return settle(self.run, self.look, self.go_on)


def card_lines(run):
    """The captions of a model card, a line each."""
    section = model_card(select(run)).split("### Captions\n")[1].split("### Limits")[0]
    return [line for line in section.splitlines() if line[:3] in ("| 1", "| 2")]


def changed(run, stage):
    """What a stage does that commits results."""
    ask_all(run)
    list_open(run, stage)
    commit(run, stage, [])


def stands(run):
    return {c.text: standing(c) for c in run.captions()}


def test_a_copy_that_comes_back_with_all_off_is_searched_further_and_judged_on_new_seeds(tmp_path):
    """Each is gone with its own neurons off; b's come back where those of a are off too."""
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}) as run:
        assert stands(run) == {"a": "gone", "b": "gone"}
        assert sentence_on_union(list(run.captions())).startswith(
            "Each caption was checked with its own"
        )
        model = Model(run, needs={"b": ["y", "z"]}, given={"b": {"z": [7, 8]}})
        assert model.settle()
        assert model.searched == [("b", (FRESH + 2,))]
        # once all are off; once more with what joined: b on seeds that its search has not seen
        assert model.looked == [("a", FRESH), ("b", FRESH), ("a", FRESH), ("b", AGAIN)]
        captions = list(run.captions())
        assert stands(run) == {"a": "gone", "b": "gone"}
        assert [c.together.first for c in captions] == [FRESH, AGAIN]
        assert all_neurons(captions) == NeuronSet({"x": [1], "y": [2], "z": [7, 8]})
        a, b = captions
        assert (joined_neurons(a), joined_neurons(b)) == (NeuronSet(), NeuronSet({"z": [7, 8]}))
        assert neurons_of(b) == NeuronSet({"y": [2]})  # what methods are compared by
        assert switched_off(b) == neurons_of(b) | joined_neurons(b)
        assert row(b)["neurons"] == 3  # and what a table says of it
        assert row(b)["layers"] == switched_off(b).to_json()
        sizes = [line.split("|")[-2].strip() for line in card_lines(run)]
        assert sizes == ["1", "3"]
        sentence = sentence_on_union(captions)
        assert sentence.startswith("Memories were checked with all 4 neurons off together")
        assert (
            "One memory had come back: 2 more neurons are off for that, and new seeds judged"
            in sentence
        )
        assert model.confirmed == [("a", FRESH), ("b", AGAIN)]  # of what is exported
        again = Model(run)
        assert again.settle()  # nothing is asked again
        assert (again.looked, again.confirmed, again.searched) == ([], [], [])


def test_a_copy_that_only_the_full_look_sees_is_searched_further_too(tmp_path):
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}) as run:
        model = Model(run, needs={"b": ["z"]}, given={"b": {"z": [7]}}, hidden=("b",))
        assert model.settle()
        assert model.searched == [("b", (FRESH + 2,))]
        assert model.confirmed == [("a", FRESH), ("b", FRESH), ("a", FRESH), ("b", AGAIN)]
        assert stands(run) == {"a": "gone", "b": "gone"}
        assert len(run.meta("union")["digests"]) == 2


def test_of_sets_that_all_copy_the_best_is_looked_at_in_full(tmp_path):
    """At a glance the larger set brings back none; the full look sees that it brings back two."""
    sets = {"a": {"x": [1]}, "b": {"y": [2]}, "c": {"w": [3]}}
    with run_of(tmp_path / "run", **sets) as run:
        model = Model(
            run,
            needs={"b": ["never", "z"]},
            breaks={"a": ["z"], "c": ["z"]},
            given={"b": {"z": [4]}},
            hidden=("a", "c"),
        )
        assert model.settle()
        (only,) = run.meta("union")["digests"]
        assert only == digest_of(NeuronSet({"x": [1], "y": [2], "w": [3]}))
        assert stands(run) == {"a": "gone", "b": "copies", "c": "gone"}
        assert all(f"union:{only}" in caption.results for caption in run.captions())


def test_where_nothing_helps_the_run_says_that_it_copies(tmp_path):
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}) as run:
        model = Model(run, breaks={"b": ["x"]})
        model.settle()
        assert stands(run) == {"a": "gone", "b": "copies"}
        assert len(run.meta("union")["digests"]) == 1
        assert model.searched == [("b", (FRESH + 2,))]
        assert len(all_neurons(run.captions())) == 2
        assert verification_of(list(run.captions())[1]).copies_after == 0.5


def test_what_brings_back_others_does_not_join(tmp_path):
    sets = {"a": {"x": [1]}, "b": {"y": [2]}, "c": {"w": [3]}}
    with run_of(tmp_path / "run", **sets) as run:
        model = Model(
            run, needs={"b": ["z"]}, breaks={"a": ["z"], "c": ["z"]}, given={"b": {"z": [4]}}
        )
        model.settle()
        assert stands(run) == {"a": "gone", "b": "copies", "c": "gone"}
        assert "z" not in all_neurons(run.captions()).layers
        assert len(model.looked) == 6


def test_rounds_end(tmp_path):
    """Each search finds what is not enough: so often and no more."""
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}) as run:
        model = Model(run, needs={"b": ["never"]})
        more = iter(range(100))
        model.given = SimpleNamespace(get=lambda *_: {"z": [next(more)]})
        model.settle()
        assert len(model.searched) == ROUNDS
        firsts = [first for text, first in model.looked if text == "b"]
        assert firsts == [FRESH, *(AGAIN + 4 * k for k in range(ROUNDS))]
        assert stands(run)["b"] == "copies"
        assert len(all_neurons(run.captions())) == 2  # what does not help does not join


def test_stopped_within_a_search_it_goes_on_there(tmp_path):
    def model_of(run):
        return Model(run, needs={"b": ["z"], "c": ["v"]}, given={"b": {"z": [1]}, "c": {"v": [1]}})

    sets = {"a": {"x": [1]}, "b": {"y": [2]}, "c": {"w": [3]}}
    with run_of(tmp_path / "run", **sets) as run:
        first = model_of(run)
        first.stop_at = "c"
        assert not first.settle()
        assert run.meta("union") is None
        assert stands(run) == dict.fromkeys("abc", "gone")  # by their own neurons, as it says
        assert "It was not checked with all 3 neurons off together" in sentence_on_union(
            list(run.captions())
        )
        second = model_of(run)
        assert second.settle()
        assert second.searched == [("c", (FRESH + 2,))]
        assert [text for text, _ in first.looked + second.looked] == ["a", "b", "c"] * 2
        assert stands(run) == dict.fromkeys("abc", "gone")


def test_a_run_whose_captions_change_is_looked_at_anew_and_forgets_what_is_stale(tmp_path):
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}) as run:
        Model(run, needs={"b": ["z"]}, given={"b": {"z": [1]}}).settle()
        old = run.meta("union")["digests"]
        (run.path / "cleaned" / old[0]).mkdir(parents=True)
        (number,) = run.add([Prompt("c", 3)])
        for stage, payload in (("detect", OVER), ("localize", found(w=[3])), ("verify", GONE)):
            run.record(number, stage, payload, 1.0)
        changed(run, "verify")
        assert run.meta("union") is None
        assert len(all_neurons(run.captions())) == 3  # without what joined the other
        model = Model(run)
        model.settle()
        assert [text for text, _ in model.looked] == ["a", "b", "c"]
        (new,) = run.meta("union")["digests"]
        assert new not in old
        stages = {stage for c in run.captions() for stage in c.results}
        looks = {f"glance:{new}", f"union:{new}"}
        assert stages == {"detect", "localize", "verify", *looks}
        assert not (run.path / "cleaned" / old[0]).exists()


def test_a_union_that_is_the_same_counts_again(tmp_path):
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}) as run:
        Model(run).settle()
        kept = run.meta("union")
        changed(run, "localize")
        assert (run.meta("union"), next(iter(run.captions())).together) == (None, None)
        model = Model(run)
        model.settle()
        assert (model.looked, run.meta("union")) == ([], kept)


def test_only_memories_that_were_verified_are_looked_at(tmp_path):
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}, c={"z": [3]}) as run:
        run.record(2, "verify", GONE | {"copies_before": 0.0}, 1.0)  # only suspected
        run.record(3, "verify", {}, 1.0, "NaN")
        model = Model(run)
        model.settle()
        assert [text for text, _ in model.looked] == ["a"]
        assert run.meta("union") == {"digests": [digest_of(NeuronSet({"x": [1], "z": [3]}))]}


def test_groups_are_those_of_blocks_of_ids():
    captions = [SimpleNamespace(id=k) for k in (1, 2, 3, 8, 9, 17)]
    groups = grouped(captions, 2, 8)
    assert [[c.id for c in group] for group in groups] == [[1, 2], [3, 8], [9], [17]]


def test_an_export_says_whether_it_was_looked_at_as_a_whole(tmp_path):
    settings = SETTINGS | {
        "dtype": "float32",
        "calibration": {
            "variant": "paper", "similarity": "ssim", "samples": 4, "timestep": 0, "steps": 50
        },
        "tau": TAU,
        "search": "trajectory",
        "judges": {},
        "image_settings": {"steps": 15, "guidance": 2.0},
    }  # fmt: skip
    with run_of(tmp_path / "run", a={"x": [1]}, b={"y": [2]}) as run:
        run.set_meta("settings", settings)
        assert select(run).checked.startswith(
            "It was not verified as a whole: the figures are with"
        )
        assert select(run, ["a"]).checked == "The figures are with its neurons off, on fresh seeds."
        Model(run, needs={"b": ["z"]}, given={"b": {"z": [5]}}).settle()
        chosen = select(run)
        assert chosen.neurons == NeuronSet({"x": [1], "y": [2], "z": [5]})
        assert chosen.checked.startswith("It was verified as a whole")
        assert chosen.checked in model_card(chosen)
        others = [select(run, ["a"]), select(run, most=1), select(run, factor=0.5)]
        for other in others:
            assert other.checked.startswith("It was not verified as a whole")
        assert others[0].checked in model_card(others[0])
