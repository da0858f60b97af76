"""Buckets: how a person groups blobs. A conversation, a book and a collection are buckets of their type.

Buckets nest, up to ``NESTING_MAX`` levels and never in a cycle; their blobs have positions. Being a member is a
cause (CASCADES, rule 9): a provider may collect the blobs of a bucket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from domain.canonical import canonical
from domain.errors import Fault, Invalid, StudioError
from domain.ids import BlobId, BucketId

NAME_CHARACTERS_MAX = 200
METADATA_BYTES_MAX = 64 * 1024
NESTING_MAX = 8
MEMBERS_MAX = 10_000
POSITION_MAX = 2**31 - 1
DEFAULT_TYPE = "collection"

_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One bucket as its owner sees it; ``blob_count`` counts members of all kinds, inherited ones too."""

    id: BucketId
    name: str
    type: str
    parent_id: BucketId | None
    metadata: Mapping[str, Any] = field(hash=False)
    version: int
    blob_count: int
    child_bucket_ids: tuple[BucketId, ...]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A blob's place in a bucket; ``inherited_from`` names the member that an output follows."""

    blob_id: BlobId
    position: int
    inherited_from: BlobId | None
    added_at: datetime
    version: int
    title: str
    schema_id: str
    content_type: str
    provider_id: str | None


def check_bucket(*, name: str | None, type_: str | None, metadata: Mapping[str, Any] | None) -> None:
    """Raise Invalid with every fault of the fields given; None means not given."""
    faults = list(_faults(name, type_, metadata))
    if faults:
        raise Invalid(f"The bucket has {len(faults)} fault(s): {faults[0].detail}", faults=faults)


def check_place(bucket_id: BucketId, ancestors: Sequence[BucketId], height: int) -> None:
    """Raise Invalid if a bucket may not stand below ``ancestors`` (nearest first).

    ``height`` is how many levels stand below the bucket itself. Both faults name ``/parent_id``.
    """
    if bucket_id in ancestors:
        detail = "The parent stands below this bucket, or is the bucket itself."
        raise Invalid(detail, code="cycle", faults=[Fault("/parent_id", "cycle", detail)])
    if len(ancestors) + 1 + height > NESTING_MAX:
        detail = f"Buckets nest at most {NESTING_MAX} levels deep."
        raise Invalid(detail, code="too_deep", faults=[Fault("/parent_id", "too_deep", detail)])


def _faults(name: str | None, type_: str | None, metadata: Mapping[str, Any] | None) -> Iterator[Fault]:
    if name is not None and (not 1 <= len(name) <= NAME_CHARACTERS_MAX or _CONTROL.search(name)):
        detail = f"A name has 1 to {NAME_CHARACTERS_MAX} characters and no control characters."
        yield Fault("/name", "invalid_value", detail)
    if type_ is not None and not _TYPE.fullmatch(type_):
        yield Fault("/type", "invalid_value", "A type is a lower-case word: book, conversation, collection.")
    if metadata is not None:
        try:
            canonical(metadata, bytes_max=METADATA_BYTES_MAX)
        except StudioError as error:
            inner = error.faults or (Fault("", error.problem_code, error.detail),)
            yield from (Fault(f"/metadata{fault.pointer}", fault.code, fault.detail) for fault in inner)
