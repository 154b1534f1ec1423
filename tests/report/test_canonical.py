"""The digest of an evidence pack."""

from __future__ import annotations

import hashlib
import json

import pytest

from findnemo.report._canonical import canonical, digest_of, of_rows


def test_the_digest_is_sha_256_over_sorted_json(pack):
    rest = {name: value for name, value in pack.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert pack["digest"] == hashlib.sha256(text.encode()).hexdigest()


def test_equal_values_have_one_text_and_one_digest_whatever_their_order():
    one = {"b": [1, 0.5], "a": {"y": None, "x": "\u00e9"}}
    other = {"a": {"x": "\u00e9", "y": None}, "b": [1, 0.5], "digest": "anything"}
    assert canonical(one) == '{"a":{"x":"\\u00e9","y":null},"b":[1,0.5]}'
    assert digest_of(one) == digest_of(other) != digest_of(one | {"b": [0.5, 1]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_refused(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": [value]})


def test_the_digest_of_rows_knows_their_order_and_where_one_ends():
    rows = [["a", "b"], ["c"]]
    assert of_rows(iter(rows)) == of_rows(rows)
    assert len({of_rows(rows), of_rows(rows[::-1]), of_rows([["a"], ["b", "c"]])}) == 3
