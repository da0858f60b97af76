from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Malformed, TooLarge
from domain.yaml_text import TEXT_BYTES_MAX, parse_yaml


def test_yaml_is_read_as_json_values() -> None:
    text = 'a: [1, 2.5, true, null, text]\nday: 2024-01-01\nlong: |\n  two\n  lines\nq: "$.a || $.b"\n'
    assert parse_yaml(text) == {
        "a": [1, 2.5, True, None, "text"],
        "day": "2024-01-01",
        "long": "two\nlines\n",
        "q": "$.a || $.b",
    }
    assert parse_yaml(b'{"json": ["too"]}') == {"json": ["too"]}


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: 1\na: 2",
        "1: 2",
        "a: !!python/object/apply:os.system [id]",
        "a: !!binary aGk=",
        "a: !!set {b, c}",
        "a: .nan",
        "a: 99999999999999999999999",
        "a: {b: 1",
        "<<: {a: 1}",
        "? [a]\n: b",
        "[" * 100,
        b"\xff",
        "--- 1\n--- 2",
    ],
)
def test_what_json_cannot_say_is_refused(text: str | bytes) -> None:
    with pytest.raises(Malformed):
        parse_yaml(text)


def test_the_fault_names_its_line_and_column() -> None:
    with pytest.raises(Malformed, match="the key 'a' is there twice at line 3, column 1"):
        parse_yaml("a: 1\nb: 2\na: 3\n")


@pytest.mark.parametrize("text", ["[" * 60_000, "{a: " * 15_000, "a: " + "x" * 60_000, "- " * 30_000, "a\n" * 30_000])
def test_a_hostile_text_is_answered_soon(text: str) -> None:
    started = time.perf_counter()
    with contextlib.suppress(Malformed):
        parse_yaml(text)
    assert time.perf_counter() - started < 2


def test_a_long_text_is_refused() -> None:
    with pytest.raises(TooLarge):
        parse_yaml("a: " + "x" * TEXT_BYTES_MAX)


texts = st.text(st.characters(codec="utf-8"), max_size=9)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=9,
)


@given(values)
def test_what_is_written_as_yaml_is_read_back(value: Any) -> None:
    class WithoutAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    assert parse_yaml(yaml.dump(value, Dumper=WithoutAliases)) == value
