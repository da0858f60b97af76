"""The API in Python: one method for each operation, JSON in and out.

>>> async with Studio.connected() as studio:  # doctest: +SKIP
...     blob = await studio.create_blob(data={"title": "The Storm"}, schema_id="concept-v1", wait=30)
...     print((await studio.dag(blob["id"]))["settled"])
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from sdk.answers import Answer
from sdk.endpoints import find_endpoints
from sdk.transport import Transport, part

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
YAML = "application/yaml"

Json = dict[str, Any]


class Studio(Transport):
    """A client of the HTTP API. Every method raises ApiProblem; lists are iterators over all their pages."""

    @classmethod
    def connected(cls, **options: Any) -> Self:
        """Return a client of the API that the environment or ``.studio/endpoints.json`` names.

        Raises NoEndpoints when neither does.
        """
        found = find_endpoints()
        return cls(found.api_url, found.api_key, **options)

    # -- blobs

    async def create_blob(self, *, wait: float | None = None, **fields: Any) -> Answer:
        """Make a blob of ``content`` or ``data`` and any of ``schema_id, title, tags, metadata, bucket_ids, …``."""
        return await self.request("POST", "/blobs", json_body=fields, wait=wait)

    async def get_blob(self, blob_id: str, *, version: int | None = None, at: str | None = None) -> Answer:
        """Read a blob as it is, or as it was: at a version, or at an instant (RFC 3339)."""
        return await self.request("GET", f"/blobs/{part(blob_id)}", params={"version": version, "at": at})

    async def get_content(self, blob_id: str, *, version: int | None = None, at: str | None = None) -> bytes:
        """Read the bytes of a blob's content."""
        params = {"version": version, "at": at}
        return (await self.request("GET", f"/blobs/{part(blob_id)}/content", params=params)).content

    async def put_content(
        self,
        blob_id: str,
        content: bytes | str,
        content_type: str,
        *,
        if_match: int | str,
        on_conflict: str | None = None,
        wait: float | None = None,
    ) -> Answer:
        """Replace a blob's content; ``on_conflict`` says what to do if ``if_match`` is not the newest version."""
        return await self.request(
            "PUT",
            f"/blobs/{part(blob_id)}/content",
            content=content,
            content_type=content_type,
            params={"on_conflict": on_conflict},
            if_match=if_match,
            wait=wait,
        )

    async def patch_blob(
        self,
        blob_id: str,
        patch: Any,
        *,
        if_match: int | str = "*",
        on_conflict: str | None = None,
        wait: float | None = None,
    ) -> Answer:
        """Change a blob: a list is a JSON Patch (RFC 6902), an object a merge patch (RFC 7396)."""
        return await self.request(
            "PATCH",
            f"/blobs/{part(blob_id)}",
            json_body=patch,
            content_type=JSON_PATCH if isinstance(patch, list) else MERGE_PATCH,
            params={"on_conflict": on_conflict},
            if_match=if_match,
            wait=wait,
        )

    async def revert_blob(
        self, blob_id: str, version: int, *, if_match: int | str | None = None, wait: float | None = None
    ) -> Answer:
        """Make the document of an earlier version the current one."""
        path = f"/blobs/{part(blob_id)}/revert"
        return await self.request("POST", path, json_body={"version": version}, if_match=if_match, wait=wait)

    async def restore_blob(self, blob_id: str, *, wait: float | None = None) -> Answer:
        """Bring a deleted blob back."""
        return await self.request("POST", f"/blobs/{part(blob_id)}/restore", wait=wait)

    async def reset_blob(self, blob_id: str, *, wait: float | None = None) -> Answer:
        """Make a derived blob again what its provider made of it last."""
        return await self.request("POST", f"/blobs/{part(blob_id)}/reset", wait=wait)

    async def diff_blob(
        self, blob_id: str, *, since: int | None = None, to: int | None = None, unit: str | None = None
    ) -> Answer:
        """Say what changed between two versions of a blob; without any, in the newest."""
        params = {"from": since, "to": to, "unit": unit}
        return await self.request("GET", f"/blobs/{part(blob_id)}/diff", params=params)

    async def compare(self, left: str, right: str, *, unit: str | None = None) -> Answer:
        """Say what differs between two blobs; ``{id}@3`` is one at its version 3."""
        return await self.request("GET", "/compare", params={"left": left, "right": right, "unit": unit})

    async def propose(self, blob_id: str, patch: Any, *, from_version: int | None = None) -> Answer:
        """Offer a change, as ``patch_blob`` takes it, for somebody to accept or reject."""
        body = {"patch": patch, "proposed": True}
        if from_version is not None:
            body["from_version"] = from_version
        return await self.request("POST", f"/blobs/{part(blob_id)}/deltas", json_body=body)

    async def accept(self, delta_id: str, *, on_conflict: str | None = None, wait: float | None = None) -> Answer:
        """Apply a proposed delta; ``on_conflict`` (``merge``, ``last_write_wins``) says what to do where it clashes."""
        path = f"/deltas/{part(delta_id)}/accept"
        return await self.request("POST", path, params={"on_conflict": on_conflict}, wait=wait)

    async def reject(self, delta_id: str) -> Answer:
        """Turn a proposed delta down."""
        return await self.request("POST", f"/deltas/{part(delta_id)}/reject")

    async def delete_blob(self, blob_id: str, *, if_match: int | str | None = None) -> Answer:
        """Delete a blob; every version stays readable."""
        return await self.request("DELETE", f"/blobs/{part(blob_id)}", if_match=if_match)

    def blobs(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List blobs, newest first; filters: ``schema_id, provider_id, tag, bucket_id``."""
        return self.pages("/blobs", filters, limit=limit)

    def history(self, blob_id: str, *, limit: int | None = None) -> AsyncIterator[Json]:
        """List what happened to a blob, oldest first."""
        return self.pages(f"/blobs/{part(blob_id)}/history", limit=limit)

    def deltas(self, blob_id: str, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List a blob's deltas with their patches, oldest first."""
        return self.pages(f"/blobs/{part(blob_id)}/deltas", filters, limit=limit)

    async def dag(self, blob_id: str, **caps: int | None) -> Answer:
        """Read the graph below a blob: nodes with their states, edges, levels; ``depth`` and ``nodes`` cap it."""
        return await self.request("GET", f"/blobs/{part(blob_id)}/dag", params=caps)

    async def why(self, blob_id: str, *, version: int | None = None, depth: int | None = None) -> Answer:
        """Say why a version exists, how it stands, and what would change that; ``words`` is that in sentences."""
        return await self.request("GET", f"/blobs/{part(blob_id)}/why", params={"version": version, "depth": depth})

    async def batch(
        self, items: Sequence[Mapping[str, Any]], *, atomic: bool = True, wait: float | None = None
    ) -> Answer:
        """Create, update, delete many blobs at once; ``results`` says what became of each item."""
        body = {"atomic": atomic, "items": list(items)}
        return await self.request("POST", "/blobs/batch", json_body=body, wait=wait)

    async def batch_get(self, ids: Sequence[str], *, versions: Sequence[int | None] | None = None) -> Answer:
        """Read many blobs at once: ``data``, and the ids that are ``unknown``, ``deleted`` or ``left_off``."""
        body: Json = {"ids": list(ids)} | ({} if versions is None else {"versions": list(versions)})
        return await self.request("POST", "/blobs/batch-get", json_body=body)

    async def create_raw(
        self, content: bytes, content_type: str, *, key: str | None = None, digest: str | None = None, **fields: Any
    ) -> Answer:
        """Make a blob whose content are these bytes; ``fields``: ``title, tag, metadata, schema_id, bucket_id``.

        ``key`` makes it once however often it is sent; ``digest`` is the SHA-256 of the bytes in base64.
        """
        headers = {} if key is None else {"Idempotency-Key": f'"{key}"'}
        if digest is not None:
            headers["Content-Digest"] = f"sha-256=:{digest}:"
        return await self.request(
            "POST", "/blobs", content=content, content_type=content_type, params=fields, headers=headers
        )

    # -- buckets

    async def create_bucket(self, name: str, **fields: Any) -> Answer:
        """Make a bucket; ``type="book"`` makes a book of it."""
        return await self.request("POST", "/buckets", json_body={"name": name, **fields})

    async def get_bucket(self, bucket_id: str) -> Answer:
        """Read a bucket."""
        return await self.request("GET", f"/buckets/{part(bucket_id)}")

    def buckets(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List buckets in the order they were made; filters: ``type, parent_id``."""
        return self.pages("/buckets", filters, limit=limit)

    def bucket_blobs(self, bucket_id: str, *, limit: int | None = None) -> AsyncIterator[Json]:
        """List the members of a bucket by position."""
        return self.pages(f"/buckets/{part(bucket_id)}/blobs", limit=limit)

    async def add_to_bucket(self, bucket_id: str, blob_id: str, *, position: int | None = None) -> Answer:
        """Let a blob be in a bucket, at a position or last."""
        body = {} if position is None else {"position": position}
        return await self.request("PUT", f"/buckets/{part(bucket_id)}/blobs/{part(blob_id)}", json_body=body)

    async def remove_from_bucket(self, bucket_id: str, blob_id: str) -> Answer:
        """Take a blob out of a bucket."""
        return await self.request("DELETE", f"/buckets/{part(bucket_id)}/blobs/{part(blob_id)}")

    # -- workflows, providers, schemas: what is registered

    async def register(self, noun: str, document: Mapping[str, Any] | str) -> Answer:
        """Register a workflow, provider or schema (``noun`` in the plural); a text is YAML."""
        return await self.request("POST", f"/{noun}", **_document(document))

    async def validate(self, noun: str, document: Mapping[str, Any] | str) -> Answer:
        """Check a workflow or provider without registering it."""
        return await self.request("POST", f"/{noun}/validate", **_document(document))

    async def get_registered(self, noun: str, reference: str, **params: Any) -> Answer:
        """Read a workflow, provider or schema by its slug or id."""
        return await self.request("GET", f"/{noun}/{part(reference)}", params=params)

    def registered(self, noun: str, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List workflows, providers or schemas: own and published."""
        return self.pages(f"/{noun}", filters, limit=limit)

    async def validate_value(self, schema_id: str, value: Any) -> Answer:
        """Hold a value against a schema: ``valid`` and ``errors``."""
        return await self.request("POST", f"/schemas/{part(schema_id)}/validate", json_body={"data": value})

    async def set_instance(self, provider_id: str, *, if_match: int | str = "*", **fields: Any) -> Answer:
        """Change your activation of a provider: ``active``, ``settings`` (all of them), its policies."""
        return await self.request(
            "PUT", f"/providers/{part(provider_id)}/instance", json_body=fields, if_match=if_match
        )

    async def instance(self, provider_id: str) -> Answer:
        """Read your activation of a provider: whether it is active, its settings, its pace and policies."""
        return await self.request("GET", f"/providers/{part(provider_id)}/instance")

    async def configure(
        self,
        provider_id: str,
        *,
        settings: Mapping[str, Any] | None = None,
        if_match: int | str | None = None,
        **fields: Any,
    ) -> Answer:
        """Change what you name of your activation and leave the rest: ``settings`` join those that there are.

        Others: ``active, debounce, supersede, on_parent_failure, on_conflict``; None leaves it to the provider. Raises
        ApiProblem ``precondition_failed`` if somebody else changed the settings meanwhile.
        """
        if settings is not None:
            before = await self.instance(provider_id)
            fields["settings"] = {**before["settings"], **settings}
            if_match = before["version"] if if_match is None else if_match
        return await self.set_instance(provider_id, if_match="*" if if_match is None else if_match, **fields)

    async def process(self, provider_id: str, blob_id: str, *, wait: float | None = None) -> Answer:
        """Run a provider on a blob, whatever it reacts to by itself."""
        return await self.request(
            "POST", f"/providers/{part(provider_id)}/process", json_body={"blob_id": blob_id}, wait=wait
        )

    async def reprocess(
        self,
        blob_id: str,
        *,
        provider_id: str | None = None,
        subtree: bool = False,
        force: bool = False,
        wait: float | None = None,
    ) -> Answer:
        """Run again what makes a blob, or what a provider makes of it; ``force`` pays for new answers."""
        body = {"scope": "subtree" if subtree else "node", "force": force}
        if provider_id is not None:
            body["provider_id"] = provider_id
        return await self.request("POST", f"/blobs/{part(blob_id)}/reprocess", json_body=body, wait=wait)

    async def reprocess_derivation(
        self, derivation_id: str, *, subtree: bool = False, force: bool = False, wait: float | None = None
    ) -> Answer:
        """Run a derivation again; ``subtree`` everything below as well, ``force`` pays for new answers."""
        body = {"scope": "subtree" if subtree else "node", "force": force}
        return await self.request("POST", f"/derivations/{part(derivation_id)}/reprocess", json_body=body, wait=wait)

    # -- what happened

    async def get_run(self, run_id: str) -> Answer:
        """Read a run with its steps."""
        return await self.request("GET", f"/runs/{part(run_id)}")

    def runs(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List runs, newest first; filters: ``blob_id, provider_id, status, cascade_id``."""
        return self.pages("/runs", filters, limit=limit)

    def dead_letters(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List runs that failed for good, newest first; filters: ``provider_id, code, status``."""
        return self.pages("/dead-letters", filters, limit=limit)

    async def get_dead_letter(self, dead_letter_id: str) -> Answer:
        """Read what failed, on which inputs, why, and what it cost."""
        return await self.request("GET", f"/dead-letters/{part(dead_letter_id)}")

    async def redrive(
        self,
        ids: Sequence[str] | None = None,
        *,
        provider_id: str | None = None,
        code: str | None = None,
        dry_run: bool = False,
    ) -> Answer:
        """Try dead letters again, as one cascade: some by id, or those of a provider or a problem code."""
        wanted = {"ids": None if ids is None else list(ids), "provider_id": provider_id, "code": code}
        body = {name: value for name, value in wanted.items() if value is not None} | {"dry_run": dry_run}
        return await self.request("POST", "/dead-letters/redrive", json_body=body)

    async def upgrade(self, provider_id: str, *, dry_run: bool = False) -> Answer:
        """Make again what was made with an older definition of a provider than it has now."""
        path = f"/providers/{part(provider_id)}/upgrade"
        return await self.request("POST", path, json_body={"dry_run": dry_run})

    async def get_derivation(self, derivation_id: str) -> Answer:
        """Read a derivation: who makes what of which inputs, and in which state it is."""
        return await self.request("GET", f"/derivations/{part(derivation_id)}")

    async def why_derivation(self, derivation_id: str, *, depth: int | None = None) -> Answer:
        """Say why a derivation is as it is, and what would change that."""
        return await self.request("GET", f"/derivations/{part(derivation_id)}/why", params={"depth": depth})

    async def explain(self, provider_id: str, blob_id: str) -> Answer:
        """Say whether a provider reacts to a blob, predicate by predicate."""
        return await self.request("GET", f"/providers/{part(provider_id)}/explain", params={"blob_id": blob_id})

    async def cancel_run(self, run_id: str) -> Answer:
        """End a run; its derivation is held until somebody retries, or a later cause touches it."""
        return await self.request("POST", f"/runs/{part(run_id)}/cancel")

    async def retry_run(self, run_id: str, *, wait: float | None = None) -> Answer:
        """Let what a run failed at, or was cancelled at, run again."""
        return await self.request("POST", f"/runs/{part(run_id)}/retry", wait=wait)

    async def approve_run(self, run_id: str, *, comment: str | None = None, step_id: str | None = None) -> Answer:
        """Let a run go on that waits for a person; ``step_id`` is the step that was shown."""
        given = {"comment": comment, "step_id": step_id}
        body = {name: value for name, value in given.items() if value is not None}
        return await self.request("POST", f"/runs/{part(run_id)}/approve", json_body=body)

    async def reject_run(self, run_id: str, comment: str, *, step_id: str | None = None) -> Answer:
        """End a run that waits for a person, and say why."""
        body = {"comment": comment} | ({} if step_id is None else {"step_id": step_id})
        return await self.request("POST", f"/runs/{part(run_id)}/reject", json_body=body)

    def approvals(self, *, limit: int | None = None) -> AsyncIterator[Json]:
        """List runs that wait for a person, in the order in which they began."""
        return self.pages("/approvals", limit=limit)

    async def cancel_cascade(self, cascade_id: str) -> Answer:
        """End a cascade: its runs end, what is queued is held; its edits stay."""
        return await self.request("POST", f"/cascades/{part(cascade_id)}/cancel")

    async def retry_cascade(self, cascade_id: str, *, wait: float | None = None) -> Answer:
        """Let everything of a cascade that failed or was cancelled run again."""
        return await self.request("POST", f"/cascades/{part(cascade_id)}/retry", wait=wait)

    async def get_cascade(self, cascade_id: str, *, wait: float | None = None) -> Answer:
        """Read a cascade with its runs and deltas."""
        return await self.request("GET", f"/cascades/{part(cascade_id)}", wait=wait)

    async def plan(self, **asked: Any) -> Answer:
        """Say what a write would set in motion: ``blob``, ``blob_id`` with ``patch`` or ``operation``, ``provider``.

        Make that write by ``under_plan(plan["id"])``: it happens only if the plan still holds.
        """
        return await self.request("POST", "/cascades/plan", json_body=asked)

    async def get_plan(self, plan_id: str) -> Answer:
        """Read a plan; once it has been used, with what came of it."""
        return await self.request("GET", f"/cascades/plans/{part(plan_id)}")

    def cascades(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List cascades, newest first; filters: ``status, blob_id``."""
        return self.pages("/cascades", filters, limit=limit)

    async def queue(self, *, cursor: str | None = None, limit: int | None = None, everybody: bool = False) -> Answer:
        """Read what runs, could run and waits, in order; ``everybody``: how much by user, as an admin."""
        params = {"cursor": cursor, "limit": limit, "scope": "all" if everybody else None}
        return await self.request("GET", "/queue", params=params)

    async def events(
        self, *, cursor: str | None = None, limit: int | None = None, types: Sequence[str] = (), **filters: Any
    ) -> Answer:
        """Read events from ``cursor`` on; ``next_cursor`` of the answer goes on from there, whenever."""
        params = {"cursor": cursor, "limit": limit, "type": list(types) or None, **filters}
        return await self.request("GET", "/events", params=params)

    async def quota(self) -> Answer:
        """Say how many bytes are used, reserved, allowed and free."""
        return await self.request("GET", "/me/quota")

    async def set_limits(self, user_id: str, **limits: int | None) -> Answer:
        """Say, as an admin, what a user may have; None: no limit.

        ``bytes_quota``, ``runs_limit`` (at a time; None: as the settings say), ``budget_limit`` (micro-dollars).
        """
        return await self.request("PUT", f"/users/{part(user_id)}/limits", json_body=limits)

    async def budget(self) -> Answer:
        """Say what is limited, spent, reserved and left, in micro-dollars."""
        return await self.request("GET", "/budget")

    async def set_budget(self, limit: int | None, *, if_match: int | str = "*") -> Answer:
        """Set your limit in micro-dollars, None: no limit; who waits for money goes on as far as it reaches."""
        return await self.request("PUT", "/budget", json_body={"limit": limit}, if_match=if_match)

    async def top_up(self, amount: int) -> Answer:
        """Raise your limit by so many micro-dollars."""
        return await self.request("POST", "/budget/top-up", json_body={"amount": amount})

    def charges(self, *, limit: int | None = None, **filters: Any) -> AsyncIterator[Json]:
        """List what paid steps did cost, newest first; filters: ``cascade_id, run_id, provider_id``."""
        return self.pages("/budget/charges", filters, limit=limit)

    async def me(self) -> Answer:
        """Say whose key this is and what it allows."""
        return await self.request("GET", "/me")


def _document(document: Mapping[str, Any] | str) -> Json:
    if isinstance(document, str):
        return {"content": document.encode(), "content_type": YAML}
    return {"json_body": document}
