"""Folders become blobs and blobs folders: each file once, whatever interrupts; nothing outside is touched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.files import folded, safe_path
from devstack.apps import ROOT
from tests.cli.conftest import Studio
from tests.conftest import Person

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }


STORY: dict[str, bytes | str] = {
    "README": "No suffix, still a text.",
    "book/chapter 1.md": "Intro\n\n# The *Storm* #\r\nwind\n",
    "book/parts/zwei/ümlaut.txt": "\ufeffÜber \x00 Bord\n",
    "book/empty.md": "",
    "data/a.json": '{"a":[1,2,{"b":null}],"z":"x"}',
    "data/picture.png": PNG,
    "data/raw.bin": bytes(range(256)),
    "large.txt": "0123456789abcdef" * 400_000,
}


async def imported(studio: Studio, folder: Path, *more: str, status: int = 0) -> Any:
    ended = await studio("blob", "import", str(folder), *more)
    assert ended.status == status, (ended.out, ended.err)
    return ended.json


async def test_what_is_imported_is_exported_byte_for_byte(studio: Studio, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", STORY), tmp_path / "out"
    assert (await imported(studio, source))["imported"] == len(STORY)
    ended = await studio("blob", "export", str(target))
    assert (ended.status, ended.json["exported"]) == (0, len(STORY)), ended.out
    assert tree(target) == tree(source)
    manifest = json.loads((target / "manifest.json").read_bytes())["blobs"]
    assert [entry["path"] for entry in manifest] == sorted(STORY)
    assert {entry["version"] for entry in manifest} == {1}


async def test_title_tags_type_and_place_come_from_the_file(studio: Studio, tmp_path: Path) -> None:
    bucket = (await studio("bucket", "create", "Book")).json["id"]
    await imported(studio, write(tmp_path / "in", STORY), "--bucket", bucket, "--tag", "draft", "--tag", "book")
    rows = (await studio("blob", "list", "--bucket", bucket, "--all")).json["data"]
    by_path = {row["metadata"]["path"]: row for row in rows}
    assert by_path.keys() == STORY.keys()
    chapter, picture = by_path["book/chapter 1.md"], by_path["data/picture.png"]
    assert (chapter["title"], chapter["tags"], chapter["content_type"]) == (
        "The *Storm*", ["book", "draft"], "text/markdown",
    )  # fmt: skip
    assert by_path["book/parts/zwei/ümlaut.txt"]["tags"] == ["book", "parts", "zwei", "draft"]
    assert by_path["data/a.json"]["data"] == {"a": [1, 2, {"b": None}], "z": "x"}
    assert (picture["content_type"], picture["size"], picture["title"]) == ("image/png", len(PNG), "picture.png")
    assert by_path["README"]["content_type"] == "text/plain"


async def test_importing_again_makes_nothing_and_what_is_new_is_added(
    studio: Studio, tmp_path: Path, admin: Any, user: Person
) -> None:
    source = write(tmp_path / "in", STORY)
    await imported(studio, source)
    again = await imported(studio, source)
    assert (again["imported"], again["already_there"]) == (0, len(STORY))
    write(source, {"new.md": "# New", "README": "Changed."})
    assert (await imported(studio, source))["imported"] == 2
    made = await admin.fetchval("select count(*) from blobs where user_id = $1", user.user_id)
    assert made == len(STORY) + 2


@dataclass(frozen=True)
class Kills:
    """Imports a folder with a process that is killed again and again, then to its end."""

    studio: Studio
    admin: Any
    user: Person
    api_url: str

    async def made(self) -> int:
        count: int = await self.admin.fetchval("select count(*) from blobs where user_id = $1", self.user.user_id)
        return count

    async def killed_at(self, source: Path, some: int) -> None:
        """Import until there are ``some`` blobs; then the process dies wherever it is."""
        environment = {**os.environ, "STUDIO_API_URL": self.api_url, "STUDIO_API_KEY": self.user.key}
        command = [sys.executable, "-m", "cli.main", "blob", "import", str(source)]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=-3, stderr=-3)
        async with asyncio.timeout(300):
            while process.returncode is None and await self.made() < some:
                pass  # asking the database is the pause
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()

    async def survived(self, source: Path, *, kills: Sequence[int]) -> None:
        """Nothing is there twice and nothing is missing, however often the import was killed."""
        for some in kills:
            await self.killed_at(source, some)
        files = tree(source)
        report = await imported(self.studio, source)
        assert report["imported"] + report["already_there"] == len(files)
        assert await self.made() == len(files)
        listed = (await self.studio("blob", "list", "--all")).json["data"]
        assert {row["metadata"]["path"] for row in listed} == set(files)


@pytest.fixture
def kills(studio: Studio, admin: Any, user: Person, api_url: str) -> Kills:
    return Kills(studio, admin, user, api_url)


async def test_an_import_killed_anywhere_goes_on_without_doubles_or_gaps(kills: Kills, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {f"f{number % 7}/{number:03}.md": f"text {number}" for number in range(450)})
    write(source, {f"b/{number}.bin": bytes([number, 255, 0]) for number in range(10)})
    await kills.survived(source, kills=(1, 150, 300))


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not os.environ.get("STUDIO_SOAK_KILLS"), reason="a soak: set STUDIO_SOAK_KILLS")
async def test_soak_of_ten_thousand_files_under_kills(kills: Kills, tmp_path: Path) -> None:
    text = "The ship sailed into the storm. " * 30
    files: dict[str, bytes | str] = {f"{n % 50}/{n % 9}/{n:05}.md": f"# {n}\n\n{text}" for n in range(9_700)}
    files |= {f"bin/{n}.bin": n.to_bytes(2, "big") * 500 + b"\xff\0" for n in range(300)}
    source = write(tmp_path / "in", files)
    await kills.survived(source, kills=(1, 2_500, 5_000, 7_500, 9_900))
    out = tmp_path / "out"
    assert (await kills.studio("blob", "export", str(out))).json["exported"] == len(files)
    assert (await kills.studio("blob", "export", str(out))).json["unchanged"] == len(files)
    assert tree(out) == tree(source)


async def test_bad_files_are_reported_and_all_others_imported(studio: Studio, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {
        "good.md": "fine", "latin.txt": "caf\xe9".encode("latin-1"), "broken.json": "{", "twice.json": '{"a":1,"a":2}',
        "nan.json": "[NaN]", "huge.json": b" " * (13 * 2**20) + b"1", "deep.json": "[" * 100 + "]" * 100,
        ".hidden": "x", ".git/config": "x",
    })  # fmt: skip
    (source / "no.txt").write_text("x")
    (source / "bad\udcff.txt").write_text("x")
    (source / "loop").symlink_to(source)
    (source / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    report = await imported(studio, source, status=1)
    assert report["imported"] == 2
    assert {failure["path"]: failure["code"] for failure in report["failed"]} == {
        "latin.txt": "not_utf8", "broken.json": "unparsable_body", "twice.json": "unparsable_body",
        "nan.json": "unparsable_body", "huge.json": "content_too_large", "deep.json": "too_deep",
        "bad?.txt": "invalid_value",
    }  # fmt: skip
    assert {left["path"]: left["reason"] for left in report["left_out"]} == {
        ".git": "hidden", ".hidden": "hidden", "loop": "link", "passwd": "link", "pipe": "no regular file",
    }  # fmt: skip
    told = await studio("blob", "import", str(source), "--no-json")
    assert told.err.partition(", left out 5.\n")[2].startswith("failed 7:\n  ")
    assert told.status == 1
    assert "latin.txt: It is no UTF-8 text: byte 3." in told.err


async def test_an_unreadable_file_is_reported(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", {"a.md": "fine", "b.md": "secret"})
    honest = Path.read_bytes

    def refusing(self: Path) -> bytes:
        if self.name == "b.md":
            raise PermissionError(13, "Permission denied")
        return honest(self)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    report = await imported(studio, source, status=1)
    assert [failure["path"] for failure in report["failed"]] == ["b.md"]


async def test_without_a_terminal_lines_say_how_far_it_is(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.progress.LINE_EVERY", 100)
    source = write(tmp_path / "in", {f"{number:03}.txt": str(number) for number in range(250)})
    ended = await studio("blob", "import", str(source), "--no-json")
    assert ended.err.splitlines() == [
        "Importing: 100 of 250", "Importing: 200 of 250", "Imported 250, already there 0, left out 0.",
    ]  # fmt: skip
    assert ended.out == ""


async def test_a_bucket_that_is_not_there_stops_before_anything_is_made(studio: Studio, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.md": "x"})
    ended = await studio("blob", "import", str(source), "--bucket", "01890a5d-ac96-774b-bcce-b302099a8057")
    assert ended.status == 6
    assert (await studio("blob", "list")).json["data"] == []


async def test_export_fetches_only_what_changed_and_keeps_its_names(studio: Studio, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", STORY), tmp_path / "out"
    await imported(studio, source)
    await studio("blob", "export", str(target))
    before = {path: (target / path).stat().st_mtime_ns for path in STORY}
    listed = (await studio("blob", "list", "--all")).json["data"]
    chapter = next(row for row in listed if row["metadata"]["path"].endswith("1.md"))
    await studio("blob", "edit", chapter["id"], "--content", "Rewritten.")
    (target / "README").write_text("somebody wrote here")
    ended = await studio("blob", "export", str(target))
    assert (ended.json["exported"], ended.json["unchanged"]) == (2, len(STORY) - 2)
    after = {path: (target / path).stat().st_mtime_ns for path in STORY}
    assert {path for path in STORY if after[path] != before[path]} == {"book/chapter 1.md", "README"}
    assert (target / "book/chapter 1.md").read_text() == "Rewritten."
    assert not list(target.rglob(".studio-*"))


async def test_names_that_no_system_or_folder_may_hold_are_made_safe(studio: Studio, tmp_path: Path) -> None:
    target = tmp_path / "out"
    outside = write(tmp_path / "elsewhere", {"kept.txt": "kept"})
    named = ["../../elsewhere/kept.txt", "/etc/x.txt", "a/../../b.txt", "CON.txt", "x" * 300 + ".txt", "Same.txt",
             "same.TXT", "same.txt/below.txt", "manifest.json", "..", "link/in.txt", 'q"?.txt', ".bashrc",
             "end. ."]  # fmt: skip
    for path in named:
        made = await studio("blob", "create", "--content", path, "--metadata", json.dumps({"path": path}))
        assert made.status == 0, made.out
    target.mkdir()
    (target / "link").symlink_to(outside)
    ended = await studio("blob", "export", str(target))
    assert (ended.status, ended.json["exported"]) == (1, len(named) - 1), ended.out
    assert [failure["path"] for failure in ended.json["failed"]] == ["link/in.txt"]
    assert tree(outside) == {"kept.txt": b"kept"}
    found = tree(target)
    assert sorted(content.decode() for content in found.values()) == sorted(set(named) - {"link/in.txt"})
    assert len({folded(path) for path in found}) == len(found)
    assert all(
        len(part.encode()) <= 140 and not part.endswith((".", " ")) for path in found for part in path.split("/")
    )


@pytest.mark.parametrize(
    ("blob", "path"),
    [
        ({"title": "The Storm", "content_type": "text/markdown"}, "The Storm.md"),
        ({"title": "a/b\\c:d", "content_type": "text/plain"}, "a_b_c_d.txt"),
        ({"title": "", "preview": "First line\nsecond", "content_type": "text/plain"}, "First line.txt"),
        ({"title": "notes.json", "content_type": "application/json"}, "notes.json"),
        ({"title": "nul", "content_type": "image/png"}, "_nul.png"),
        ({"title": "x", "content_type": "application/x-unheard-of"}, "x.bin"),
        ({"title": "x", "content_type": "text/plain", "metadata": {"path": "a/./b.txt"}}, "a/b.txt"),
        ({"title": "x", "content_type": "text/plain", "metadata": {"path": 7}}, "x.txt"),
        ({"title": "\u202egpj.exe", "content_type": "text/plain"}, "_gpj.exe.txt"),
    ],
    ids=["title", "separators", "preview", "suffix", "reserved", "unknown", "path", "odd-path", "bidi"],
)
def test_a_blob_has_a_name_that_is_safe_everywhere(blob: dict[str, Any], path: str) -> None:
    assert safe_path({"id": "01890a5d-ac96-774b-bcce-b302099a8057", **blob}) == path


def shown(drawn: str) -> dict[str, str]:
    rows = (line.partition(" ") for line in drawn.splitlines())
    return {name: value.strip() for name, _, value in rows}


async def test_quota_and_limits_are_shown_and_set(
    studio: Studio, make_user: Any, user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from domain.keys import SCOPES  # noqa: PLC0415 - beside its only use

    await studio("blob", "create", "--content", "0123456789")
    assert (await studio("quota")).json["bytes_used"] == 10
    assert shown((await studio("quota", "--no-json")).out) == {
        "used": "10 bytes", "reserved": "0 bytes", "quota": "none",
    }  # fmt: skip
    refused = await studio("admin", "limits", str(user.user_id), "--quota", "10G")
    assert refused.status == 4
    monkeypatch.setenv("STUDIO_API_KEY", (await make_user(SCOPES)).key)
    limited = await studio("admin", "limits", str(user.user_id), "--quota", "1k")
    assert (limited.json["bytes_quota"], limited.json["bytes_used"]) == (1000, 10)
    said = await studio("admin", "limits", str(user.user_id), "--quota", "1500k", "--no-json")
    assert shown(said.out)["quota"] == "1500000 bytes (1.5 MB)"
    free = await studio("admin", "limits", str(user.user_id), "--quota", "unlimited")
    assert free.json["bytes_quota"] is None
    assert (await studio("admin", "limits", str(user.user_id), "--quota", "much")).status == 2
    both = await studio("admin", "limits", str(user.user_id), "--runs", "7", "--budget", "0.25", "--no-json")
    assert {name: shown(both.out)[name] for name in ("runs", "budget")} == {"runs": "7", "budget": "$0.250000"}
    back = (await studio("admin", "limits", str(user.user_id), "--runs", "settings", "--budget", "unlimited")).json
    assert (back["runs_limit"], back["budget"]["limit"], back["bytes_quota"]) == (None, None, None)
    for wrong in ((), ("--runs", "some"), ("--budget", "much")):
        assert (await studio("admin", "limits", str(user.user_id), *wrong)).status == 2
    assert (await studio("admin", "limits", str(user.user_id), "--runs", "0")).json["code"] == "invalid_value"
