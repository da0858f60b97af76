"""Verification finds what somebody changed behind our back, names it, and writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
import pytest_asyncio

from storage import invariants
from storage import verification as verification_module
from storage.verification import Finding, Verification
from tests.storage.engine import Engine

LONG = "A sentence that is long enough to be a patch instead of a document. " * 40


@pytest_asyncio.fixture
async def verification(engine: Engine) -> AsyncIterator[Verification]:
    yield Verification(engine.database, engine.contents)


async def written(engine: Engine) -> UUID:
    """A blob of four versions, the later three stored as patches, and what is derived from it."""
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    blob = await engine.create("in-v1", LONG)
    for word in ("first", "second", "third"):
        await engine.edit(blob, LONG + word)
    await engine.rest()
    return blob


async def found(engine: Engine, verification: Verification, **how: bool) -> list[Finding]:
    looks = [look async for look in verification.looks(engine.user.user_id, sample=None, **{"at_rest": False, **how})]
    assert {look.kind for look in looks} == {"invariant", "content", "blob"}
    return [finding for look in looks for finding in look.findings]


async def test_what_is_as_it_must_be_has_no_findings(
    engine: Engine, verification: Verification, count_rows: Callable[[UUID], object]
) -> None:
    await written(engine)
    before = await count_rows(engine.user.user_id)  # type: ignore[misc]
    assert await found(engine, verification, at_rest=True) == []
    assert await count_rows(engine.user.user_id) == before  # type: ignore[misc]


async def test_a_changed_patch_is_named_with_its_version(engine: Engine, verification: Verification) -> None:
    blob = await written(engine)
    await engine.rows(
        "update deltas set patch = replace(patch, 'second', 'secret') where user_id = $1 and blob_id = $2"
        " and to_version = 3", blob,
    )  # fmt: skip
    findings = await found(engine, verification)
    assert (findings[0].blob_id, findings[0].version, findings[0].what) == (blob, 3, "version")
    assert findings[0].expected.startswith("sha256:")
    assert {finding.blob_id for finding in findings} == {blob}


async def test_a_patch_that_is_none_at_all_is_named_too(engine: Engine, verification: Verification) -> None:
    blob = await written(engine)
    await engine.rows(
        "update deltas set patch = '[{\"op\":\"remove\",\"path\":\"/nowhere\"}]' where user_id = $1 and blob_id = $2"
        " and to_version = 3", blob,
    )  # fmt: skip
    assert (blob, 3) in {(finding.blob_id, finding.version) for finding in await found(engine, verification)}


async def test_a_changed_body_is_named_with_its_hash(engine: Engine, verification: Verification) -> None:
    blob = await written(engine)
    [row] = await engine.rows(
        "select document_hash from snapshots where user_id = $1 and blob_id = $2 and version = 1", blob
    )
    await engine.rows("update contents set body = 'x' where user_id = $1 and hash = $2", row["document_hash"])
    findings = await found(engine, verification)
    content = [finding for finding in findings if finding.what == "content"]
    assert [finding.expected for finding in content] == [row["document_hash"]]
    assert (blob, 1) in {(finding.blob_id, finding.version) for finding in findings}


async def test_a_changed_version_is_named(engine: Engine, verification: Verification) -> None:
    blob = await written(engine)
    await engine.rows("update blobs set version = version + 1 where user_id = $1 and id = $2", blob)
    findings = await found(engine, verification)
    assert any(finding.what.startswith("(11)") and str(blob) in finding.found for finding in findings)


async def test_a_changed_counter_is_named(engine: Engine, verification: Verification) -> None:
    await written(engine)
    await engine.rows("update user_state set bytes_used = bytes_used + 1 where user_id = $1")
    [finding] = await found(engine, verification)
    assert (finding.what, finding.user_id) == ("user_state equals a recount", engine.user.user_id)


async def test_a_lost_content_is_named(engine: Engine, verification: Verification) -> None:
    blob = await written(engine)
    await engine.rows(
        "delete from contents where user_id = $1 and hash = (select document_hash from snapshots"
        " where user_id = $1 and blob_id = $2 and version = 1)", blob,
    )  # fmt: skip
    findings = await found(engine, verification)
    assert any(finding.what == "every hash that is named is stored" for finding in findings)
    assert (blob, 1) in {(finding.blob_id, finding.version) for finding in findings}


async def test_work_under_way_is_found_at_rest_only(engine: Engine, verification: Verification) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    await engine.create("in-v1")
    assert await found(engine, verification) == []
    assert await found(engine, verification, at_rest=True) != []
    await engine.rest()
    assert await found(engine, verification, at_rest=True) == []


async def test_a_sample_looks_at_so_many(engine: Engine, verification: Verification) -> None:
    await written(engine)
    user = engine.user.user_id
    looks = [look.kind async for look in verification.looks(user, sample=1, at_rest=False)]
    assert (looks.count("content"), looks.count("blob")) == (1, 1)
    assert len(looks) == await verification.size(user, sample=1, at_rest=False)
    every = [look async for look in verification.looks(user, sample=None, at_rest=True)]
    assert len(every) == await verification.size(user, sample=None, at_rest=True)


async def test_what_takes_too_long_is_a_finding_and_nobody_waits_for_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await written(engine)
    monkeypatch.setattr(invariants, "ALWAYS", {"slow": "select pg_sleep(60) from users where user_id = $1"})
    monkeypatch.setattr(verification_module, "ALWAYS", invariants.ALWAYS)
    monkeypatch.setattr(verification_module, "HISTORY", {})
    impatient = Verification(engine.database, engine.contents, seconds_max=1)
    looking = asyncio.create_task(found(engine, impatient))
    await engine.edit(blob, "while it looks")
    await engine.rest()
    [finding] = await looking
    assert (finding.what, finding.expected) == ("slow", "an answer within 1 seconds")


async def test_a_system_at_work_has_no_findings(engine: Engine, verification: Verification) -> None:
    blob = await written(engine)
    stop = asyncio.Event()

    async def write() -> None:
        for number in range(1_000):
            await engine.edit(blob, f"{LONG}{number}")
            if number % 5 == 0:
                await engine.rest()
            if stop.is_set():
                return

    writer = asyncio.create_task(write())
    try:
        for _ in range(5):
            assert await found(engine, verification) == []
    finally:
        stop.set()
        await writer
    await engine.rest()
    assert await found(engine, verification, at_rest=True) == []
