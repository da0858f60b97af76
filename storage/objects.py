"""The object store: large content by key, in one bucket of an S3 server; ``storage/object_files.py`` is the other kind.

Keys are unguessable and written once, so an object never changes: a reader needs no lock. Whoever writes one puts it
*before* the transaction that names it; a crash leaves an object without a row, never a row without its object.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, Protocol

import aioboto3
from aiohttp import ClientError as ConnectionLost
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import StudioError, Unavailable

LISTED_MAX = 1_000
"""Objects that one call of ``list`` answers at most."""
PIECE_BYTES = 2**20
"""Bytes that ``open`` yields at most at a time."""

_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_ATTEMPTS_MAX = 3
_CONNECTIONS_MAX = 32
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}(?:/[A-Za-z0-9][A-Za-z0-9._:-]{0,254}){0,7}")
_GONE = frozenset({"NoSuchKey", "404"})
_NO_UPLOAD = frozenset({"NoSuchUpload"})


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a listing shows it; ``size`` in bytes."""

    key: str
    size: int
    modified: datetime


class PartsLost(Exception):
    """A multipart upload cannot be finished: it has ended, or a part is not the one that was named."""


class Objects(Protocol):
    """A store of large objects by key."""

    async def put(self, key: str, data: bytes) -> None:
        """Store an object; the same key always gets the same bytes."""
        ...

    async def get(self, key: str) -> bytes:
        """Return an object; raises StudioError ``integrity`` if it is not there."""
        ...

    def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from ``start`` up to ``end`` (exclusive); raises as ``get`` does, at the first piece."""
        ...

    async def stat(self, key: str) -> Stored | None:
        """Return size and time of an object, None if it is not there."""
        ...

    async def begin(self, key: str) -> str:
        """Begin an object of several parts and return the name of this attempt."""
        ...

    async def part(self, key: str, upload: str, number: int, data: bytes | bytearray) -> str:
        """Store one part (from 1) and return its tag; the same number again replaces it. Raises PartsLost."""
        ...

    async def finish(self, key: str, upload: str, parts: Sequence[tuple[int, str]]) -> None:
        """Make the object of its parts (number, tag), in order. Raises PartsLost."""
        ...

    async def abort(self, key: str) -> None:
        """Forget every unfinished attempt at this key, with its parts; none is fine."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; that it is gone already is fine."""
        ...

    async def list(self, prefix: str = "", after: str = "") -> Sequence[Stored]:
        """Return up to ``LISTED_MAX`` objects in the order of keys, beyond ``after``; empty at the end."""
        ...

    async def check(self) -> None:
        """Raise Unavailable if the store does not answer."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def checked_key(key: str) -> str:
    """Return a key of letters, digits and ``._:-`` between slashes; raises ValueError for anything else.

    Keys are ours, never a client's: one that could leave its folder is a bug, and stops here.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key[:100]!r} is not the key of an object")
    return key


def lost(key: str) -> StudioError:
    """Return the error of an object that a row names and the store does not have."""
    return StudioError(f"The content store has lost the object {key}.", code="integrity")


@contextmanager
def _in_our_words(key: str = "") -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _GONE:
            raise lost(key) from error
        if code in {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"}:
            raise PartsLost("The content store does not have every part.") from error
        raise Unavailable("The content store does not answer.") from error
    except (BotoCoreError, ConnectionLost, OSError) as error:
        raise Unavailable("The content store does not answer.") from error


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
        # As a stream, here and below: given as bytes it would be copied whole into the connection's buffer.
        client = await self._opened()
        with _in_our_words(key):
            await client.put_object(Bucket=self._bucket, Key=checked_key(key), Body=BytesIO(data))

    async def get(self, key: str) -> bytes:
        """Return an object. Raises Unavailable, or StudioError ``integrity`` if it is gone."""
        return b"".join([piece async for piece in self.open(key)])

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes of a range. Raises Unavailable, or StudioError ``integrity`` if it is gone."""
        if end is not None and start >= end:
            return
        client = await self._opened()
        wanted = {} if (start, end) == (0, None) else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        with _in_our_words(key):
            found = await client.get_object(Bucket=self._bucket, Key=checked_key(key), **wanted)
            async with found["Body"]:  # read to its end or not: the connection is given back
                while piece := await found["Body"].read(PIECE_BYTES):
                    yield piece

    async def stat(self, key: str) -> Stored | None:
        """Return size and time of an object, None if it is not there."""
        client = await self._opened()
        with _in_our_words(key):
            try:
                found = await client.head_object(Bucket=self._bucket, Key=checked_key(key))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code", "") in _GONE:
                    return None
                raise
        return Stored(key, found["ContentLength"], found["LastModified"])

    async def begin(self, key: str) -> str:
        """Begin a multipart upload."""
        client = await self._opened()
        with _in_our_words(key):
            begun = await client.create_multipart_upload(Bucket=self._bucket, Key=checked_key(key))
        return str(begun["UploadId"])

    async def part(self, key: str, upload: str, number: int, data: bytes | bytearray) -> str:
        """Store one part; S3 wants at least 5 MiB of all but the last."""
        client = await self._opened()
        with _in_our_words(key):
            done = await client.upload_part(
                Bucket=self._bucket, Key=checked_key(key), UploadId=upload, PartNumber=number, Body=BytesIO(data)
            )
        return str(done["ETag"])

    async def finish(self, key: str, upload: str, parts: Sequence[tuple[int, str]]) -> None:
        """Make the object of its parts."""
        client = await self._opened()
        named = [{"PartNumber": number, "ETag": tag} for number, tag in parts]
        with _in_our_words(key):
            await client.complete_multipart_upload(
                Bucket=self._bucket, Key=checked_key(key), UploadId=upload, MultipartUpload={"Parts": named}
            )

    async def abort(self, key: str) -> None:
        """Abort every multipart upload of this key: also one whose id was lost in a crash."""
        client = await self._opened()
        with _in_our_words(key):
            found = await client.list_multipart_uploads(Bucket=self._bucket, Prefix=checked_key(key))
            for upload in found.get("Uploads") or ():
                if upload["Key"] == key:
                    await self._abort(client, key, upload["UploadId"])

    async def _abort(self, client: Any, key: str, upload: str) -> None:
        try:
            await client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code", "") not in _NO_UPLOAD:  # somebody else was faster
                raise

    async def delete(self, key: str) -> None:
        """Remove an object; S3 says nothing about whether it was there."""
        client = await self._opened()
        with _in_our_words(key):
            await client.delete_object(Bucket=self._bucket, Key=checked_key(key))

    async def list(self, prefix: str = "", after: str = "") -> Sequence[Stored]:
        """Return one page of objects in the order of keys."""
        client = await self._opened()
        with _in_our_words():
            page = await client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=after, MaxKeys=LISTED_MAX
            )
        return [Stored(found["Key"], found["Size"], found["LastModified"]) for found in page.get("Contents") or ()]

    async def check(self) -> None:
        """Ask for the bucket. Raises Unavailable."""
        client = await self._opened()
        with _in_our_words():
            await client.head_bucket(Bucket=self._bucket)

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
            # Content is verified by hashes of our own; a checksum more would cost a pass over each part.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
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
