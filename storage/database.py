"""One asyncpg pool, transactions that know their user, and PostgreSQL's failures in our words.

Hot moves are functions in ``storage/functions``: one round trip, and they set the user themselves. Everything else
runs inside ``Database.transaction(user)``, because row-level security shows nothing to a connection without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
import orjson
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from domain.errors import Invalid, StudioError, Unavailable
from domain.quotas import Usage, quota_exceeded

_DIALECT = PGDialect_asyncpg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    # Of a database that is being restored: it takes no connections, or has another name for a moment.
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,  # a move that does not wait for whom it would keep waiting
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says that the server closed while it lay in the pool
    OSError,
    TimeoutError,
)


_QUOTA = "STQ01"
"""SQLSTATE of ``studio_charge`` (``storage/functions/14_quotas.sql``)."""

Before = Callable[[Any], Awaitable[object]]
"""What else is done in the transaction of a write, with its connection."""


class Stage(Protocol):
    """What happens around each transaction of one request: see ``Database.staged``."""

    user_id: UUID
    keeps: bool
    """Whether anything that is written may stay."""

    async def before(self, connection: Any) -> None:
        """Begin a transaction that may write."""
        ...

    async def after(self, connection: Any) -> None:
        """End it: looks at what was written; raises to undo it."""
        ...


_STAGE: ContextVar[Stage | None] = ContextVar("stage", default=None)


# A hint need not outlive the server, so nobody waits for the disk.
_NOTIFY = "select set_config('synchronous_commit', 'off', true), pg_notify('studio_doorbell', '')"


def compiled(statement: ClauseElement) -> tuple[str, list[Any]]:
    """A SQLAlchemy Core statement as asyncpg takes it: text with ``$1``, and the arguments in order."""
    done = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = done.construct_params() or {}
    return str(done), [values[name] for name in done.positiontup or ()]  # type: ignore[attr-defined]


async def prepare(connection: asyncpg.Connection) -> None:
    """Let a connection take and give JSON as Python values; the pool does so by itself."""
    await connection.set_type_codec(
        "json", schema="pg_catalog", encoder=orjson.dumps, decoder=orjson.loads, format="binary"
    )
    # jsonb's binary form is the text behind one version byte.
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
        format="binary",
    )


async def _as_it_is(connection: Any) -> None:
    """Leave a returned connection alone: users and locks last one transaction, and a reset costs a round trip."""


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except StudioError:
        raise
    except asyncpg.CharacterNotInRepertoireError as error:
        # Documents may hold NUL, they are bytes; names and filters may not.
        raise Invalid("A text holds a character that cannot be stored here.", code="invalid_value") from error
    except asyncpg.UnknownPostgresError as error:
        if error.sqlstate != _QUOTA:
            raise
        told = orjson.loads(error.detail or "")
        needed = told.pop("needed")
        # What was refused would have been part of what is used.
        usage = Usage(used=told["used"] - needed, reserved=told["reserved"], quota=told["quota"])
        raise quota_exceeded(usage, needed) from error
    except _TRANSIENT as error:
        raise Unavailable("The database does not answer.") from error


class _Undone(Exception):
    """Ends a transaction without effect."""


class Database:
    """A pool of connections under one role; row-level security decides what each transaction sees."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        # A gate goes with the last one who waits at it.
        self._gates: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    async def connect(cls, url: str, *, size_min: int = 1, size_max: int = 16) -> Database:
        """Open the pool. Raises ``Unavailable`` when the server does not answer."""
        with _in_our_words():
            pool = await asyncpg.create_pool(
                url,
                min_size=size_min,
                max_size=size_max,
                init=prepare,
                reset=_as_it_is,
                command_timeout=60,
            )
        return cls(pool)

    async def close(self) -> None:
        """Close every connection, waiting for what is under way."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A bare connection: for functions that set their user themselves, and for the relay's role."""
        with _in_our_words():
            async with self._pool.acquire() as connection:
                yield connection

    @asynccontextmanager
    async def staged(self, stage: Stage) -> AsyncIterator[None]:
        """Let ``stage`` stand around every transaction of this block, whichever store begins it.

        So a write can be rehearsed, or held against a plan, by the very code that makes it. Single reads (``rows``)
        are as ever, and so is what begins inside of a staged transaction.
        """
        token = _STAGE.set(stage)
        try:
            yield
        finally:
            _STAGE.reset(token)

    @staticmethod
    def apart(work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Do work in the background that has no part in whatever is staged where it begins: it goes on after that."""
        context = copy_context()
        context.run(_STAGE.set, None)
        return asyncio.create_task(work, name=name, context=context)

    @property
    def rehearsing(self) -> bool:
        """Whether nothing that is written here and now will stay."""
        stage = _STAGE.get()
        return stage is not None and not stage.keeps

    @asynccontextmanager
    async def transaction(self, user_id: UUID) -> AsyncIterator[Any]:
        """A transaction that sees the rows of ``user_id``; committed unless the block raises."""
        stage = _STAGE.get()
        if stage is not None:
            async with self._on_stage(stage) as connection:
                await connection.execute("select studio_enter($1)", user_id)
                yield connection
            return
        async with self._entered(user_id) as connection:
            yield connection

    @asynccontextmanager
    async def _entered(self, user_id: UUID) -> AsyncIterator[Any]:
        async with self.connection() as connection, connection.transaction():
            await connection.execute("select studio_enter($1)", user_id)
            yield connection

    @asynccontextmanager
    async def _on_stage(self, stage: Stage) -> AsyncIterator[Any]:
        _STAGE.set(None)
        try:
            async with self.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    await stage.before(connection)
                    yield connection
                    await stage.after(connection)
                except BaseException:
                    await transaction.rollback()
                    raise
                await (transaction.commit() if stage.keeps else transaction.rollback())
        finally:
            _STAGE.set(stage)

    @asynccontextmanager
    async def locked(self, user_id: UUID) -> AsyncIterator[Any]:
        """A transaction under the user's lock (CASCADES rule 7).

        Who waits for it waits before taking a connection: one busy user would else take the pool from all others.
        """
        gate = self._gates.setdefault(user_id, asyncio.Lock())
        async with gate, self.transaction(user_id) as connection:
            await connection.execute("select studio_lock($1)", user_id)
            yield connection

    async def call(self, query: str, *arguments: object) -> asyncpg.Record | None:
        """One row of one statement, outside a user's transaction: for the functions of the schedule."""
        stage = _STAGE.get()
        async with self.connection() if stage is None else self._on_stage(stage) as connection:
            row: asyncpg.Record | None = await connection.fetchrow(query, *arguments)
            return row

    async def call_after(
        self,
        before: Before | None,
        stands: Callable[[asyncpg.Record], bool],
        user_id: UUID,
        query: str,
        *arguments: object,
        after: Before | None = None,
    ) -> asyncpg.Record | None:
        """One row of one statement, in one transaction with the two others; nothing unless the row ``stands``."""
        if before is None and after is None and _STAGE.get() is None:
            return await self.call(query, *arguments)
        row: asyncpg.Record | None = None
        with suppress(_Undone):
            async with self.transaction(user_id) as connection:
                if before is not None:
                    await before(connection)
                row = await connection.fetchrow(query, *arguments)
                if row is None or not stands(row):
                    raise _Undone
                if after is not None:
                    await after(connection)
        return row

    async def rows(self, user_id: UUID, query: str | ClauseElement, *arguments: object) -> list[asyncpg.Record]:
        """The rows of one read, as ``user_id`` sees them; text with ``$1``, or a Core statement."""
        text, values = (query, list(arguments)) if isinstance(query, str) else compiled(query)
        async with self._entered(user_id) as connection:
            found: list[asyncpg.Record] = await connection.fetch(text, *values)
            return found

    async def snapshot(self, user_id: UUID, query: str, *, seconds_max: float) -> list[asyncpg.Record] | None:
        """The rows of one read for which ``$1`` is the user, of one snapshot; None if it takes longer than that."""
        try:
            async with (
                self.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                limit = str(round(seconds_max * 1000))
                await connection.execute(
                    "select studio_enter($1), set_config('statement_timeout', $2, true)", user_id, limit
                )
                found: list[asyncpg.Record] = await connection.fetch(query, user_id, timeout=seconds_max + 5)
                return found
        except asyncpg.QueryCanceledError:
            return None

    async def row(self, user_id: UUID, query: str | ClauseElement, *arguments: object) -> asyncpg.Record | None:
        """The first row of one read, or None."""
        found = await self.rows(user_id, query, *arguments)
        return found[0] if found else None

    async def notify(self) -> None:
        """Tell the relay to look now; a lost hint costs one poll, so failures do not matter to the caller."""
        async with self.connection() as connection:
            await connection.execute(_NOTIFY)
