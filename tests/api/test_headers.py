"""Headers in and out."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from api.middleware import canonical_path
from api.preconditions import idempotency_key, if_match, wait_seconds
from domain.errors import Malformed
from tests.api.requests import make
from tests.conftest import BASE


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "query_string": b""})


async def test_every_answer_carries_the_security_headers_and_a_request_id(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    for path in (f"{BASE}/blobs/{made['id']}", f"{BASE}/blobs/{made['id']}/content", "/nowhere", "/problems"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["referrer-policy"] == "no-referrer"
        assert "no-cache" in headers["cache-control"]
        assert len(headers["x-request-id"]) == 36


async def test_a_request_id_of_the_client_is_kept_if_it_is_one(client: httpx2.AsyncClient) -> None:
    kept = await client.get("/problems", headers={"x-request-id": "my-id.1"})
    assert kept.headers["x-request-id"] == "my-id.1"
    for bad in ("with space", "x" * 65, 'quote"', "a\tb"):
        replaced = await client.get("/problems", headers={"x-request-id": bad})
        assert len(replaced.headers["x-request-id"]) == 36


async def test_content_is_never_shown_inline(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="<script>alert(1)</script>", content_type="text/html")
    answer = await client.get(f"{BASE}/blobs/{made['id']}/content")
    assert answer.headers["content-disposition"] == "attachment"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_neither_key_nor_query_reaches_the_log(
    client: httpx2.AsyncClient, user: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.get(f"{BASE}/blobs?tag=very-private")
    written = "".join(capsys.readouterr())
    assert "/blobs" in written
    assert "very-private" not in written
    assert user.key not in written


def test_the_seeds_spellings_of_paths_are_read() -> None:
    assert canonical_path("/api/v1/blobs/1") == f"{BASE}/blobs/1"
    assert canonical_path("/api/v1/processors") == f"{BASE}/providers"
    assert canonical_path(f"{BASE}/processors/x/schemas") == f"{BASE}/providers/x/schemas"
    assert canonical_path("/api/v1/validate-token") == f"{BASE}/validate-token"
    for path in (f"{BASE}/blobs", "/api/v1/blobsx", "/api/v1/studio", "/api/v2/blobs"):
        assert canonical_path(path) == path


def test_if_match_is_read_as_rfc_9110_says() -> None:
    assert if_match(request()) is None
    every = if_match(request(if_match=" * "))
    assert every is not None
    assert every.allows(5)
    some = if_match(request(if_match='"v3", W/"v4","v10" , "other"'))
    assert some is not None
    assert [version for version in range(12) if some.allows(version)] == [3, 10]
    for bad in ("v3", '"v3', "3", '"v3" "v4"', ""):
        with pytest.raises(Malformed):
            if_match(request(if_match=bad))


def test_prefer_wait_is_read_among_other_preferences_and_capped() -> None:
    assert wait_seconds(request(), 30) is None
    assert wait_seconds(request(prefer="respond-async, wait=10"), 30) == 10
    assert wait_seconds(request(prefer='Wait="5"; x=1'), 30) == 5
    assert wait_seconds(request(prefer="wait=999"), 30) == 30
    for other in ("wait", "wait=x", "await=3", "wait=-1", "respond-async"):
        assert wait_seconds(request(prefer=other), 30) is None


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ('"abc"', "abc"),
        ("abc", "abc"),
        (" abc ", "abc"),
        ("01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ('"with space"', "with space"),
        ('"a \\"b\\" \\\\ c"', 'a "b" \\ c'),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
        ('"' + '\\"' * 255 + '"', '"' * 255),
    ],
)
def test_an_idempotency_key_is_a_structured_string_or_bare(sent: str, key: str) -> None:
    assert idempotency_key(request()) is None
    assert idempotency_key(request(idempotency_key=sent)) == key


@pytest.mark.parametrize(
    "sent",
    ["", '""', "a b", "x" * 256, f'"{"x" * 256}"', "\xe9", '"\xe9"', '"abc', '"', '"a"b"', '"a\\b"', '"a";x=1', "a\tb"],
)
def test_what_is_no_idempotency_key_is_malformed(sent: str) -> None:
    with pytest.raises(Malformed) as caught:
        idempotency_key(request(idempotency_key=sent))
    assert [fault.pointer for fault in caught.value.faults] == ["/header/idempotency-key"]


def test_two_idempotency_keys_are_none() -> None:
    twice = Request({**request().scope, "headers": [(b"idempotency-key", b"a"), (b"idempotency-key", b"a")]})
    with pytest.raises(Malformed):
        idempotency_key(twice)


@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=255), max_size=60))
def test_no_header_value_causes_anything_but_a_malformed_error(value: str) -> None:
    sent = request(if_match=value, prefer=value, idempotency_key=value)
    for read in (if_match, idempotency_key):
        try:
            read(sent)
        except Malformed:
            continue
    wait_seconds(sent, 30)
