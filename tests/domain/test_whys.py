"""Explanations: every state, hold and cause has words and a way out, whatever facts are there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.derivations import Cause
from domain.documents import Document
from domain.predicates import explained, predicates
from domain.provider_ir import Provider
from domain.runs import SKIPPED, Hold, State
from domain.why_causes import CAUSES, OPERATIONS, actor_of, cause_words, conflicts, name_of
from domain.why_states import now, skipped, state_of
from domain.whys import blob_why, derivation_json, derivation_why

WHEN = datetime(2026, 11, 30, 15, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 30, 15, 0, 2, tzinfo=UTC)
OUT, SOURCE, ABOVE, RUN, CASCADE, DERIVATION, LETTER, DELTA = (str(UUID(int=n)) for n in range(1, 9))
UNSAID = ("None", "unknown", "null", "{", "}")

INPUT = {
    "blob_id": SOURCE, "title": "Outline", "preview": "", "schema_id": "in-v1", "provider_id": None, "version": 3,
    "planned_version": 3, "used_version": 2, "moved": False, "pending": False, "deleted": False, "role": "source",
    "position": 0, "required": True, "tracks": True,
}  # fmt: skip
OUTPUT = {
    "slot": "keep", "blob_id": OUT, "title": "Chapter", "preview": "", "schema_id": "out-v1", "version": 1,
    "deleted": False, "machine_run_id": RUN,
}  # fmt: skip
BLOCKER = {
    "derivation_id": ABOVE, "hold": "failed", "hold_detail": {"code": "service_rejected", "detail": "No such model."},
    "run_id": None, "attempt": 1, "blob_id": SOURCE, "title": "Outline", "provider_id": "outliner",
    "provider_name": "Outliner",
}  # fmt: skip
STANDING: dict[str, Any] = {
    "id": DERIVATION, "instance_id": ABOVE, "anchor_kind": "blob", "anchor_id": SOURCE, "anchor_name": "Outline",
    "execution": "inline", "want_digest": "d1:pin-1", "unsettled": False, "pending_inputs": 0, "hold": None,
    "hold_detail": None, "run_id": None, "attempt": 2, "owner_cascade_id": CASCADE, "run_after": None, "level": 1,
    "created_at": WHEN, "settled_at": WHEN, "provider_id": "writer", "provider_name": "Writer",
    "definition_digest": "d1", "inputs": [INPUT], "inputs_total": 1, "outputs": [OUTPUT], "runs": [], "cut_off": None,
    "dead_letter": None, "proposals": [], "cascade": None, "blockers": [], "user_name": "ada",
}  # fmt: skip
DETAILS: Mapping[str, Any] = {
    "failed": {"code": "service_rejected", "detail": "No such model.", "run_id": RUN},
    "conflict": {"run_id": RUN},
    "approval": {"run_id": RUN, "step_id": "ask", "prompt": "May it go out?", "since": "noon"},
    "budget": {"run_id": RUN, "budget_id": ABOVE, "needed": 50_000, "unit": "micro_usd"},
    "cancelled": {"actor": "user:1", "at": WHEN.isoformat(), "run_id": RUN},
}
ROW: dict[str, Any] = {
    "blob_id": OUT, "version": 2, "depth": 0, "title": "Chapter", "preview": "", "schema_id": "out-v1",
    "current_version": 2, "deleted_at": None, "derivation_id": DERIVATION, "delta_id": DELTA, "operation": "transform",
    "actor": "provider:writer", "provider_id": "writer", "run_id": RUN, "cascade_id": CASCADE, "applied_at": LATER,
    "resolved_by": None, "document_hash": "x", "machine_hash": "x", "base_hash": None, "conflicted": False,
    "conflicts": None, "inputs": [{"blob_id": SOURCE, "version": 3, "role": "source", "position": 0}],
    "inputs_total": 1, "kept": None, "user_name": "ada", "cause": None,
    "run": {
        "id": RUN, "derivation_id": DERIVATION, "status": "settled", "attempt": 2, "label": "Writer 'Outline' v3",
        "execution": "workflow", "provider_id": "writer", "provider_name": "Writer", "definition_digest": "d1",
        "definition_version": 4, "settings_digest": "pin-1", "started_at": WHEN.isoformat(),
        "ended_at": LATER.isoformat(), "usage": {"model": "smol", "total_tokens": 70}, "charged": 20_000,
        "reused": [{"step_id": "draft", "run_id": ABOVE}],
    },
    "cascade": {
        "id": CASCADE, "cause": "edit", "actor": "user:1", "label": "Outline", "target_id": SOURCE, "status": "running",
        "created_at": WHEN, "error": None, "provider_id": None,
    },
}  # fmt: skip
SOURCE_ROW: dict[str, Any] = {
    **ROW, "blob_id": SOURCE, "version": 3, "depth": 1, "title": "Outline", "derivation_id": None,
    "operation": "update",
    "actor": "user:1", "provider_id": None, "run_id": None, "inputs": None, "inputs_total": 0, "run": None,
}  # fmt: skip


def held(hold: str | None, **more: Any) -> dict[str, Any]:
    asleep = hold in ("inactive", "retired")
    return {**STANDING, "hold": hold, "hold_detail": DETAILS.get(hold or ""), "unsettled": not asleep, **more}


EVERY_STATE: Mapping[State, dict[str, Any]] = {
    State.INACTIVE: held("inactive"),
    State.RETIRED: held("retired", inputs=[{**INPUT, "deleted": True}]),
    State.AWAITING_APPROVAL: held("approval", run_id=RUN),
    State.CONFLICT: held("conflict", proposals=[{"delta_id": DELTA, "blob_id": OUT, "run_id": RUN}]),
    State.BLOCKED_BUDGET: held("budget", budget={"limit": 1_000_000, "spent": 980_000, "reserved": 10_000}),
    State.FAILED: held("failed", dead_letter={"id": LETTER, "code": "service_rejected", "detail": "No such model."}),
    State.CANCELLED: held("cancelled"),
    State.RUNNING: held(None, run_id=RUN),
    State.BLOCKED: held(None, blockers=[BLOCKER], pending_inputs=1),
    State.STALE: held(None, inputs=[{**INPUT, "moved": True}]),
    State.FRESH: STANDING,
}


def said(standing: Any, row: Any = ROW) -> dict[str, Any]:
    return blob_why([row, SOURCE_ROW], standing, depth=5, truncated=False)


def test_every_state_is_here() -> None:
    assert set(EVERY_STATE) == set(State)


@pytest.mark.parametrize("state", State)
def test_every_state_has_words_and_a_way_out(state: State) -> None:
    found = said(EVERY_STATE[state])
    assert found["now"]["state"] == state
    assert found["now"]["reason"] in found["words"]
    assert [word for word in UNSAID if word in found["words"]] == []
    assert found["changes"], state
    for change in found["changes"]:
        assert set(change) == {"action", "method", "url", "reason", "headers", "body"}
        assert change["url"].startswith("/api/v1/studio/")
        assert change["reason"].endswith(".")
    assert "What would change that" in found["words"]


@pytest.mark.parametrize(
    ("state", "words", "actions"),
    [
        (State.INACTIVE, ["switched off"], ["activate_provider"]),
        (State.RETIRED, ["Deleted: “Outline”"], ["restore"]),
        (State.AWAITING_APPROVAL, ["May it go out?"], ["approve", "reject"]),
        (State.CONFLICT, ["conflicts"], ["accept", "reject", "reprocess"]),
        (State.BLOCKED_BUDGET, ["It needs up to 0.05 USD; 0.01 USD are left."], ["top_up"]),
        (State.FAILED, ["service_rejected", "No such model."], ["redrive", "edit", "reprocess"]),
        (State.CANCELLED, ["ada did so at 2026-11-30 15:00:00 UTC."], ["retry_run"]),
        (State.RUNNING, ["Run 2"], ["wait", "cancel_run"]),
        (State.BLOCKED, ["Waits for Outline", "Outline is failed: No such model."], ["retry_run", "reprocess"]),
        (State.STALE, ["“Outline” (read: 2, now: 3)"], ["wait"]),
        (State.FRESH, ["Up to date"], ["edit", "reprocess"]),
    ],
)
def test_what_stands_behind_a_state_is_named(state: State, words: list[str], actions: list[str]) -> None:
    standing = EVERY_STATE[state]
    if state is State.BLOCKED:
        detail = {**BLOCKER["hold_detail"], "run_id": RUN}  # type: ignore[dict-item]
        standing = {**standing, "blockers": [{**BLOCKER, "hold_detail": detail}]}
    found = said(standing)
    assert [word for word in words if word not in found["words"]] == []
    assert [change["action"] for change in found["changes"]] == actions


def test_a_top_up_is_what_is_missing_for_the_line_and_a_managed_budget_is_an_admins() -> None:
    budget = {"user_id": OUT, "limit": 1_000_000, "spent": 980_000, "reserved": 10_000, "managed": False}
    [alone] = said(held("budget", budget=budget))["changes"]
    [behind] = said(held("budget", budget=budget, line=70_000))["changes"]
    [managed] = said(held("budget", budget={**budget, "managed": True}))["changes"]
    assert [one["body"] for one in (alone, behind, managed)] == [
        {"amount": 40_000}, {"amount": 60_000}, {"budget_limit": 1_040_000}
    ]  # fmt: skip
    assert (managed["method"], managed["url"]) == ("PUT", f"/api/v1/studio/users/{OUT}/limits")
    blocker = {**BLOCKER, "hold": "budget", "hold_detail": DETAILS["budget"], "line": 90_000}
    [below] = said(held(None, blockers=[blocker], pending_inputs=1, budget=budget))["changes"]
    assert below["body"] == {"amount": 80_000}


def test_what_was_cancelled_before_it_ran_is_retried_with_its_cascade() -> None:
    found = said({**held("cancelled"), "hold_detail": {"actor": "user:1", "at": WHEN.isoformat()}})["changes"]
    assert [one["action"] for one in found] == ["retry_cascade"]


@given(
    hold=st.sampled_from([None, *Hold]), detail=st.booleans(), unsettled=st.booleans(),
    run=st.sampled_from([None, RUN]), pending=st.integers(0, 2), blocked=st.booleans(), made=st.booleans(),
    moved=st.booleans(), after=st.sampled_from([None, WHEN]), cut=st.sampled_from([None, "unchanged", *SKIPPED]),
    declined=st.booleans(), error=st.booleans(), blocker=st.sampled_from(list(Hold)),
)  # fmt: skip
def test_whatever_the_facts_there_are_words(
    *, hold: Hold | None, detail: bool, unsettled: bool, run: str | None, pending: int, blocked: bool, made: bool,
    moved: bool, after: datetime | None, cut: str | None, declined: bool, error: bool, blocker: Hold,
) -> None:  # fmt: skip
    runs = [{"status": "settled", "usage": {"skipped": "too large"} if declined else {}, "ended_at": WHEN.isoformat()}]
    cascade = {"id": CASCADE, "error": {"code": "too_many", "bound": "nodes", "limit": 1, "stopped": [
        {"blob_id": OUT, "provider_id": "p"}]} if error else None}  # fmt: skip
    standing = {
        **STANDING, "hold": hold, "hold_detail": DETAILS.get(str(hold)) if detail else None, "unsettled": unsettled,
        "run_id": run, "pending_inputs": pending, "run_after": after, "runs": runs, "cascade": cascade,
        "blockers": [{**BLOCKER, "hold": blocker, "hold_detail": None}] if blocked else [],
        "outputs": [{**OUTPUT, "version": int(made)}], "inputs": [{**INPUT, "moved": moved, "pending": pending > 0}],
        "cut_off": None if cut is None else {"reason": cut, "at": LATER.isoformat(), "detail": {}},
    }  # fmt: skip
    row = {**ROW, "version": 0, "delta_id": None} if not made else ROW
    for found in (
        blob_why([row], standing, depth=1, truncated=False),
        derivation_why([row], standing, depth=1, truncated=False),
    ):
        assert found["words"].strip()
        assert [word for word in UNSAID if word in found["words"]] == []
        assert found["now"]["state"] == state_of(standing).state == derivation_json(standing)["state"]


# --- where it comes from --------------------------------------------------------------------------------------------


def test_a_machines_version_names_run_definition_model_cost_and_who_caused_it() -> None:
    found = said(STANDING)
    because = found["because"]
    assert because["run"]["definition"] == {"digest": "d1", "version": 4}
    assert (because["run"]["model"], because["run"]["tokens"], because["run"]["duration_ms"]) == ("smol", 70, 2000)
    assert because["words"] == (
        "Version 2 of “Chapter” was made by Writer, definition version 4, attempt 2, because ada edited “Outline”."
        " It read “Outline” version 3. Smol answered, 70 tokens were used, it cost 0.02 USD, it took 2.0 s, 1 step was"
        " reused from earlier runs."
    )
    [source] = because["inputs"]
    assert source["because"]["words"] == "Version 3 of “Outline”: ada edited it at 2026-11-30 15:00:02 UTC."


def test_who_approved_and_what_they_said_is_told_and_their_thinking_is_no_time_of_the_run() -> None:
    decided = {"step_id": "review", "decision": "approved", "actor": "user:1", "at": WHEN.isoformat(),
               "comment": "Well said."}  # fmt: skip
    row = {**ROW, "run": {**ROW["run"], "decisions": [decided], "waited_ms": 1500.0}}
    because = said(STANDING, row)["because"]
    assert because["run"]["decisions"][0]["actor"]["name"] == "ada"
    assert (because["run"]["duration_ms"], because["run"]["waited_ms"]) == (500, 1500)
    assert "ada approved it (review) at 2026-11-30 15:00:00 UTC: “Well said.” Smol" in because["words"]


def test_a_rejection_says_what_the_person_said_and_offers_to_ask_again() -> None:
    detail = {**DETAILS["cancelled"], "code": "rejected", "detail": "Too long."}
    found = said(held("cancelled", hold_detail=detail))
    assert "A person rejected what this was to become; retry it to be asked again." in found["words"]
    assert "ada did so at 2026-11-30 15:00:00 UTC: “Too long.” What would change that: Ask again" in found["words"]


def test_what_people_had_written_is_said_to_be_kept() -> None:
    kept = [{"version": 1, "actor": "user:1", "at": WHEN}]
    row = {**ROW, "machine_hash": "y", "kept": kept, "conflicted": True, "conflicts": '[{"pointer": "/data/text"}]'}
    merge = said(STANDING, row)["because"]["merge"]
    assert (merge["pure"], merge["conflicts"], merge["kept"][0]["actor"]["name"]) == (False, ["/data/text"], "ada")
    assert "What people had written of version 1 was kept in it. Where both" in said(STANDING, row)["words"]


def test_what_a_person_accepted_and_what_went_along_is_told_apart() -> None:
    accepted = {**ROW, "operation": "update", "resolved_by": "user:1"}
    assert "ada accepted what Writer had proposed" in said(STANDING, accepted)["words"]
    for operation, words in (("delete", "it went along"), ("restore", "it came back along")):
        assert words in said(STANDING, {**ROW, "operation": operation, "run_id": None, "run": None})["words"]


def test_a_version_is_told_once_and_no_deeper_than_asked() -> None:
    twice = {**ROW, "inputs": [{"blob_id": SOURCE, "version": 3}] * 2}
    first, second = said(STANDING, twice)["because"]["inputs"]
    assert (first["because"]["version"], second["because"]) == (3, None)
    shallow = blob_why([ROW, SOURCE_ROW], STANDING, depth=0, truncated=True)
    assert (shallow["because"]["inputs"][0]["because"], shallow["truncated"]) == (None, True)
    assert shallow["because"]["inputs"][0]["name"] == "“Outline”"


def test_a_persons_change_of_a_derived_blob_leads_to_what_the_machine_had_made() -> None:
    edited = {**SOURCE_ROW, "blob_id": OUT, "version": 3, "depth": 0}
    found = blob_why([edited, {**ROW, "depth": 1}, {**SOURCE_ROW, "depth": 2}], STANDING, depth=5, truncated=False)
    assert found["because"]["before"]["run"]["id"] == RUN


def test_every_cause_and_operation_has_words() -> None:
    also = {"batch", "process", "redrive", "provider_change", "top_up"}
    assert {str(cause) for cause in Cause} | also <= set(CAUSES)
    for cause in [*CAUSES, "something-new"]:
        row = {**ROW, "cascade": {**ROW["cascade"], "cause": cause, "provider_id": "writer"}}
        words = cause_words(row)
        assert words.startswith("ada ")
        assert [word for word in UNSAID if word in words] == []
    for operation in OPERATIONS:
        row = {**SOURCE_ROW, "operation": operation}
        found = blob_why([row], None, depth=5, truncated=False)
        assert f"ada {OPERATIONS[operation]} at" in found["words"]


def test_names_are_the_best_there_are() -> None:
    assert name_of({"blob_id": OUT, "title": "", "preview": "First\nsecond"}) == "“First”"
    assert name_of({"blob_id": OUT, "title": "", "preview": "", "schema_id": "in-v1"}) == "“in-v1”"
    assert OUT in name_of({"blob_id": OUT})
    assert len(name_of({"blob_id": OUT, "title": "x" * 500})) <= 62
    assert actor_of(None, {})["name"] == "a person"
    assert conflicts(None) == []


def test_a_source_is_a_persons_and_a_deleted_one_can_be_restored() -> None:
    assert now(None, SOURCE_ROW)["state"] == "source"
    deleted = {**SOURCE_ROW, "deleted_at": WHEN, "operation": "delete"}
    found = said(None, deleted)
    assert "Deleted by a person" in found["words"]
    assert [change["action"] for change in found["changes"]] == ["restore"]


@pytest.mark.parametrize(("kind", "words"), [("user", "of yours, at most 2"), ("service", "of service gpt, at most 2")])
def test_who_waits_for_a_place_says_of_what(kind: str, words: str) -> None:
    place = {"kind": kind, "name": "gpt", "cap": 2, "since": WHEN}
    assert words in said({**EVERY_STATE[State.STALE], "places": [place]})["words"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"cut_off": {"reason": "unchanged", "at": LATER.isoformat()}}, "found everything that it reads as it was"),
        ({"effects": [{"effect": "unchanged", "reason": "bytes"}]}, "there already, byte for byte, so"),
        ({"effects": [{"effect": "unchanged", "reason": "normal_form"}]}, "such as white space, so"),
        ({"effects": [{"effect": "changed", "reason": None}]}, None),
    ],
)
def test_a_fresh_one_says_why_a_look_brought_no_version(facts: dict[str, Any], words: str | None) -> None:
    run = {"status": "settled", "usage": {}, "ended_at": WHEN.isoformat(), "effects": facts.get("effects", [])}
    found = said({**STANDING, "runs": [run], "cut_off": facts.get("cut_off")})["words"]
    if words is None:
        assert "Up to date with its inputs. What would change that" in found
    else:
        assert words in found


def test_an_older_definition_is_said_with_its_upgrade() -> None:
    found = said({**STANDING, "definition_digest": "d2"})
    assert found["now"]["outdated"]
    assert "newer definition" in found["words"]
    assert found["changes"][-1]["url"] == "/api/v1/studio/providers/writer/upgrade"
    assert not said(STANDING)["now"]["outdated"]


def test_a_later_run_or_an_unchanged_look_is_no_reason_for_nothing() -> None:
    ran = {"status": "settled", "usage": {}, "ended_at": LATER.isoformat()}
    early = {"reason": "no_input", "at": WHEN.isoformat()}
    assert skipped({**STANDING, "runs": [ran], "cut_off": early}) is None
    assert skipped({**STANDING, "runs": [], "cut_off": early}) == "no_input"
    declined = {**ran, "usage": {"skipped": "too large"}}
    unchanged = {"reason": "unchanged", "at": LATER.isoformat()}
    assert skipped({**STANDING, "runs": [declined], "cut_off": unchanged}) == "too large"


# --- whether a provider reacts --------------------------------------------------------------------------------------

CALM = Document.stored({"content_type": "text/plain", "content": "a calm day", "title": "", "tags": [], "metadata": {}})
MATCHING: dict[str, Any] = {
    "schema_id": "in-v1", "content_type": "text/plain; charset=utf-8", "made_by": None, "deleted": False,
    "active": True,
    "replaced": False, "in_lineage": False, "reaches": False, "depth": 1, "derivation_id": None, "buckets": [],
}  # fmt: skip


def provider(**more: Any) -> Provider:
    return Provider(id="p", name="P", workflow_id="w", definition_digest="d", outputs=(), **more)


@pytest.mark.parametrize(
    ("wants", "facts", "refused"),
    [
        ({}, {}, []),
        ({}, {"active": False}, ["active"]),
        ({}, {"active": False, "replaced": True}, ["active"]),
        ({}, {"deleted": True}, ["present"]),
        ({"events": ("onDelete",)}, {}, ["events"]),
        ({"input_schemas": ("other-v1",)}, {}, ["schema"]),
        ({"supported_types": ("text/*",)}, {}, []),
        ({"supported_types": ("image/*", "application/json")}, {}, ["type"]),
        ({}, {"made_by": "writer"}, ["origin"]),
        ({"origin": "any"}, {"made_by": "writer"}, []),
        ({}, {"in_lineage": True}, ["lineage"]),
        ({}, {"depth": 65}, ["depth"]),
        ({"trigger_patterns": ("storm",)}, {}, ["pattern"]),
        ({"trigger_patterns": ("storm", "calm")}, {}, []),
        ({"max_input_size": 3}, {}, ["size"]),
        ({"anchor": "bucket"}, {}, ["bucket"]),
        ({"input_schemas": ("other-v1",), "max_input_size": 3}, {"active": False}, ["active", "schema", "size"]),
    ],
)
def test_each_predicate_says_no_by_itself(wants: Any, facts: Any, refused: list[str]) -> None:
    tried = predicates(provider(**wants), {**MATCHING, **facts}, CALM, depth_max=64)
    assert [one["name"] for one in tried if not one["ok"]] == refused
    assert all(set(one) == {"name", "ok", "wanted", "found", "words"} and one["words"] for one in tried)
    found = explained(provider(**wants), {**MATCHING, **facts}, tried)
    assert found["matches"] is not bool(refused)
    assert all(one["words"] in found["words"] for one in tried if not one["ok"])
