from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioboto3
import asyncpg
import nats
import pytest
from botocore.exceptions import ClientError
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from devstack.apps import Api
from devstack.errors import AlreadyRunning, DevstackError, ServiceFailed
from devstack.nats import Nats
from devstack.processes import Command
from devstack.services import Site
from devstack.stack import SERVERS, Stack
from tests.devstack.waiting import alive

WARM_START_SECONDS = 2.0
NAMES = ("postgres", "temporal", "nats", "s3")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"), NAMES, environ=_environ())
    stack.start()
    yield stack
    stack.stop()


def _environ(**extra: str) -> dict[str, str]:
    """The environment without what would make a service external."""
    return {"PATH": os.environ["PATH"], **extra}


async def _sql(stack: Stack, statement: str) -> object:
    connection = await asyncpg.connect(stack.endpoints["DATABASE_ADMIN_URL"])
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_postgres_answers_sql_durably_and_to_a_password_only(stack: Stack) -> None:
    assert await _sql(stack, "select current_user::text") == "studio_admin"
    settings = "select string_agg(name || '=' || setting, ',' order by name) from pg_settings where name in "
    assert (
        await _sql(stack, settings + "('fsync', 'io_method', 'synchronous_commit', 'shared_buffers', 'TimeZone')")
        == "TimeZone=UTC,fsync=on,io_method=sync,shared_buffers=16384,synchronous_commit=on"
    )
    wrong = stack.endpoints["DATABASE_ADMIN_URL"].replace(":" + stack.state.secrets()["postgres_admin"], ":wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


async def test_temporal_has_the_namespace_for_thirty_days_and_the_search_attributes(stack: Stack) -> None:
    client = await Client.connect(stack.endpoints["TEMPORAL_HOST"], namespace="memmie-studio")
    described = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="memmie-studio"))
    assert described.config.workflow_execution_retention_ttl.seconds == 30 * 24 * 3600
    known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="memmie-studio"))
    ours = {"StudioUser", "StudioBlob", "StudioProvider", "StudioCascade", "StudioOutcome"}
    assert ours <= set(known.custom_attributes)


async def test_jetstream_drops_a_duplicate_and_a_listener_cannot_publish(stack: Stack) -> None:
    connection = await nats.connect(stack.endpoints["NATS_URL"])
    stream = connection.jetstream()
    await stream.add_stream(name="dedup", subjects=["dedup.>"])
    first = await stream.publish("dedup.a", b"1", headers={"Nats-Msg-Id": "one"})
    second = await stream.publish("dedup.a", b"1", headers={"Nats-Msg-Id": "one"})
    assert (first.duplicate, second.duplicate) == (None, True)
    await connection.close()

    refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def note(error: Exception) -> None:
        refused.set_result(error)

    listener = await nats.connect(stack.endpoints["NATS_LISTENER_URL"], error_cb=note)
    await listener.publish("studio.blob.created", b"forged")
    error = await asyncio.wait_for(refused, 10)
    assert "permissions violation" in str(error)
    await listener.close()


def test_nats_speaks_websocket(stack: Stack) -> None:
    with socket.create_connection(("127.0.0.1", stack.ports["nats.websocket"]), timeout=5) as connection:
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"  # the example of RFC 6455, 1.3
        connection.sendall(f"GET / HTTP/1.1\r\nHost: here\r\n{upgrade}{key}\r\n".encode())
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer


def _s3(stack: Stack, secret: str | None = None) -> Any:
    return aioboto3.Session().client(
        "s3",
        endpoint_url=stack.endpoints["S3_ENDPOINT"],
        aws_access_key_id=stack.endpoints["S3_ACCESS_KEY"],
        aws_secret_access_key=secret or stack.endpoints["S3_SECRET_KEY"],
        region_name="us-east-1",
    )


async def test_s3_keeps_an_object_and_refuses_a_wrong_key(stack: Stack) -> None:
    bucket = stack.endpoints["S3_BUCKET"]
    async with _s3(stack) as client:
        await client.put_object(Bucket=bucket, Key="kept", Body=b"words")
        assert (await client.list_objects_v2(Bucket=bucket))["KeyCount"] == 1  # no canary is left
    async with _s3(stack, "wrong") as client:
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            await client.put_object(Bucket=bucket, Key="forged", Body=b"")


async def test_killed_servers_come_back_on_the_same_ports_with_the_same_data(stack: Stack) -> None:
    await _sql(stack, "create table kept as select 42 as answer")
    connection = await nats.connect(stack.endpoints["NATS_URL"])
    await connection.jetstream().add_stream(name="kept", subjects=["kept.>"])
    await connection.jetstream().publish("kept.a", b"message")
    await connection.close()
    async with _s3(stack) as client:
        await client.put_object(Bucket=stack.endpoints["S3_BUCKET"], Key="survivor", Body=b"object")
    before, pids = stack.endpoints, stack.processes

    for name in NAMES:
        stack.kill(name)
        assert not alive(pids[name])
        stack.restart(name)

    assert stack.endpoints == before
    assert all(stack.processes[name] != pids[name] for name in NAMES)
    assert await _sql(stack, "select answer from kept") == 42
    connection = await nats.connect(stack.endpoints["NATS_URL"])
    assert (await connection.jetstream().stream_info("kept")).state.messages == 1
    await connection.close()
    async with _s3(stack) as client:
        kept = await client.get_object(Bucket=stack.endpoints["S3_BUCKET"], Key="survivor")
        assert await kept["Body"].read() == b"object"
    client = await Client.connect(before["TEMPORAL_HOST"], namespace="memmie-studio")
    assert await client.count_workflows() is not None


def test_a_running_service_can_be_restarted(stack: Stack) -> None:
    before = stack.processes["nats"]
    stack.restart("nats")
    assert stack.processes["nats"] != before
    assert not alive(before)


def test_a_second_stack_in_the_same_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        Stack(stack.state.path, ("nats",), environ=_environ()).start()


def test_two_stacks_run_side_by_side(stack: Stack, tmp_path: Path) -> None:
    with Stack(tmp_path, ("nats", "s3"), environ=_environ()) as other:
        assert not set(other.ports.values()) & set(stack.ports.values())
        assert other.endpoints["S3_SECRET_KEY"] != stack.endpoints["S3_SECRET_KEY"]


def test_a_stopped_stack_starts_warm_within_two_seconds_on_the_same_ports(stack: Stack) -> None:
    before, pids = stack.ports, stack.processes
    stack.stop()
    assert not any(alive(pid) for pid in pids.values())
    began = time.monotonic()
    stack.start()
    assert time.monotonic() - began < WARM_START_SECONDS
    assert stack.ports == before


def test_a_service_whose_url_is_set_is_not_started(tmp_path: Path) -> None:
    given = {
        "DATABASE_URL": "postgresql://boss:secret@db.example:5432/app",
        "TEMPORAL_HOST": "temporal.example:7233",
        "NATS_URL": "nats://nats.example",
        "S3_ENDPOINT": "https://s3.example",
        "MODEL_URL": "https://model.example/v1",
    }
    with Stack(tmp_path, SERVERS, environ=_environ(**given)) as stack:
        assert stack.processes == {}
        assert given.items() - {("DATABASE_URL", given["DATABASE_URL"])} <= stack.endpoints.items()
        assert stack.endpoints["DATABASE_ADMIN_URL"] == given["DATABASE_URL"]
        password = stack.endpoints["DATABASE_APP_PASSWORD"]
        assert stack.endpoints["DATABASE_URL"] == f"postgresql://studio_app:{password}@db.example:5432/app"


def test_urls_of_every_role_are_used_as_they_are(tmp_path: Path) -> None:
    given = {
        "DATABASE_ADMIN_URL": "postgresql://boss:a@db.example/app",
        "DATABASE_URL": "postgresql://studio_app:b@db.example/app",
        "DATABASE_RELAY_URL": "postgresql://studio_relay:c@db.example/app",
    }
    with Stack(tmp_path, ("postgres",), environ=_environ(**given)) as stack:
        assert given.items() <= stack.endpoints.items()
        assert stack.endpoints["DATABASE_APP_PASSWORD"] == "b"
        assert stack.endpoints["DATABASE_RELAY_PASSWORD"] == "c"


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    with Stack(tmp_path, ("nats",), environ=_environ()) as stack:
        remembered = stack.ports["nats"]
    with socket.create_server(("127.0.0.1", remembered)), stack:
        assert stack.ports["nats"] != remembered


class _RobbedNats(Nats):
    """A server whose port is taken by another program just before its first start."""

    def __init__(self) -> None:
        self.thief: socket.socket | None = None

    def command(self, site: Site) -> Command:
        if self.thief is None:
            self.thief = socket.create_server(("127.0.0.1", site.ports["nats"]))
        return super().command(site)


def test_a_port_lost_between_choice_and_bind_is_chosen_again(tmp_path: Path) -> None:
    robbed = _RobbedNats()
    with Stack(tmp_path, (), apps=(robbed,), environ=_environ()) as stack:
        assert robbed.thief is not None
        with robbed.thief:
            assert stack.ports["nats"] != robbed.thief.getsockname()[1]
            assert str(stack.ports["nats"]) in stack.endpoints["NATS_URL"]


def test_a_failed_start_names_service_and_log_and_leaves_nothing(tmp_path: Path) -> None:
    broken = Api(["/bin/sh", "-c", "echo cannot find my teapot >&2; exit 3"])
    stack = Stack(tmp_path, ("nats",), apps=(broken,), environ=_environ())
    with pytest.raises(ServiceFailed, match=r"(?s)api: ended with status 3.*teapot.*api.log"):
        stack.start()
    assert stack.processes == {}
    assert stack.state.owner() is None


def test_an_explicit_api_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(DevstackError, match=f"STUDIO_PORT={port} is taken"):
            Stack(tmp_path, (), apps=(Api(),), environ=_environ(STUDIO_PORT=port)).start()


def test_an_unknown_service_is_named_beside_the_known(tmp_path: Path) -> None:
    with pytest.raises(DevstackError, match="unknown service mysql: known are postgres"):
        Stack(tmp_path, ("mysql",))
    with pytest.raises(DevstackError, match="no service s3"):
        Stack(tmp_path, ()).kill("s3")
