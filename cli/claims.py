"""The demo's claims about its own story, held against the database and the API."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from cli.evidence import Evidence, Row
from cli.story import BY_HAND, MANUSCRIPT, Story
from sdk.client import Studio

CHAIN = ("outline-generator", "text-expansion", "style-editor", "grammar-checker", "summarizer")
JOIN = "book-compiler"
REQUESTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim, whether it holds, and what was counted."""

    text: str
    holds: bool
    detail: str


async def check(studio: Studio, story: Story, evidence: Evidence) -> list[Claim]:
    """Hold every claim against the evidence."""
    claims = [_complete(story, evidence), _fresh(evidence), _none_missed(evidence), _none_twice(evidence)]
    claims += [_one_delta_each(evidence), *_exactly_affected(story, evidence), _killed(story, evidence)]
    claims += [await _replay(studio, evidence), await _kept(studio, story), _events_told(evidence)]
    return claims


def _complete(story: Story, evidence: Evidence) -> Claim:
    found = Counter(row["provider"] for row in evidence.derivations)
    wanted = Counter(dict.fromkeys(CHAIN, len(story.chapters)) | {JOIN: 1})
    missing = wanted - found
    counted = f"{found.total()} derivations: {len(CHAIN)} for each of {len(story.chapters)} chapters, and the book"
    return Claim("The whole book was derived", not missing, f"missing {dict(missing)}" if missing else counted)


def _fresh(evidence: Evidence) -> Claim:
    names = ("unsettled", "hold", "run_id", "pending_inputs")
    settled = sum(not any(row[name] for name in names) for row in evidence.derivations)
    total = len(evidence.derivations)
    detail = f"{settled} of {total} settled, {total - settled} waiting, held or running"
    return Claim("Every derivation is fresh", 0 < total == settled, detail)


def _none_missed(evidence: Evidence) -> Claim:
    count = len(evidence.out_of_date)
    return Claim("None was missed", count == 0, f"{count} inputs are newer than what was last used")


def _none_twice(evidence: Evidence) -> Claim:
    settled = sum(row["status"] == "settled" for row in evidence.runs)
    others = Counter(row["status"] for row in evidence.runs if row["status"] != "settled")
    more = "".join(f", {count} {status}" for status, count in others.items())
    detail = f"{settled} settled runs{more}; {len(evidence.twice)} settled the same inputs again"
    return Claim("None ran twice for the same inputs", settled > 0 and not evidence.twice, detail)


def _one_delta_each(evidence: Evidence) -> Claim:
    deltas = Counter(row["deltas"] for row in evidence.runs if row["status"] == "settled")
    stray = sum(row["deltas"] for row in evidence.runs if row["status"] != "settled")
    same = f", {deltas[0]} made the same again" if deltas[0] else ""
    holds = set(deltas) <= {0, 1} and stray == 0 and deltas[1] > 0
    detail = f"{deltas[1]} runs applied one delta{same}; {stray} deltas of unsettled runs"
    return Claim("One delta per derivation and input version", holds, detail)


def _exactly_affected(story: Story, evidence: Evidence) -> list[Claim]:
    """After each edit of a title: what stems from that chapter ran once, nothing else did."""
    claims = []
    derived = {blob: str(node["derivation_id"]) for blob, node in story.graph.nodes.items() if node["derivation_id"]}
    for number, (cascade, chapter) in enumerate(story.edits.items(), 1):
        below = {derivation for blob, derivation in derived.items() if chapter in story.graph.sources(blob)}
        settled = [row for row in evidence.runs if str(row["cascade_id"]) == cascade and row["status"] == "settled"]
        ran = Counter(str(row["derivation_id"]) for row in settled)
        cut_off = evidence.cut_off.get(cascade, 0)
        others = len(set(ran) - below)
        holds = not others and set(ran.values()) == {1} and len(ran) + cut_off == len(below)
        unchanged = f", {cut_off} had nothing new" if cut_off else ""
        total = len(evidence.derivations) - len(below)
        detail = f"{len(ran)} of {len(below)} ran, each once{unchanged}; of the {total} others {others}"
        claims.append(Claim(f"Title {number} moved exactly what follows from it", holds, detail))
    return claims


def _killed(story: Story, evidence: Evidence) -> Claim:
    status = next((row["status"] for row in evidence.runs if str(row["id"]) == story.killed_run), "not found")
    holds = story.killed_pid is not None and status in {"settled", "lost", "superseded"}
    detail = f"worker {story.killed_pid} died in the middle of a run; that run is {status}"
    return Claim("The kill lost nothing", holds, detail if story.killed_pid else "nothing was killed")


async def _replay(studio: Studio, evidence: Evidence) -> Claim:
    """Materialise every version from its deltas, by the API, and compare it byte for byte with what was recorded."""
    gate = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def differs(row: Row) -> bool:
        async with gate:
            body = (await studio.get_blob(str(row["blob_id"]), version=row["to_version"])).body
        stale = row["to_version"] == row["version"] and row["document_hash"] != row["current_hash"]
        return bool(stale or document_hash(body) != row["document_hash"])

    wrong = sum(await asyncio.gather(*(differs(row) for row in evidence.versions)))
    blobs: dict[UUID, list[int]] = {}
    for row in evidence.versions:
        blobs.setdefault(row["blob_id"], []).append(row["to_version"])
    gaps = sum(versions != list(range(1, len(versions) + 1)) for versions in blobs.values())
    detail = f"{len(evidence.versions)} versions of {len(blobs)} blobs: {wrong} differ, {gaps} have gaps"
    return Claim("Replaying the deltas gives the state", bool(blobs) and wrong == 0 and gaps == 0, detail)


def document_hash(body: dict[str, Any]) -> str:
    """Return the hash of a blob's document, from its JSON alone: canonical bytes, SHA-256."""
    names = ("content_type", "content", "data", "title", "tags", "metadata")
    document = {name: body[name] for name in names if name in body}
    return f"sha256:{hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


async def _kept(studio: Studio, story: Story) -> Claim:
    manuscript = next(blob for blob, node in story.graph.nodes.items() if node["schema_id"] == MANUSCRIPT)
    chapter, book = await asyncio.gather(studio.get_blob(story.fixed_blob), studio.get_blob(manuscript))
    holds = BY_HAND in chapter["data"]["text"].split("\n\n") and BY_HAND in book["data"]["text"]
    detail = f"in its chapter (version {chapter['version']}) and in the book (version {book['version']})"
    return Claim("The paragraph written by hand is still there", holds, detail if holds else "it is gone")


def _events_told(evidence: Evidence) -> Claim:
    events = evidence.events
    holds = 0 < events["events"] == events["last"] and events["waiting"] == 0
    detail = f"{events['events']} events, numbered to {events['last']}, {events['waiting']} not yet published"
    return Claim("Every change was told to others", holds, detail)
