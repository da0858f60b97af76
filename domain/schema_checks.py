"""What a JSON Schema must satisfy before it is registered: its meta-schema, local references, bounded work."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final

import jsonschema
import jsonschema_rs

from domain.canonical import canonical, escaped
from domain.concurrency import ON_CONFLICT, ConflictPolicy
from domain.errors import Fault, StudioError
from domain.merge import MERGE_KEY
from domain.normal_forms import CUTOFF, FORMS
from domain.patterns import PATTERN_CHARS_MAX
from domain.schema_graph import SchemaGraph

DEFINITION_BYTES_MAX: Final = 128 * 1024
DEFINITION_DEPTH_MAX: Final = 32
SUBSCHEMAS_MAX: Final = 2000
PATTERNS_MAX: Final = 100

PATTERN_OPTIONS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
DRAFT_7: Final = "http://json-schema.org/draft-07/schema"
DRAFT_2020_12: Final = "https://json-schema.org/draft/2020-12/schema"
_META_SCHEMAS: Final[dict[str, Any]] = {
    DRAFT_7: jsonschema.Draft7Validator.META_SCHEMA,
    DRAFT_2020_12: jsonschema.Draft202012Validator.META_SCHEMA,
}


def definition_faults(definition: Any, pointer: str = "") -> list[Fault]:
    """Every reason, with pointers below ``pointer``, why ``definition`` may not be registered; empty if it may."""
    try:
        canonical(definition, depth_max=DEFINITION_DEPTH_MAX, bytes_max=DEFINITION_BYTES_MAX)
    except StudioError as error:
        faults = list(error.faults) or [Fault("", error.problem_code, error.detail)]
    else:
        faults = _faults(definition)
    return [Fault(pointer + fault.pointer, fault.code, fault.detail) for fault in faults]


def _faults(definition: Any) -> list[Fault]:
    if not isinstance(definition, dict | bool):
        return [Fault("", "wrong_type", "A schema is a map (or true, or false).")]
    graph = SchemaGraph(definition)
    if len(graph.nodes) > SUBSCHEMAS_MAX:
        return [Fault("", "too_many", f"A schema has at most {SUBSCHEMAS_MAX} subschemas.")]
    faults = [*_meta_faults(definition), *_reference_faults(graph), *_pattern_faults(graph), *_keyword_faults(graph)]
    # The meta-schema and the compiler of patterns may both complain of one pattern.
    distinct = {(fault.pointer, fault.code): fault for fault in faults}
    return list(distinct.values()) or graph.work_faults() or _compile_faults(definition)


@functools.cache
def _meta_validator(draft: str) -> Any:
    meta = _META_SCHEMAS[draft]
    return jsonschema_rs.validator_for(meta, pattern_options=PATTERN_OPTIONS, validate_formats=True, offline=True)


def _meta_faults(definition: Any) -> list[Fault]:
    named = definition.get("$schema", DRAFT_2020_12) if isinstance(definition, dict) else DRAFT_2020_12
    draft = named.rstrip("#") if isinstance(named, str) else ""
    if draft not in _META_SCHEMAS:
        return [Fault("/$schema", "invalid_schema", f"$schema is {DRAFT_2020_12} or {DRAFT_7}#.")]
    # The 2020-12 meta-schema is eight vocabularies, each of which reports the same fault.
    found: dict[tuple[str, str], None] = {}
    for error in _meta_validator(draft).iter_errors(definition):
        place = "".join(f"/{escaped(str(token))}" for token in error.instance_path)
        found[place, error.message[:300]] = None
    return [Fault(place, "invalid_schema", message) for place, message in found]


def _pattern_faults(graph: SchemaGraph) -> Iterator[Fault]:
    """Patterns that do not run in linear time; the format "regex" of the meta-schema lets them pass."""
    patterns = [
        (f"{here}/pattern", schema["pattern"])
        for here, schema in graph.nodes.items()
        if isinstance(schema, dict) and isinstance(schema.get("pattern"), str)
    ]
    patterns += [
        (f"{here}/patternProperties/{escaped(pattern)}", pattern)
        for here, schema in graph.nodes.items()
        if isinstance(schema, dict) and isinstance(schema.get("patternProperties"), dict)
        for pattern in schema["patternProperties"]
    ]
    if len(patterns) > PATTERNS_MAX:
        yield Fault("", "too_many", f"A schema has at most {PATTERNS_MAX} patterns.")
    for place, pattern in patterns[:PATTERNS_MAX]:
        if len(pattern) > PATTERN_CHARS_MAX:
            yield Fault(place, "too_many", f"A pattern has at most {PATTERN_CHARS_MAX} characters.")
        elif _compile_faults({"pattern": pattern}):
            yield Fault(place, "invalid_schema", f"{pattern[:100]} is not a pattern that runs in linear time.")


def _compile_faults(definition: Any) -> list[Fault]:
    """What only compiling finds; after everything else, so that nothing costly is left to compile."""
    try:
        jsonschema_rs.validator_for(definition, pattern_options=PATTERN_OPTIONS, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return [Fault("", "invalid_schema", str(error).partition("\n")[0][:300])]
    return []


def _reference_faults(graph: SchemaGraph) -> Iterator[Fault]:
    for here, schema in graph.nodes.items():
        if not isinstance(schema, dict):
            continue
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in schema:
                yield Fault(f"{here}/{keyword}", "invalid_schema", f"{keyword} is not supported: write $ref.")
        if here and "$id" in schema:
            yield Fault(f"{here}/$id", "invalid_schema", "$id stands at the root only: refer by #/...")
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            continue
        if not reference.startswith("#"):
            detail = f"{reference[:100]} is another address: copy that schema into $defs and refer to #/$defs/..."
            yield Fault(f"{here}/$ref", "remote_ref", detail)
        elif graph.target(reference) is None:
            yield Fault(f"{here}/$ref", "invalid_schema", f"{reference[:100]} names nothing in this schema.")


def _keyword_faults(graph: SchemaGraph) -> Iterator[Fault]:
    """Keywords of ours: what is misspelled here would surface as a lost edit, or a cascade, much later."""
    for here, schema in graph.nodes.items():
        if not isinstance(schema, dict):
            continue
        if MERGE_KEY in schema and not (isinstance(schema[MERGE_KEY], str) and schema[MERGE_KEY]):
            detail = f"{MERGE_KEY} is the name of the member that tells the items of the array apart."
            yield Fault(f"{here}/{MERGE_KEY}", "invalid_schema", detail)
        elif MERGE_KEY in schema and not _is_array(schema):
            yield Fault(f"{here}/{MERGE_KEY}", "invalid_schema", f"{MERGE_KEY} stands beside type: array.")
        if ON_CONFLICT in schema and (here or schema[ON_CONFLICT] not in list(ConflictPolicy)):
            detail = f"{ON_CONFLICT} stands at the root of a schema and is {', '.join(ConflictPolicy)}."
            yield Fault(f"{here}/{ON_CONFLICT}", "invalid_schema", detail)
        if CUTOFF in schema and schema[CUTOFF] not in FORMS:
            yield Fault(f"{here}/{CUTOFF}", "invalid_schema", f"{CUTOFF} is {' or '.join(FORMS)}.")


def _is_array(schema: dict[str, Any]) -> bool:
    return schema["type"] in ("array", ["array", "null"], ["null", "array"]) if "type" in schema else "items" in schema
