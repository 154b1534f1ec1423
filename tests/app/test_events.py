"""What the app answers with, without a browser: captions, edits, links and exports."""

from __future__ import annotations

import copy
import json
import zipfile
from dataclasses import replace
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from _asking import ME, SILENT, Reader, found_for, ids, pixels, with_edit
from _captions import FIRST, HOSTILE, LONG, SECOND
from PIL import Image

import findnemo
from findnemo import demo
from findnemo.app import drawing, events
from findnemo.app.edit import NONE, Edit
from findnemo.app.events import SessionState, Who, state_of_caption, under_edit, undone
from findnemo.app.jobs import CancelledError
from findnemo.app.subject import run_images, training_image
from findnemo.app.text import escaped, short
from findnemo.errors import InputError
from findnemo.files.html import data_uri
from findnemo.metrics.copies import compare_images, copies_in, copying
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs import Run, results
from findnemo.runs.standing import WORDS, folder_of

# captions of a run --------------------------------------------------------------------------------


def texts(subject, search="", kept="all", sort="row"):
    return [c.text for c in events.matching(subject, search, kept, sort)]


def test_filter_search_and_order(subject):
    assert texts(subject) == [FIRST, SECOND, HOSTILE, LONG]
    assert texts(subject, kept="memorized") == texts(subject, kept="gone") == [FIRST, SECOND]
    assert texts(subject, kept="not memorized") == [HOSTILE, LONG]
    assert texts(subject, kept="out of reach") == texts(subject, kept="failed") == []
    assert texts(subject, search=" BISCUIT  the ") == [SECOND]
    assert texts(subject, search="<SCRIPT>") == [HOSTILE]
    assert texts(subject, sort="text") == sorted([FIRST, SECOND, HOSTILE, LONG], key=str.casefold)
    assert texts(subject, sort="worst first")[:2] == [FIRST, SECOND]  # gone, then not memorized
    scores = [c.score for c in events.matching(subject, "", "all", "highest score")]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]
    with pytest.raises(InputError, match="no filter 'nonsense'"):
        texts(subject, kept="nonsense")


@pytest.mark.parametrize(
    ("verified", "said"),
    [
        (None, "suspected"),
        ({"same_seed": 0.79, "copies_before": 1.0, "copies_after": 0.0}, "gone"),
        (
            {"same_seed": 0.1, "copies_before": 0.25, "copies_after": 0.25},
            "suspected",
        ),  # chance, not what is left of a memory
    ],
)
def test_what_the_app_says_is_what_the_run_says(subject, verified, said):
    """Every word in every face: tests/runs/test_faces.py.

    Here: it reaches the thumbnails, their filter and the page of a caption.
    """
    with Run.open(subject.run) as run:
        first = next(run.captions())
    detected = {"memorized": True, "score": 0.9, "tau": 0.8, "p": 0.02}
    found = {
        "reached": True,
        "tau": 0.8,
        "neurons": {"a": [1]},
        "score_before": 0.9,
        "score_after": 0.1,
    }
    results = {"detect": detected, "localize": found} | (
        {} if verified is None else {"verify": verified}
    )
    caption = replace(first, results=results, failed={})
    (card,) = events.cards(subject, [caption])
    assert card.said == ("suspected (p = 0.02)" if said == "suspected" else said)
    assert card.tone == WORDS[said].tone
    assert card.said in Reader(drawing.grid([card])).text
    assert [
        name
        for name, lets in events.FILTERS.items()
        if name not in ("all", "memorized", "not gone") and lets(caption)
    ] == [said]


def test_a_click_reads_one_caption_and_not_the_run(subject, monkeypatch):
    number = ids(subject)[SECOND]
    read = []
    rows = Run.rows

    def counted(run, table, where="", values=()):
        for one in rows(run, table, where, values):
            read.append(table)
            yield one

    monkeypatch.setattr(Run, "rows", counted)
    assert events.detail(subject, number).chosen.caption == SECOND
    assert read.count("captions") == 1
    assert read.count("results") == 4  # detection, search, verification, all neurons together
    for id_ in (None, -1, 99, 2**70, "1"):
        with pytest.raises(InputError, match="no such caption"):
            events.detail(subject, id_)


@pytest.mark.parametrize("error", [TypeError, AttributeError, KeyError])
def test_a_fault_of_ours_shows_as_itself(subject, monkeypatch, error):
    """Neither what decodes a result nor what is told of it calls a fault of
    findnemo damage of the file.
    """

    def broken(*args):
        raise error("a bug of ours")

    for module, name in ((events, "meaning"), (results, "NeuronSet")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, broken)
            with pytest.raises(error, match="a bug of ours"):
                events.detail(subject, ids(subject)[FIRST])


def test_a_large_run_is_shown_in_part(subject):
    many = [events.captions(subject)[0]] * (events.PICKED + 1)
    assert len(events.cards(subject, many)) == events.SHOWN
    assert len(events.names(many)) == events.PICKED
    assert (
        events.counted_captions(many)
        == f"{events.PICKED + 1} captions; the first {events.SHOWN} are shown: search for others"
    )
    assert events.counted_captions(many[:1]) == "1 caption"


def test_one_caption_with_its_seeds_training_image_and_neurons(subject):
    one = events.detail(subject, ids(subject)[FIRST])
    with Run.open(subject.run) as run:
        caption = next(run.captions())
    folder = subject.run / folder_of(caption) / "images" / caption.slug
    kept = run_images(subject, caption)
    for kind, images in kept.items():
        files = sorted(folder.glob(f"{kind}-*.png"))
        assert len(files) == len(images) == 2
        assert all(
            (pixels(Image.open(f)) == pixels(i)).all() for f, i in zip(files, images, strict=True)
        )
    original = training_image(subject, FIRST, caption)
    assert (pixels(original) == pixels(demo.training_image(FIRST))).all()
    page = Reader(events.pictures(subject, one.chosen, None))
    pair = [*kept["before"], *kept["after"]]
    assert page.images == [
        data_uri(image, drawing.LARGE, drawing.QUALITY) for image in (original, *pair)
    ]
    assert page.alts[:2] == ["The training image", "Before, seed 1000"]
    assert all(page.alts)
    assert one.sheet.size == Image.open(subject.run / "sheets" / f"{caption.slug}.png").size
    assert one.chosen.neurons == found_for(subject, FIRST) != EMPTY
    assert one.chosen.edit == NONE  # all neurons are on
    assert str(round(caption.results["localize"]["score_before"], 4)) in one.about
    labels = events.ticks(subject, one.chosen)
    assert {neuron for _, neuron in labels} == set(one.chosen.neurons)
    z = caption.results["localize"]["z"]
    assert all(
        label.endswith(f"z = {z[f'{name}:{index}']:.1f}") and label.startswith("layer ")
        for label, (name, index) in labels
    )
    for nonsense in (None, 0, 99, "1", "../1"):
        with pytest.raises(InputError, match="no such caption"):
            events.detail(subject, nonsense)


# what is untrusted --------------------------------------------------------------------------------


def test_hostile_captions_are_text(subject):
    one = events.detail(subject, ids(subject)[HOSTILE])
    assert Reader(one.title).tags == {"p", "bdi"}
    assert Reader(one.title).text.startswith(HOSTILE)
    html = drawing.grid(events.cards(subject, events.captions(subject)))
    assert Reader(html).tags == {"ul", "li", "button", "span", "bdi", "img"}
    assert not set(html) & set("${}`")
    assert f"3: {short(HOSTILE)}" in Reader(html).text
    assert LONG not in html
    assert Reader(events.detail(subject, ids(subject)[LONG]).title).text.startswith(LONG)


# edits --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_edit_changes_the_image_and_leaves_the_model(subject):
    edit = found_for(subject, FIRST)
    settings = subject.image_settings
    before = findnemo.generate(subject.model, FIRST, [1000], settings)[0]
    for factor in (0, 0.5, -1):
        with findnemo.deactivate(subject.model, edit, factor):
            after = findnemo.generate(subject.model, FIRST, [1000], settings)[0]
        made = events.compare(subject, ME, with_edit(FIRST, edit, factor), 1000, SILENT)
        assert len(made.before) == len(made.after) == events.SAMPLES
        # an image made among others rounds otherwise on some processors
        assert abs(pixels(made.before[0]).astype(int) - pixels(before)).max() <= 2
        assert abs(pixels(made.after[0]).astype(int) - pixels(after)).max() <= 2
        assert (pixels(made.before[0]) != pixels(made.after[0])).any()
    # the audit's first seed is the one that the page begins with
    kept = run_images(subject, events.captions(subject)[0])["before"]
    assert abs(pixels(kept[0]).astype(int) - pixels(before)).max() <= 2
    assert abs(pixels(kept[1]).astype(int) - pixels(before)).max() > 20
    same = events.compare(subject, ME, with_edit(FIRST, edit, 1), 1000, SILENT)
    assert all(
        (pixels(one) == pixels(other)).all()
        for one, other in zip(same.before, same.after, strict=True)
    )


@pytest.mark.slow
def test_neurons_off_beside_neurons_scaled(subject):
    """The two parts of an edit act at once, each on its neurons."""
    off = found_for(subject, FIRST)
    scaled = found_for(subject, SECOND) - off
    made = events.compare(
        subject, ME, under_edit(SessionState(FIRST), Edit(off, scaled, 0.25)), 1000, SILENT
    )
    layers = subject.model.value_layers
    weights = {name: layer.weight.clone() for name, layer in layers.items()}
    seeds = range(1000, 1000 + events.SAMPLES)
    with torch.no_grad():
        for neurons, factor in ((off, 0), (scaled, 0.25)):
            for name, index in neurons:
                layers[name].weight[index] *= factor
        want = findnemo.generate(subject.model, FIRST, seeds, subject.image_settings)
        for name, layer in layers.items():
            layer.weight.copy_(weights[name])
    for one, other in zip(made.after, want, strict=True):
        assert abs(pixels(one).astype(int) - pixels(other)).max() <= 2


@pytest.mark.slow
def test_similarity_to_the_copy_is_that_of_the_verification(subject):
    chosen = with_edit(FIRST, found_for(subject, FIRST))
    made = events.compare(subject, ME, chosen, 1000, SILENT)
    judges = replace(demo.judges(), original=demo.training_image(FIRST))
    values = compare_images(FIRST, made.before, made.after, judges)
    assert np.median(made.alike_before) == pytest.approx(values["sscd_orig_before"], abs=0.05)
    assert copies_in(values, "before")
    assert min(made.alike_before) >= made.copy > max(made.alike_after)
    assert "training image" in events.comparison_note(chosen, made)
    page = Reader(events.pictures(subject, chosen, made, 1000))
    assert f"{made.alike_after[0]:.2f}" in page.text
    assert "Now, 1 neuron off, seed 1003" in page.alts
    # without a training image or a descriptor the other seeds tell
    bare = replace(subject, descriptor=None)
    unknown = events.compare(bare, ME, chosen, 1000, SILENT)
    assert unknown.alike_after == copying(made.after, made.before).tolist()
    assert "other seeds" in events.comparison_note(chosen, unknown)


@pytest.mark.slow
def test_images_of_an_edit_are_made_once(subject, passes):
    chosen = with_edit(FIRST, found_for(subject, FIRST))
    first = events.compare(subject, ME, chosen, 1000, SILENT)
    count = len(passes)
    assert events.compare(subject, ME, chosen, 1000, SILENT) == first
    assert len(passes) == count > 0
    events.compare(subject, ME, chosen, 1001, SILENT)
    assert len(passes) > count


def test_the_pictures_of_an_audit_are_shown_without_work(subject, passes):
    chosen = state_of_caption(events.captions(subject)[0])
    assert not events.needs_images(subject, chosen, 1000)
    assert not events.needs_images(subject, SessionState(), 1000)
    assert events.needs_images(subject, chosen, 7)
    assert events.needs_images(subject, under_edit(chosen, Edit(chosen.neurons)), 1000)
    assert events.needs_images(subject, SessionState(FIRST), 1000)  # one that was typed
    assert passes == []


# undo, and links ----------------------------------------------------------------------------------


def test_edits_are_undone_one_by_one(subject):
    name = next(iter(subject.model.widths("all")))
    steps = [Edit(NeuronSet({name: range(k)})) for k in range(events.HISTORY + 20)]
    chosen = SessionState(FIRST)
    for step in steps:
        chosen = under_edit(under_edit(chosen, step), step)  # the same again is nothing to undo
    assert len(chosen.history) == events.HISTORY + 1
    for step in reversed(steps[-events.HISTORY - 1 :]):
        assert chosen.edit == step
        chosen = undone(chosen)
    assert chosen.history == (steps[-events.HISTORY - 1],)  # older ones are forgotten


def test_a_link_opens_what_it_was_made_of(subject):
    names = list(subject.model.widths("all"))
    chosen = state_of_caption(events.captions(subject)[0])
    edit = Edit(NeuronSet({names[0]: [0, 1, 2, 5]}), NeuronSet({names[3]: [7]}), 0.25)
    query = events.link_to(subject, under_edit(chosen, edit), 1234)
    assert query == "?caption=1&off=1:0-2,5&scaled=4:7&factor=0.25&seed=1234"
    again, seed = events.state_from_query(subject, query)
    assert (again.id, again.caption, again.edit, seed) == (1, FIRST, edit, 1234)
    assert again.order == chosen.order
    assert undone(again).edit == NONE
    typed = events.link_to(subject, SessionState("a cat & a dog"), 1000)
    assert typed == "?text=a%20cat%20%26%20a%20dog"
    assert events.state_from_query(subject, typed)[0].caption == "a cat & a dog"
    assert (
        events.state_from_query(subject, "")
        is events.state_from_query(subject, "?__theme=dark")
        is None
    )
    assert events.link_to(subject, SessionState("long " * 1000), 1000) == ""


@pytest.mark.first(6)
@pytest.mark.parametrize(
    "query",
    [
        {"caption": "99"},
        {"caption": "x"},
        {"caption": "-1"},
        {"caption": "1e400"},
        {"caption": "1.5"},
        {"caption": ""},
        {"caption": "1", "off": "1:99999"},
        {"caption": "1", "off": "99:1"},
        {"caption": "1", "off": "<script>"},
        {"caption": "1", "scaled": "1:1", "factor": "2"},
        {"caption": "1", "factor": "nan"},
        {"caption": "1", "seed": "-7"},
        {"caption": "1", "seed": "999999999999"},
        {"text": ""},
        {"text": "x" * 5000},
        {"caption": "1", "off": "1:0," * 2000},
    ],
)
def test_a_link_that_was_tampered_with_is_refused(subject, query):
    with pytest.raises(InputError):
        events.state_from_query(subject, f"?{urlencode(query)}")


@pytest.mark.parametrize(
    ("layer", "index"), [(None, 0), (-1, 0), (99, 0), (0, None), (0, -1), (0, 10**6), ("0", 0)]
)
def test_a_click_beside_the_map_is_refused(subject, layer, index):
    with pytest.raises(InputError, match="no such"):
        events.neuron_at(subject, layer, index)


def test_the_map_shows_what_is_switched(subject):
    widths = subject.model.widths("all")
    first, second = list(widths)[:2]
    chosen = state_of_caption(events.captions(subject)[0])
    edit = Edit(NeuronSet({first: [33 % widths[first]]}), NeuronSet({second: [4, 5]}))
    html = events.neuron_map(subject, under_edit(chosen, edit))
    counts = [html.count(f'<rect class="{kind}"') for kind in ("off", "scaled", "found")]
    assert counts == [1, 2, len(chosen.order)]
    assert "layer 2: 32 neurons, 0 off, 2 scaled" in html
    ((label, _),) = events.ticks(subject, chosen)
    assert f"{label}: on" in Reader(html).text
    assert (
        f"{label}: off"
        in Reader(events.neuron_map(subject, under_edit(chosen, Edit(chosen.neurons)))).text
    )


@pytest.mark.parametrize(
    ("caption", "factor", "seed", "said"),
    [
        ("", 0.5, 0, "no caption"),
        (None, 0.5, 0, "no caption"),
        ("x" * 10_001, 0.5, 0, "10001 characters"),
        ("a", 1.1, 0, "factor 1.1"),
        ("a", float("nan"), 0, "factor nan"),
        ("a", None, 0, "factor None"),
        ("a", 0.5, -1, "seed -1"),
        ("a", 0.5, 0.5, "seed 0.5"),
        ("a", 0.5, 2**31, "seed"),
        ("a", 0.5, None, "seed None"),
    ],
)
def test_what_cannot_be_generated_is_refused(subject, caption, factor, seed, said):
    chosen = SessionState(caption, history=(Edit(factor=factor),))
    with pytest.raises(InputError, match=said):
        events.compare(subject, ME, chosen, seed, SILENT)


# any caption --------------------------------------------------------------------------------------


def test_any_caption_is_scored_and_localized(subject):
    done = []
    found = events.examine(subject, ME, f"  {FIRST}\n", done.append)
    assert done[-1] >= 10
    html = events.examination_html(subject, found)
    assert "suspected (p = " in html  # no picture was looked at
    assert "gone" not in html
    assert f"{found.score_before:.4f}" in html
    chosen = events.state_of_examination(found, FIRST)
    assert (chosen.caption, chosen.neurons) == (FIRST, found.neurons)
    clean = events.examine(subject, ME, HOSTILE, SILENT)
    assert not clean.memorized
    assert "not memorized" in events.examination_html(subject, clean)
    assert escaped(HOSTILE) in events.examination_html(subject, clean)
    assert events.state_of_examination(clean, HOSTILE).neurons == EMPTY


def test_a_caption_that_is_not_read_to_its_end_is_told(subject):
    assert events.unread(subject, FIRST) == ""
    assert (
        events.unread(subject, "star " * 90)
        == "the caption has 92 tokens, the model reads the first 77"
    )


def test_without_a_calibration_a_caption_is_scored(subject):
    bare = replace(subject, calibration=None)
    score = events.examine(bare, ME, FIRST, SILENT)
    assert score == findnemo.score(bare.model, FIRST)
    assert "--calibration" in events.examination_html(subject, score)
    assert f"{score:.4f}" in events.examination_html(subject, score)
    assert events.state_of_examination(score, FIRST).caption == FIRST


# exports ------------------------------------------------------------------------------------------


def files(subject):
    return [p for p in subject.folder.rglob("*") if p.is_file()]


def test_export_of_picked_captions(subject):
    file, said = events.export(subject, ME, [ids(subject)[SECOND]], "neurons", 0)
    neurons = found_for(subject, SECOND)
    assert NeuronSet.load(file) == neurons
    assert said == f"neurons: {len(neurons)} neuron{'s' * (len(neurons) != 1)} off, for 1 caption"
    both, _ = events.export(subject, ME, [], "neurons", 0.5)
    assert NeuronSet.load(both) == found_for(subject, FIRST) | neurons
    assert files(subject) == [both]  # the earlier one is gone
    other, _ = events.export(subject, Who("other"), [], "card", 0)
    assert sorted(files(subject)) == sorted([both, other])
    events.leave(subject, "me")
    assert files(subject) == [other]
    assert {c.text for c in events.exportable(subject)} == {FIRST, SECOND}


@pytest.mark.slow
def test_export_of_the_model_and_of_a_lora(subject, tmp_path):
    edit = found_for(subject, FIRST)
    want = events.compare(subject, ME, with_edit(FIRST, edit), 3, SILENT).after[0]
    archive, _ = events.export(subject, ME, [ids(subject)[FIRST]], "checkpoint", 0)
    assert archive.name == "checkpoint.zip"
    zipfile.ZipFile(archive).extractall(tmp_path / "out")
    clean = findnemo.load(tmp_path / "out" / "checkpoint")
    assert (
        np.abs(
            pixels(findnemo.generate(clean, FIRST, [3], subject.image_settings)[0]).astype(int)
            - pixels(want)
        ).max()
        <= 2
    )

    archive, _ = events.export(subject, ME, [ids(subject)[FIRST]], "lora", 0)
    zipfile.ZipFile(archive).extractall(tmp_path / "out")
    with_lora = findnemo.load("demo", device="cpu")
    with_lora.pipeline.load_lora_weights(tmp_path / "out" / "lora")
    assert (
        np.abs(
            pixels(findnemo.generate(with_lora, FIRST, [3], subject.image_settings)[0]).astype(int)
            - pixels(want)
        ).max()
        <= 2
    )


def test_an_export_that_cannot_be_made_leaves_nothing(subject):
    for wrong, form, factor in (
        ([99], "neurons", 0),
        ([ids(subject)[HOSTILE]], "neurons", 0),
        ([], "nonsense", 0),
        ([], "neurons", float("nan")),
    ):
        with pytest.raises(InputError):
            events.export(subject, ME, wrong, form, factor)
    events.leave(subject, "me")
    with pytest.raises(CancelledError):
        events.export(subject, ME, [], "checkpoint", 0)
    assert list(subject.folder.iterdir()) == []
    with pytest.raises(InputError, match="findnemo audit"):
        events.export(replace(subject, run=None), Who("me", 1), [], "neurons", 0)


# neurons chosen by hand ---------------------------------------------------------------------------


def test_neurons_that_were_switched_by_hand_are_saved_with_the_command_that_exports_them(subject):
    layer = next(iter(subject.model.widths("all")))
    edit = NeuronSet({layer: [0, 3]})
    file, said = events.save(subject, ME, Edit(scaled=edit, factor=0.25))
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert (kept["layers"], kept["factor"]) == ({layer: [0, 3]}, 0.25)
    assert kept["model"] == subject.model.fingerprint
    assert "2 neurons times 0.25, chosen by hand, not verified" in Reader(said).text
    command = f"findnemo export {subject.run} --neurons-file neurons.json"
    assert command in Reader(said).text
    export, _ = events.export(subject, ME, [], "card", 0)
    again, _ = events.save(subject, ME, Edit(edit))
    assert sorted(files(subject)) == sorted([export, again])  # the earlier one is gone
    events.leave(subject, "me")
    assert files(subject) == []
    for wrong, why in (
        (NONE, "no neurons are chosen"),
        (Edit(scaled=edit, factor=2), "factor 2"),
        (Edit(scaled=edit, factor=None), "factor None"),
        (Edit(edit, NeuronSet({layer: [1]})), "one factor"),
    ):
        with pytest.raises(InputError, match=why):
            events.save(subject, ME, wrong)
    assert list(subject.folder.iterdir()) == []


def test_the_command_names_a_model_as_it_was_opened(subject):
    model = copy.copy(subject.model)
    model.source, model.options = "a b/model.safetensors", {"variant": "fp16", "lora": "x:0.5"}
    edit = NeuronSet({next(iter(model.widths("all"))): [1]})
    _, said = events.save(replace(subject, run=None, model=model), ME, Edit(edit))
    wanted = "findnemo export 'a b/model.safetensors' --weights-variant fp16 --lora x:0.5 --neurons"
    assert wanted in Reader(said).text
