"""The table of plans, as SQLAlchemy Core; ``storage/tables.py`` has the others."""

# fmt: off
# One row of columns that belong together reads better than one column a line.

from __future__ import annotations

from sqlalchemy import ARRAY, Column, DateTime, Index, PrimaryKeyConstraint, Table, Uuid, text
from sqlalchemy.dialects.postgresql import JSON

from storage.columns import identity, instant, json_value, maybe_identity, maybe_instant, maybe_words, metadata, words

# What a write would set in motion, told before it happens. prints: a digest of each affected derivation; roots: what
# the write itself changes; blob_id: the id that a blob gets which the write makes.
plans = Table(
    "plans", metadata,
    identity("user_id"), identity("id"), words("path"), words("etag"), json_value("roots", "[]"), json_value("prints"),
    Column("outputs", ARRAY(Uuid), nullable=False, server_default=text("'{}'")), Column("body", JSON, nullable=False),
    identity("blob_id"), instant("created_at"), Column("expires_at", DateTime(timezone=True), nullable=False),
    maybe_instant("used_at"), maybe_words("used_key"), maybe_identity("cascade_id"),
    PrimaryKeyConstraint("user_id", "id"),
    Index("plans_expires_idx", "user_id", "expires_at", postgresql_where=text("used_at is null")),
    Index("plans_used_idx", "user_id", "used_at", postgresql_where=text("used_at is not null")),
)
