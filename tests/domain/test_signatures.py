"""A signed address opens one version of one content, for its user, until it expires."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest

from domain.errors import Forbidden
from domain.signatures import ROUND_SECONDS, Grant, expiry, granted, query, signature

SECRET = b"the installation's secret"
GRANT = Grant(user_id=UUID(int=1), blob_id=UUID(int=2), version=3, expires=1_800_000_000)
BEFORE = GRANT.expires - 1.0


def opened(secret: bytes = SECRET, now: float = BEFORE, **changed: Any) -> Grant:
    parts = {name: values[0] for name, values in parse_qs(query(SECRET, GRANT)).items()}
    given = {**parts, "blob_id": GRANT.blob_id, **changed}
    signed = given.pop("signature")
    return granted(secret, given=signed, now=now, **given)


def test_what_was_signed_is_granted_until_it_expires() -> None:
    assert opened() == GRANT
    for late in (GRANT.expires, GRANT.expires + 1e6):
        with pytest.raises(Forbidden) as caught:
            opened(now=float(late))
        assert caught.value.problem_code == "signature_expired"


@pytest.mark.parametrize(
    "changed",
    [
        {"blob_id": UUID(int=9)},
        {"user": str(UUID(int=9))},
        {"user": "nobody"},
        {"version": "4"},
        {"version": "03"},
        {"version": "-3"},
        {"version": ""},
        {"version": "9" * 100},
        {"expires": "1800000001"},
        {"expires": "٣"},
        {"expires": "1e9"},
        {"signature": ""},
        {"signature": "0" * 64},
        {"signature": signature(SECRET, GRANT)[:-1]},
        {"signature": "ü" * 64},
        {"secret": b"another installation's"},
    ],
    ids=lambda changed: "-".join(f"{name}={str(value)[:12]!a}" for name, value in changed.items()),
)
def test_nothing_in_an_address_can_be_changed(changed: dict[str, Any]) -> None:
    with pytest.raises(Forbidden) as caught:
        opened(**changed)
    assert caught.value.problem_code == "signature_invalid"


def test_an_altered_address_is_altered_even_when_it_has_expired() -> None:
    with pytest.raises(Forbidden) as caught:
        opened(now=GRANT.expires + 1.0, version="4")
    assert caught.value.problem_code == "signature_invalid"


def test_an_address_lives_at_least_its_time_and_a_minute_more_at_most() -> None:
    for now in (0.0, 0.5, 59.999, 60.0, 1_234_567.89):
        assert now + 900 <= expiry(now, 900) < now + 900 + ROUND_SECONDS
    assert expiry(61.0, 900) == expiry(119.0, 900)
