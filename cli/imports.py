"""``studio blob import``: the files of a folder become blobs, each once, however often it is interrupted.

What makes a file one blob is its key: relative path, content and target. Nothing is remembered here, so nothing here
can be lost; a second run asks for the same keys, and the API answers what is there already.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.files import DOCUMENT_BYTES_MAX, Content, Found, NotImported, read, tags_of, walk
from cli.progress import Advance, progress

if TYPE_CHECKING:
    from sdk.client import Studio
    from sdk.problems import ApiProblem

ITEMS_MAX = 100
"""Files of one batch."""
BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where files go: a bucket, a schema, more tags than their folders."""

    bucket_id: str | None = None
    schema_id: str | None = None
    tags: Sequence[str] = ()


@dataclass(slots=True)
class Report:
    """What became of the files of an import."""

    imported: int = 0
    already_there: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def fail(self, path: str, code: str, detail: str) -> None:
        """Note why a file is not a blob; the others go on."""
        shown = path.encode("utf-8", "replace").decode()
        self.failed.append({"path": shown, "code": code, "detail": detail})

    def as_json(self) -> dict[str, Any]:
        """Return the report as it is printed."""
        return {
            "imported": self.imported,
            "already_there": self.already_there,
            "left_out": self.left_out,
            "failed": self.failed,
        }


async def import_folder(studio: Studio, folder: Path, target: Target) -> Report:
    """Import a folder; raises ApiProblem when the API refuses more than a single file."""
    report = Report()
    files: list[Found] = []
    for found in walk(folder):
        if isinstance(found, Found):
            files.append(found)
        else:
            report.left_out.append({"path": found[0].encode("utf-8", "replace").decode(), "reason": found[1]})
    with progress("Importing", len(files)) as advance:
        await _Import(studio, target, report, advance).run(files)
    return report


class _Import:
    """One import: gathers documents into batches, sends the rest one by one."""

    def __init__(self, studio: Studio, target: Target, report: Report, advance: Advance) -> None:
        self._studio = studio
        self._target = target
        self._report = report
        self._advance = advance
        self._items: list[dict[str, Any]] = []
        self._bytes = 0

    async def run(self, files: Sequence[Found]) -> None:
        for found in files:
            try:
                content = read(found)
            except NotImported as error:
                self._report.fail(found.path, error.code, error.detail)
                self._advance(1)
                continue
            if content.body is None:
                await self._send_raw(found.path, content)
            else:
                await self._gather(found.path, content)
        await self._flush()

    async def _gather(self, path: str, content: Content) -> None:
        if len(self._items) == ITEMS_MAX or self._bytes + len(content.data) > DOCUMENT_BYTES_MAX:
            await self._flush()
        item: dict[str, Any] = {"op": "create", "key": self._key(path, content), "content_type": content.content_type}
        item |= {**(content.body or {}), "title": content.title, "tags": self._tags(path), "metadata": {"path": path}}
        if self._target.bucket_id is not None:
            item["bucket_ids"] = [self._target.bucket_id]
        if self._target.schema_id is not None:
            item["schema_id"] = self._target.schema_id
        self._items.append(item)
        self._bytes += len(content.data)

    async def _flush(self) -> None:
        items, self._items, self._bytes = self._items, [], 0
        if items:
            await self._send(items)

    async def _send(self, items: Sequence[dict[str, Any]]) -> None:
        from sdk.problems import ApiProblem  # noqa: PLC0415 - what only plans an import need not pay for it

        try:
            answer = await self._studio.batch(items, atomic=False)
        except ApiProblem as problem:
            if problem.code != "body_too_large":
                raise
            await self._send_less(items, problem)
            return
        for item, result in zip(items, answer["results"], strict=True):
            if "problem" in result:
                self._fail(item, result["problem"]["code"], result["problem"]["detail"])
            elif result["status"] == 201:  # noqa: PLR2004 - created
                self._report.imported += 1
            else:
                self._report.already_there += 1
        self._advance(len(items))

    async def _send_less(self, items: Sequence[dict[str, Any]], problem: ApiProblem) -> None:
        """Send a batch in two: JSON can be several times as large as the texts in it."""
        if len(items) > 1:
            await self._send(items[: len(items) // 2])
            await self._send(items[len(items) // 2 :])
            return
        self._fail(items[0], problem.code, problem.detail)
        self._advance(1)

    def _fail(self, item: dict[str, Any], code: str, detail: str) -> None:
        self._report.fail(item["metadata"]["path"], code, detail)

    async def _send_raw(self, path: str, content: Content, content_type: str | None = None) -> None:
        from sdk.problems import ApiProblem  # noqa: PLC0415 - what only plans an import need not pay for it

        target = self._target
        try:
            answer = await self._studio.create_raw(
                content.data,
                content_type or content.content_type,
                key=self._key(path, content),
                digest=base64.b64encode(hashlib.sha256(content.data).digest()).decode(),
                title=content.title,
                tag=self._tags(path),
                metadata=json.dumps({"path": path}),
                bucket_id=target.bucket_id,
                schema_id=target.schema_id,
            )
        except ApiProblem as problem:
            if problem.code == "content_type_mismatch" and content_type is None:
                await self._send_raw(path, content, BINARY)  # its name lies; its bytes are kept all the same
                return
            if problem.retryable or problem.status in {401, 0}:
                raise
            self._report.fail(path, problem.code, problem.detail)
        else:
            replayed = "idempotency-replayed" in answer.headers
            self._report.already_there += replayed
            self._report.imported += not replayed
        self._advance(1)

    def _tags(self, path: str) -> list[str]:
        return list(dict.fromkeys([*tags_of(path), *self._target.tags]))

    def _key(self, path: str, content: Content) -> str:
        target = self._target
        named = [path, content.digest, target.bucket_id, target.schema_id, list(target.tags)]
        return f"import:{hashlib.sha256(json.dumps(named).encode()).hexdigest()}"
