"""Every invariant finds what breaks it: a query that cannot fail is not a test."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import asyncpg

from storage.database import prepare
from tests.storage.engine import Engine
from tests.storage.invariants import ALWAYS, AT_REST, HISTORY, check_at_rest, violations
from tests.storage.planted import PLANTED

EVERY = ALWAYS | HISTORY | AT_REST


async def world(engine: Engine) -> UUID:
    """A chain, a join of its end, a person's edit in the middle, and an edit of the source: all at rest."""
    await engine.provider("one", "in-v1", "mid-v1", also={"more": "$.data.text"})
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.join("book", "out-v1", "book-v1")
    book = await engine.bucket()
    blob = await engine.create("in-v1", bucket_ids=[book])
    other = await engine.create("out-v1", "another", bucket_ids=[book])
    await engine.rest()
    await engine.edit(await engine.output("one"), data={"text": "mine", "more": "a"})
    await engine.edit(blob, "b")
    await engine.edit(other, "one more")
    await engine.rest()
    return blob


def test_every_invariant_of_the_protocol_has_a_query_and_every_query_a_plant() -> None:
    numbers = {int(found) for name in EVERY for found in re.findall(r"^\((\d+)\)", name)}
    assert numbers == set(range(1, 14))
    assert set(PLANTED) == set(EVERY), "plant what a new query must find, in tests/storage/planted.py"


async def test_each_query_finds_what_was_planted_for_it(engine: Engine) -> None:
    await world(engine)
    user = engine.user.user_id
    connection = await asyncpg.connect(engine.admin_url)
    try:
        await prepare(connection)
        await check_at_rest(connection, user)
        missed = [name for name in EVERY if not await planted(connection, user, name)]
        assert missed == []
        await check_at_rest(connection, user)  # nothing of it has stayed
    finally:
        await connection.close()


async def planted(connection: Any, user: UUID, name: str) -> bool:
    """Whether an invariant finds its plant, in a transaction that is undone."""
    undone = connection.transaction()
    await undone.start()
    try:
        # References that a plant breaks are not what is looked for.
        await connection.execute("set local session_replication_role = replica")
        for statement in PLANTED[name]:
            arguments = [user] if "$1" in statement else []
            done = await connection.execute(statement, *arguments)
            assert not done.endswith(" 0"), (name, statement, done)
        return name in await violations(connection, user, {name: EVERY[name]})
    finally:
        await undone.rollback()


async def test_a_diamond_whose_side_slept_through_an_edit_breaks_nothing(engine: Engine) -> None:
    """What (8) and (9) excuse, and what they must not take for a fault."""
    await engine.provider("left", "in-v1", "part-v1")
    await engine.provider("right", "in-v1", "part-v1", "'same'")
    await engine.join("book", "part-v1", "book-v1")
    book = await engine.bucket()
    blob = await engine.create("in-v1", bucket_ids=[book])
    await engine.rest()
    for text in ("b", "c", "b"):
        await engine.edit(blob, text)
        await engine.rest()
    await engine.switch("left", active=False)
    await engine.edit(blob, "d")
    await engine.rest()
    await engine.switch("left", active=True)
    await engine.rest()
    assert await violations(engine.admin, engine.user.user_id, HISTORY) == {}
