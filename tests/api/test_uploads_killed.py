"""Whatever dies on the way of an upload: it is resumed to the same blob, or it expires and leaves nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from storage.database import Database
from storage.objects import S3Objects
from storage.uploads import Uploads
from tests.api.armed_uploads import POINTS
from tests.api.processes import api_process
from tests.conftest import BASE, Person, objects_of
from tests.sampling import sampled

DATA = os.urandom(9 * 2**20)
PART = 2**23
OCTETS = "application/octet-stream"
WAYS = [(point, way) for point in POINTS for way in ("resumed", "expired")]
BRIEF = [("part_stored", "resumed"), ("object_finished", "expired"), ("before_commit", "resumed")]
"""What every run of the suite tries; a soak tries them all."""


@pytest_asyncio.fixture
async def objects(database_urls: Mapping[str, str]) -> AsyncIterator[S3Objects]:
    store = objects_of(database_urls)
    yield store
    await store.close()


async def expired(database: Database, objects: S3Objects, admin: Any, user: Person) -> None:
    """What housekeeping does when the time of every upload of this user is over."""
    await admin.execute("update uploads set expires_at = now() where user_id = $1", user.user_id)
    uploads = Uploads(database, objects, part_size=PART, inline_max=2**20, lifetime=timedelta(hours=1))
    while await uploads.expire(user.user_id):
        pass


async def unfinished(objects: S3Objects, user: Person) -> list[str]:
    """Multipart uploads that somebody would have to pay for."""
    client = await objects._opened()
    found = await client.list_multipart_uploads(Bucket=objects._bucket, Prefix=f"{user.user_id}/")
    return [upload["Key"] for upload in found.get("Uploads") or ()]


async def left(admin: Any, objects: S3Objects, user: Person) -> dict[str, Any]:
    row = await admin.fetchrow(
        "select (select count(*) from blobs where user_id = $1) as blobs,"
        " (select count(*) from deltas where user_id = $1) as deltas,"
        " (select count(*) from contents where user_id = $1 and location is not null) as contents,"
        " (select count(*) from upload_parts where user_id = $1) as parts,"
        " bytes_used as used, bytes_reserved as reserved from user_state where user_id = $1",
        user.user_id,
    )
    stored = await objects.list(f"{user.user_id}/")
    return {**dict(row), "objects": len(stored), "unfinished": len(await unfinished(objects, user))}


NOTHING = {
    "blobs": 0, "deltas": 0, "contents": 0, "parts": 0, "used": 0, "reserved": 0, "objects": 0, "unfinished": 0,
}  # fmt: skip
ONE_BLOB = {**NOTHING, "blobs": 1, "deltas": 1, "contents": 1, "used": len(DATA), "objects": 1}


async def sent(url: str, user: Person, upload: Mapping[str, Any]) -> None:
    """Send and complete until the server dies of it."""
    with suppress(httpx2.TransportError):
        async with httpx2.AsyncClient(base_url=url, headers=dict(user.headers), timeout=60) as victim:
            for number in (1, 2):
                part = DATA[(number - 1) * PART : number * PART]
                await victim.put(f"{upload['parts_url']}/{number}", content=part)
            await victim.post(f"{BASE}/uploads/{upload['id']}/complete")


@pytest.mark.parametrize(("point", "way"), sampled(WAYS, BRIEF))
async def test_an_upload_survives_its_server_or_expires(
    client: httpx2.AsyncClient,
    user: Person,
    database: Database,
    database_urls: Mapping[str, str],
    objects: S3Objects,
    admin: Any,
    tmp_path: Path,
    point: str,
    way: str,
) -> None:
    begun = await client.post(f"{BASE}/uploads", json={"content_type": OCTETS, "size": len(DATA)})
    upload = begun.json()
    with api_process(database_urls, tmp_path / "log", "tests.api.armed_uploads", point) as (url, process):
        await sent(url, user, upload)
        assert process.wait() == -9
    if way == "resumed":
        have = (await client.get(f"{BASE}/uploads/{upload['id']}")).json()["parts"]
        if point not in {"object_finished", "before_commit", "after_commit"}:
            for number in {1, 2} - set(have):
                part = DATA[(number - 1) * PART : number * PART]
                assert (await client.put(f"{upload['parts_url']}/{number}", content=part)).status_code == 204
        done = await client.post(f"{BASE}/uploads/{upload['id']}/complete")
        assert done.status_code == 201, done.text
        assert (await client.get(done.json()["content_url"])).content == DATA
    await expired(database, objects, admin, user)
    made = way == "resumed" or point == "after_commit"
    assert await left(admin, objects, user) == (ONE_BLOB if made else NOTHING)
    if made:
        blob = (await client.get(f"{BASE}/blobs")).json()["data"][0]
        assert blob["content_hash"] == f"sha256:{hashlib.sha256(DATA).hexdigest()}"
        assert (await client.get(blob["content_url"])).content == DATA


@pytest.mark.parametrize("point", sampled(("part_stored", "before_commit", "after_commit"), ("before_commit",)))
async def test_a_stream_whose_server_dies_is_a_blob_or_expires(
    client: httpx2.AsyncClient,
    user: Person,
    database: Database,
    database_urls: Mapping[str, str],
    objects: S3Objects,
    admin: Any,
    tmp_path: Path,
    point: str,
) -> None:
    with api_process(database_urls, tmp_path / "log", "tests.api.armed_uploads", point) as (url, process):
        with suppress(httpx2.TransportError):
            async with httpx2.AsyncClient(base_url=url, headers=dict(user.headers), timeout=60) as victim:
                await victim.post(f"{BASE}/blobs", content=DATA, headers={"content-type": OCTETS})
        assert process.wait() == -9
    await expired(database, objects, admin, user)
    assert await left(admin, objects, user) == (ONE_BLOB if point == "after_commit" else NOTHING)
