"""The rules of uploads: parts, wholes, digests."""

from __future__ import annotations

import base64
import hashlib
import itertools
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Conflict, Invalid, Malformed, TooLarge
from domain.uploads import (
    CHUNK_BYTES,
    PARTS_MAX,
    Part,
    Tally,
    Upload,
    content_digest,
    parse_content_digest,
    parse_digest,
    parts_of,
    require_digest,
    require_part,
    require_size,
    require_whole,
)


def upload(parts: dict[int, int], size: int | None = None, part_size: int = 10) -> Upload:
    now = datetime.now(UTC)
    return Upload(
        user_id=UUID(int=1),
        id=UUID(int=2),
        blob_id=None,
        content_type="image/png",
        size=size,
        digest=None,
        part_size=part_size,
        location="1/2",
        multipart=None,
        fields={},
        status="open",
        content_hash=None,
        created_at=now,
        expires_at=now,
        parts=[Part(number, length, "tag") for number, length in sorted(parts.items())],
    )


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_a_declared_content_is_whole_exactly_when_each_of_its_parts_is_there(size: int, part_size: int) -> None:
    count = parts_of(size, part_size)
    sizes = {n: min(part_size, size - (n - 1) * part_size) for n in range(1, count + 1)}
    for number, length in itertools.islice(sizes.items(), 5):
        require_part(size=size, part_size=part_size, number=number, given=length)
        for wrong in (length - 1, length + 1):
            with pytest.raises(Invalid):
                require_part(size=size, part_size=part_size, number=number, given=wrong)
    with pytest.raises(Invalid):
        require_part(size=size, part_size=part_size, number=count + 1, given=1)
    require_whole(upload(sizes, size, part_size))
    assert upload(sizes, size, part_size).received == size
    if count:
        del sizes[count]
        with pytest.raises(Conflict) as caught:
            require_whole(upload(sizes, size, part_size))
        assert caught.value.members["missing"] == [count]


@pytest.mark.parametrize(
    ("parts", "missing"),
    [({1: 10, 3: 10}, [2]), ({2: 5}, [1]), ({1: 9, 2: 3}, [1]), ({1: 10, 2: 1, 3: 2}, [2])],
)
def test_gaps_and_short_parts_in_between_are_named(parts: dict[int, int], missing: list[int]) -> None:
    with pytest.raises(Conflict) as caught:
        require_whole(upload(parts))
    assert (caught.value.problem_code, caught.value.members["missing"]) == ("parts_missing", missing)


def test_without_a_declared_size_the_last_part_may_be_shorter() -> None:
    for parts in ({}, {1: 1}, {1: 10}, {1: 10, 2: 10, 3: 4}):
        require_whole(upload(parts))


@pytest.mark.parametrize(("number", "given"), [(0, 10), (PARTS_MAX + 1, 10), (1, 0), (1, 11)])
def test_numbers_and_sizes_have_bounds(number: int, given: int) -> None:
    with pytest.raises(Invalid) as caught:
        require_part(size=None, part_size=10, number=number, given=given)
    assert caught.value.problem_code == "invalid_part"


def test_a_content_that_would_need_too_many_parts_is_refused_at_once() -> None:
    require_size(PARTS_MAX * 10, 10)
    require_size(None, 10)
    with pytest.raises(TooLarge):
        require_size(PARTS_MAX * 10 + 1, 10)


@given(st.lists(st.integers(0, 3 * CHUNK_BYTES // 2), max_size=5), st.integers(0, 255))
def test_a_tally_hashes_the_whole_and_each_chunk_however_it_is_fed(sizes: list[int], seed: int) -> None:
    data = bytes([seed]) * sum(sizes)
    tally, position = Tally(), 0
    for size in sizes:
        tally.add(memoryview(data)[position : position + size])
        position += size
    chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    assert tally.size == len(data)
    assert tally.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert tally.chunks == b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)


def test_a_content_digest_is_read_as_rfc_9530_writes_it() -> None:
    raw = hashlib.sha256(b"hello").digest()
    encoded = base64.b64encode(raw).decode()
    wanted = f"sha256:{raw.hex()}"
    for value in (f"sha-256=:{encoded}:", f"sha-512=:AAAA:, sha-256=:{encoded}:", f"SHA-256=:{encoded}:;x=1"):
        assert parse_content_digest(value) == wanted
    assert parse_content_digest("sha-512=:AAAA:") is None
    assert parse_content_digest(content_digest(wanted)) == wanted


@pytest.mark.parametrize("value", ["sha-256=", "sha-256=:AAAA:", "sha-256=abc", f"sha-256=:{'!' * 43}=:"])
def test_a_content_digest_that_cannot_be_read_is_an_error(value: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_content_digest(value)
    assert caught.value.problem_code == "invalid_header"


@pytest.mark.parametrize("value", ["", "sha256:", "md5:" + "0" * 32, "sha256:" + "G" * 64, "sha256:" + "0" * 65])
def test_a_digest_has_one_spelling(value: Any) -> None:
    with pytest.raises(Invalid):
        parse_digest(value, "/digest")
    assert parse_digest("sha256:" + "0a" * 32, "/digest")


def test_other_bytes_than_declared_are_refused() -> None:
    require_digest(None, "sha256:1")
    require_digest("sha256:1", "sha256:1")
    with pytest.raises(Malformed) as caught:
        require_digest("sha256:2", "sha256:1")
    assert caught.value.problem_code == "digest_mismatch"
