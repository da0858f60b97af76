"""One answer of every operation that answers JSON, from the real application: what ``api/examples.json`` is cut from.

``test_examples.py`` compares the shapes of the two, and writes the file anew when told to.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2

from activities.cascades import CascadeActivities, CascadeRef
from domain.prices import StepCharge
from domain.works import StepRecord
from storage.database import Database
from storage.schedule import PostgresSchedule
from tests.api.schedule import claim, plan_all
from tests.api.test_workflows import SHOUT
from tests.conftest import BASE, Person

Answers = dict[str, Any]

DRAFT = {"schema_id": "text-input-v1", "data": {"content": "The ship sailed into the storm."}, "title": "Chapter 1"}
NOTE = {"name": "note", "definition": {"type": "object", "properties": {"text": {"type": "string"}}}}


class Gathering:
    """Asks, and keeps the first answer of each operation."""

    def __init__(self, client: httpx2.AsyncClient, chief: httpx2.AsyncClient) -> None:
        self._clients = {False: client, True: chief}
        self.answers: Answers = {}

    async def __call__(self, name: str, call: str, body: Any = None, *, admin: bool = False, **headers: str) -> Any:
        """Send ``METHOD path``; the answer counts for operation ``name`` unless that is empty."""
        method, path = call.split(" ")
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        prefix = "" if path.startswith("/problems") else BASE
        answer = await self._clients[admin].request(method, f"{prefix}{path}", json=body, headers=given)
        assert answer.is_success, (name, answer.text)
        found = answer.json() if answer.content else None
        if name and found is not None:
            self.answers.setdefault(name, found)
        return found


async def gather(
    client: httpx2.AsyncClient, chief: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> Answers:
    """Walk through the API as a writer would, a provider developer, an operator."""
    ask = Gathering(client, chief)
    await _catalogue(ask)
    blob = await ask("blobs_create", "POST /blobs", DRAFT)
    await _blobs(ask, blob["id"])
    await _uploads(ask)
    await _buckets(ask, blob["id"])
    await ask("providers_process", "POST /providers/text-expansion/process", {"blob_id": blob["id"]})
    await plan_all(database, schedule, user.user_id)
    runs = await claim(schedule, user.user_id, blob["cascade_id"])
    await schedule.begin_step(user.user_id, runs[0], "analyze-style", 1, "api-call")
    paid = StepCharge(
        attempt=1, amount=42, service="ai-service", model="small", prompt_tokens=100, completion_tokens=20
    )
    done = StepRecord(step_id="analyze-style", entries={}, usage={"cost": 42})
    await schedule.end_step(user.user_id, runs[0], done, charge=paid)
    await schedule.fail(user.user_id, runs[0], code="service_rejected", detail="No such model.", usage={"tokens": 3})
    await claim(schedule, user.user_id, blob["cascade_id"])
    await _operation(ask, blob, runs[0])
    await _derived(ask, user, database, schedule)
    await _decisions(ask, user, database, schedule)
    await _people(ask)
    return ask.answers


async def _catalogue(ask: Gathering) -> None:
    await ask("schemas_register", "POST /schemas", NOTE)
    await ask("schemas_list", "GET /schemas?limit=1")
    await ask("schemas_get", "GET /schemas/note-v1")
    await ask("schemas_list_versions", "GET /schemas/note-v1/versions")
    await ask("schemas_validate", "POST /schemas/note-v1/validate", {"data": {"text": 7}})
    await ask("workflows_register", "POST /workflows", SHOUT)
    await ask("workflows_validate", "POST /workflows/validate", {**SHOUT, "steps": [{"id": "one", "type": "dance"}]})
    await ask("workflows_list", "GET /workflows?limit=1")
    await ask("workflows_get", "GET /workflows/wf-shout")
    await ask("providers_register", "POST /providers", {"id": "shout", "workflow_id": "wf-shout"})
    await ask("providers_validate", "POST /providers/validate", {"id": "shout", "workflow_id": "wf-nowhere"})
    await ask("providers_list", "GET /providers?limit=1")
    await ask("providers_get", "GET /providers/text-expansion")
    await ask("providers_get_instance", "GET /providers/summarizer/instance")
    await ask("providers_put_instance", "PUT /providers/summarizer/instance", {"active": False}, if_match="*")
    await ask("providers_list_schemas", "GET /providers/text-expansion/schemas")


async def _blobs(ask: Gathering, blob: str) -> None:
    edit = {"delta": {"operation": "update", "patch": {"title": "Chapter One"}}}
    await ask("blobs_update", f"PATCH /blobs/{blob}", edit)
    await ask("blobs_get", f"GET /blobs/{blob}")
    await ask("blobs_list", "GET /blobs?limit=1")
    await ask("contents_put", f"PUT /blobs/{blob}/content", DRAFT["data"], if_match="*")
    await ask("blobs_history", f"GET /blobs/{blob}/history?limit=1")
    await ask("blobs_versions", f"GET /blobs/{blob}/versions?limit=1")
    await ask("blobs_version", f"GET /blobs/{blob}/versions/1")
    deltas = await ask("blobs_deltas", f"GET /blobs/{blob}/deltas?limit=1")
    items = [{"op": "create", "content": "A calm."}, {"op": "update", "id": blob, "patch": {"tags": ["sea"]}}]
    await ask("blobs_batch", "POST /blobs/batch", {"items": items})
    await ask("blobs_batch_get", "POST /blobs/batch-get", {"ids": [blob]})
    await ask("deltas_get", f"GET /deltas/{deltas['data'][0]['id']}")
    await _versions(ask, blob)


async def _versions(ask: Gathering, blob: str) -> None:
    await ask("blobs_revert", f"POST /blobs/{blob}/revert", {"version": 1})
    await ask("blobs_restore", f"POST /blobs/{blob}/restore")
    await ask("blobs_diff", f"GET /blobs/{blob}/diff?from=1&to=2")
    await ask("blobs_compare", f"GET /compare?left={blob}&right={blob}@2")
    await ask("deltas_append", f"POST /blobs/{blob}/deltas", {"patch": {"tags": ["storm"]}})
    offers = [
        await ask("", f"POST /blobs/{blob}/deltas", {"patch": {"title": title}, "proposed": True})
        for title in ("The Storm", "The Calm")
    ]
    await ask("deltas_accept", f"POST /deltas/{offers[0]['id']}/accept")
    await ask("deltas_reject", f"POST /deltas/{offers[1]['id']}/reject")


async def _uploads(ask: Gathering) -> None:
    upload = await ask("uploads_begin", "POST /uploads", {"content_type": "application/octet-stream", "size": 0})
    await ask("uploads_get", f"GET /uploads/{upload['id']}")
    await ask("uploads_complete", f"POST /uploads/{upload['id']}/complete")


async def _buckets(ask: Gathering, blob: str) -> None:
    bucket = (await ask("buckets_create", "POST /buckets", {"name": "The Storm", "type": "book"}))["id"]
    await ask("buckets_update", f"PATCH /buckets/{bucket}", {"metadata": {"genre": "novel"}})
    await ask("buckets_get", f"GET /buckets/{bucket}")
    await ask("buckets_list", "GET /buckets?limit=1")
    await ask("buckets_add_blob", f"POST /buckets/{bucket}/blobs", {"blob_id": blob})
    await ask("buckets_put_blob", f"PUT /buckets/{bucket}/blobs/{blob}", {"position": 2})
    await ask("buckets_list_blobs", f"GET /buckets/{bucket}/blobs")


async def _operation(ask: Gathering, blob: dict[str, Any], run: UUID) -> None:
    await ask("cascades_list", "GET /cascades?limit=1")
    await ask("queue_list", "GET /queue?limit=1")
    edit = {"blob_id": blob["id"], "patch": [{"op": "replace", "path": "/title", "value": "The Storm Ahead"}]}
    planned = await ask("cascades_plan", "POST /cascades/plan", edit)
    await ask("cascades_get_plan", f"GET /cascades/plans/{planned['id']}")
    await ask("cascades_get", f"GET /cascades/{blob['cascade_id']}")
    await ask("runs_list", "GET /runs?limit=1")
    await ask("runs_get", f"GET /runs/{run}")
    await ask("providers_health", "GET /providers/text-expansion/health")
    await ask("events_list", "GET /events?limit=1")
    await ask("blobs_dag", f"GET /blobs/{blob['id']}/dag")
    await ask("providers_explain", f"GET /providers/text-expansion/explain?blob_id={blob['id']}")
    child = await ask("", "POST /blobs", {"content": "A child of hers.", "parent_id": blob["id"]})
    await ask("blobs_children", f"GET /blobs/{blob['id']}/children")
    await ask("blobs_descendants", f"GET /blobs/{blob['id']}/descendants")
    await ask("blobs_ancestors", f"GET /blobs/{child['id']}/ancestors")


async def _derived(ask: Gathering, user: Person, database: Database, schedule: PostgresSchedule) -> None:
    """What only a derived blob answers: the provider shouts at once, here."""
    source = await ask("", "POST /blobs", {"content": "the ship sailed"})
    await ask("", "POST /providers/shout/process", {"blob_id": source["id"]})
    activities = CascadeActivities(schedule, window=100, batch=50, budget=timedelta(seconds=5))
    for cascade_id in await plan_all(database, schedule, user.user_id):
        await activities.advance(CascadeRef(user_id=str(user.user_id), cascade_id=str(cascade_id)))
    [derived] = (await ask("", "GET /blobs?provider_id=shout&limit=1"))["data"]
    why = await ask("blobs_why", f"GET /blobs/{derived['id']}/why")
    await ask("derivations_get", f"GET /derivations/{why['derivation_id']}")
    await ask("derivations_why", f"GET /derivations/{why['derivation_id']}/why")
    await ask("blobs_reprocess", f"POST /blobs/{derived['id']}/reprocess", {"scope": "subtree"})
    await ask("derivations_reprocess", f"POST /derivations/{why['derivation_id']}/reprocess", {"force": True})
    await ask("blobs_reset", f"POST /blobs/{derived['id']}/reset")
    await ask("providers_upgrade", "POST /providers/shout/upgrade", {"dry_run": True})
    await _failed(ask, user, database, schedule)


async def _failed(ask: Gathering, user: Person, database: Database, schedule: PostgresSchedule) -> None:
    """What only a run that failed for good leaves behind."""
    source = await ask("", "POST /blobs", {"content": "the ship sank"})
    await ask("", "POST /providers/shout/process", {"blob_id": source["id"]})
    for cascade_id in await plan_all(database, schedule, user.user_id):
        for run in (await schedule.claim(user.user_id, cascade_id, window=10)).runs:
            await schedule.fail(user.user_id, run.run_id, code="expression_failed", detail="No.", usage={})
    letter = (await ask("dead_letters_list", "GET /dead-letters?limit=1"))["data"][0]["id"]
    await ask("dead_letters_get", f"GET /dead-letters/{letter}")
    await ask("dead_letters_redrive", "POST /dead-letters/redrive", {"ids": [letter], "dry_run": True})
    await ask("dead_letters_redrive_one", f"POST /dead-letters/{letter}/redrive")


async def _decisions(ask: Gathering, user: Person, database: Database, schedule: PostgresSchedule) -> None:
    """What a person says to runs under way: they wait at a step as one that asks would."""

    async def parked() -> UUID:
        source = await ask("", "POST /blobs", DRAFT)
        await plan_all(database, schedule, user.user_id)
        run, *_ = await claim(schedule, user.user_id, source["cascade_id"])
        await schedule.park(user.user_id, run, "review", 1, "May this be published?")
        return run

    run = await parked()
    await ask("approvals_list", "GET /approvals?limit=1")
    await ask("runs_approve", f"POST /runs/{run}/approve", {"comment": "Well said.", "step_id": "review"})
    await ask("runs_cancel", f"POST /runs/{run}/cancel")
    await ask("runs_retry", f"POST /runs/{run}/retry")
    await ask("runs_reject", f"POST /runs/{await parked()}/reject", {"comment": "The tone is wrong."})
    source = await ask("", "POST /blobs", DRAFT)
    await ask("cascades_cancel", f"POST /cascades/{source['cascade_id']}/cancel")
    await ask("cascades_retry", f"POST /cascades/{source['cascade_id']}/retry")


async def _people(ask: Gathering) -> None:
    await ask("users_me", "GET /me")
    await ask("users_validate_token", "GET /validate-token")
    await ask("users_me_state", "GET /me/state")
    await ask("users_me_quota", "GET /me/quota")
    await ask("budget_put", "PUT /budget", {"limit": 5_000_000}, if_match="*")
    await ask("budget_top_up", "POST /budget/top-up", {"amount": 1_000_000})
    await ask("budget_get", "GET /budget")
    await ask("budget_charges", "GET /budget/charges?limit=1")
    ada = await ask("users_create", "POST /users", {"name": f"ada-{UUID(int=7)}"}, admin=True)
    await ask("users_put_limits", f"PUT /users/{ada['user_id']}/limits", {"bytes_quota": 10**10}, admin=True)
    await ask("api_keys_create", "POST /api-keys", {"name": "reader", "scopes": ["blobs:read"]})
    await ask("api_keys_list", "GET /api-keys?limit=1")
    await ask("problems_list", "GET /problems")
    await ask("problems_get", "GET /problems/not_found")
    for probe in ("healthz", "readyz", "version"):
        await ask(f"platform_{probe}", f"GET /{probe}")
