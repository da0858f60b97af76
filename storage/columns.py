"""What tables are made of: how things are named, and each kind of column in one place, so that they read as lists."""

from __future__ import annotations

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Integer, MetaData, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def identity(name: str) -> Column[object]:
    """An id that is always there."""
    return Column(name, Uuid, nullable=False)


def maybe_identity(name: str) -> Column[object]:
    """An id, or none."""
    return Column(name, Uuid)


def words(name: str, default: str | None = None) -> Column[str]:
    """A text."""
    return Column(name, Text, nullable=False, server_default=default)


def maybe_words(name: str) -> Column[str]:
    """A text, or none."""
    return Column(name, Text)


def number(name: str, default: int | None = None) -> Column[int]:
    """A number of 32 bits."""
    return Column(name, Integer, nullable=False, server_default=None if default is None else text(str(default)))


def big_number(name: str, default: int | None = None) -> Column[int]:
    """A number of 64 bits."""
    return Column(name, BigInteger, nullable=False, server_default=None if default is None else text(str(default)))


def flag(name: str, *, default: bool) -> Column[bool]:
    """True or false."""
    return Column(name, Boolean, nullable=False, server_default=text("true" if default else "false"))


def instant(name: str) -> Column[object]:
    """When: now, unless it is said."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def maybe_instant(name: str) -> Column[object]:
    """When, or not yet."""
    return Column(name, DateTime(timezone=True))


def word_list(name: str) -> Column[object]:
    """A list of texts, empty unless it is said."""
    return Column(name, ARRAY(Text), nullable=False, server_default=text("'{}'"))


def json_value(name: str, default: str = "{}") -> Column[object]:
    """JSON: an empty object, unless another is said."""
    return Column(name, JSONB, nullable=False, server_default=text(f"'{default}'::jsonb"))
