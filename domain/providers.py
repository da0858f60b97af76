"""Providers: what reacts to which blobs, with which definition, and how its runs are scheduled.

``parse_provider`` reads a registration in the shapes of CONTRACT.md and of all five seeds, with all faults at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.canonical import canonical
from domain.definition_ir import Definition
from domain.errors import Fault, Invalid, StudioError
from domain.fields import Fields, near, refuse
from domain.memo import Cache
from domain.patterns import compile_pattern
from domain.provider_ir import (
    EVENTS,
    PRIORITY_DEFAULT,
    PROVIDER_ALIASES,
    WORKFLOW_ALIASES,
    Collect,
    Debounce,
    Placement,
    Provider,
    canonical_provider,
    canonical_workflow,
)
from domain.retries import read_retry
from domain.schemas import Schema, canonical_slug, compile_validator, definition_faults

__all__ = [
    "EVENTS",
    "PROVIDER_ALIASES",
    "WORKFLOW_ALIASES",
    "Collect",
    "Debounce",
    "Placement",
    "Provider",
    "canonical_provider",
    "canonical_workflow",
    "parse_provider",
]

REGISTRATION_BYTES_MAX: Final = 128 * 1024
REGISTRATION_DEPTH_MAX: Final = 32
TIMEOUT_SECONDS_MAX: Final = 86_400
CONCURRENCY_MAX: Final = 1000
#: as Temporal has it: 1 is the most urgent
PRIORITY_MAX: Final = 5
INPUT_BYTES_MAX: Final = 64 * 2**20
QUIET_SECONDS_MAX: Final = 3600
WAIT_SECONDS_MAX: Final = 86_400
#: seed 004 says external for url
STRATEGIES: Final = {"inline": "inline", "url": "url", "external": "url", "hybrid": "hybrid"}
READABLE: Final = ("title", "tags", "metadata")

_ID: Final = r"[a-z0-9][a-z0-9-]{0,62}"
_VERSION: Final = r"\d{1,4}(\.\d{1,9}){0,2}"
_BUCKET_TYPE: Final = r"[a-z][a-z0-9_-]{0,63}"
_TYPE: Final = re.compile(r"(\*|[a-z0-9!#$&^_.+-]+)(/(\*|[a-z0-9!#$&^_.+-]+))?")
_PATTERN: Final = re.compile(r"(?:studio\.)?blob\.(created|updated|edited|deleted|derived)(?:\.(.+))?")
_EVENT_OF: Final = {
    "created": "onCreate",
    "derived": "onCreate",
    "updated": "onEdit",
    "edited": "onEdit",
    "deleted": "onDelete",
}
_EVENT_FIELDS: Final = ("events", "event_patterns", "trigger_events", "subscribe_events", "input_events")
_WRAPPERS: Final = ("processor", "provider")

Workflows = Callable[[str], Definition | None]
Schemas = Callable[[str], Schema | None]


@dataclass(slots=True)
class _Reactions:
    """Which events and schemas a registration names, in whichever fields."""

    events: list[str]
    schemas: list[str]
    derived: bool = False


def parse_provider(raw: Any, *, workflows: Workflows, schemas: Schemas) -> Provider:
    """Check a registration (parsed YAML or JSON); raises ``Invalid`` (invalid_request) with all faults at once.

    ``workflows`` and ``schemas`` find what the registering user may name, by slug. The seeds' ``processor:`` block
    is read as it is.
    """
    _check_bounds(raw)
    pointer = ""
    if isinstance(raw, Mapping) and len(raw) == 1 and next(iter(raw)) in _WRAPPERS:
        pointer = f"/{next(iter(raw))}"
        raw = raw[pointer[1:]]
    faults: list[Fault] = []
    fields = Fields(raw, pointer, faults, "A provider")
    provider = _read(fields, workflows, schemas)
    fields.finish()
    refuse(faults, "invalid_request", "The provider")
    if provider is None:
        raise Invalid("The provider is not valid.")
    return provider


def _check_bounds(raw: Any) -> None:
    try:
        canonical(raw, depth_max=REGISTRATION_DEPTH_MAX, bytes_max=REGISTRATION_BYTES_MAX)
    except StudioError as error:
        raise Invalid(error.detail, faults=error.faults) from None


def _read(fields: Fields, workflows: Workflows, schemas: Schemas) -> Provider | None:
    provider_id = fields.text("id", required=True, pattern=_ID)
    definition = _definition(fields, workflows)
    collect = _collect(fields, schemas)
    reactions = _reactions(fields, schemas)
    if collect and reactions.schemas:
        fields.fault("collect", "invalid_value", "A provider that collects names its schema in collect only.")
    _check_outputs(fields, definition)
    settings_schema, settings = _settings(fields)
    common = {
        "id": provider_id,
        "name": fields.text("name", most=200) or provider_id,
        "description": fields.text("description", most=2000),
        "version": fields.text("version", most=20, pattern=_VERSION) or "1.0.0",
        "input_schemas": (collect.schema_id,) if collect else tuple(dict.fromkeys(reactions.schemas)),
        "supported_types": _supported_types(fields),
        "events": tuple(event for event in EVENTS if event in reactions.events) or ("onCreate", "onEdit"),
        "trigger_patterns": _trigger_patterns(fields),
        "origin": _origin(fields, reactions, collect),
        "anchor": _anchor(fields, collect),
        "collect": collect,
        "settings_schema": settings_schema,
        "settings": settings,
        "activate": fields.boolean(fields.one_of("activate", "active"), default=True),
        **_scheduling(fields),
        **_depending_on(fields, definition),
    }
    if definition is None:
        return None
    return Provider(
        workflow_id=definition.id, definition_digest=definition.digest, outputs=definition.outputs, **common
    )


def _definition(fields: Fields, workflows: Workflows) -> Definition | None:
    name = fields.one_of("workflow_id", "workflow")
    workflow_id = fields.text(name, required=True, most=80)
    definition = workflows(workflow_id) if workflow_id else None
    if workflow_id and definition is None:
        fields.fault(name, "unknown_workflow", f"There is no workflow {workflow_id}: POST /workflows first.")
    return definition


def _slug(fields: Fields, pointer: str, reference: str, schemas: Schemas) -> list[str]:
    """The slug of a schema that somebody names, or a fault."""
    found = schemas(canonical_slug(reference))
    if found is None:
        fields.noted(pointer, "unknown_schema", f"There is no schema {reference[:80]}: POST /schemas first.")
        return []
    return [found.slug]


def _reactions(fields: Fields, schemas: Schemas) -> _Reactions:
    reactions = _Reactions([], [])
    name = fields.one_of("input_schemas", "input_schema_id", "input_schema")
    for pointer, reference in _references(fields, name):
        reactions.schemas += _slug(fields, pointer, reference, schemas)
    for events_field in _EVENT_FIELDS:
        for pointer, text in fields.texts(events_field, most=100):
            _react(fields, reactions, pointer, text, schemas)
    return reactions


def _references(fields: Fields, name: str) -> list[tuple[str, str]]:
    """Schemas by slug, or as seed 004's ``{schema_id | schema_name, version}``."""
    value = fields.raw(name)
    entries = [(fields.at(name), value)] if isinstance(value, str | Mapping) else list(fields.items(name, most=50))
    found: list[tuple[str, str]] = []
    for pointer, entry in entries:
        if isinstance(entry, str):
            found.append((pointer, entry))
            continue
        reference = Fields(entry, pointer, fields.faults, "A schema reference")
        spelling = reference.one_of("schema_id", "schema_name")
        text = reference.text(spelling, required=True, most=80)
        major = reference.text("version", most=40).partition(".")[0]
        reference.raw("min_version")
        reference.finish()
        if text:
            named = spelling == "schema_name" and not re.search(r"-v\d+$", text)
            found.append((reference.at(spelling), f"{text}-v{major or 1}" if named else text))
    return found


def _react(fields: Fields, reactions: _Reactions, pointer: str, text: str, schemas: Schemas) -> None:
    if text in EVENTS:
        reactions.events.append(text)
        return
    match = _PATTERN.fullmatch(text)
    if match is None:
        known = near(text, EVENTS) or f"; known: {', '.join(EVENTS)}, blob.created.X, blob.updated.X, blob.deleted.X"
        fields.noted(pointer, "invalid_value", f"There is no event {text[:80]}{known}.")
        return
    verb, schema = match.groups()
    reactions.events.append(_EVENT_OF[verb])
    reactions.derived = reactions.derived or verb == "derived"
    if schema and schema not in ("*", ">"):
        reactions.schemas += _slug(fields, pointer, schema, schemas)


def _check_outputs(fields: Fields, definition: Definition | None) -> None:
    """What a registration says of its outputs must be what its definition makes."""
    name = fields.one_of("output_schema_id", "output_schema", "output_schemas")
    made = {output.schema.slug for output in definition.outputs} if definition else set()
    for pointer, reference in _references(fields, name):
        if definition and canonical_slug(reference) not in made:
            detail = f"{definition.id} makes {', '.join(sorted(made))}, not {reference[:80]}."
            fields.noted(pointer, "invalid_value", detail)


def _collect(fields: Fields, schemas: Schemas) -> Collect | None:
    if not fields.has("collect"):
        fields.raw("collect")
        return None
    collect = Fields(fields.raw("collect"), fields.at("collect"), fields.faults, "collect")
    bucket_type = collect.text("bucket_type", required=True, pattern=_BUCKET_TYPE)
    name = collect.one_of("schema_id", "schema")
    reference = collect.text(name, required=True, most=80)
    slugs = _slug(fields, collect.at(name), reference, schemas) if reference else []
    order = collect.choice("order", ("position",), "position")
    collect.finish()
    return Collect(bucket_type=bucket_type, schema_id=slugs[0] if slugs else reference, order=order)


def _anchor(fields: Fields, collect: Collect | None) -> str:
    anchor = fields.choice("anchor", ("blob", "bucket"), "bucket" if collect else "blob")
    if anchor == "bucket" and collect is None:
        fields.fault("collect", "missing_field", "anchor: bucket needs collect {bucket_type, schema_id, order}.")
    if anchor == "blob" and collect is not None:
        fields.fault("anchor", "invalid_value", "A provider with collect has anchor: bucket.")
    return anchor


def _origin(fields: Fields, reactions: _Reactions, collect: Collect | None) -> str:
    default = "any" if reactions.schemas or reactions.derived or collect else "person"
    return fields.choice("origin", ("person", "any"), default)


def _supported_types(fields: Fields) -> tuple[str, ...]:
    found = []
    for pointer, text in fields.texts("supported_types"):
        kind = text.partition(";")[0].strip().lower()
        if not _TYPE.fullmatch(kind):
            fields.noted(pointer, "invalid_value", f"{text[:80]} is not a media type such as text/plain or text/*.")
        found.append(kind)
    return tuple(found)


def _trigger_patterns(fields: Fields) -> tuple[str, ...]:
    found = []
    for pointer, text in fields.texts("trigger_patterns"):
        try:
            compile_pattern(text)
        except Invalid as error:
            fields.noted(pointer, error.problem_code, error.detail)
        found.append(text)
    return tuple(found)


def _settings(fields: Fields) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    schema = fields.mapping("settings_schema") if fields.has("settings_schema") else None
    fields.raw("settings_schema")
    name = fields.one_of("settings", "config")
    settings = fields.mapping(name)
    if schema is None:
        return None, settings
    faults = definition_faults(schema, fields.at("settings_schema"))
    if not faults:
        faults = [
            Fault(fields.at(name) + fault.pointer, fault.code, fault.detail)
            for fault in compile_validator(schema).faults(settings)
        ]
    fields.faults += faults
    return schema, settings


def _scheduling(fields: Fields) -> dict[str, Any]:
    fields.text("type", most=64)  # seed 001 names a kind there; nothing depends on it
    attempts, retry = read_retry(fields, fields.one_of("retry", "retry_policy"), backoff=True)
    concurrency = fields.one_of("max_concurrency", "concurrency", "max_concurrent")
    timeout = fields.one_of("timeout", "timeout_seconds")
    return {
        "priority": fields.integer("priority", least=1, most=PRIORITY_MAX) or PRIORITY_DEFAULT,
        "max_concurrency": fields.integer(concurrency, least=1, most=CONCURRENCY_MAX),
        "max_input_size": fields.integer("max_input_size", least=1, most=INPUT_BYTES_MAX),
        "timeout_seconds": fields.duration(timeout, least=0.1, most=TIMEOUT_SECONDS_MAX),
        "max_attempts": attempts,
        "retry": retry,
        "on_conflict": fields.choice("on_conflict", ("keep_human", "wait", "take_machine"), "keep_human"),
        "on_delete": fields.choice("on_delete", ("keep", "delete"), "keep"),
        "on_parent_failure": fields.choice("on_parent_failure", ("block", "use_last_good", "skip"), "block"),
        "cache": fields.choice("cache", tuple(Cache), "") or None,
        "debounce": _debounce(fields),
        "storage": _storage(fields),
    }


def _storage(fields: Fields) -> Placement:
    """``storage: {strategy, threshold}``, or the two fields of seed 004 beside each other."""
    if not fields.has("storage"):
        fields.raw("storage")
        return _placement(fields, "storage_strategy", "storage_threshold_bytes")
    block = Fields(fields.raw("storage"), fields.at("storage"), fields.faults, "storage")
    placement = _placement(block, "strategy", "threshold")
    block.finish()
    return placement


def _placement(fields: Fields, strategy_name: str, threshold_name: str) -> Placement:
    strategy = STRATEGIES[fields.choice(strategy_name, tuple(STRATEGIES), "hybrid")]
    threshold = fields.integer(threshold_name, least=0, most=INPUT_BYTES_MAX)
    if threshold is not None and strategy != "hybrid":
        fields.fault(threshold_name, "invalid_value", "Only hybrid has a threshold.")
        threshold = None
    return Placement(strategy, threshold)


def _debounce(fields: Fields) -> Debounce | None:
    if not fields.has("debounce"):
        fields.raw("debounce")
        return None
    debounce = Fields(fields.raw("debounce"), fields.at("debounce"), fields.faults, "debounce")
    if not debounce.has("quiet"):
        debounce.fault("quiet", "missing_field", "debounce needs quiet, such as 2s.")
    quiet = debounce.duration("quiet", least=0, most=QUIET_SECONDS_MAX) or 0.0
    longest = debounce.duration("max_wait", least=0, most=WAIT_SECONDS_MAX)
    if longest is not None and longest < quiet:
        debounce.fault("max_wait", "invalid_value", "max_wait is at least as long as quiet.")
    debounce.finish()
    return Debounce(quiet, longest if longest is not None else longest_wait(quiet))


def longest_wait(quiet: float) -> float:
    """How long edits may put a run off where nobody has said: ten times the quiet that it waits for."""
    return min(10 * quiet, float(WAIT_SECONDS_MAX))


def _depending_on(fields: Fields, definition: Definition | None) -> dict[str, Any]:
    """What defaults to, or is bounded by, what the definition does."""
    pure = definition is None or definition.pure
    execution = fields.choice("execution", ("inline", "workflow"), "inline" if pure else "workflow")
    if execution == "inline" and not pure:
        fields.fault("execution", "invalid_value", "A definition that calls services or asks people runs as workflow.")
    supersede = fields.choice("supersede", ("cancel", "finish"), "cancel" if pure else "finish")
    services = definition.services if definition else ()
    decided = {"execution": execution, "supersede": supersede, "services": services}
    used = definition.reads if definition else frozenset()
    if not fields.has("reads"):
        fields.raw("reads")
        return {**decided, "reads": tuple(sorted(used))}
    declared = []
    for pointer, text in fields.texts("reads"):
        if text not in READABLE:
            fields.noted(pointer, "invalid_value", f"reads is some of {', '.join(READABLE)}{near(text, READABLE)}.")
        declared.append(text)
    for missing in sorted(used - set(declared)):
        fields.fault("reads", "invalid_value", f"The definition reads $.{missing}, so reads must name it.")
    return {**decided, "reads": tuple(sorted(set(declared)))}
