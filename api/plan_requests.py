"""What a plan is asked for: a write, described by what it is about, as a request to the route that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from api.bodies import JSON, encoded, fault
from api.middleware import PREFIX
from domain.errors import Fault, Invalid
from domain.ids import parse_id
from domain.patches import ENVELOPE, JSON_PATCH, MERGE_PATCH

REPLACED = ("content", "data", "title", "tags", "metadata")
"""Members of a blob that a plan may name directly: each is replaced whole."""
BLOB_OPERATIONS = ("delete", "restore", "revert", "reset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A write as its own route takes it. ``inside`` is where its body stands in the request for the plan."""

    kind: str
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    inside: str = ""
    along: str | None = None
    """A blob that it deletes or restores."""


def write_of(asked: Any) -> Write:
    """Return the write that a request for a plan describes. Raises Invalid with a pointer for each fault."""
    if not isinstance(asked, dict):
        raise fault("", "wrong_type", "A plan is asked for by an object.")
    found = [name for name in _KINDS if name in asked]
    if not found:
        raise fault("", "missing_field", f"Say what is to be planned: one of {', '.join(_KINDS)}.")
    return _KINDS[found[0]](dict(asked))


def _write(kind: str, method: str, path: str, body: Any = None, *, inside: str = "", **headers: str) -> Write:
    data = b"" if body is None else encoded(body)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent.setdefault("content-type", JSON)
    return Write(kind=kind, method=method, path=f"{PREFIX}{path}", body=data, headers=sent, inside=inside)


def _only(rest: Mapping[str, Any], *known: str) -> None:
    unknown = [name for name in rest if name not in known]
    if unknown:
        said = f"Beside it there may be {', '.join(known)}." if known else "Nothing else goes with it."
        faults = [Fault(f"/{name}", "unknown_field", said) for name in unknown]
        raise Invalid(f"Unknown field {unknown[0]!r}. {said}", code="unknown_field", faults=faults)


def _create(asked: dict[str, Any]) -> Write:
    body = asked.pop("blob")
    _only(asked)
    return _write("create", "POST", "/blobs", body, inside="/blob")


def _provider(asked: dict[str, Any]) -> Write:
    body = asked.pop("provider")
    _only(asked)
    if isinstance(body, str):
        yaml = {"content-type": "application/yaml"}
        path = f"{PREFIX}/providers"
        return Write(kind="provider", method="POST", path=path, body=body.encode(), headers=yaml, inside="/provider")
    return _write("provider", "POST", "/providers", body, inside="/provider")


def _dead_letters(asked: dict[str, Any]) -> Write:
    body = asked.pop("dead_letters")
    _only(asked)
    return _write("redrive", "POST", "/dead-letters/redrive", body, inside="/dead_letters")


def _of_provider(asked: dict[str, Any]) -> Write:
    provider = _segment(asked.pop("provider_id"), "/provider_id")
    if "upgrade" in asked:
        body = asked.pop("upgrade")
        _only(asked)
        return _write(
            "upgrade", "POST", f"/providers/{provider}/upgrade", {} if body is True else body, inside="/upgrade"
        )
    if "process" in asked:
        body = asked.pop("process")
        _only(asked)
        return _write("process", "POST", f"/providers/{provider}/process", body, inside="/process")
    match = _version(asked.pop("if_version", None), "/if_version")
    return _write("instance", "PUT", f"/providers/{provider}/instance", asked, if_match=match)


def _bucket(asked: dict[str, Any]) -> Write:
    bucket = _id(asked.pop("bucket_id"), "/bucket_id")
    if ("add" in asked) == ("remove" in asked):
        raise fault("", "missing_field", "Say which blob to add or to remove, one of them.")
    if "remove" in asked:
        blob = _id(asked.pop("remove"), "/remove")
        _only(asked)
        return _write("bucket", "DELETE", f"/buckets/{bucket}/blobs/{blob}")
    body = {"blob_id": asked.pop("add"), **({"position": asked.pop("position")} if "position" in asked else {})}
    _only(asked)
    return _write("bucket", "POST", f"/buckets/{bucket}/blobs", body)


def _of_derivation(asked: dict[str, Any]) -> Write:
    derivation = _id(asked.pop("derivation_id"), "/derivation_id")
    if "reprocess" not in asked:
        raise fault("/reprocess", "missing_field", "Say how: reprocess, an object.")
    body = asked.pop("reprocess")
    _only(asked)
    path = f"/derivations/{derivation}/reprocess"
    return _write("reprocess", "POST", path, {} if body is True else body, inside="/reprocess")


def _of_blob(asked: dict[str, Any]) -> Write:
    blob = _id(asked.pop("blob_id"), "/blob_id")
    path = f"/blobs/{blob}"
    if "operation" in asked:
        return _operation(asked, path, blob)
    if "reprocess" in asked:
        body = asked.pop("reprocess")
        _only(asked)
        path = f"{path}/reprocess"
        return _write("reprocess", "POST", path, {} if body is True else body, inside="/reprocess")
    if "delta" in asked:
        body = {"delta": asked.pop("delta")}
        _only(asked)
        return _write("edit", "PATCH", path, body, content_type=ENVELOPE)
    match = _version(asked.pop("from_version", None), "/from_version")
    if "patch" in asked:
        body = asked.pop("patch")
        _only(asked, "from_version")
        media = JSON_PATCH if isinstance(body, list) else MERGE_PATCH
        return _write("edit", "PATCH", path, body, inside="/patch", content_type=media, if_match=match)
    changes = [{"op": "add", "path": f"/{name}", "value": asked.pop(name)} for name in REPLACED if name in asked]
    _only(asked, "delta", "patch", "operation", "reprocess", "from_version", *REPLACED)
    if not changes:
        raise fault("", "missing_field", f"Say what changes: delta, patch, operation, or {', '.join(REPLACED)}.")
    return _write("edit", "PATCH", path, changes, content_type=JSON_PATCH, if_match=match)


def _operation(asked: dict[str, Any], path: str, blob: str) -> Write:
    operation = asked.pop("operation")
    if operation not in BLOB_OPERATIONS:
        raise fault("/operation", "invalid_value", f"operation is one of {', '.join(BLOB_OPERATIONS)}.")
    match = {"if_match": _version(asked.pop("from_version"), "/from_version")} if "from_version" in asked else {}
    if operation == "revert":
        body = {"version": asked.pop("version")} if "version" in asked else {}
        _only(asked, "version", "from_version")
        return _write(operation, "POST", f"{path}/revert", body, **match)
    _only(asked, "from_version")
    if operation == "reset":
        return _write(operation, "POST", f"{path}/reset", **match)
    made = _write(operation, "DELETE" if operation == "delete" else "POST",
                  path if operation == "delete" else f"{path}/restore", **match)  # fmt: skip
    return Write(**{name: getattr(made, name) for name in Write.__slots__} | {"along": blob})


_KINDS: Mapping[str, Callable[[dict[str, Any]], Write]] = {
    "blob": _create,
    "provider": _provider,
    "dead_letters": _dead_letters,
    "provider_id": _of_provider,
    "bucket_id": _bucket,
    "derivation_id": _of_derivation,
    "blob_id": _of_blob,
}
"""What a request may be about, by the member that says so."""


def _id(value: Any, pointer: str) -> str:
    if not isinstance(value, str):
        raise fault(pointer, "wrong_type", "An id is a text.")
    return str(parse_id(value, pointer))


def _segment(value: Any, pointer: str) -> str:
    if not isinstance(value, str) or not value:
        raise fault(pointer, "wrong_type", "Name the provider: its slug or its key.")
    return quote(value, safe="")


def _version(value: Any, pointer: str) -> str:
    if value is None:
        return "*"
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise fault(pointer, "invalid_value", "A version is a whole number from 1 on.")
    return f'"v{value}"'
