"""Proposed deltas: offered, accepted, turned down; and who waited for the decision goes on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from domain.blobs import NewDelta, NewProposal
from domain.deltas import DeltaOperation, State, revert, rewrite
from domain.documents import Document, cutoff_hash
from domain.errors import NotFound, StudioError
from domain.ids import new_id
from storage.blobs import Blobs
from storage.deltas import Deltas
from storage.proposals import Proposals
from tests.storage.engine import Engine
from tests.storage.test_deltas import made

PROSE = "$.data.text + '\\n\\nSecond paragraph of ' + $.data.text + '.\\n\\nThe end of it all.'"


@pytest.fixture(scope="session")
def blobs(database: Any, contents: Any) -> Blobs:
    return Blobs(database, contents)


@pytest.fixture(scope="session")
def deltas(database: Any, contents: Any) -> Deltas:
    return Deltas(database, contents)


@pytest.fixture(scope="session")
def proposals(database: Any, contents: Any) -> Proposals:
    return Proposals(database, contents)


def proposed(user: Any, blob_id: UUID, state: State, text: str, **more: Any) -> NewProposal:
    draft = rewrite(state, Document.parse({"content": text}), operation=DeltaOperation.UPDATE)
    assert draft is not None
    return NewProposal(
        user_id=user.user_id, blob_id=blob_id, delta_id=new_id(), draft=draft,
        cutoff_hash=cutoff_hash(draft.document), actor=f"user:{user.user_id}", **more,
    )  # fmt: skip


async def accepted(
    blobs: Blobs, deltas: Deltas, user_id: UUID, blob_id: UUID, delta_id: UUID, document: Document
) -> Any:
    """Let a proposal become what makes ``document`` of the blob as it is."""
    blob = await blobs.get(user_id, blob_id)
    draft = rewrite(State(document=blob.document, version=blob.version), document, operation=DeltaOperation.UPDATE)
    assert draft is not None
    return await deltas.accept(
        NewDelta(
            user_id=user_id, blob_id=blob_id, delta_id=delta_id, cascade_id=new_id(), draft=draft,
            cutoff_hash=cutoff_hash(draft.document), actor=f"user:{user_id}", kept_version=blob.kept_version,
            patch_bytes=blob.patch_bytes, external=False,
        )
    )  # fmt: skip


async def test_a_proposal_changes_nothing_until_it_is_accepted_and_then_is_the_applied_delta(
    blobs: Blobs, deltas: Deltas, proposals: Proposals, user: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "one"}))
    offer = proposed(user, new.blob_id, State(document=new.document, version=1), "two")
    assert await proposals.propose(offer) == "proposed"
    assert await proposals.propose(offer) == "done"
    assert (await blobs.get(user.user_id, new.blob_id)).version == 1
    assert [row["id"] for row in await proposals.pending(user.user_id, limit=5)] == [offer.delta_id]
    found = await proposals.get(user.user_id, offer.delta_id)
    assert found is not None
    assert (found.from_version, found.base.body, found.theirs.body) == (1, "one", "two")
    done = await accepted(blobs, deltas, user.user_id, new.blob_id, offer.delta_id, found.theirs)
    assert (done.status, done.version) == ("applied", 2)
    row = await deltas.get(user.user_id, offer.delta_id)
    assert (row["status"], row["operation"], row["to_version"]) == ("applied", "update", 2)
    assert row["resolved_at"] is not None
    assert row["resolved_by"] == f"user:{user.user_id}"
    assert (await deltas.latest(user.user_id, new.blob_id))["id"] == offer.delta_id
    assert await proposals.pending(user.user_id, limit=5) == []
    assert await proposals.get(user.user_id, offer.delta_id) is None
    again = await accepted(blobs, deltas, user.user_id, new.blob_id, offer.delta_id, Document.parse({"content": "3"}))
    assert (again.status, (await blobs.get(user.user_id, new.blob_id)).version) == ("resolved", 2)


async def test_a_rejected_proposal_stays_readable_and_cannot_be_taken_back(
    blobs: Blobs, deltas: Deltas, proposals: Proposals, user: Any, other: Any, admin: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "one"}))
    offer = proposed(user, new.blob_id, State(document=new.document, version=1), "two")
    await proposals.propose(offer)
    with pytest.raises(NotFound):
        await proposals.reject(other.user_id, offer.delta_id, "user:other")
    assert await proposals.reject(user.user_id, offer.delta_id, "user:me") == "proposed"
    assert await proposals.reject(user.user_id, offer.delta_id, "user:me") == "rejected"
    row = await deltas.get(user.user_id, offer.delta_id)
    assert (row["status"], row["resolved_by"], "two" in row["patch"]) == ("rejected", "user:me", True)
    kinds = await admin.fetch(
        "select type from events where user_id = $1 and type like 'delta.%' order by seq", user.user_id
    )
    assert [kind["type"] for kind in kinds] == ["delta.applied", "delta.proposed", "delta.rejected"]


async def test_a_proposal_that_cannot_be_read_any_more_has_failed_and_says_why(
    blobs: Blobs, proposals: Proposals, deltas: Deltas, user: Any, admin: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "one"}))
    offer = proposed(user, new.blob_id, State(document=new.document, version=1), "two")
    await proposals.propose(offer)
    await admin.execute("update deltas set patch = replace(patch, 'two', 'ten') where id = $1", offer.delta_id)
    with pytest.raises(StudioError) as caught:
        await proposals.get(user.user_id, offer.delta_id)
    assert caught.value.problem_code == "integrity"
    row = await deltas.get(user.user_id, offer.delta_id)
    assert (row["status"], row["error"] is None) == ("failed", False)


async def test_the_side_that_lost_is_written_with_the_delta_or_not_at_all(
    blobs: Blobs, deltas: Deltas, user: Any, count_rows: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "one"}))
    state = State(document=new.document, version=1)
    draft = rewrite(state, Document.parse({"content": "two"}), operation=DeltaOperation.UPDATE)
    assert draft is not None
    aside = proposed(user, new.blob_id, draft.after, "three", conflicts=[{"pointer": "/content"}])
    write = NewDelta(
        user_id=user.user_id, blob_id=new.blob_id, delta_id=new_id(), cascade_id=new_id(), draft=draft,
        cutoff_hash=cutoff_hash(draft.document), actor="user:me", kept_version=1, patch_bytes=0, external=False,
        conflicts=[{"pointer": "/content"}], base_version=1, aside=aside,
    )  # fmt: skip
    assert (await deltas.append(write)).status == "applied"
    rows = await deltas.page(user.user_id, new.blob_id, limit=9, status="proposed")
    assert [(row["id"], row["from_version"]) for row in rows] == [(aside.delta_id, 2)]
    before = await count_rows(user.user_id)
    assert (await deltas.append(write)).status == "conflict"
    assert await count_rows(user.user_id) == before


# --- decisions that a derivation waits for --------------------------------------------------------------------------


async def waiting(engine: Engine) -> tuple[UUID, UUID, UUID]:
    """A blob, its derived output whose conflict waits for a person, and what says so; something hangs below it."""
    await engine.provider("one", "in-v1", "out-v1", PROSE, on_conflict="wait")
    await engine.provider("below", "out-v1", "end-v1", "$.data.text + ' (end)'")
    blob = await engine.create("in-v1", "First.")
    await engine.rest()
    output = await engine.output("one")
    mine = (await engine.text(output)).replace("Second paragraph of First..", "My own second paragraph.")
    await engine.edit(output, mine)
    await engine.rest()
    await engine.edit(blob, "Other.")
    await engine.rest()
    assert (await engine.derivation("one"))["hold"] == "conflict"
    [row] = await engine.rows("select id from deltas where user_id = $1 and status = 'proposed'")
    return blob, output, row["id"]


async def test_accepting_what_a_run_waits_with_applies_it_and_the_wave_goes_on_unpaid(engine: Engine) -> None:
    blob, output, offer = await waiting(engine)
    blobs, deltas = Blobs(engine.database, engine.contents), Deltas(engine.database, engine.contents)
    found = await Proposals(engine.database, engine.contents).get(engine.user.user_id, offer)
    assert found is not None
    runs = await engine.runs("one")
    done = await accepted(blobs, deltas, engine.user.user_id, output, offer, found.theirs)
    assert done.status == "applied"
    await engine.check()
    assert (await engine.derivation("one"))["hold"] is None
    await engine.rest()
    assert await engine.text(output) == "Other.\n\nSecond paragraph of Other..\n\nThe end of it all."
    assert await engine.text(await engine.output("below")) == await engine.text(output) + " (end)"
    assert await engine.runs("one") == runs
    assert not (await engine.derivation("one"))["unsettled"]
    # The head has taken it in: the next change merges without a conflict.
    await engine.edit(blob, "Third.")
    await engine.rest()
    assert (await engine.text(output)).startswith("Third.\n\nSecond paragraph of Third..")


async def test_rejecting_it_keeps_the_persons_words_and_the_wave_goes_on_unpaid(engine: Engine) -> None:
    blob, output, offer = await waiting(engine)
    proposals = Proposals(engine.database, engine.contents)
    before, runs = await engine.text(output), await engine.runs("one")
    assert await proposals.reject(engine.user.user_id, offer, "user:me") == "proposed"
    await engine.check()
    await engine.rest()
    assert (await engine.text(output), await engine.runs("one")) == (before, runs)
    assert not (await engine.derivation("one"))["unsettled"]
    head = await Deltas(engine.database, engine.contents).machine_head(engine.user.user_id, output)
    assert head is not None
    assert head.body["text"].startswith("Other.")
    # It is not offered again until the machine says something else there.
    await engine.edit(blob, "Other.", title="A title")
    await engine.rest()
    assert await engine.rows("select id from deltas where user_id = $1 and status = 'proposed'") == []
    assert "My own second paragraph." in await engine.text(output)


async def test_a_persons_own_words_decide_as_well(engine: Engine) -> None:
    _, output, _ = await waiting(engine)
    blobs, deltas = Blobs(engine.database, engine.contents), Deltas(engine.database, engine.contents)
    head = await deltas.machine_head(engine.user.user_id, output)
    assert head is not None
    blob = await blobs.get(engine.user.user_id, output)
    assert revert(State(document=blob.document, version=blob.version), head) is not None
    await engine.edit(output, head.body["text"])
    await engine.rest()
    assert (await engine.text(output)).startswith("Other.")
    assert (await engine.derivation("one"))["hold"] is None
    assert await engine.rows("select id from deltas where user_id = $1 and status = 'proposed'") == []
