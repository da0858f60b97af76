"""Keys of the memo: two requests that differ in anything never share one."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.canonical import load, same
from domain.memo import Request, reused_usage
from tests.domain.values import values

PART = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "a", "ab", '"', ",", '","', "a,b", "\0"]
)
REQUESTS = st.builds(Request, step_digest=PART, service=PART, revision=PART, method=PART, endpoint=PART, body=values)


@given(REQUESTS)
def test_the_encoding_of_a_request_can_be_read_back(request_: Request) -> None:
    """What can be read back whole is injective: that is the proof, the next test only shows it."""
    _, *parts = load(request_.encoded())
    wanted = [value for name, value in asdict(request_).items() if name != "body"]
    assert parts[:-1] == wanted
    assert same(parts[-1], request_.body)


@given(REQUESTS, REQUESTS)
def test_requests_that_differ_have_other_encodings(one: Request, other: Request) -> None:
    equal = same(one.body, other.body) and replace(one, body=None) == replace(other, body=None)
    assert (one.encoded() == other.encoded()) is equal
    assert (one.key == other.key) is equal


def test_parts_that_move_across_a_border_and_numbers_of_another_kind_are_told_apart() -> None:
    base: dict[str, Any] = {"step_digest": "d", "service": "s", "revision": "", "method": "POST", "endpoint": "/e"}
    one = Request(**base, body={"a": 1, "b": 2})
    assert one.key == Request(**base, body={"b": 2, "a": 1}).key
    assert one.key != Request(**base, body={"a": 1.0, "b": 2}).key
    assert Request(**{**base, "service": "s/", "endpoint": "e"}, body=1).key != Request(**base, body=1).key


def test_what_is_reused_has_cost_nothing_and_says_what_it_saved() -> None:
    paid = {"model": "m", "total_tokens": 7, "prompt_tokens": 3, "duration_ms": 900}
    assert reused_usage(paid) == {"duration_ms": 0, "reused": True, "saved_tokens": 7, "model": "m"}
    assert reused_usage({}) == {"duration_ms": 0, "reused": True, "saved_tokens": 0}
