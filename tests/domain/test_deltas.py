from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.canonical import load
from domain.deltas import (
    Change,
    DeltaDraft,
    DeltaOperation,
    State,
    create,
    delete,
    expect_version,
    replay,
    restore,
    rewrite,
    update,
)
from domain.documents import Document, content_hash, document_hash
from domain.errors import Gone, Invalid, StudioError, VersionConflict
from domain.patches import ENVELOPE, JSON_PATCH, MERGE_PATCH, apply_operations, parse_patch
from tests.domain.values import documents, json_document, json_documents, text_document, text_documents


def stored(draft: DeltaDraft) -> Change:
    """Return a draft as it comes back from the database: its patch through bytes."""
    return Change(
        operation=draft.operation,
        from_version=draft.from_version,
        to_version=draft.to_version,
        patch=load(draft.patch_bytes),
        document_hash=draft.document_hash,
    )


def envelope(patch: dict[str, Any], **more: Any) -> Any:
    return parse_patch(ENVELOPE, {"delta": {"operation": "update", "patch": patch, **more}})


def content_of(state: State) -> bytes | None:
    return state.document.to_bytes() if state.document else None


@st.composite
def histories(draw: st.DrawFn) -> list[DeltaDraft]:
    """Return deltas of one blob: a creation, then edits, deletions and restores in any order that is allowed."""
    kind = draw(st.sampled_from([text_documents, json_documents]))
    drafts = [create(draw(kind))]
    for _ in range(draw(st.integers(0, 6))):
        current = drafts[-1].after
        if current.deleted:
            draft = restore(current)
        elif draw(st.integers(0, 4)) == 0:
            draft = delete(current)
        else:
            operation = draw(st.sampled_from([DeltaOperation.UPDATE, DeltaOperation.TRANSFORM, DeltaOperation.REVERT]))
            draft = rewrite(current, draw(kind), operation=operation)
        drafts += [draft] if draft else []
    return drafts


@given(histories())
@settings(max_examples=60)
def test_replay_gives_every_version_byte_for_byte_from_every_snapshot(drafts: list[DeltaDraft]) -> None:
    states = [State(), *(draft.after for draft in drafts)]
    changes = [stored(draft) for draft in drafts]
    for low, snapshot in enumerate(states):
        for high in range(low, len(states)):
            reached = replay(snapshot, changes[low:high])
            assert (reached.version, reached.deleted) == (states[high].version, states[high].deleted)
            assert content_of(reached) == content_of(states[high])


@given(histories())
@settings(max_examples=60)
def test_inverses_lead_back_to_the_beginning(drafts: list[DeltaDraft]) -> None:
    root: Any = drafts[-1].document.to_json()
    for draft, before in zip(
        reversed(drafts), reversed([State(), *(draft.after for draft in drafts[:-1])]), strict=True
    ):
        root = apply_operations(root, load(draft.inverse_bytes))
        if before.document is None:
            assert root is None
        else:
            assert Document.stored(root) == before.document


@given(documents)
def test_creating_leads_from_nothing_to_version_one(document: Document) -> None:
    draft = create(document)
    assert (draft.from_version, draft.to_version, draft.operation) == (0, 1, "create")
    assert draft.document_hash == document_hash(document.to_bytes())
    assert draft.content_hash == content_hash(document)
    assert draft.after == State(document=document, version=1)


@given(documents)
def test_an_edit_that_changes_nothing_is_no_delta(document: Document) -> None:
    current = create(document).after
    assert update(current, parse_patch(MERGE_PATCH, {})) is None
    assert (
        update(current, parse_patch(JSON_PATCH, [{"op": "replace", "path": "", "value": document.to_json()}])) is None
    )
    assert rewrite(current, document, operation=DeltaOperation.TRANSFORM) is None


def test_changing_one_to_true_is_a_change() -> None:
    current = create(json_document({"a": 1})).after
    draft = update(current, envelope({"data": {"a": True}}))
    assert draft is not None
    assert draft.document.body == {"a": True}
    assert type(replay(current, [stored(draft)]).root["data"]["a"]) is bool  # type: ignore[index]


def test_an_edit_advances_the_version_and_names_its_hashes() -> None:
    current = create(text_document("The quick brown fox", title="t")).after
    draft = update(current, envelope({"content": "The quick brown fox jumps"}, from_version=1))
    assert draft is not None
    assert (draft.operation, draft.from_version, draft.to_version) == ("update", 1, 2)
    assert draft.document == text_document("The quick brown fox jumps", title="t")
    renamed = update(draft.after, parse_patch(MERGE_PATCH, {"title": "u"}))
    assert renamed is not None
    assert renamed.content_hash == draft.content_hash
    assert renamed.document_hash != draft.document_hash


def test_a_removed_title_is_the_empty_title() -> None:
    current = create(text_document("x", title="t", tags=["a"], metadata={"m": 1})).after
    draft = update(current, parse_patch(MERGE_PATCH, {"title": None, "tags": None, "metadata": None}))
    assert draft is not None
    assert draft.document == text_document("x")
    assert replay(current, [stored(draft)]) == draft.after


def test_a_stale_envelope_names_the_current_version() -> None:
    current = create(text_document("x")).after
    with pytest.raises(VersionConflict) as caught:
        update(current, envelope({"content": "y"}, from_version=3))
    assert caught.value.members == {"current_version": 1, "current_etag": '"v1"'}
    expect_version(current, 1)


def test_a_deleted_blob_keeps_its_document_and_can_be_restored() -> None:
    current = create(text_document("x")).after
    gone = delete(current)
    assert gone.after == State(document=current.document, version=2, deleted=True)
    assert (list(gone.patch), list(gone.inverse)) == ([], [])
    with pytest.raises(Gone):
        update(gone.after, envelope({"content": "y"}))
    with pytest.raises(Gone):
        rewrite(gone.after, text_document("y"), operation=DeltaOperation.REVERT)
    with pytest.raises(Gone):
        delete(gone.after)
    back = restore(gone.after)
    assert back is not None
    assert back.after == State(document=current.document, version=3)
    assert restore(back.after) is None


@pytest.mark.parametrize(
    ("media_type", "body", "pointers"),
    [
        (MERGE_PATCH, {"content": None}, ["/content"]),
        (MERGE_PATCH, {"content": 5, "title": 6}, ["/content", "/title"]),
        (MERGE_PATCH, {"data": {}}, ["/data"]),
        (MERGE_PATCH, {"version": 3}, ["/version"]),
        (ENVELOPE, {"delta": {"patch": {"tags": ["a", 1]}}}, ["/delta/patch/tags/1"]),
        (
            JSON_PATCH,
            [{"op": "test", "path": "/title", "value": ""}, {"op": "add", "path": "/tags/-", "value": 7}],
            ["/1/path"],
        ),
        (JSON_PATCH, [{"op": "remove", "path": "/content"}], ["/0/path"]),
        (JSON_PATCH, [{"op": "move", "from": "/content", "path": "/metadata/was"}], ["/0/from"]),
        (JSON_PATCH, [{"op": "add", "path": "/x~1y", "value": 1}], ["/0/path"]),
    ],
)
def test_a_patch_to_no_valid_document_points_into_the_request(media_type: str, body: Any, pointers: list[str]) -> None:
    current = create(text_document("x")).after
    with pytest.raises(Invalid) as caught:
        update(current, parse_patch(media_type, body))
    assert [fault.pointer for fault in caught.value.faults] == pointers


def test_a_document_of_another_content_type_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        rewrite(create(text_document("x")).after, json_document("x"), operation=DeltaOperation.TRANSFORM)
    assert caught.value.problem_code == "immutable_field"


def test_replay_notices_a_gap_a_wrong_patch_and_a_wrong_hash() -> None:
    first = create(text_document("x"))
    second = update(first.after, envelope({"content": "y"}))
    third = update(second.after, envelope({"content": "z"})) if second else None
    assert second
    assert third
    wrong_hash = Change(
        operation=second.operation,
        from_version=1,
        to_version=2,
        patch=second.patch,
        document_hash=third.document_hash,
    )
    for changes in ([first, third], [second], [first, wrong_hash], [first, first]):
        with pytest.raises(StudioError) as caught:
            replay(State(), changes)
        assert caught.value.problem_code == "integrity"
    assert replay(State(), []) == State()


def test_replay_does_not_change_the_snapshot() -> None:
    snapshot = create(json_document({"a": [1]})).after
    draft = update(snapshot, parse_patch(JSON_PATCH, [{"op": "add", "path": "/data/a/-", "value": 2}]))
    assert draft
    replay(snapshot, [stored(draft)])
    assert snapshot.document == json_document({"a": [1]})


def test_replay_of_ten_thousand_deltas_takes_time_for_the_changes_only() -> None:
    first = create(json_document({"items": [{"n": n, "text": "x" * 40} for n in range(50)]}))
    changes: list[Change] = [first]
    patch: list[Any] = [
        {"op": "replace", "path": "/data/items/7/n", "value": 1},
        {"op": "replace", "path": "/title", "value": "t"},
    ]
    final = update(first.after, parse_patch(JSON_PATCH, patch))
    assert final
    changes += [
        Change(
            operation=DeltaOperation.UPDATE,
            from_version=n,
            to_version=n + 1,
            patch=patch,
            document_hash=final.document_hash,
        )
        for n in range(1, 10_001)
    ]
    started = time.process_time()
    assert replay(State(), changes).version == 10_001
    # The library takes 0.9 s of CPU for this; ours a twentieth. The bound leaves room for a busy machine.
    assert time.process_time() - started < 1
