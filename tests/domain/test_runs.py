import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.runs import ASLEEP, Hold, State, derivation_state, provider_state, want_digest

RUN, FIRST, SECOND = (UUID(int=n) for n in (1, 2, 3))
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        ({"hold": "inactive", "unsettled": False}, State.INACTIVE, "switched off"),
        ({"hold": "retired", "unsettled": False}, State.RETIRED, "deleted"),
        ({"hold": "approval", "unsettled": True, "run_id": RUN}, State.AWAITING_APPROVAL, "approve"),
        ({"hold": "conflict", "unsettled": True}, State.CONFLICT, "conflicts"),
        ({"hold": "budget", "unsettled": True}, State.BLOCKED_BUDGET, "top-up"),
        ({"hold": "failed", "unsettled": True, "hold_code": "service_rejected"}, State.FAILED, "service_rejected"),
        ({"hold": "cancelled", "unsettled": True}, State.CANCELLED, "cancelled"),
        ({"hold": None, "unsettled": True, "run_id": RUN, "attempt": 2}, State.RUNNING, "Run 2"),
        ({"hold": None, "unsettled": True, "blocked_by": [FIRST, SECOND]}, State.BLOCKED, "and 1 more"),
        ({"hold": None, "unsettled": True, "blocked_by": [FIRST], "blocked_by_label": "outline"}, State.BLOCKED,
         "Waits for outline,"),
        ({"hold": None, "unsettled": True, "pending_inputs": 1}, State.STALE, "1 input in"),
        ({"hold": None, "unsettled": True, "pending_inputs": 2}, State.STALE, "2 inputs in"),
        ({"hold": None, "unsettled": True}, State.STALE, "runs next"),
        ({"hold": None, "unsettled": True, "run_after": NOON}, State.STALE, "put off until 2026-11-30 12:00:00 UTC"),
        ({"hold": None, "unsettled": True, "blocked_by": [FIRST], "made": False}, State.BLOCKED, "nothing has"),
        ({"hold": None, "unsettled": False}, State.FRESH, "Up to date"),
        ({"hold": None, "unsettled": False, "skipped": "last_good"}, State.FRESH, "the last good output"),
        ({"hold": None, "unsettled": False, "skipped": "no_input"}, State.FRESH, "nothing to read; the last output"),
        ({"hold": None, "unsettled": False, "skipped": "parent_failed", "made": False}, State.FRESH, "not be made"),
        ({"hold": None, "unsettled": False, "skipped": "too large", "made": False}, State.FRESH,
         "Nothing new was made: too large; nothing has been made yet."),
    ],
)  # fmt: skip
def test_the_first_fact_that_applies_names_the_state_and_a_sentence_says_why(
    facts: dict[str, Any], state: State, words: str
) -> None:
    found = derivation_state(**facts)
    assert found.state == state
    assert words in found.reason
    assert found.blocked_by == tuple(facts.get("blocked_by", ()))


@given(st.sampled_from(Hold), st.booleans(), st.sampled_from([None, RUN]), st.lists(st.sampled_from([FIRST, SECOND])))
def test_a_hold_is_told_before_everything_else(
    hold: Hold,
    unsettled: bool,  # noqa: FBT001 - hypothesis passes it by position
    run_id: UUID | None,
    blocked_by: list[UUID],
) -> None:
    found = derivation_state(hold=hold, unsettled=unsettled, run_id=run_id, blocked_by=blocked_by)
    assert found == derivation_state(hold=hold, unsettled=False)


def test_an_unknown_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="tired"):
        derivation_state(hold="tired", unsettled=False)


def test_the_seeds_have_four_words_for_the_states() -> None:
    words = {state: provider_state(state) for state in State}
    assert words[State.STALE] == words[State.BLOCKED] == "pending"
    assert words[State.RUNNING] == words[State.AWAITING_APPROVAL] == "processing"
    assert words[State.FRESH] == "completed"
    assert {words[State(hold)] for hold in ASLEEP} == {words[State.FAILED]} == {"failed"}


def test_want_is_the_hash_of_a_text_that_sql_can_write() -> None:
    text = f"d1:s1:source={FIRST},source={SECOND}"
    inputs = [("source", FIRST), ("source", SECOND)]
    assert want_digest("d1", "s1", inputs) == hashlib.sha256(text.encode()).hexdigest()


@given(st.permutations([("a", FIRST), ("a", SECOND), ("b", RUN)]), st.integers(0, 3))
def test_want_differs_whenever_an_input_comes_goes_or_changes_its_place(
    inputs: list[tuple[str, UUID]], kept: int
) -> None:
    ordered = [("a", FIRST), ("a", SECOND), ("b", RUN)]
    same = inputs[:kept] == ordered
    assert (want_digest("d", "s", inputs[:kept]) == want_digest("d", "s", ordered)) == same
