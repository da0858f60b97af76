"""Because of what a version exists: from the delta down to the people who set it off. Pure, over rows of a story.

A row (``storage/whys.py``) is one version with its delta, run and cascade, as far as there are any; what is told of it
is data, and a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from domain.prices import money

PREFIX = "/api/v1/studio"
NAME_CHARACTERS = 60
POINTERS_MAX = 20
"""Places of conflicts that are listed."""
INPUTS_NAMED_MAX = 5
"""Inputs that a sentence, or the actions, name."""
SECOND_MS = 1000

Row = Mapping[str, Any]
Json = dict[str, Any]

CAUSES = {
    "create": "{actor} made {target}",
    "edit": "{actor} edited {target}",
    "delete": "{actor} deleted {target}",
    "restore": "{actor} restored {target}",
    "batch": "{actor} changed several blobs at once, {target} among them",
    "bucket": "{actor} changed what is in {target}",
    "provider": "{actor} registered, switched or configured {target}",
    "process": "{actor} asked for {target} to be processed",
    "reprocess": "{actor} asked for {target} to be made again",
    "redrive": "{actor} let what had failed run again",
    "provider_change": "{actor} brought outputs of {target} to its newest definition",
    "top_up": "{actor} topped up the budget",
}
"""What set a cascade in motion, by ``cascades.cause``."""

OPERATIONS = {
    "create": "made it",
    "update": "edited it",
    "transform": "edited it",
    "delete": "deleted it",
    "revert": "took it back to an earlier version",
    "restore": "restored it",
}
"""What a person did to a blob, by operation."""


@dataclass(frozen=True, slots=True)
class Story:
    """What is known: rows by (blob, version). Those deeper than ``depth`` only lend their names."""

    rows: Mapping[tuple[str, int], Row]
    depth: int

    @classmethod
    def of(cls, rows: Sequence[Row], depth: int) -> Story:
        """Gather the rows of one answer."""
        return cls({(str(row["blob_id"]), int(row["version"])): row for row in rows}, depth)


def name_of(row: Row) -> str:
    """Name a blob for people: its title, else how it begins, else its schema, else its id."""
    text = row.get("title") or (row.get("preview") or "").strip().partition("\n")[0]
    text = text or row.get("schema_id") or f"blob {row['blob_id']}"
    return f"“{text if len(text) <= NAME_CHARACTERS else text[: NAME_CHARACTERS - 1].rstrip() + '…'}”"


def why_url(blob_id: object, version: object = None) -> str:
    """Return where the same question about another version is answered."""
    return f"{PREFIX}/blobs/{blob_id}/why" + ("" if version is None else f"?version={version}")


def actor_of(actor: str | None, row: Row) -> Json:
    """Say who acted: a person by name, or a provider by its id."""
    kind, _, rest = (actor or "").partition(":")
    if kind == "provider":
        return {"kind": "provider", "id": rest, "name": rest}
    return {"kind": "user", "id": rest or None, "name": row.get("user_name") or rest or "a person"}


def because(story: Story, blob_id: object, version: int) -> Json | None:
    """Return what a version comes from, its inputs inside it, each version told once; None if that is not known."""
    return _Telling(story).version(str(blob_id), version)


class _Telling:
    """One answer: a version that was told stands for itself afterwards."""

    def __init__(self, story: Story) -> None:
        self._rows = story.rows
        self._depth = story.depth
        self._told: set[tuple[str, int]] = set()

    def version(self, blob_id: str, version: int) -> Json | None:
        row = self._rows.get((blob_id, version))
        if row is None or row.get("delta_id") is None or row["depth"] > self._depth:
            return None
        if (blob_id, version) in self._told:
            return None
        self._told.add((blob_id, version))
        found: Json = {
            "blob_id": row["blob_id"],
            "name": name_of(row),
            "version": version,
            "operation": row["operation"],
            "at": row["applied_at"],
            "delta_id": row["delta_id"],
            "actor": actor_of(row["actor"], row),
            "accepted_by": actor_of(row["resolved_by"], row) if _accepted(row) else None,
            "run": _run(row),
            "cascade": _cascade(row),
            "cause": _cause(row),
            "merge": _merge(row),
            "words": sentence(row, self._rows),
        }
        found["inputs"] = [self._input(one) for one in _inputs(row)]
        found["inputs_total"] = row.get("inputs_total") or 0
        before = self._before(row)
        return found if before is None else {**found, "before": before}

    def _input(self, one: Row) -> Json:
        known = self._rows.get((str(one["blob_id"]), int(one["version"])))
        shown = {
            "blob_id": one["blob_id"],
            "version": one["version"],
            "name": name_of(known or one),
            "role": one.get("role"),
            "position": one.get("position"),
            "why_url": why_url(one["blob_id"], one["version"]),
        }
        return {**shown, "because": self.version(str(one["blob_id"]), int(one["version"]))}

    def _before(self, row: Row) -> Json | None:
        """What a machine had made here before a person changed it."""
        if row["run_id"] is not None:
            return None
        earlier = [
            version
            for (blob, version), one in self._rows.items()
            if blob == str(row["blob_id"]) and version < row["version"] and one.get("run_id") is not None
        ]
        return self.version(str(row["blob_id"]), max(earlier)) if earlier else None


def _accepted(row: Row) -> bool:
    return row["run_id"] is not None and row["operation"] == "update"


def _inputs(row: Row) -> Sequence[Row]:
    return (row.get("inputs") or []) if row["run_id"] is not None else []


def _run(row: Row) -> Json | None:
    run = row.get("run")
    if run is None:
        return None
    usage = run.get("usage") or {}
    return {
        "id": run["id"],
        "derivation_id": run["derivation_id"],
        "label": run["label"],
        "attempt": run["attempt"],
        "status": run["status"],
        "execution": run["execution"],
        "provider_id": run.get("provider_id"),
        "provider_name": run.get("provider_name"),
        "definition": {"digest": run["definition_digest"], "version": run.get("definition_version")},
        "settings_digest": run["settings_digest"],
        "model": usage.get("model"),
        "tokens": usage.get("total_tokens") or usage.get("tokens") or 0,
        "cost": run.get("charged"),
        "usage": usage,
        "reused": run.get("reused") or [],
        "decisions": [{**one, "actor": actor_of(one["actor"], row)} for one in run.get("decisions") or []],
        "started_at": run["started_at"],
        "ended_at": run["ended_at"],
        "duration_ms": duration_ms(run),
        "waited_ms": run.get("waited_ms") or 0,
        "url": f"{PREFIX}/runs/{run['id']}",
    }


def duration_ms(run: Row) -> int | None:
    """Return how long a run took, not counting what it waited for people; None while it is under way."""
    if not run.get("ended_at"):
        return None
    passed = (_time(run["ended_at"]) - _time(run["started_at"])).total_seconds() * 1000
    return round(passed - (run.get("waited_ms") or 0))


def _time(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _cascade(row: Row) -> Json | None:
    cascade = row.get("cascade")
    if cascade is None:
        return None
    names = ("id", "cause", "label", "status", "created_at")
    shown = {name: cascade[name] for name in names}
    return {**shown, "actor": actor_of(cascade["actor"], row), "url": f"{PREFIX}/cascades/{cascade['id']}"}


def _cause(row: Row) -> Json | None:
    """What set it off: the delta of a person, or the fact that their cascade follows up."""
    cascade, delta = row.get("cascade"), row.get("cause")
    if cascade is None:
        return None
    shown = None
    if delta is not None:
        names = ("delta_id", "blob_id", "version", "operation", "at")
        why = why_url(delta["blob_id"], delta["version"])
        shown = {**{name: delta[name] for name in names}, "name": name_of(delta), "why_url": why}
    return {
        "kind": cascade["cause"],
        "actor": actor_of(cascade["actor"], row),
        "words": cause_words(row),
        "delta": shown,
    }


def cause_words(row: Row) -> str:
    """Say who did what to set a cascade in motion; a cause that has no words yet is said by its name."""
    cascade, delta = row["cascade"], row.get("cause")
    target = f"“{cascade['label']}”" if cascade.get("label") else "it"
    if cascade.get("provider_id") and cascade["cause"] in {"provider", "provider_change"}:
        target = f"provider {cascade['provider_id']}"
    elif delta is not None:
        target = f"{name_of(delta)} (version {delta['version']})"
    form = CAUSES.get(cascade["cause"], "{actor} set off a cascade (" + str(cascade["cause"]) + ")")
    return form.format(actor=actor_of(cascade["actor"], row)["name"], target=target)


def _merge(row: Row) -> Json | None:
    """What of people's words is in a machine's version; None where no machine wrote."""
    if row["run_id"] is None:
        return None
    kept = [{**one, "actor": actor_of(one["actor"], row)} for one in row.get("kept") or []]
    pure = row["machine_hash"] is None or row["document_hash"] == row["machine_hash"]
    places = conflicts(row.get("conflicts"))
    return {"pure": pure, "kept": kept, "conflicted": bool(row.get("conflicted")), "conflicts": places}


def conflicts(text: str | None) -> list[str]:
    """Return the places of recorded conflicts, the first of them, as JSON Pointers."""
    found = json.loads(text) if text else []
    return [str(one.get("pointer", "")) for one in found[:POINTERS_MAX]]


# --- in words -------------------------------------------------------------------------------------------------------


def sentence(row: Row, known: Mapping[tuple[str, int], Row]) -> str:
    """Say where a version comes from, in one or more sentences; ``known`` are rows that name its inputs."""
    head = f"Version {row['version']} of {name_of(row)}"
    if row["run_id"] is None:
        return _by_hand(head, row)
    parts = (_by_machine(head, row), _read(row, known), _decided(row), _spent(row), _merged(row))
    return " ".join(part for part in parts if part)


def _by_hand(head: str, row: Row) -> str:
    actor = actor_of(row["actor"], row)
    if actor["kind"] == "provider":
        gone = row["operation"] == "delete"
        return f"{head}: it {'went' if gone else 'came back'} along with what it is made of{_since(row)}."
    operation = OPERATIONS.get(row["operation"], "changed it")
    return f"{head}: {actor['name']} {operation} at {clock(row['applied_at'])}."


def _by_machine(head: str, row: Row) -> str:
    run = row.get("run") or {}
    provider = run.get("provider_name") or row.get("provider_id") or "a provider"
    version = run.get("definition_version")
    definition = f", definition version {version}" if version else ""
    attempt = f", attempt {run['attempt']}" if (run.get("attempt") or 1) > 1 else ""
    if _accepted(row):
        return (
            f"{head}: {actor_of(row['resolved_by'], row)['name']} accepted what {provider} had proposed{_since(row)}."
        )
    return f"{head} was made by {provider}{definition}{attempt}{_since(row)}."


def _since(row: Row) -> str:
    return f", because {cause_words(row)}" if row.get("cascade") else ""


def _read(row: Row, known: Mapping[tuple[str, int], Row]) -> str:
    inputs = _inputs(row)
    if not inputs:
        return ""
    named = [
        f"{name_of(known.get((str(one['blob_id']), int(one['version'])), one))} version {one['version']}"
        for one in inputs[:INPUTS_NAMED_MAX]
    ]
    more = max(row.get("inputs_total") or 0, len(inputs)) - len(named)
    return f"It read {', '.join(named)}{f' and {more} more' if more else ''}."


def _decided(row: Row) -> str:
    """What people said to the steps that asked them."""
    run = row.get("run") or {}
    return " ".join(
        f"{actor_of(one['actor'], row)['name']} {one['decision']} it ({one['step_id']}) at {clock(one['at'])}"
        + quoted(one.get("comment"))
        for one in run.get("decisions") or []
    )


def _spent(row: Row) -> str:
    run = row.get("run") or {}
    usage = run.get("usage") or {}
    tokens = usage.get("total_tokens") or usage.get("tokens") or 0
    parts = []
    if usage.get("model"):
        parts.append(f"{usage['model']} answered")
    if tokens:
        parts.append(f"{tokens} tokens were used")
    if run.get("charged"):
        parts.append(f"it cost {money(run['charged'])}")
    took = duration_ms(run) if run else None
    if took is not None:
        parts.append(f"it took {took} ms" if took < SECOND_MS else f"it took {took / SECOND_MS:.1f} s")
    reused = len(run.get("reused") or [])
    if reused:
        parts.append(f"{reused} {'step was' if reused == 1 else 'steps were'} reused from earlier runs")
    said = ", ".join(parts)
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _merged(row: Row) -> str:
    merge = _merge(row)
    if merge is None or merge["pure"]:
        return ""
    versions = [one["version"] for one in merge["kept"]]
    words = f" of version {', '.join(map(str, versions))}" if versions else ""
    left = " Where both had changed the same, what was said is on record." if merge["conflicted"] else ""
    return f"What people had written{words} was kept in it.{left}"


def quoted(comment: str | None) -> str:
    """End a sentence with what a person said, if anything."""
    return f": “{clean}”" if (clean := (comment or "").strip()) else "."


def clock(value: Any) -> str:
    """Return a time as people read it."""
    return _time(value).strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def path(*parts: object) -> str:
    """Return a path of the API; parts are quoted."""
    return "/".join([PREFIX, *(quote(str(part), safe="") for part in parts)])
