"""One honest request of every operation that writes: what repeating, overtaking and killing are tried on."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import Request
from starlette.responses import Response

from api.auth import allow
from api.idempotency import once
from domain.ids import new_id
from tests.api.requests import JSON_PATCH, MERGE_PATCH, envelope, make
from tests.api.test_workflows import SHOUT
from tests.conftest import BASE, Person

NOTE = {"name": "note", "definition": {"type": "object", "properties": {"text": {"type": "string"}}}}


@dataclass(frozen=True)
class Call:
    """A request that can be sent again as it is."""

    method: str
    path: str
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, client: httpx2.AsyncClient, key: str | None = None) -> httpx2.Response:
        headers = dict(self.headers) | ({} if key is None else {"idempotency-key": key})
        body: dict[str, Any] = {"content": self.content} if self.content is not None else {"json": self.json}
        if self.json is None and self.content is None:
            body = {}
        return await client.request(self.method, BASE + self.path, headers=headers, **body)


def keyed(key: str = "k-1") -> dict[str, str]:
    return {"idempotency-key": key}


def said(answer: httpx2.Response) -> tuple[int, bytes, list[str | None]]:
    """What two answers to one request have in common, byte by byte."""
    names = ("content-type", "etag", "location", "link", "accept-patch", "preference-applied")
    return answer.status_code, answer.content, [answer.headers.get(name) for name in names]


@asynccontextmanager
async def served(app: Any, work: Any, **options: Any) -> AsyncIterator[None]:
    """A write of the test's own at ``POST /trial``."""

    async def trial(request: Request) -> Response:
        identity = await allow(request, "blobs:write")
        return await once(request, app.state.ports, identity.user_id, work, **options)

    app.add_api_route("/trial", trial, methods=["POST"])
    try:
        yield
    finally:
        app.router.routes.pop()


Prepare = Callable[[httpx2.AsyncClient], Awaitable[Call]]
WRITES: dict[str, Prepare] = {}
"""By operation id: brings about what the request needs, and returns the request."""


def _write(prepare: Prepare) -> Prepare:
    WRITES[prepare.__name__.removeprefix("_")] = prepare
    return prepare


async def _done(client: httpx2.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    answer = await client.request(method, BASE + path, json=body)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def _bucket(client: httpx2.AsyncClient) -> str:
    return str((await _done(client, "POST", "/buckets", {"name": "The Storm", "metadata": {"a": 1}}))["id"])


async def _member(client: httpx2.AsyncClient) -> tuple[str, str]:
    bucket, blob = await _bucket(client), (await make(client))["id"]
    await _done(client, "POST", f"/buckets/{bucket}/blobs", {"blob_id": blob})
    return bucket, str(blob)


async def _provider(client: httpx2.AsyncClient) -> str:
    await _done(client, "POST", "/workflows", SHOUT)
    return str((await _done(client, "POST", "/providers", {"id": "shout", "workflow_id": "wf-shout"}))["id"])


@_write
async def blobs_create(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/blobs", {"content": "once", "title": "T"})


@_write
async def blobs_update(client: httpx2.AsyncClient) -> Call:
    patch = [{"op": "add", "path": "/tags/-", "value": "once"}]
    headers = {"content-type": JSON_PATCH, "if-match": '"v1"'}
    return Call("PATCH", f"/blobs/{(await make(client))['id']}", patch, headers=headers)


@_write
async def blobs_delete(client: httpx2.AsyncClient) -> Call:
    return Call("DELETE", f"/blobs/{(await make(client))['id']}", headers={"if-match": '"v1"'})


@_write
async def blobs_batch(client: httpx2.AsyncClient) -> Call:
    edit = {"op": "update", "id": (await make(client))["id"], "patch": {"title": "once"}}
    return Call("POST", "/blobs/batch", {"items": [{"op": "create", "content": "once"}, edit]})


@_write
async def contents_put(client: httpx2.AsyncClient) -> Call:
    headers = {"content-type": "text/plain", "if-match": '"v1"'}
    return Call("PUT", f"/blobs/{(await make(client))['id']}/content", content=b"two", headers=headers)


@_write
async def blobs_batch_get(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/blobs/batch-get", {"ids": [(await make(client))["id"]]})


@_write
async def blobs_revert(client: httpx2.AsyncClient) -> Call:
    made = await make(client)
    await _done(client, "PATCH", f"/blobs/{made['id']}", envelope(content="two"))
    return Call("POST", f"/blobs/{made['id']}/revert", {"version": 1}, headers={"if-match": '"v2"'})


@_write
async def blobs_restore(client: httpx2.AsyncClient) -> Call:
    made = await make(client)
    await _done(client, "DELETE", f"/blobs/{made['id']}")
    return Call("POST", f"/blobs/{made['id']}/restore")


@_write
async def deltas_append(client: httpx2.AsyncClient) -> Call:
    patch = [{"op": "add", "path": "/tags/-", "value": "once"}]
    return Call("POST", f"/blobs/{(await make(client))['id']}/deltas", {"operation": "update", "patch": patch})


async def _proposal(client: httpx2.AsyncClient) -> str:
    body = {"operation": "update", "patch": {"title": "proposed"}, "proposed": True}
    return str((await _done(client, "POST", f"/blobs/{(await make(client))['id']}/deltas", body))["id"])


@_write
async def deltas_accept(client: httpx2.AsyncClient) -> Call:
    return Call("POST", f"/deltas/{await _proposal(client)}/accept")


@_write
async def deltas_reject(client: httpx2.AsyncClient) -> Call:
    return Call("POST", f"/deltas/{await _proposal(client)}/reject")


@_write
async def uploads_begin(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/uploads", {"content_type": "image/x-raw", "size": 5})


@_write
async def uploads_put_part(client: httpx2.AsyncClient) -> Call:
    upload = await _done(client, "POST", "/uploads", {"content_type": "image/x-raw"})
    digest = base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
    headers = {"content-type": "application/octet-stream", "content-digest": f"sha-256=:{digest}:"}
    return Call("PUT", f"/uploads/{upload['id']}/parts/1", content=b"bytes", headers=headers)


@_write
async def uploads_complete(client: httpx2.AsyncClient) -> Call:
    upload = await _done(client, "POST", "/uploads", {"content_type": "image/x-raw"})
    sent = await client.put(f"{upload['parts_url']}/1", content=b"bytes")
    assert sent.status_code == 204, sent.text
    return Call("POST", f"/uploads/{upload['id']}/complete")


@_write
async def uploads_abort(client: httpx2.AsyncClient) -> Call:
    upload = await _done(client, "POST", "/uploads", {"content_type": "image/x-raw"})
    return Call("DELETE", f"/uploads/{upload['id']}")


@_write
async def buckets_create(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/buckets", {"name": "The Storm"})


@_write
async def buckets_update(client: httpx2.AsyncClient) -> Call:
    headers = {"content-type": MERGE_PATCH, "if-match": '"v1"'}
    return Call("PATCH", f"/buckets/{await _bucket(client)}", {"metadata": {"b": 2}}, headers=headers)


@_write
async def buckets_delete(client: httpx2.AsyncClient) -> Call:
    return Call("DELETE", f"/buckets/{await _bucket(client)}", headers={"if-match": '"v1"'})


@_write
async def buckets_add_blob(client: httpx2.AsyncClient) -> Call:
    bucket, blob = await _bucket(client), (await make(client))["id"]
    return Call("POST", f"/buckets/{bucket}/blobs", {"blob_id": blob})


@_write
async def buckets_put_blob(client: httpx2.AsyncClient) -> Call:
    bucket, blob = await _member(client)
    return Call("PUT", f"/buckets/{bucket}/blobs/{blob}", {"position": 7})


@_write
async def buckets_remove_blob(client: httpx2.AsyncClient) -> Call:
    bucket, blob = await _member(client)
    return Call("DELETE", f"/buckets/{bucket}/blobs/{blob}")


@_write
async def schemas_register(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/schemas", NOTE)


@_write
async def workflows_register(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/workflows", SHOUT)


@_write
async def providers_register(client: httpx2.AsyncClient) -> Call:
    await _done(client, "POST", "/workflows", SHOUT)
    return Call("POST", "/providers", {"id": "shout", "workflow_id": "wf-shout"})


@_write
async def providers_delete(client: httpx2.AsyncClient) -> Call:
    return Call("DELETE", f"/providers/{await _provider(client)}", headers={"if-match": '"v1"'})


@_write
async def providers_put_instance(client: httpx2.AsyncClient) -> Call:
    return Call("PUT", "/providers/summarizer/instance", {"active": False}, headers={"if-match": '"v1"'})


@_write
async def providers_process(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/providers/text-expansion/process", {"blob_id": (await make(client))["id"]})


@_write
async def api_keys_create(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/api-keys", {"name": "reader", "scopes": ["blobs:read"]})


@_write
async def api_keys_revoke(client: httpx2.AsyncClient) -> Call:
    made = await _done(client, "POST", "/api-keys", {"name": "old"})
    return Call("DELETE", f"/api-keys/{made['id']}")


@_write
async def users_create(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/users", {"name": f"ada-{new_id()}"})


@_write
async def users_put_limits(client: httpx2.AsyncClient) -> Call:
    me = (await client.get(f"{BASE}/me")).json()["user_id"]
    return Call("PUT", f"/users/{me}/limits", {"bytes_quota": 1_000_000})


@_write
async def budget_put(client: httpx2.AsyncClient) -> Call:
    return Call("PUT", "/budget", {"limit": 5_000_000}, headers={"if-match": "*"})


@_write
async def budget_top_up(client: httpx2.AsyncClient) -> Call:
    await (await budget_put(client)).send(client)
    return Call("POST", "/budget/top-up", {"amount": 1_000_000})


@_write
async def schemas_validate(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/schemas/text-v1/validate", {"data": {"content": "x"}})


@_write
async def workflows_validate(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/workflows/validate", SHOUT)


@_write
async def providers_validate(client: httpx2.AsyncClient) -> Call:
    return Call("POST", "/providers/validate", {"id": "shout", "workflow_id": "wf-nowhere"})


EFFECTS = """
select (select event_seq from user_state where user_id = $1)
  + (select coalesce(sum(seq), 0)::bigint + count(*) from cascades where user_id = $1)
  + (select count(*) from api_keys where user_id = $1)
"""


async def effect(admin: Any, person: Person, client: httpx2.AsyncClient, operation: str) -> int:
    """What one execution amounts to."""
    call = await WRITES[operation](client)
    before = await admin.fetchval(EFFECTS, person.user_id)
    assert (await call.send(client)).is_success
    return int(await admin.fetchval(EFFECTS, person.user_id) - before)
