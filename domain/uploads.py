"""A large content on its way in: what an upload says, which parts it has, and whether they are all of it.

Parts have one size but for the last, so that any part can be sent again alone, in any order. Where the size was
declared every part's size follows from its number; where it was not, it shows at the end.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from domain.errors import Conflict, Fault, Invalid, Malformed, TooLarge

PARTS_MAX = 10_000
"""Parts of one upload (S3 takes no more): with 8 MiB each, 78 GiB."""
CHUNK_BYTES = 2**20
"""Bytes of content that are verified together, before any of them is sent to a reader."""
DIGEST_BYTES = 32
MISSING_SHOWN_MAX = 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MEMBER = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):(?:;.*)?")

Status = Literal["open", "completed", "aborted"]


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part: its number from 1, its size in bytes, and the tag by which the object store knows it."""

    number: int
    size: int
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload as it stands. ``size`` and ``digest`` are what the client declared, if it did."""

    user_id: UUID
    id: UUID
    blob_id: UUID | None
    """The blob whose content is to be replaced; once completed, the blob that came of it."""
    content_type: str
    size: int | None
    digest: str | None
    part_size: int
    location: str
    multipart: str | None
    fields: Mapping[str, Any]
    """Title, tags and what else the blob is to have."""
    status: Status
    content_hash: str | None
    created_at: datetime
    expires_at: datetime
    parts: Sequence[Part]
    """In the order of numbers."""

    @property
    def received(self) -> int:
        """Bytes that are here."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """An upload to begin; a retry with the same id finds it begun."""

    user_id: UUID
    id: UUID
    content_type: str
    size: int | None
    digest: str | None = None
    blob_id: UUID | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What its blob is to have beside the content; kept with it until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A content that is here whole, hashed, and not yet anybody's.

    It is in ``body`` if that is to be stored in PostgreSQL, else in the object of ``upload``.
    """

    user_id: UUID
    hash: str
    size: int
    chunks: bytes
    body: bytes | None
    upload: Upload | None
    reserved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """What the end of an upload adds to the write of its blob."""

    before: Callable[[Any], Awaitable[None]]
    """Done first in the transaction of the write, with its connection: it stores the content, and ends the upload."""
    reserved: int
    """Bytes of the quota that were reserved, and are used from then on."""


def require_size(size: int | None, part_size: int) -> None:
    """Raise TooLarge if a declared size needs more than ``PARTS_MAX`` parts."""
    limit = PARTS_MAX * part_size
    if size is not None and size > limit:
        raise TooLarge(f"A content may have {limit} bytes.", code="content_too_large", members={"limit_bytes": limit})


def require_number(number: int) -> None:
    """Raise Invalid ``invalid_part`` unless the number is one that a part can have."""
    if not 1 <= number <= PARTS_MAX:
        raise _invalid_part(f"Parts are numbered from 1 to {PARTS_MAX}.")


def require_part(*, size: int | None, part_size: int, number: int, given: int) -> None:
    """Raise Invalid ``invalid_part`` unless a part of ``given`` bytes can have this number."""
    require_number(number)
    if size is None:
        if not 1 <= given <= part_size:
            raise _invalid_part(f"A part has 1 to {part_size} bytes, and only the last fewer than that.")
        return
    count = parts_of(size, part_size)
    if number > count:
        raise _invalid_part(f"A content of {size} bytes has {count} parts of {part_size} bytes.")
    wanted = part_size if number < count else size - (count - 1) * part_size
    if given != wanted:
        raise _invalid_part(f"Part {number} has {wanted} bytes, not {given}.")


def parts_of(size: int, part_size: int) -> int:
    """Return into how many parts a content of this size is divided."""
    return -(-size // part_size)


def require_whole(upload: Upload) -> None:
    """Raise Conflict ``parts_missing``, naming the first ones, unless the parts make up the whole content."""
    have = {part.number: part.size for part in upload.parts}
    count = parts_of(upload.size, upload.part_size) if upload.size is not None else max(have, default=0)
    missing = [number for number in range(1, count + 1) if number not in have]
    short = [number for number in range(1, count) if have.get(number, upload.part_size) != upload.part_size]
    if not missing and not short:
        return
    shown = (missing or short)[:MISSING_SHOWN_MAX]
    words = "are not there" if missing else f"have fewer than {upload.part_size} bytes and are not the last"
    numbers = ", ".join(str(number) for number in shown)
    raise Conflict(f"Parts {numbers} {words}.", code="parts_missing", members={"missing": shown})


def require_digest(wanted: str | None, found: str) -> None:
    """Raise Malformed ``digest_mismatch`` if the bytes have another digest than was declared."""
    if wanted is not None and wanted != found:
        raise Malformed(f"The bytes that came have the digest {found}.", code="digest_mismatch")


def parse_digest(value: str, pointer: str) -> str:
    """Return a digest as ``sha256:`` and 64 hexadecimal digits; raises Invalid for anything else."""
    if _DIGEST.fullmatch(value):
        return value
    detail = "A digest is sha256: and 64 hexadecimal digits."
    raise Invalid(detail, faults=[Fault(pointer, "invalid_value", detail)])


def parse_content_digest(value: str) -> str | None:
    """Return the SHA-256 of a ``Content-Digest`` (RFC 9530) as ``sha256:…``; None if it names other algorithms only.

    Raises Malformed ``invalid_header``.
    """
    members = [member.strip() for member in value.split(",")]
    named = next((member for member in members if member.lower().startswith("sha-256=")), None)
    if named is None:
        return None
    match = _MEMBER.fullmatch("sha-256=" + named[len("sha-256=") :])
    try:
        digest = base64.b64decode(match[1], validate=True) if match else b""
    except binascii.Error:
        digest = b""
    if len(digest) != DIGEST_BYTES:
        detail = "Content-Digest is sha-256=:<base64>: (RFC 9530)."
        raise Malformed(
            detail, code="invalid_header", faults=[Fault("/header/content-digest", "invalid_header", detail)]
        )
    return f"sha256:{digest.hex()}"


def content_digest(digest: str) -> str:
    """Return ``sha256:…`` as a ``Content-Digest`` (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest.removeprefix('sha256:'))).decode()}:"


class Tally:
    """Hashes a content as it passes: the whole of it, and each ``CHUNK_BYTES`` alone. Not for two threads at once."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._room = CHUNK_BYTES
        self._chunks: list[bytes] = []
        self.size = 0
        """Bytes that have passed."""

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        self._whole.update(view)
        self.size += len(view)
        while len(view) >= self._room:
            self._chunk.update(view[: self._room])
            view = view[self._room :]
            self._chunks.append(self._chunk.digest())
            self._chunk, self._room = hashlib.sha256(), CHUNK_BYTES
        self._chunk.update(view)
        self._room -= len(view)

    @property
    def digest(self) -> str:
        """The digest of everything that has passed, ``sha256:…``."""
        return f"sha256:{self._whole.hexdigest()}"

    @property
    def chunks(self) -> bytes:
        """The SHA-256 of every chunk, the last perhaps shorter, one after the other."""
        last = [self._chunk.digest()] if self._room < CHUNK_BYTES else []
        return b"".join([*self._chunks, *last])


def ended(detail: str) -> Conflict:
    """Return the error of an upload that takes nothing any more."""
    return Conflict(f"The upload has ended. {detail}", code="upload_ended")


def _invalid_part(detail: str) -> Invalid:
    return Invalid(detail, code="invalid_part", faults=[Fault("/path/number", "invalid_part", detail)])
