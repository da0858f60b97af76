"""The tables of money; ``storage/tables.py`` has all others."""

# fmt: off
# One row of columns that belong together reads better than one column a line.

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, PrimaryKeyConstraint, Table, UniqueConstraint

from storage.columns import big_number as _big
from storage.columns import flag as _flag
from storage.columns import identity as _id
from storage.columns import instant as _time
from storage.columns import maybe_identity as _maybe_id
from storage.columns import maybe_words as _maybe_text
from storage.columns import metadata
from storage.columns import number as _int
from storage.columns import words as _text

# What a user may spend in micro-dollars; no row, or no limit: as much as they like. spent and reserved are what the
# charges (since it was first set) and reservations under this budget (id) add up to; next_place numbers those who wait
# for money.
budgets = Table(
    "budgets", metadata,
    _id("user_id"), _id("id"), Column("limit_amount", BigInteger), _big("spent", 0), _big("reserved", 0),
    _big("next_place", 1), _flag("managed", default=False), _int("version", 1), _time("created_at"),
    _time("updated_at"),
    PrimaryKeyConstraint("user_id"),
    CheckConstraint("limit_amount >= 0 and spent >= 0 and reserved >= 0", name="amounts"),
    CheckConstraint("spent + reserved <= limit_amount", name="limit"),
)

# What a step that is under way may cost at most; attempt is the latest one.
reservations = Table(
    "reservations", metadata,
    _id("user_id"), _id("run_id"), _text("step_id"), _int("attempt", 1), _big("amount"), _time("created_at"),
    PrimaryKeyConstraint("user_id", "run_id", "step_id"),
    CheckConstraint("amount > 0", name="amount"),
)

# What each attempt of a step did cost, once; overrun is the part that its budget no longer had.
charges = Table(
    "charges", metadata,
    _id("user_id"), _id("id"), _id("run_id"), _text("step_id"), _int("attempt", 1), _id("cascade_id"),
    _id("derivation_id"), _text("provider_id"), _maybe_id("budget_id"), _text("service", ""), _maybe_text("model"),
    _big("prompt_tokens", 0), _big("completion_tokens", 0), _big("amount"), _big("overrun", 0), _time("created_at"),
    PrimaryKeyConstraint("user_id", "id"),
    UniqueConstraint("user_id", "run_id", "step_id", "attempt"),
    CheckConstraint("amount >= 0 and overrun >= 0 and overrun <= amount", name="amounts"),
    Index("charges_cascade_idx", "user_id", "cascade_id"),
)
