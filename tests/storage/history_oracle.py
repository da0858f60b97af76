"""What a history has to be, worked out without the product: another library's patches, a splice of our own, SHA-256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import jsonpatch
import jsonpointer
import orjson

FIELDS = ("content_type", "content", "data", "binary", "title", "tags", "metadata")
_TOKEN = re.compile(r"q\d+t\d+z")


def root_of(blob: Mapping[str, Any]) -> dict[str, Any]:
    """The patch root of a blob as an answer shows it."""
    return {name: blob[name] for name in FIELDS if name in blob}


def spelled(value: Any) -> bytes:
    """Bytes that are equal only for equal values: ``1``, ``1.0`` and true differ."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def patched(document: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """A document after a client's or a stored patch; the one given stays."""
    after = deepcopy(document)
    for operation in operations:
        if operation["op"] == "splice":
            text = jsonpointer.resolve_pointer(after, operation["path"])
            at, removed = operation["at"], operation["remove"]
            assert text[at : at + len(removed)] == removed, "a splice is about another text"
            value = text[:at] + operation["insert"] + text[at + len(removed) :]
            operation = {"op": "replace", "path": operation["path"], "value": value}  # noqa: PLW2901
        after = jsonpatch.apply_patch(after, [operation])
    return after


def merged(target: Any, changes: Any) -> Any:
    """RFC 7396, written down a second time."""
    if not isinstance(changes, dict):
        return changes
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        target[name] = merged(target.get(name), value)
        if value is None:
            del target[name]
    return target


def folded(deltas: Sequence[Mapping[str, Any]]) -> dict[int, Any]:
    """The document at every version, from nothing; asserts what holds of every history.

    Versions are contiguous and name the one before, hashes fit, and each inverse leads back.
    """
    applied = sorted((one for one in deltas if one["status"] == "applied"), key=lambda one: one["to_version"])
    documents: dict[int, Any] = {}
    before: Any = None
    for version, delta in enumerate(applied, start=1):
        assert (delta["from_version"], delta["to_version"]) == (version - 1, version), "versions are not contiguous"
        assert delta["previous_delta"] == (applied[version - 2]["id"] if version > 1 else None)
        after = patched(before, delta["patch"])
        assert delta["document_hash"] == f"sha256:{hashlib.sha256(spelled(after)).hexdigest()}"
        if version > 1:
            assert spelled(patched(after, delta["inverse"])) == spelled(before), "an inverse does not lead back"
        documents[version] = before = after
    assert len({delta["id"] for delta in deltas}) == len(deltas)
    return documents


def deleted_after(deltas: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a blob is deleted after its applied deltas."""
    last = [one for one in deltas if one["status"] == "applied" and one["operation"] in ("delete", "restore")]
    return bool(last) and max(last, key=lambda one: one["to_version"])["operation"] == "delete"


def offered(delta: Mapping[str, Any], documents: Mapping[int, Any]) -> Any:
    """The document that an offered delta, or one whose place was taken, would make of the version it is based on."""
    return patched(documents[delta["from_version"]], delta["patch"])


def tokens_in(document: Any) -> set[str]:
    """The tokens that stand in a document."""
    return set(_TOKEN.findall(spelled(document).decode()))


def tokens_kept(deltas: Sequence[Mapping[str, Any]], documents: Mapping[int, Any]) -> set[str]:
    """The tokens of the newest document, and those that only a proposed or rejected delta would put in."""
    kept = tokens_in(documents[max(documents)])
    for delta in deltas:
        if delta["status"] in ("proposed", "rejected"):
            kept |= tokens_in(offered(delta, documents)) - tokens_in(documents[delta["from_version"]])
    return kept
