"""Groups of options: each option with its meaning, and what follows from several."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from findnemo.tasks import FineTune, Source, Workers, options

GROUPS = [
    group for _, group in inspect.getmembers(options, dataclasses.is_dataclass) if group.__doc__
]
# options of a table, which the fine-tune's own group repeats
OF_TABLE = {"prompts", "column", "limit"}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_option_has_a_default_and_says_what_it_means(group):
    group()
    for field in dataclasses.fields(group):
        if group is FineTune and field.name in OF_TABLE:
            continue
        assert field.metadata["help"].rstrip().endswith((".", ")")), field.name
        assert all(flag == "" or flag.startswith("-") for flag in field.metadata["flags"])


def test_the_options_of_a_source_are_those_that_loading_takes():
    assert Source("demo", device="cpu", dtype="float16", trust=True).options == {}
    given = Source("owner/name", revision="main", weights_variant="fp16", lora="a.safetensors:0.5")
    assert given.options == {"revision": "main", "variant": "fp16", "lora": "a.safetensors:0.5"}
    assert str(given) == "owner/name"


def test_several_processes_are_asked_for_by_their_number_or_a_cluster():
    assert not Workers(threads=4).many
    assert Workers(workers=1).many
    assert Workers(ray="auto").many
