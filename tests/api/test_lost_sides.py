"""Stale writes whose sides name bytes: hash and size are one thing, and no side is promised that is not kept."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import pytest

from api import concurrency
from api.deps import Ports
from domain.blobs import NewProposal
from tests.api.requests import edit, make, problem
from tests.conftest import BASE, Person
from tests.storage import invariants

OCTETS = "application/octet-stream"
MERGE = "application/merge-patch+json"
LOCKED = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
UNKNOWN = {"hash": "sha256:" + "0" * 64, "size": 5}


async def bytes_of(client: httpx2.AsyncClient, data: bytes) -> dict[str, Any]:
    """Send bytes; return the blob that has them."""
    answer = await client.post(f"{BASE}/blobs", content=data, headers={"content-type": OCTETS})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def stale(client: httpx2.AsyncClient, blob_id: str, policy: str, **patch: Any) -> httpx2.Response:
    """Change a blob of which version 1 was known."""
    return await client.patch(
        f"{BASE}/blobs/{blob_id}?on_conflict={policy}", json=patch, headers={"content-type": MERGE, "if-match": '"v1"'}
    )


async def deltas_of(client: httpx2.AsyncClient, blob_id: str, status: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(f"{BASE}/blobs/{blob_id}/deltas?status={status}")).json()["data"]
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"), [(b"longer", b"size5"), (b"size5", b"longer"), (b"one more", b"another one")]
)
async def test_the_last_writers_bytes_win_whole_and_the_others_are_kept(
    client: httpx2.AsyncClient, user: Person, admin: Any, ours: bytes, theirs: bytes
) -> None:
    made, other = await bytes_of(client, b"bytes"), await bytes_of(client, theirs)
    mine = (await bytes_of(client, ours))["binary"]
    await edit(client, made["id"], binary=mine)
    answer = await stale(client, made["id"], "last_write_wins", binary=other["binary"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["binary"] == other["binary"]
    assert [conflict["pointer"] for conflict in answer.json()["conflicts"]] == ["/binary"]
    assert (await client.get(f"{BASE}/blobs/{made['id']}/content")).content == theirs
    [rejected] = await deltas_of(client, made["id"], "rejected")
    assert rejected["id"] == answer.json()["rejected_delta"]
    assert mine["hash"] in str(rejected["patch"])
    await invariants.check(admin, user.user_id)


@pytest.mark.parametrize("more", [{}, {"title": "Mine"}], ids=["nothing-else", "with-a-title"])
@pytest.mark.parametrize("policy", ["merge", "last_write_wins"])
async def test_a_side_that_names_bytes_which_nobody_has_is_refused(
    client: httpx2.AsyncClient, policy: str, more: dict[str, str]
) -> None:
    made, other = await bytes_of(client, b"bytes"), await bytes_of(client, b"other")
    await edit(client, made["id"], binary=other["binary"])
    answer = await stale(client, made["id"], policy, binary=UNKNOWN, **more)
    problem(answer, 422, "unknown_content", "/binary/hash")
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["version"] == 2
    assert len(await deltas_of(client, made["id"], "any")) == 2


async def test_a_side_is_not_promised_to_who_proposed_it_to_a_blob_deleted_meanwhile(
    app: Any, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(client, content="The ship sailed at dawn.")
    await edit(client, made["id"], content="Nobody sailed.")
    ports: Ports = app.state.ports
    really = ports.proposals.propose

    async def too_late(new: NewProposal) -> str:
        answer = await client.delete(f"{BASE}/blobs/{made['id']}", headers={"if-match": "*"})
        assert answer.status_code == 204
        return await really(new)

    monkeypatch.setattr(ports.proposals, "propose", too_late)
    answer = await stale(client, made["id"], "merge", content="The ship sank at noon.")
    problem(answer, 410, "deleted")


async def test_a_lost_side_with_bytes_does_not_wait_in_a_circle_with_who_uses_the_same_bytes(
    client: httpx2.AsyncClient, user: Person, database: Any, admin: Any
) -> None:
    made, theirs = await bytes_of(client, b"bytes"), (await bytes_of(client, b"theirs"))["binary"]
    await edit(client, made["id"], binary=(await bytes_of(client, b"mine"))["binary"])
    async with database.transaction(user.user_id) as connection:
        # What create_blob does: the content first, the sequence of events last.
        await connection.execute("select studio_touch($1, $2, $3)", user.user_id, theirs["hash"], theirs["size"])
        writing = asyncio.create_task(stale(client, made["id"], "merge", title="Both", binary=theirs))
        while not await admin.fetchval(LOCKED):  # noqa: ASYNC110 - another process's lock
            await asyncio.sleep(0.01)
        await connection.execute("update user_state set updated_at = now() where user_id = $1", user.user_id)
    answer = await writing
    assert answer.status_code == 200, answer.text
    assert [delta["id"] for delta in await deltas_of(client, made["id"], "proposed")] == [
        answer.json()["proposed_delta"]
    ]


async def test_a_text_too_large_for_a_document_leaves_no_reservation_when_it_is_refused(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    """As bytes it is within the bound, as JSON beyond it: so it goes to the store after all."""
    body, headers = b"\x01" * (3 * 2**20), {"content-type": "text/plain"}
    answer = await client.post(f"{BASE}/blobs?parent_id={user.user_id}", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    state = await admin.fetchrow(
        "select bytes_reserved, (select count(*) from uploads where user_id = $1 and status = 'open') from user_state"
        " where user_id = $1", user.user_id,
    )  # fmt: skip
    assert tuple(state) == (0, 0)


@pytest.mark.parametrize(("policy", "does"), [("merge", "merged"), ("last_write_wins", "overwritten")])
async def test_nobody_waits_while_long_texts_are_merged(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, policy: str, does: str
) -> None:
    really, threads = getattr(concurrency, does), []

    def watched(*sides: Any, **more: Any) -> Any:
        threads.append(threading.current_thread())
        return really(*sides, **more)

    monkeypatch.setattr(concurrency, does, watched)
    made = await make(client, content="word " * 20_000)
    await edit(client, made["id"], title="Ours")
    answer = await stale(client, made["id"], policy, content="word " * 20_001)
    assert answer.status_code == 200, answer.text
    assert threads
    assert threading.main_thread() not in threads
