"""Settlements as ``settle_runs`` takes them, a column for each property of an output (``50_settle.sql``)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from domain.documents import content_hash, content_size, document_hash, meta_hash, preview
from domain.works import Prepared, SettledOutput, Settlement
from storage.contents import Contents, Placed

OUTPUT_COLUMNS = (
    "uuid", "text", "int", "text", "text", "text", "text", "text", "text", "text", "bigint",
    "bigint", "bigint", "text", "bytea", "text", "text", "text", "text",
    "text", "bigint", "bigint", "text", "bytea", "text", "text", "text", "text",
)  # fmt: skip
"""The types of the columns, in their order."""
AT_A_STRETCH = 10
"""Settlements prepared before others have the event loop."""


async def prepared(contents: Contents, user_id: UUID, settlements: Sequence[Settlement]) -> Prepared:
    """Settlements as they are written; large documents go to S3 now, before the transaction."""
    rows = []
    for number, settled in enumerate(settlements):
        if number % AT_A_STRETCH == AT_A_STRETCH - 1:
            await asyncio.sleep(0)
        rows += [await _columns(contents, user_id, settled, output) for output in settled.outputs]
    usages = {str(settled.run_id): dict(settled.usage) for settled in settlements}
    unchanged = {
        str(settled.run_id): [{"slot": slot.slot, "reason": slot.reason} for slot in settled.unchanged]
        for settled in settlements
        if settled.unchanged
    }
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(OUTPUT_COLUMNS)
    return Prepared(settlements=tuple(settlements), columns=columns, usages=usages, unchanged=unchanged)


async def step_columns(contents: Contents, user_id: UUID, settlements: Sequence[Settlement]) -> list[list[Any]]:
    """The steps that are recorded with the end of their runs, as ``end_steps`` takes them; nothing of none."""
    rows = []
    for settled in settlements:
        for position, (step, record) in enumerate(settled.steps):
            placed = await contents.put(user_id, orjson.dumps(dict(record.entries)))
            rows.append((settled.run_id, step.id, position, step.type, placed.hash, *columns_of(placed)))
    return [list(column) for column in zip(*rows, strict=True)]


def columns_of(placed: Placed) -> tuple[object, ...]:
    """Size, stored size, codec, body and location, as the functions take them."""
    return placed.size, placed.stored_size, placed.codec, placed.body, placed.location


async def _columns(contents: Contents, user_id: UUID, settled: Settlement, output: SettledOutput) -> tuple[Any, ...]:
    """One output as ``settle_runs`` takes it; large documents go to S3 now, before the transaction.

    Only what becomes a version is kept whole: what is offered is its patch.
    """
    document, machine = output.document, output.machine
    strategy, threshold = settled.storage.strategy, settled.storage.threshold
    head = await contents.put(user_id, machine.to_bytes(), strategy=strategy, threshold=threshold)
    if output.effect != "change":
        placed = _unplaced(document.to_bytes())
    elif document is machine:
        placed = head
    else:
        placed = await contents.put(user_id, document.to_bytes(), strategy=strategy, threshold=threshold)
    return (
        settled.run_id,
        output.slot,
        output.expected,
        output.effect,
        None if output.patch is None else output.patch.decode(),
        None if output.inverse is None else output.inverse.decode(),
        placed.hash,
        content_hash(document),
        output.cutoff_hash,
        meta_hash(document),
        content_size(document),
        *columns_of(placed),
        document.title,
        preview(document),
        orjson.dumps(document.tags).decode(),
        head.hash,
        *columns_of(head),
        output.base_hash,
        orjson.dumps(output.conflicts).decode() if output.conflicts else None,
        orjson.dumps(output.volatile).decode(),
    )


def _unplaced(data: bytes) -> Placed:
    """What is named, and stored nowhere."""
    return Placed(document_hash(data), len(data), 0, "identity", None, None)
