"""Schemas: JSON Schema (draft-07 and 2020-12) with a name and a version, checked when registered, compiled once.

Validation never touches the network, and patterns run in time linear in the text. ``schema_checks.py`` holds what
a definition must satisfy before it may be used on other people's data, ``volatile.py`` what cut-off leaves out.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NoReturn

import jsonschema_rs

from domain.canonical import canonical, escaped, load
from domain.errors import Fault, Invalid
from domain.fields import FAULTS_MAX, Fields, refuse
from domain.normal_forms import has_normal_form
from domain.schema_checks import PATTERN_OPTIONS, definition_faults
from domain.volatile import strip_volatile

__all__ = [
    "Schema",
    "Validator",
    "canonical_slug",
    "compile_validator",
    "definition_faults",
    "parse_schema",
    "require_valid",
    "strip_volatile",
]

EXAMPLES_MAX: Final = 20
VALIDATORS_CACHED: Final = 512
SEED_PREFIX: Final = "schema-"
VERSION_DEFAULT: Final = "1.0.0"

_NAME: Final = r"[a-z0-9][a-z0-9-]{0,62}"
_SLUG: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,62}?)-v(\d{1,4})")
_VERSION: Final = r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z.-]{1,40})?"
_ROLES: Final = ("input", "output", "intermediate")

Definition = dict[str, Any] | bool


@dataclass(frozen=True, kw_only=True)
class Schema:
    """One immutable version of a schema. ``slug`` is its name with the major version, such as text-input-v1."""

    slug: str
    version: str
    definition: Definition = field(hash=False)
    description: str = ""
    strict_mode: bool = False
    required_fields: tuple[str, ...] = ()
    examples: tuple[Any, ...] = field(default=(), hash=False)
    role: str = ""
    provider_id: str = ""
    compatible_with: tuple[str, ...] = ()
    deprecated: bool = False

    @property
    def name(self) -> str:
        """The slug without its major version."""
        return self.slug.rpartition("-v")[0]

    @functools.cached_property
    def effective(self) -> Definition:
        """The definition that values must satisfy: strict mode and required fields applied."""
        definition = _closed(self.definition) if self.strict_mode else self.definition
        if not self.required_fields:
            return definition
        base = definition if isinstance(definition, dict) else {} if definition else {"not": {}}
        return {**base, "required": sorted({*base.get("required", ()), *self.required_fields})}

    @property
    def digest(self) -> str:
        """sha256 (hexadecimal) of all that decides whether a value is valid."""
        return hashlib.sha256(canonical(self.effective)).hexdigest()

    @functools.cached_property
    def validator(self) -> Validator:
        """The compiled form, shared by all schemas with the same definition."""
        return compile_validator(self.effective)

    @functools.cached_property
    def has_normal_form(self) -> bool:
        """Whether early cut-off leaves anything out or folds anything: with most schemas it does not."""
        return has_normal_form(self.definition)

    def to_json(self) -> dict[str, Any]:
        """Everything, as ``from_json`` and ``parse_schema`` read it."""
        return {
            "slug": self.slug,
            "version": self.version,
            "definition": self.definition,
            "description": self.description,
            "strict_mode": self.strict_mode,
            "required_fields": list(self.required_fields),
            "examples": list(self.examples),
            "type": self.role or None,
            "provider_id": self.provider_id or None,
            "compatible_with": list(self.compatible_with),
            "deprecated": self.deprecated,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Schema:
        """The schema that ``to_json`` wrote; it is trusted, not checked again."""
        return cls(
            slug=stored["slug"],
            version=stored["version"],
            definition=stored["definition"],
            description=stored["description"],
            strict_mode=stored["strict_mode"],
            required_fields=tuple(stored["required_fields"]),
            examples=tuple(stored["examples"]),
            role=stored["type"] or "",
            provider_id=stored["provider_id"] or "",
            compatible_with=tuple(stored["compatible_with"]),
            deprecated=stored["deprecated"],
        )


class Validator:
    """A compiled definition; safe to share between threads."""

    __slots__ = ("_compiled",)

    def __init__(self, definition: Definition) -> None:
        self._compiled = jsonschema_rs.validator_for(
            definition,
            mask="the value",  # content never appears in an error
            pattern_options=PATTERN_OPTIONS,
            validate_formats=True,
            retriever=_refuse_retrieval,
        )

    def is_valid(self, value: Any) -> bool:
        """Whether ``value`` satisfies the definition; the fast way if the faults do not matter."""
        return bool(self._compiled.is_valid(value))

    def faults(self, value: Any) -> list[Fault]:
        """Every way (up to 100) in which ``value`` violates the definition, each with its JSON Pointer."""
        if self._compiled.is_valid(value):
            return []
        each = (fault for error in self._compiled.iter_errors(value) for fault in _value_faults(error))
        return list(islice(each, FAULTS_MAX))


def compile_validator(definition: Definition) -> Validator:
    """The validator of a definition that passed ``definition_faults``; compiled once per content."""
    return _compiled(canonical(definition))


@functools.lru_cache(maxsize=VALIDATORS_CACHED)
def _compiled(canonical_definition: bytes) -> Validator:
    return Validator(load(canonical_definition))


def _refuse_retrieval(uri: str) -> NoReturn:
    raise Invalid(f"{uri[:100]} is another address", code="remote_ref")


def _value_faults(error: Any) -> Iterator[Fault]:
    place = "".join(f"/{escaped(str(token))}" for token in error.instance_path)
    kind = error.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        yield Fault(f"{place}/{escaped(kind.property)}", "missing_field", f"{kind.property} is required.")
    elif isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        for name in kind.unexpected:
            yield Fault(f"{place}/{escaped(name)}", "unknown_field", f"{name} is not a field of this schema.")
    else:
        yield Fault(place, "schema_violation", error.message[:300])


def canonical_slug(reference: str) -> str:
    """The one spelling of a schema's slug: ``schema-text-input-v1`` (the seeds') is ``text-input-v1``."""
    return reference.strip().lower().removeprefix(SEED_PREFIX)


def require_valid(schema: Schema, value: Any, *, pointer: str = "", code: str = "schema_violation") -> None:
    """Raise ``Invalid`` with every fault, below ``pointer``, unless ``value`` satisfies ``schema``."""
    faults = schema.validator.faults(value)
    if faults:
        raise Invalid(
            f"The content does not satisfy {schema.slug}: {faults[0].pointer or '/'}: {faults[0].detail}",
            code=code,
            faults=[Fault(pointer + fault.pointer, fault.code, fault.detail) for fault in faults],
        )


def parse_schema(raw: Any) -> Schema:
    """Check a schema that somebody registers; raises ``Invalid`` (invalid_schema) with all faults at once.

    ``slug`` may also be called ``name``, ``schema_name`` or ``id``, with or without its major version (seeds 003,
    004).
    """
    faults: list[Fault] = []
    fields = Fields(raw, "", faults, "A schema")
    name_field = fields.one_of("slug", "name", "schema_name", "id")
    name = canonical_slug(fields.text(name_field, required=True, most=80))
    given = fields.text("version", pattern=_VERSION)
    slug, version = _identity(fields, name_field, name, given)
    definition_field = fields.one_of("definition", "schema", "json_schema")
    definition = fields.required(definition_field)
    before = len(faults)
    if definition is not None:
        faults += definition_faults(definition, fields.at(definition_field))
    schema = Schema(
        slug=slug,
        version=version,
        definition=definition if isinstance(definition, dict | bool) else True,
        description=fields.text("description", most=2000),
        strict_mode=fields.boolean("strict_mode", default=False),
        required_fields=tuple(text for _, text in fields.texts("required_fields")),
        examples=tuple(item for _, item in fields.items("examples", most=EXAMPLES_MAX)),
        role=fields.choice("type", _ROLES, ""),
        provider_id=fields.text(fields.one_of("provider_id", "processor_id"), most=64),
        compatible_with=tuple(canonical_slug(text) for _, text in fields.texts("compatible_with")),
        deprecated=fields.boolean("deprecated", default=False),
    )
    fields.finish()
    if len(faults) == before:
        faults += _example_faults(schema)
    refuse(faults, "invalid_schema", "The schema")
    return schema


def _identity(fields: Fields, name_field: str, name: str, version: str) -> tuple[str, str]:
    match = _SLUG.fullmatch(name)
    if match is None:
        if name and not re.fullmatch(_NAME, name):
            fields.fault(name_field, "invalid_id", f"{name_field} is lower-case letters, digits and hyphens.")
        version = version or VERSION_DEFAULT
        return f"{name}-v{version.partition('.')[0]}", version
    major = str(int(match.group(2)))
    if version and version.partition(".")[0] != major:
        fields.fault("version", "invalid_value", f"The version of {name} begins with {major}.")
    return f"{match.group(1)}-v{major}", version or f"{major}.0.0"


def _example_faults(schema: Schema) -> Iterator[Fault]:
    for index, example in enumerate(schema.examples):
        for fault in schema.validator.faults(example):
            yield Fault(f"/examples/{index}{fault.pointer}", fault.code, fault.detail)


def _closed(definition: Any) -> Any:
    """``definition`` with every object that lists its properties closed to others, as strict mode wants."""
    if not isinstance(definition, dict):
        return definition
    closed = dict(definition)
    for keyword in ("properties", "$defs", "definitions"):
        if isinstance(closed.get(keyword), dict):
            closed[keyword] = {name: _closed(part) for name, part in closed[keyword].items()}
    if isinstance(closed.get("items"), dict):
        closed["items"] = _closed(closed["items"])
    if "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed
