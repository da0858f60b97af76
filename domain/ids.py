"""Identifiers: one type per noun, random ones ordered by time, derived ones computed from what they stand for.

A derived id is a UUIDv8 (RFC 9562): the SHA-256 of ``NAMESPACE`` and a text. UUIDv5 wants SHA-1, which
PostgreSQL has only in an extension; this one SQL computes too. The texts are injective (fixed-width parts first,
the one free part last).
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.errors import Fault, Invalid

UserId = NewType("UserId", UUID)
BlobId = NewType("BlobId", UUID)
DeltaId = NewType("DeltaId", UUID)
CascadeId = NewType("CascadeId", UUID)
DerivationId = NewType("DerivationId", UUID)
RunId = NewType("RunId", UUID)
InstanceId = NewType("InstanceId", UUID)
ProviderKey = NewType("ProviderKey", UUID)
DefinitionKey = NewType("DefinitionKey", UUID)
SchemaKey = NewType("SchemaKey", UUID)
BucketId = NewType("BucketId", UUID)
BookId = NewType("BookId", UUID)
EventId = NewType("EventId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
WebhookId = NewType("WebhookId", UUID)
BudgetId = NewType("BudgetId", UUID)

NAMESPACE = UUID("6f1d4a52-3c0b-5b8e-9a6f-0d2f5a7c1e94")
"""The namespace of every derived id; it never changes, or stored ids would no longer be found."""
SYSTEM_USER = UserId(UUID(int=0))
"""The owner of the built-in providers and schemas."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new_id() -> UUID:
    """Return a new UUIDv7 (RFC 9562): unique, ordered by time of making within this process.

    The one function of the domain that is not pure; rules take ids as arguments, callers at the edge make them.
    """
    return uuid7()


def parse_id(value: object, pointer: str) -> UUID:
    """Read a UUID in its 36-character form; raises Invalid ``invalid_id`` at ``pointer`` for anything else."""
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value)
    detail = "Ids are UUIDs such as 01890a5d-ac96-774b-bcce-b302099a8057."
    raise Invalid(detail, code="invalid_id", faults=[Fault(pointer, "invalid_id", detail)])


def derived_id(text: str) -> UUID:
    """Return the id that stands for a text, the same for ever."""
    digest = bytearray(hashlib.sha256(NAMESPACE.bytes + text.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))


def provider_key(owner_id: UserId, slug: str) -> ProviderKey:
    """Return the id of the provider that this owner registered under this slug."""
    return ProviderKey(derived_id(f"provider:{owner_id}:{slug}"))


def schema_key(owner_id: UserId, slug: str, version: int | str) -> SchemaKey:
    """Return the id of one version of a schema; raises ValueError if the version holds a colon."""
    if ":" in str(version):
        raise ValueError("A version holds no colon: it would make two schemas one.")
    return SchemaKey(derived_id(f"schema:{owner_id}:{version}:{slug}"))


def instance_id(user_id: UserId, provider: ProviderKey) -> InstanceId:
    """Return the id of a user's activation of a provider; a user has at most one of each."""
    return InstanceId(derived_id(f"instance:{user_id}:{provider}"))


def derivation_id(instance: InstanceId, anchor: UUID) -> DerivationId:
    """Return the id of what an instance makes of an anchor (a blob, a bucket or a book)."""
    return DerivationId(derived_id(f"derivation:{instance}:{anchor}"))


def output_blob_id(derivation: DerivationId, slot: str) -> BlobId:
    """Return the id of the blob in one output slot of a derivation, known before the blob is made."""
    return BlobId(derived_id(f"output:{derivation}:{slot}"))
