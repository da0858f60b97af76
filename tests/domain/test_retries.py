"""How a step says when it is tried again: bounds, whose word counts, and what is stored of it."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors import Fault
from domain.fields import Fields
from domain.retries import DEFAULT, UNSAID, Retry, read_retry

SAID = {"max_attempts": 4, "first_pause": "2s", "factor": 3, "longest_pause": "1m", "not_retried": [501, "no_model"]}


def read(retry: Any) -> tuple[int | None, Retry | None, dict[str, str]]:
    faults: list[Fault] = []
    attempts, found = read_retry(Fields({"retry": retry}, "", faults), "retry")
    return attempts, found, {fault.pointer: fault.code for fault in faults}


def test_everything_may_be_said_and_is_stored_as_it_was() -> None:
    attempts, found, faults = read(SAID)
    assert (attempts, faults) == (4, {})
    assert found == Retry(first_pause=2.0, factor=3, longest_pause=60.0, not_retried=("501", "no_model"))
    assert Retry.from_json(found.to_json()) == found
    assert read({"max_attempts": 2}) == (2, None, {})  # is stored as before there was more to say
    assert UNSAID.to_json() == {}


def test_the_step_goes_before_its_provider_and_that_before_the_settings() -> None:
    step, provider = Retry(first_pause=5.0, not_retried=()), Retry(factor=1.0, not_retried=("503",))
    assert step.or_else(provider).or_else(DEFAULT) == Retry(
        first_pause=5.0, factor=1.0, longest_pause=60.0, not_retried=()
    )


@pytest.mark.parametrize(
    ("retry", "pointer"),
    [
        ({"first_pause": "10ms"}, "/retry/first_pause"),
        ({"longest_pause": "2h"}, "/retry/longest_pause"),
        ({"first_pause": "1m", "longest_pause": "1s"}, "/retry/longest_pause"),
        ({"factor": 0.5}, "/retry/factor"),
        ({"not_retried": [404]}, "/retry/not_retried/0"),
        ({"not_retried": ["ok", "503"]}, "/retry/not_retried/1"),
        ({"not_retried": [True]}, "/retry/not_retried/0"),
        ({"backoff": "exponential"}, "/retry/backoff"),
    ],
)
def test_what_is_out_of_bounds_is_refused_where_it_stands(retry: Any, pointer: str) -> None:
    assert list(read(retry)[2]) == [pointer]


def test_a_status_or_a_code_is_final() -> None:
    retry = Retry(not_retried=("501", "no_model"))
    finals: list[dict[str, Any]] = [
        {"status": 501},
        {"status": 503, "said": "no_model"},
        {"status": 503, "said": None},
        {},
    ]
    assert [retry.final(members) for members in finals] == [True, True, False, False]
    assert not UNSAID.final({"status": 501})
