import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.apps import ROOT
from tests.cli.conftest import Studio

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"
COMMAND = (sys.executable, "-m", "cli.main")


async def test_an_unknown_blob_is_exit_6_with_a_problem_document_on_stdout(studio: Studio) -> None:
    ended = await studio("blob", "get", UNKNOWN, "--json")
    assert (ended.status, ended.err) == (6, "")
    assert ended.json["code"] == "not_found"
    assert ended.json["status"] == 404
    assert ended.json["request_id"]


@pytest.mark.parametrize("name", ["BAD", "..", "../buckets", "a b/ü?"])
async def test_what_is_no_id_names_nothing_either(studio: Studio, name: str) -> None:
    for arguments in (("blob", "get"), ("blob", "history"), ("run", "get"), ("schema", "get"), ("cascade", "watch")):
        ended = await studio(*arguments, name, "--json")
        assert (ended.status, ended.json["status"] in {404, 422}) == (6, True), arguments


async def test_people_read_the_problem_on_stderr_with_each_fault_and_the_hint(studio: Studio) -> None:
    ended = await studio("blob", "create", "--data", '{"title": 1}', "--schema", "concept-v1", "--no-json")
    assert ended.status == 1
    assert ended.out == ""
    assert "(schema_violation, 422)" in ended.err
    assert "/data/title: " in ended.err
    assert "hint: " in ended.err
    assert "request " in ended.err


async def test_a_wrong_or_missing_key_is_exit_4(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_API_KEY", "mst_live_nobody")
    wrong = await studio("whoami")
    monkeypatch.delenv("STUDIO_API_KEY")
    missing = await studio("whoami")
    assert (wrong.status, wrong.json["code"]) == (4, "invalid_credentials")
    assert (missing.status, missing.json["code"]) == (4, "missing_credentials")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[::bad"])
async def test_nobody_answering_is_exit_7_because_later_may_do(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("STUDIO_API_URL", url)
    ended = await studio("blob", "list")
    assert (ended.status, ended.json["code"], ended.json["retryable"]) == (7, "unavailable", True)


async def test_no_running_stack_is_told_with_the_fix(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDIO_API_URL")
    monkeypatch.delenv("STUDIO_STATE_DIR", raising=False)
    ended = await studio("blob", "list", "--no-json")
    assert ended.status == 7
    assert "studio dev" in ended.err


@pytest.mark.parametrize(
    "arguments", [("blob", "get"), ("blob", "dance"), ("blob", "list", "--limit", "many"), ("nothing",)]
)
async def test_wrong_usage_is_exit_2_and_prints_nothing_on_stdout(studio: Studio, arguments: tuple[str, ...]) -> None:
    ended = await studio(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err


async def test_api_sends_the_query_and_knows_its_methods(studio: Studio) -> None:
    for text in ("one", "two"):
        made = (await studio("blob", "create", "--content", text)).json
    await studio("blob", "edit", made["id"], "--content", "three")
    page = (await studio("api", "GET", "/blobs?limit=1")).json
    assert (len(page["data"]), page["has_more"]) == (1, True)
    assert (await studio("api", "get", f"/blobs/{made['id']}?version=1")).json["content"] == "two"
    unknown = await studio("api", "FETCH", "/blobs")
    assert (unknown.status, unknown.out, "FETCH is no method" in unknown.err) == (2, "", True)


async def test_whoami_says_whose_key_it_is(studio: Studio) -> None:
    ended = await studio("whoami")
    assert ended.status == 0
    assert "blobs:write" in ended.json["scopes"]


async def test_version_names_the_api_that_answers(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    there = await studio("version")
    monkeypatch.setenv("STUDIO_API_URL", "http://127.0.0.1:9")
    gone = await studio("version", "--no-json")
    assert there.json["api"]["api_version"] == "v1"
    assert gone.out == f"studio {there.json['version']}\n"
    assert "No API answers." in gone.err


async def test_every_command_explains_itself(studio: Studio) -> None:
    for group in ("", "dev", "blob", "bucket", "workflow", "provider", "schema", "run", "cascade", "events", "api"):
        ended = await studio(*group.split(), "--help")
        assert ended.status == 0
        assert "Usage: studio" in ended.out


def test_ctrl_c_is_exit_130(tmp_path: Path) -> None:
    script = "import os, signal, cli.main as m, cli.blobs as b\n"
    # Where the suite runs in the background of a shell, interrupts are ignored from birth.
    script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "b.talk = lambda work: os.kill(os.getpid(), signal.SIGINT)\n"
    script += "import sys; sys.exit(m.status_of(['blob', 'get', 'x']))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 128 + signal.SIGINT


async def test_a_reader_that_leaves_is_no_failure(studio: Studio, api_url: str) -> None:
    await studio("blob", "create", "--content", "x" * 90_000)
    environment = {**os.environ, "STUDIO_API_URL": api_url}
    command = f"{' '.join(COMMAND)} blob list --all | head -c 10; exit ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=ROOT, env=environment, stdout=-1, stderr=-1
    )
    out, err = await process.communicate()
    assert (process.returncode, err, len(out)) == (0, b"", 10)


def test_help_costs_no_heavy_import() -> None:
    script = (
        "import sys, cli.main; print([m for m in ('httpx2', 'asyncpg', 'rich.live', 'fastapi') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
