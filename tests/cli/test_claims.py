"""The demo's claims: each holds on good evidence, and each fails on the evidence that denies it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx2
import pytest

from cli.claims import CHAIN, JOIN, Claim, check, document_hash
from cli.evidence import Evidence, Row
from cli.graph import Graph
from cli.story import BY_HAND, CHECKED, MANUSCRIPT, Story
from domain.documents import Document
from domain.documents import document_hash as stored_hash
from sdk.client import Studio

CHAPTERS = ("a", "b")
ROOT, BOOK_BLOB = UUID(int=1), UUID(int=2)


def node(blob: str, provider: str | None, schema: str = "x-v1") -> dict[str, Any]:
    return {
        "blob_id": blob, "title": blob, "schema_id": schema, "version": 1, "level": 0, "provider_id": provider,
        "derivation_id": provider and f"d-{blob}", "run_id": None, "state": "fresh", "reason": "", "blocked_by": [],
    }  # fmt: skip


def graph() -> Graph:
    nodes, edges = [node("book", JOIN, MANUSCRIPT)], []
    for chapter in CHAPTERS:
        nodes.append(node(chapter, None))
        for provider in CHAIN:
            nodes.append(node(f"{chapter}-{provider}", provider, CHECKED if provider == "grammar-checker" else "x-v1"))
            edges.append((chapter, f"{chapter}-{provider}"))
        edges.append((f"{chapter}-grammar-checker", "book"))
    return Graph({found["blob_id"]: found for found in nodes}, edges)


def story() -> Story:
    return Story(
        user_id="u", bucket_id="k", chapters=list(CHAPTERS), fixed_blob="a-grammar-checker", edits={"c1": "a"},
        killed_pid=7, killed_run="run-a-summarizer", graph=graph(),
    )  # fmt: skip


def evidence(**changed: Any) -> Evidence:
    derived = [(blob, found["provider_id"]) for blob, found in graph().nodes.items() if found["provider_id"]]
    settled: Row = {"unsettled": False, "hold": None, "run_id": None, "pending_inputs": 0}
    good: dict[str, Any] = {
        "derivations": [{"id": f"d-{blob}", "provider": provider, **settled} for blob, provider in derived],
        "out_of_date": [],
        "twice": [],
        "runs": [run(blob) for blob, _ in derived],
        "versions": [version(1), version(2)],
        "cut_off": {},
        "events": {"events": 9, "last": 9, "waiting": 0},
    }
    return Evidence(**good | changed)


def run(blob: str, **changed: Any) -> dict[str, Any]:
    cascade = "c1" if blob.startswith("a-") or blob == "book" else "c0"
    made = {"id": f"run-{blob}", "derivation_id": f"d-{blob}", "cascade_id": cascade, "status": "settled", "deltas": 1}
    return made | changed


def version(number: int, **changed: Any) -> dict[str, Any]:
    digest = document_hash(at(number))
    current = document_hash(at(2))
    made = {"blob_id": ROOT, "to_version": number, "document_hash": digest, "version": 2, "current_hash": current}
    return made | changed


def at(number: int) -> dict[str, Any]:
    return {"content_type": "text/plain", "content": f"version {number}", "title": "", "tags": [], "metadata": {}}


def studio(text: str = f"Before.\n\n{BY_HAND}") -> Studio:
    """An API whose answers are known: what is examined here are the claims."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if "version" in request.url.params:
            return httpx2.Response(200, json=at(int(request.url.params["version"])))
        return httpx2.Response(200, json={"version": 3, "data": {"text": text}})

    return Studio("http://studio.test", transport=httpx2.MockTransport(handle))


async def denied(told: Story, found: Evidence, client: Studio | None = None) -> list[str]:
    async with client or studio() as api:
        claims: list[Claim] = await check(api, told, found)
    return [claim.text for claim in claims if not claim.holds]


async def test_every_claim_holds_on_good_evidence() -> None:
    assert await denied(story(), evidence()) == []


BAD: dict[str, dict[str, Any]] = {
    "The whole book was derived": {"derivations": evidence().derivations[1:]},
    "Every derivation is fresh": {
        "derivations": [{**evidence().derivations[0], "hold": "failed"}, *evidence().derivations[1:]]
    },
    "None was missed": {"out_of_date": [{"id": "d"}]},
    "None ran twice for the same inputs": {"twice": [{"derivation_id": "d", "count": 2}]},
    "One delta per derivation and input version": {"runs": [*evidence().runs, run("z", deltas=1, status="superseded")]},
    "Title 1 moved exactly what follows from it": {"runs": [*evidence().runs, run("b-summarizer", cascade_id="c1")]},
    "The kill lost nothing": {
        "runs": [run("a-summarizer", status="failed", deltas=0), run("a-summarizer", id="again"), *(
            found for found in evidence().runs if found["id"] != "run-a-summarizer"
        )]
    },
    "Replaying the deltas gives the state": {"versions": [version(1), version(2, document_hash="sha256:other")]},
    "Every change was told to others": {"events": {"events": 8, "last": 9, "waiting": 0}},
}  # fmt: skip


@pytest.mark.parametrize("text", BAD)
async def test_the_claim_fails_on_evidence_that_denies_it_and_no_other_does(text: str) -> None:
    assert await denied(story(), evidence(**BAD[text])) == [text]


async def test_a_run_too_few_or_twice_denies_that_exactly_the_affected_ran() -> None:
    wanted = ["Title 1 moved exactly what follows from it"]
    runs = [found for found in evidence().runs if found["id"] != "run-a-style-editor"]
    assert await denied(story(), evidence(runs=runs)) == wanted
    assert await denied(story(), evidence(runs=[*evidence().runs, run("a-style-editor", id="again")])) == wanted
    assert await denied(story(), evidence(runs=runs, cut_off={"c1": 1})) == []


async def test_a_gap_in_the_versions_denies_replay() -> None:
    assert await denied(story(), evidence(versions=[version(2)])) == ["Replaying the deltas gives the state"]


async def test_a_lost_paragraph_and_a_kill_that_never_came_are_denied() -> None:
    lost = await denied(story(), evidence(), studio("Only the machine's."))
    assert lost == ["The paragraph written by hand is still there"]
    unhurt = story()
    unhurt.killed_pid = unhurt.killed_run = None
    assert await denied(unhurt, evidence()) == ["The kill lost nothing"]


def test_the_hash_of_a_document_is_the_one_that_is_stored() -> None:
    root = {
        "content_type": "application/json",
        "data": {"b": 1.0, "a": "ü\u0000"},
        "title": "T",
        "tags": ["x"],
        "metadata": {},
    }
    shown = {**root, "id": "more", "version": 3, "preview": "…"}
    assert document_hash(shown) == stored_hash(Document.parse(root).to_bytes())
