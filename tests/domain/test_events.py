from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid, TooLarge
from domain.events import CONTENT_MEMBERS, EVENT_TYPES, Event, cloud_event, event, nats_subject, subject_token

USER = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ID = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
TIME = datetime(2025, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
DATA = {"blob_id": "b", "version": 2, "size": 10, "cascade_id": "c1", "delta_id": "d1"}
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def made(type_name: str = "blob.created", **changes: Any) -> Event:
    fields: dict[str, Any] = {
        "id": ID,
        "user_id": USER,
        "subject": "blobs/b",
        "key": "text-v1",
        "time": TIME,
        "data": DATA,
    }
    return event(type_name, **{**fields, **changes})


def test_an_event_is_a_cloudevent_1_0() -> None:
    assert cloud_event(made(seq=7), installation="i1") == {
        "specversion": "1.0",
        "id": str(ID),
        "source": f"/users/{USER}/studio",
        "type": "ai.memmie.studio.blob.created.v1",
        "subject": "blobs/b",
        "time": "2025-03-01T12:00:00.000005Z",
        "datacontenttype": "application/json",
        "userid": str(USER),
        "sequence": "7",
        "correlationid": "c1",
        "causationid": "d1",
        "installationid": "i1",
        "data": DATA,
    }


@pytest.mark.parametrize("type_name", sorted(EVENT_TYPES))
def test_every_published_type_keeps_the_rules_of_cloudevents(type_name: str) -> None:
    envelope = cloud_event(made(type_name, data={}))
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in envelope)
    assert all(isinstance(value, str) and value for name, value in envelope.items() if name != "data")
    assert datetime.fromisoformat(envelope["time"]) == TIME
    assert orjson.loads(orjson.dumps(envelope)) == envelope
    assert "sequence" not in envelope


def test_times_are_told_in_utc() -> None:
    there = TIME.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert cloud_event(made(time=there))["time"] == "2025-03-01T12:00:00.000005Z"


def test_the_subject_is_entity_verb_user_key() -> None:
    assert nats_subject(made()) == f"studio.blob.created.{USER}.text-v1"
    topics = {"blob_created": "acme.things.made", "blob_updated": "never.used"}
    assert nats_subject(made(), topics) == f"acme.things.made.{USER}.text-v1"
    assert nats_subject(made("bucket.blob_added", key="x"), topics) == f"studio.bucket.blob_added.{USER}.x"


@pytest.mark.parametrize("topic", ["", "a.*", "a.>", "a..b", ".a", "a.", "a b"])
def test_a_topic_that_could_reach_others_is_refused(topic: str) -> None:
    with pytest.raises(Invalid) as caught:
        nats_subject(made(), {"blob_created": topic})
    assert caught.value.faults[0].pointer == "/events/topics/blob_created"


@given(st.text())
def test_any_key_is_one_safe_token(key: str) -> None:
    subject = nats_subject(made(key=key))
    assert TOKEN.fullmatch(subject_token(key))
    assert subject.count(".") == 4


def test_long_keys_stay_apart() -> None:
    one, two = subject_token("x" * 70 + "1"), subject_token("x" * 70 + "2")
    assert one != two
    assert one[:47] == two[:47] == "x" * 47
    assert subject_token("x" * 64) == "x" * 64


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"type_name": "created"}, "/type"),
        ({"type_name": "blob.created.v1"}, "/type"),
        ({"type_name": "Blob.created"}, "/type"),
        ({"type_name": "blob.*"}, "/type"),
        ({"subject": ""}, "/subject"),
        ({"time": datetime(2025, 3, 1)}, "/time"),  # noqa: DTZ001 - the missing zone is what is tested
        *(({"data": {name: "x"}}, f"/data/{name}") for name in sorted(CONTENT_MEMBERS)),
    ],
)
def test_what_is_no_event_is_refused(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        made(**changes)
    assert caught.value.faults[0].pointer == pointer


def test_an_event_stays_small() -> None:
    with pytest.raises(TooLarge):
        made(data={"ids": ["x" * 36] * 1000})
