"""Documents addressed by the hash of their bytes: in PostgreSQL up to a threshold, else in S3 (seed 004).

An object is put into the store *before* the transaction that names it: a crash leaves an object without a row, never
a row without its object. The row of ``contents`` is written by the SQL functions, with the blob it belongs to.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID, uuid4

import aioboto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from domain.documents import document_hash
from domain.errors import NotFound, StudioError, Unavailable
from storage.codecs import decoded, encoded
from storage.database import Database

_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_ATTEMPTS_MAX = 3
_CONNECTIONS_MAX = 32


STORED = "hash, size, codec, body, location"
"""The columns of ``contents`` that ``Contents.read`` needs."""
_TOUCH = """
update contents set touched_at = now() where user_id = $1 and hash = $2
returning size, stored_size, codec, location
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where bytes went: ``body`` if they stay in PostgreSQL, else ``location`` in the object store.

    ``size`` is what a reader gets, ``stored_size`` what is kept, both in bytes; ``codec`` leads from one to the other.
    """

    hash: str
    size: int
    stored_size: int
    codec: str
    body: bytes | None
    location: str | None


class Objects(Protocol):
    """A store of large objects by key."""

    async def put(self, key: str, data: bytes) -> None:
        """Store an object; the same key always gets the same bytes."""
        ...

    async def get(self, key: str) -> bytes:
        """Return an object; raises StudioError ``integrity`` if it is not there."""
        ...

    async def check(self) -> None:
        """Raise Unavailable if the store does not answer."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class S3Objects:
    """Objects in one bucket of an S3 server. The client is made at first use; the bucket as well, if absent."""

    def __init__(self, bucket: str, *, endpoint: str | None, access_key: str | None, secret_key: str | None) -> None:
        self._bucket = bucket
        self._endpoint = endpoint
        self._session = aioboto3.Session(
            aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name="us-east-1"
        )
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()  # one client, however many first requests there are
        self._client: Any = None

    async def put(self, key: str, data: bytes) -> None:
        """Store an object. Raises Unavailable if S3 does not take it."""
        client = await self._opened()
        try:
            await client.put_object(Bucket=self._bucket, Key=key, Body=data, ContentType="application/json")
        except (ClientError, BotoCoreError, OSError) as error:
            raise Unavailable("The content store does not answer.") from error

    async def get(self, key: str) -> bytes:
        """Return an object. Raises Unavailable, or StudioError ``integrity`` if it is gone."""
        client = await self._opened()
        try:
            found = await client.get_object(Bucket=self._bucket, Key=key)
            async with found["Body"] as stream:
                data: bytes = await stream.read()
                return data
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
                raise StudioError("The content store has lost an object.", code="integrity") from error
            raise Unavailable("The content store does not answer.") from error
        except (BotoCoreError, OSError) as error:
            raise Unavailable("The content store does not answer.") from error

    async def check(self) -> None:
        """Ask for the bucket. Raises Unavailable."""
        client = await self._opened()
        try:
            await client.head_bucket(Bucket=self._bucket)
        except (ClientError, BotoCoreError, OSError) as error:
            raise Unavailable("The content store does not answer.") from error

    async def close(self) -> None:
        """Close the client."""
        await self._stack.aclose()
        self._client = None

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                client = await self._stack.enter_async_context(self._session.client("s3", **self._options()))
                await self._make_bucket(client)
                self._client = client
        return self._client

    def _options(self) -> dict[str, Any]:
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"max_attempts": _ATTEMPTS_MAX, "mode": "standard"},
            max_pool_connections=_CONNECTIONS_MAX,
            s3={"addressing_style": "path"},
        )
        return {"endpoint_url": self._endpoint, "config": config}

    async def _make_bucket(self, client: Any) -> None:
        try:
            await client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in {"404", "NoSuchBucket"}:
                raise Unavailable("The content store refuses the bucket.") from error
            await client.create_bucket(Bucket=self._bucket)
        except (BotoCoreError, OSError) as error:
            raise Unavailable("The content store does not answer.") from error


class Contents:
    """Content of every user, addressed by (user, hash); nothing is shared between users."""

    def __init__(self, database: Database, objects: Objects, *, inline_max: int) -> None:
        self._database = database
        self._objects = objects
        self._inline_max = inline_max

    async def check(self) -> None:
        """Raise Unavailable if large content could not be stored now."""
        await self._objects.check()

    async def put(self, user_id: UUID, data: bytes) -> Placed:
        """Place bytes: up to ``inline_max`` they go along into the transaction, larger ones to the object store now.

        What is there already is not stored again.
        """
        digest = document_hash(data)
        external = len(data) > self._inline_max
        if external and (known := await self._touched(user_id, digest)) is not None:
            return known
        codec, stored = await encoded(data)
        if not external:
            return Placed(digest, len(data), len(stored), codec, stored, None)
        # Unguessable: a listing of the object store tells nothing about what is in it.
        location = f"{user_id}/{uuid4()}"
        await self._objects.put(location, stored)
        return Placed(digest, len(data), len(stored), codec, None, location)

    async def get(self, user_id: UUID, digest: str) -> bytes:
        """Return the bytes of a hash. Raises NotFound, StudioError ``integrity`` if they do not fit their hash."""
        row = await self._database.row(
            user_id,
            f"select {STORED} from contents where user_id = $1 and hash = $2",
            user_id,
            digest,  # noqa: S608
        )
        if row is None:
            raise NotFound(f"There is no content {digest}.")
        return await self.read(user_id, row)

    async def read(self, user_id: UUID, row: Any) -> bytes:
        """Return the bytes of a row of ``contents`` that has been read (``STORED``): fetched, unpacked, verified."""
        digest, body = row["hash"], row["body"]
        if digest is None:
            raise StudioError("A version's content is gone.", code="integrity")
        stored = body if body is not None else await self._objects.get(str(row["location"]))
        data = await decoded(row["codec"], stored, size=row["size"])
        if document_hash(data) != digest:
            raise StudioError(f"Stored content does not match its hash {digest}.", code="integrity")
        return data

    async def close(self) -> None:
        """Let go of the object store."""
        await self._objects.close()

    async def _touched(self, user_id: UUID, digest: str) -> Placed | None:
        """Return where content is already; housekeeping then leaves it alone for a while."""
        async with self._database.transaction(user_id) as connection:
            row = await connection.fetchrow(_TOUCH, user_id, digest)
        if row is None or row["location"] is None:
            return None
        return Placed(digest, row["size"], row["stored_size"], row["codec"], None, row["location"])
