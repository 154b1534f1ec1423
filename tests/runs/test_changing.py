"""What a change of judges or image settings does to a run: by hand-made results, and by real kills."""

import json
import os
import signal
from functools import partial

import pytest
from _killing import ended, forked
from PIL import Image

from findnemo.errors import MismatchError
from findnemo.files.writing import atomic_write
from findnemo.images import png
from findnemo.prompts import Prompt
from findnemo.runs import Run, captions_of, repair
from findnemo.runs.changing import (
    BEGAN,
    PICTURED,
    STALE,
    again,
    change,
    keeps_pictures,
    remove_stale,
)
from findnemo.runs.store import BACKUP

PICTURE = Image.new("RGB", (4, 4), "red")
SETTINGS = {
    "model": "m",
    "dtype": "float32",
    "calibration": {"variant": "findnemo"},
    "tau": 0.5,
    "search": "trajectory",
    "images": 2,
    "image_settings": {"steps": 9, "guidance": 2.0, "seed": 0, "sampler": None},
    "judges": {},
}
OVER = {"memorized": True, "score": 0.9, "tau": 0.5}
SOUGHT = {"neurons": {"a": [1]}, "reached": True, "score_before": 0.9, "score_after": 0.1}
RESULTS = {
    "detect": OVER,
    "localize": SOUGHT,
    "verify": {"copies_before": 1.0, "copies_after": 0.0},
    "compare:none": {"images": 2},
    "attack:neurons off": {"basis": "b", "known": True, "curves": {}},
    "study:fig2a": {"x": 1},
}
TOLD = {"x": "steps", "y": "similarity", "n": 1, "curves": {}}


def with_(**changed):
    image = {k: changed.pop(k) for k in ("steps", "guidance", "sampler") if k in changed}
    return SETTINGS | changed | {"image_settings": SETTINGS["image_settings"] | image}


JUDGED = with_(judges={"descriptor": "sscd.pt"})


def begun(out, settings=SETTINGS):
    with Run.create(out, settings) as run:
        (number,) = run.add([Prompt("a red fox", 1)])
        run.record_all((number, stage, payload, 1.0, None) for stage, payload in RESULTS.items())
        run.set_meta("scan", {"scope": "all"})
        run.set_meta("attack", TOLD)
        (caption,) = run.captions()
    for name in ("before-00", "before-01", "after-00", "after-01"):
        with atomic_write(out / "images" / caption.slug / f"{name}.png") as part:
            part.write_bytes(png(PICTURE))
    with atomic_write(out / "sheets" / f"{caption.slug}.png") as part:
        part.write_bytes(png(PICTURE))
    return out


def changed_to(out, settings, told=None):
    return Run.create(out, settings, change=partial(change, tell=(told or []).append))


def stages(run):
    (caption,) = run.captions()
    return set(caption.results)


@pytest.mark.parametrize(
    ("settings", "redone", "kept"),
    [
        (JUDGED, ["attempts", "attack"], True),
        (with_(judges={"clip": "c"}), ["attempts", "attack"], True),
        (with_(images=4), [], True),
        (with_(sampler="ddim"), ["attempts", "attack"], False),
        (with_(guidance=7.0), ["localize", "attempts", "attack"], False),
        (with_(steps=50), ["localize", "attempts", "attack"], False),
        # a search by one step looks at no picture
        (with_(steps=50, search="gradient"), ["attempts", "attack"], False),
        # a descriptor says which training pictures are copied; a CLIP does not
        (JUDGED | {"training": "t"}, ["detect", "localize", "attempts", "attack"], False),
        (with_(judges={"clip": "c"}, training="t"), ["attempts", "attack"], True),
    ],
)
def test_what_stands_and_what_does_not(settings, redone, kept):
    assert (again(SETTINGS, settings), keeps_pictures(SETTINGS, settings)) == (redone, kept)


def test_another_judge_keeps_pictures_and_puts_aside_what_it_would_judge(tmp_path):
    out = begun(tmp_path / "run")
    told = []
    with Run.create(out, JUDGED, change=partial(change, tell=told.append)) as run:
        found = stages(run)
        assert {"detect", "localize", PICTURED, "compare:none", "study:fig2a"} < found
        assert not {"verify", "attack:neurons off"} & found
        assert (run.meta("scan"), run.meta("attack")) == ({"scope": "all"}, None)
        assert run.meta(BEGAN)["judges"] == {}
        assert run.meta("settings") == json.loads((out / "settings.json").read_text())["settings"]
        assert run.meta("settings") == JUDGED
    assert told[0].endswith("goes on with other settings: descriptor none, now sscd.pt")
    assert "put aside: attack, which `findnemo verify` makes again" in told
    with changed_to(out, SETTINGS) as run:  # the judges of before
        assert run.meta("attack") == TOLD
        assert {"attack:neurons off", PICTURED} < stages(run)


def test_what_is_put_aside_can_be_read(tmp_path):
    out = begun(tmp_path / "run")
    with changed_to(out, with_(guidance=7.0)) as run:
        (caption,) = captions_of(run)  # decodes every result
    assert any(stage.endswith(":localize") for stage in caption.results)
    tuned = begun(tmp_path / "tuned", SETTINGS | {"training": "t"})
    with changed_to(tuned, JUDGED | {"training": "t"}) as run:
        (caption,) = captions_of(run)
    assert any(stage.endswith(":detect") for stage in caption.results)


def test_other_pictures_put_the_neurons_aside_until_their_settings_come_back(tmp_path):
    out = begun(tmp_path / "run")
    with changed_to(out, with_(guidance=7.0)) as run:
        assert not {"localize", "verify", PICTURED} & stages(run)
        assert run.meta("scan") is None
        remove_stale(run)
        assert not (out / "images").exists()
        (caption,) = run.captions()
        run.record(caption.id, "localize", SOUGHT | {"neurons": {"a": [2]}}, 1.0)
    with changed_to(out, with_(guidance=7.0, sampler="ddim")) as run:
        (caption,) = run.captions()
        assert caption.results["localize"]["neurons"] == {"a": [2]}
    with changed_to(out, SETTINGS) as run:
        (caption,) = run.captions()
        assert caption.results["localize"]["neurons"] == {"a": [1]}
        assert run.meta("scan") == {"scope": "all"}


@pytest.mark.parametrize(
    "settings",
    [
        JUDGED | {"tau": 0.6},
        JUDGED | {"search": "gradient"},
        JUDGED | {"fdr": 0.1},
        with_(images=0),
    ],
)
def test_a_change_of_anything_else_is_refused_whole(tmp_path, settings):
    out = begun(tmp_path / "run")
    told = []
    with pytest.raises(MismatchError, match="made with other settings"):
        Run.create(out, settings, change=partial(change, tell=told.append))
    with pytest.raises(MismatchError, match="made with other settings"):
        Run.create(out, JUDGED)  # nor is anything, where nobody asked for a change
    with Run.open(out) as run:
        assert (stages(run), run.meta("settings"), told) == (set(RESULTS), SETTINGS, [])


@pytest.mark.parametrize("statement", range(1, 30, 4))
def test_a_change_is_whole_or_not_at_all(tmp_path, statement):
    out = begun(tmp_path / "run")
    wanted = with_(guidance=7.0)

    def dying():
        real = Run.put_row
        count = 0

        def put(self, table, row):
            nonlocal count
            count += 1
            if count == statement:
                os.kill(os.getpid(), signal.SIGKILL)
            real(self, table, row)

        Run.put_row = put
        changed_to(out, wanted).close()

    assert ended(forked(dying)) in (0, -signal.SIGKILL)
    with Run.open(out) as run:
        new = run.meta("settings") == wanted
        assert new or run.meta("settings") == SETTINGS
        assert ("localize" in stages(run)) is not new
        assert (run.meta(STALE) is True) is new
    with changed_to(out, wanted) as run:
        remove_stale(run)
        assert run.meta("settings") == wanted
        assert not {"localize", "verify"} & stages(run)
    assert not (out / "images").exists()


def test_pictures_that_wait_are_checked_by_a_repair(tmp_path):
    out = begun(tmp_path / "run")
    changed_to(out, JUDGED).close()
    waits = "the result 'pictured' of caption 1"
    assert waits not in repair(out).open
    file = next((out / "images").glob("*/after-01.png"))
    file.write_bytes(file.read_bytes()[:20])
    assert waits in repair(out).open
    with Run.open(out) as run:
        assert not {"verify", PICTURED} & stages(run)
        assert (out / BACKUP).exists()
