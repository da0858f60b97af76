"""Whether a provider reacts to a blob, predicate by predicate: what it wants, what was found, yes or no. Pure.

The same predicates as ``studio_matches`` (discovery) and ``declined`` (on content, when a run begins); a test holds the
answers against what the schedule does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from domain.documents import Document, content_size
from domain.execution import pattern_found
from domain.provider_ir import Provider, covers
from domain.why_causes import Json, Row, path

REACTS = frozenset({"onCreate", "onEdit"})


def predicates(provider: Provider, facts: Row, document: Document, *, depth_max: int) -> list[Json]:
    """Return each predicate as ``{name, ok, wanted, found, words}``, in the order in which they are tried."""
    return [
        {"name": name, "ok": ok, "wanted": wanted, "found": found, "words": words}
        for name, ok, wanted, found, words in _tried(provider, facts, document, depth_max)
    ]


_Tried = tuple[str, bool, Any, Any, str]


def _tried(provider: Provider, facts: Row, document: Document, depth_max: int) -> Iterator[_Tried]:
    yield _active(facts)
    there = "The blob is deleted." if facts["deleted"] else "The blob is there."
    yield "present", not facts["deleted"], True, not facts["deleted"], there
    yield _events(provider)
    yield _schema(provider, facts)
    if provider.anchor == "blob":
        yield _type(provider, facts)
        yield _origin(provider, facts)
        lineage = "is among the producers of the blob: it would go round in a circle" if facts["in_lineage"] else (
            "is not among the producers of the blob")  # fmt: skip
        yield "lineage", not facts["in_lineage"], False, facts["in_lineage"], f"It {lineage}."
    else:
        yield _bucket(provider, facts)
        stems = "stems" if facts["reaches"] else "does not stem"
        yield "lineage", not facts["reaches"], False, facts["reaches"], f"The blob {stems} from what this makes."
    depth = f"What it makes stands {facts['depth']} deep, of {depth_max} at most."
    yield "depth", facts["depth"] <= depth_max, depth_max, facts["depth"], depth
    yield from _content(provider, document)


def _active(facts: Row) -> _Tried:
    found = "active" if facts["active"] else "replaced" if facts["replaced"] else "inactive"
    words = {
        "active": "It is switched on for you.",
        "replaced": "A provider of your own has its name and takes its place.",
        "inactive": "It is switched off for you.",
    }
    return "active", facts["active"], "active", found, words[found]


def _events(provider: Provider) -> _Tried:
    ok = any(event in REACTS for event in provider.events)
    words = f"It reacts to {', '.join(provider.events) or 'no event'}"
    words += "." if ok else "; not to blobs that are made or edited."
    return "events", ok, sorted(REACTS), list(provider.events), words


def _schema(provider: Provider, facts: Row) -> _Tried:
    wanted = list(provider.input_schemas)
    ok = not wanted or facts["schema_id"] in wanted
    words = f"It takes {', '.join(wanted) or 'any schema'}; the blob has {facts['schema_id']}."
    return "schema", ok, wanted, facts["schema_id"], words


def _type(provider: Provider, facts: Row) -> _Tried:
    wanted = list(provider.supported_types)
    ok = not wanted or any(covers(one, facts["content_type"]) for one in wanted)
    words = f"It takes {', '.join(wanted) or 'any type'}; the blob is {facts['content_type']}."
    return "type", ok, wanted, facts["content_type"], words


def _origin(provider: Provider, facts: Row) -> _Tried:
    found = "person" if facts["made_by"] is None else "derived"
    words = {"any": "It takes what people made and what was derived."}.get(
        provider.origin, f"It takes what people made; the blob was {'made by one' if found == 'person' else found}."
    )
    return "origin", provider.origin == "any" or found == "person", provider.origin, found, words


def _bucket(provider: Provider, facts: Row) -> _Tried:
    wanted = None if provider.collect is None else provider.collect.bucket_type
    kinds = [one["type"] for one in facts["buckets"]]
    words = f"It collects buckets of type {wanted}; the blob is in {', '.join(kinds) or 'none'}."
    return "bucket", wanted in kinds, wanted, kinds, words


def _content(provider: Provider, document: Document) -> Iterator[_Tried]:
    patterns, most, size = list(provider.trigger_patterns), provider.max_input_size, content_size(document)
    found = not patterns or pattern_found(patterns, document)
    shown = "one matches" if found else "none matches"
    words = (
        f"Its patterns: {', '.join(patterns) or 'none, so anything goes'}; {shown if patterns else 'nothing to match'}."
    )
    yield "pattern", found, patterns, shown if patterns else None, words
    limit = "any size" if most is None else f"at most {most} bytes"
    yield "size", most is None or size <= most, most, size, f"It takes {limit}; the content has {size}."


def explained(provider: Provider, facts: Row, tried: Sequence[Row]) -> Json:
    """Return the answer: whether it reacts, by which derivation, and what stands against it, in words."""
    refused = [one for one in tried if not one["ok"]]
    known = facts["derivation_id"] is not None
    if not refused:
        words = f"{provider.name} reacts to it." if known else f"{provider.name} would react to it."
        words += "" if known else " It has not been looked at yet, or a cascade was stopped by a bound before it."
    else:
        against = " ".join(str(one["words"]) for one in refused)
        words = (
            f"{provider.name} does {'still have a derivation of it, but ' if known else ''}not react to it. {against}"
        )
    return {
        "matches": not refused,
        "derivation_id": facts["derivation_id"],
        "why_url": path("derivations", facts["derivation_id"], "why") if known else None,
        "predicates": tried,
        "words": words,
    }
