"""What a client may send to change a document, told apart by media type.

- ``application/json-patch+json``: RFC 6902, an array of operations;
- ``application/merge-patch+json``: RFC 7396, the members that change (null removes one);
- ``application/json``: the seeds' envelope, ``{"delta": {"operation": "update", "patch": {…}}}`` with an optional
  ``from_version`` and ``on_conflict`` beside ``patch``, which is a merge patch.

All act on the same root, ``{content_type, content | data, title, tags, metadata}``. What is stored afterwards
is none of these but the verified difference of the two states (``diff``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.canonical import DEPTH_MAX, JSON_BYTES_MAX, checked, escaped, same
from domain.diffs import PATCH_BYTES_MAX, diff, patch_bytes, verified
from domain.errors import Fault, Invalid, TooLarge, UnsupportedMedia
from domain.operations import Operation, apply_operations, parse_pointer

__all__ = [
    "ACCEPT_PATCH",
    "ENVELOPE",
    "JSON_PATCH",
    "MERGE_PATCH",
    "OPERATIONS_MAX",
    "PATCH_BYTES_MAX",
    "PATCH_DEPTH_MAX",
    "JsonPatch",
    "MergePatch",
    "Patch",
    "apply_operations",
    "diff",
    "merge_patch",
    "parse_patch",
    "patch_bytes",
    "verified",
]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
ENVELOPE = "application/json"
ACCEPT_PATCH = f"{JSON_PATCH}, {MERGE_PATCH}, {ENVELOPE}"
"""The value of the header ``Accept-Patch``."""
OPERATIONS_MAX = 1_000
"""Operations in one RFC 6902 patch."""
PATCH_DEPTH_MAX = DEPTH_MAX + 3
"""How deep a request is nested at most: a whole document within ``[{"value": …}]``."""
VERSION_MAX = 2**31 - 1
IMMUTABLE = ("content_type", "schema_id")
"""Fields that a patch may repeat but not change; the second is no part of the document, but clients try."""

_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A checked request to change a document; ``from_version`` is the version that the envelope names, if any."""

    from_version: int | None = None
    on_conflict: str | None = None
    """What the envelope asks for if that version is not the newest any more."""

    def apply(self, document: Any) -> Any:
        """Return the changed document; the one given stays as it is.

        Raises Invalid (``path_not_found``, ``immutable_field``), Conflict ``test_failed``, TooLarge. The result is
        not yet a valid document: ``Document.parse`` says so, and ``relocated`` moves its faults into the request.
        """
        result = self._applied(document)
        faults = [
            Fault(self._place(f"/{name}"), "immutable_field", f"{name} does not change; create another blob.")
            for name in IMMUTABLE
            if isinstance(result, dict) and isinstance(document, dict) and _differs(document, result, name)
        ]
        if faults:
            raise Invalid(faults[0].detail, code="immutable_field", faults=faults)
        return result

    def relocated(self, error: Invalid) -> Invalid:
        """Return an error about the resulting document as one about the request, whose members it points at."""
        faults = [Fault(self._place(fault.pointer), fault.code, fault.detail) for fault in error.faults]
        return type(error)(error.detail, code=error.problem_code, faults=faults, members=error.members)

    def _applied(self, document: Any) -> Any:
        raise NotImplementedError

    def _place(self, pointer: str) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPatch(Patch):
    """RFC 6902: operations applied in order, all or none."""

    operations: tuple[Operation, ...]

    def _applied(self, document: Any) -> Any:
        return apply_operations(document, self.operations)

    def _place(self, pointer: str) -> str:
        """Return the pointer of the last operation that wrote at, above or below a place of the document."""
        for index in range(len(self.operations) - 1, -1, -1):
            for member in ("path", "from"):
                path = self.operations[index].get(member)
                if isinstance(path, str) and _touches(path.removesuffix("/-"), pointer):
                    return f"/{index}/{member}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePatch(Patch):
    """RFC 7396: members to set, null to remove. ``base`` is the pointer of the patch within the request."""

    changes: Mapping[str, Any]
    base: str = ""

    def _applied(self, document: Any) -> Any:
        return merge_patch(document, self.changes)

    def _place(self, pointer: str) -> str:
        return f"{self.base}{pointer}"


def merge_patch(target: Any, patch: Any) -> Any:
    """Return ``MergePatch(target, patch)`` of RFC 7396 section 2; neither argument is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def parse_patch(media_type: str, body: Any) -> Patch:
    """Check the shape of a patch, whose body is parsed JSON already; all faults at once.

    Raises UnsupportedMedia (``members["accept_patch"]``), Invalid with pointers such as ``/0/path``, TooLarge
    (``too_many``, ``too_deep``, ``content_too_large``).
    """
    kind = media_type.partition(";")[0].strip().lower()
    if kind not in (JSON_PATCH, MERGE_PATCH, ENVELOPE):
        detail = f"A blob is changed by {ACCEPT_PATCH}."
        raise UnsupportedMedia(detail, members={"accept_patch": ACCEPT_PATCH})
    checked(body, depth_max=PATCH_DEPTH_MAX, bytes_max=JSON_BYTES_MAX)
    if kind == JSON_PATCH:
        return _json_patch(body)
    if kind == MERGE_PATCH:
        return MergePatch(changes=_object(body, ""))
    return _envelope(body)


def _json_patch(body: Any) -> JsonPatch:
    if not isinstance(body, list):
        raise _invalid([Fault("", "wrong_type", "A JSON Patch is an array of operations.")])
    if len(body) > OPERATIONS_MAX:
        detail = f"A patch has at most {OPERATIONS_MAX} operations."
        raise TooLarge(detail, code="too_many", faults=[Fault("", "too_many", detail)])
    faults = [fault for index, item in enumerate(body) for fault in _operation_faults(item, f"/{index}")]
    if faults:
        raise _invalid(faults)
    return JsonPatch(operations=tuple(body))


def _operation_faults(item: Any, pointer: str) -> Iterator[Fault]:
    if not isinstance(item, dict):
        yield Fault(pointer, "wrong_type", "An operation is an object.")
        return
    operation = item.get("op")
    if "op" not in item:
        yield Fault(f"{pointer}/op", "missing_field", f"op is one of {', '.join(_OPERATIONS)}.")
    elif operation not in _OPERATIONS:
        yield Fault(f"{pointer}/op", "invalid_operation", f"op is one of {', '.join(_OPERATIONS)}.")
    yield from _pointer_faults(item, "path", pointer)
    if operation in ("move", "copy"):
        yield from _pointer_faults(item, "from", pointer)
    if operation == "move" and str(item.get("path")).startswith(f"{item.get('from')}/"):
        yield Fault(f"{pointer}/path", "invalid_value", "A value cannot be moved into itself.")
    if operation in ("add", "replace", "test") and "value" not in item:
        yield Fault(f"{pointer}/value", "missing_field", f"{operation} needs value (null counts).")


def _pointer_faults(item: Mapping[str, Any], member: str, pointer: str) -> Iterator[Fault]:
    text = item.get(member)
    if member not in item:
        yield Fault(f"{pointer}/{member}", "missing_field", f"{member} is a JSON Pointer.")
    elif not isinstance(text, str):
        yield Fault(f"{pointer}/{member}", "wrong_type", f"{member} is a JSON Pointer, a text.")
    else:
        try:
            parse_pointer(text)
        except ValueError as err:
            yield Fault(f"{pointer}/{member}", "invalid_value", str(err))


def _envelope(body: Any) -> MergePatch:
    delta = _object(_object(body, "").get("delta", {}), "/delta")
    faults = [*_unknown(body, ("delta",), ""), *_delta_faults(delta)]
    if "delta" not in body:
        faults = [Fault("/delta", "missing_field", 'Send {"delta": {"operation": "update", "patch": {…}}}.')]
    if faults:
        raise _invalid(faults)
    return MergePatch(
        from_version=delta.get("from_version"),
        on_conflict=delta.get("on_conflict"),
        changes=delta["patch"],
        base="/delta/patch",
    )


def _delta_faults(delta: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _unknown(delta, ("operation", "patch", "from_version", "on_conflict"), "/delta")
    if delta.get("operation", "update") != "update":
        yield Fault("/delta/operation", "invalid_operation", "Here the operation is update.")
    if "patch" not in delta:
        yield Fault("/delta/patch", "missing_field", "patch holds the members that change.")
    elif not isinstance(delta["patch"], dict):
        yield Fault("/delta/patch", "wrong_type", f"patch is an object; send operations as {JSON_PATCH}.")
    if not isinstance(delta.get("on_conflict", ""), str):
        yield Fault("/delta/on_conflict", "wrong_type", "on_conflict is a text.")
    version = delta.get("from_version")
    if version is not None and (type(version) is not int or not 1 <= version <= VERSION_MAX):
        yield Fault("/delta/from_version", "wrong_type", "from_version is the number of the version you read.")


def _unknown(value: Mapping[str, Any], known: Sequence[str], pointer: str) -> list[Fault]:
    return [
        Fault(f"{pointer}/{escaped(name)}", "unknown_field", f"Known here: {', '.join(known)}.")
        for name in value
        if name not in known
    ]


def _object(value: Any, pointer: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid([Fault(pointer, "wrong_type", "An object is expected here.")])
    return value


def _touches(path: str, pointer: str) -> bool:
    return f"{pointer}/".startswith(f"{path}/") or path.startswith(f"{pointer}/")


def _differs(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    if name not in before:
        return name in after
    return name not in after or not same(before[name], after[name])


def _invalid(faults: Sequence[Fault]) -> Invalid:
    code = faults[0].code if len(faults) == 1 and faults[0].code == "invalid_operation" else None
    return Invalid(f"The patch has {len(faults)} fault(s): {faults[0].detail}", code=code, faults=faults)
