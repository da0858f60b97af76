"""How the steps of a definition are read and checked; one function per step type."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.canonical import escaped
from domain.definition_ir import AI_SERVICE, APPROVAL, CACHE, STEP_TYPES, Output, SchemaRef, Step
from domain.errors import Fault, Invalid
from domain.expression_tree import MEMBERS, Path
from domain.expressions import compile_expression, interpolations, is_expression, sources
from domain.fields import Fields, near
from domain.memo import Cache
from domain.retries import read_retry
from domain.schemas import Schema, canonical_slug, definition_faults

TIMEOUT_SECONDS_MAX: Final = 3600
OPERATIONS_MAX: Final = 100
OUTPUTS_MAX: Final = 20
PROMPT_CHARS_MAX: Final = 32_000
APPROVAL_CHARS_MAX: Final = 4000
TOKENS_MAX: Final = 100_000
COMPLETE_SKILL: Final = "/complete"
#: what a provider may declare that it reads besides the content (CASCADES, rule 5)
READABLE: Final = ("title", "tags", "metadata")
#: milliseconds that the run took, put into the context by whoever runs it: different each time
EXECUTION_TIME: Final = "execution_time"
#: places of the context that are given to a run and never written by its steps
GIVEN: Final = frozenset({"data", "title", "tags", "metadata", "settings", "blob", "inputs", "steps", EXECUTION_TIME})

_STEP_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
_ENDPOINT: Final = r"(/[A-Za-z0-9_~!$&'()*+,;=:@%-][A-Za-z0-9_~!$&'()*+,;=:@%.-]*)+/?"
_TARGET: Final = re.compile(rf"\$(\.{_NAME}){{1,8}}")
_PROMPT_ONLY: Final = ("system", "response_schema", "max_tokens", "temperature")


@dataclass(slots=True)
class Reading:
    """What reading the steps of one definition gathers."""

    services: Collection[str]
    schemas: Callable[[str], Schema | None]
    faults: list[Fault]
    ids: set[str] = field(default_factory=set)
    outputs: list[Output] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    #: services that answer equal requests equally
    pure: Collection[str] = ()
    #: names in the context that are different in each run
    volatile: set[str] = field(default_factory=lambda: {EXECUTION_TIME})
    #: places that hold when a person approved a run
    moments: set[tuple[str, ...]] = field(default_factory=set)

    def expression(self, pointer: str, source: Any) -> frozenset[Path]:
        """Check one expression; the paths it reads, none if it cannot be read."""
        if not isinstance(source, str):
            self.faults.append(Fault(pointer, "wrong_type", "An expression is text."))
            return frozenset()
        try:
            paths = compile_expression(source).paths
        except Invalid as error:
            self.faults.append(Fault(pointer, error.problem_code, error.detail))
            return frozenset()
        self.reads |= {name for path in paths for name in _attributes(path)}
        return paths

    def template(self, pointer: str, template: Any) -> tuple[str, ...]:
        """Check every expression of a template; the pointers (inside it) of what each run changes."""
        changing = []
        for place, source in sources(template):
            if self.changes(self.expression(pointer + place, source)):
                changing.append(place)
        return tuple(changing)

    def text_template(self, pointer: str, template: str) -> bool:
        """Check the expressions of a text; whether each run changes it."""
        paths = [path for source in interpolations(template) for path in self.expression(pointer, source)]
        return self.changes(paths)

    def changes(self, paths: Collection[Path]) -> bool:
        """Whether something at these paths is different in each run."""
        return any(not path or path[0] in self.volatile or self._tells_when(path) for path in paths)

    def _tells_when(self, path: Path) -> bool:
        return any(tuple(path[: len(at)]) == at[: len(path)] for at in self.moments)

    def schema(self, fields: Fields, name: str) -> Schema | None:
        """The schema that a field names."""
        reference = fields.text(name, required=True, most=80)
        found = self.schemas(canonical_slug(reference)) if reference else None
        if reference and found is None:
            fields.fault(name, "unknown_schema", f"There is no schema {reference}: POST /schemas first.")
        return found


def _attributes(path: Path) -> Iterator[str]:
    """Which of title, tags and metadata a path of the context looks at."""
    if path[-1:] == (MEMBERS,):
        return
    if path[:1] == ("inputs",):
        path = path[2:] or ("*",)
    elif path[:1] == ("blob",):
        path = path[1:] or ("*",)
    if not path or path[0] == "*":
        yield from READABLE
    elif path[0] in READABLE:
        yield path[0]


def read_step(raw: Any, pointer: str, reading: Reading) -> Step | None:
    """One step, None if it cannot even be told which type it is; faults go to ``reading``."""
    fields = Fields(raw, pointer, reading.faults, "A step")
    step_id = fields.text("id", required=True, pattern=_STEP_ID)
    if step_id in reading.ids:
        fields.fault("id", "duplicate_id", f"Another step is called {step_id}.")
    reading.ids.add(step_id)
    kind = fields.text("type", required=True, most=64)
    if kind not in STEP_TYPES:
        if kind:
            known = near(kind, STEP_TYPES) or f"; known: {', '.join(STEP_TYPES)}"
            fields.fault("type", "unknown_step_type", f"There is no step type {kind}{known}.")
        return None
    name = fields.text("name", most=100) or step_id
    timeout = fields.duration("timeout", least=0.1, most=TIMEOUT_SECONDS_MAX)
    attempts, retry = read_retry(fields, "retry")
    schema, config = _READERS[kind](fields, step_id, reading)
    fields.finish()
    ref = SchemaRef(schema.slug, schema.version) if schema else None
    return Step(
        id=step_id,
        type=kind,
        name=name,
        schema=ref,
        timeout_seconds=timeout,
        max_attempts=attempts,
        retry=retry,
        config=config,
    )


Read = tuple[Schema | None, dict[str, Any]]


def _schema_validation(fields: Fields, _: str, reading: Reading) -> Read:
    schema = reading.schema(fields, fields.one_of("schema_id", "schema"))
    value = fields.raw("value") if fields.has("value") else "$.data"
    reading.template(fields.at("value"), value)
    return schema, {"value": value}


def _computation(fields: Fields, _: str, reading: Reading) -> Read:
    given = fields.required("operations")
    operations: list[list[str]] = []
    if isinstance(given, Mapping):
        pairs = [(fields.at("operations"), given)]
    else:
        pairs = list(fields.items("operations", most=OPERATIONS_MAX)) if given is not None else []
    for pointer, entry in pairs:
        if not isinstance(entry, Mapping) or not entry:
            reading.faults.append(Fault(pointer, "wrong_type", "An operation is a map: name to expression."))
            continue
        operations += [
            _operation(f"{pointer}/{escaped(str(name))}", name, source, reading) for name, source in entry.items()
        ]
    return None, {"operations": operations}


def _operation(pointer: str, name: Any, source: Any, reading: Reading) -> list[str]:
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        reading.faults.append(Fault(pointer, "invalid_id", "A name is letters, digits and underscores."))
    elif name in GIVEN:
        reading.faults.append(Fault(pointer, "invalid_value", f"$.{name} is given and cannot be written."))
    source = str(source) if isinstance(source, int | float) and not isinstance(source, bool) else source
    if reading.changes(reading.expression(pointer, source)):
        reading.volatile.add(name)
    else:
        reading.volatile.discard(name)
    return [name, source]


def _api_call(fields: Fields, _: str, reading: Reading) -> Read:
    service = fields.text("service", required=True, most=64)
    _known_service(fields, "service", service, reading)
    endpoint = fields.text("endpoint", required=True, most=200, pattern=_ENDPOINT)
    return None, _call(fields, service, endpoint, reading)


def _known_service(fields: Fields, name: str, service: str, reading: Reading) -> None:
    if service and service not in reading.services:
        known = near(service, reading.services) or f"; declared: {', '.join(sorted(reading.services)) or 'none'}"
        fields.fault(name, "unknown_service", f"No service {service} is declared in the settings{known}.")


def _call(fields: Fields, service: str, endpoint: str, reading: Reading) -> dict[str, Any]:
    input_map = fields.mapping("input_map")
    reading.template(fields.at("input_map"), input_map)
    return {
        "service": service,
        "endpoint": endpoint,
        "input_map": input_map,
        "texts": {},
        "output_map": _output_map(fields, reading),
        **_cache(fields, service, reading),
    }


def _cache(fields: Fields, service: str, reading: Reading) -> dict[str, str]:
    """What a step says about reusing answers, if it says anything."""
    cache = fields.choice(CACHE, tuple(Cache), "")
    if cache == Cache.INPUTS and service != AI_SERVICE and service in reading.services and service not in reading.pure:
        detail = f"{service} may answer equal requests differently: the settings do not call it pure."
        fields.fault(CACHE, "invalid_value", detail)
    return {CACHE: cache} if cache else {}


def _output_map(fields: Fields, reading: Reading) -> dict[str, str]:
    output_map = fields.mapping("output_map")
    for name, target in output_map.items():
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            detail = "output_map reads response field to context path, such as style: $.style_analysis."
            fields.noted(f"{fields.at('output_map')}/{escaped(name)}", "invalid_value", detail)
        elif (root := target.split(".")[1]) in GIVEN:
            fields.noted(
                f"{fields.at('output_map')}/{escaped(name)}",
                "invalid_value",
                f"$.{root} is given and cannot be written.",
            )
        else:
            reading.volatile.discard(root)
    return output_map


def _ai_call(fields: Fields, _: str, reading: Reading) -> Read:
    _known_service(fields, "type", AI_SERVICE, reading)
    if fields.has("skill") == fields.has("prompt"):
        fields.fault("", "invalid_value", "An ai-call has either skill (with input_map) or prompt.")
    if fields.has("prompt"):
        return None, _prompt(fields, reading)
    skill = fields.text("skill", most=200, pattern=_ENDPOINT)
    for name in _PROMPT_ONLY:
        if fields.raw(name) is not None:
            fields.fault(name, "unknown_field", f"{name} goes with prompt, not with skill.")
    return None, _call(fields, AI_SERVICE, skill, reading)


def _prompt(fields: Fields, reading: Reading) -> dict[str, Any]:
    texts = {}
    for name in ("prompt", "system"):
        text = fields.text(name, most=PROMPT_CHARS_MAX)
        if text:
            texts[name] = text
            reading.text_template(fields.at(name), text)
    response_schema = fields.raw("response_schema")
    if response_schema is not None:
        reading.faults += definition_faults(response_schema, fields.at("response_schema"))
    given = {
        "response_schema": response_schema,
        "max_tokens": fields.integer("max_tokens", least=1, most=TOKENS_MAX),
        "temperature": fields.number("temperature", least=0, most=2),
    }
    parameters = {name: value for name, value in given.items() if value is not None}
    if fields.has("input_map"):
        fields.fault("input_map", "unknown_field", "input_map goes with skill; a prompt has {{ $.path }} in it.")
    fields.raw("skill"), fields.raw("input_map")
    return {
        "service": AI_SERVICE,
        "endpoint": COMPLETE_SKILL,
        "input_map": {},
        "parameters": parameters,
        "texts": texts,
        "output_map": _output_map(fields, reading),
        **_cache(fields, AI_SERVICE, reading),
    }


def _approval(fields: Fields, step_id: str, reading: Reading) -> Read:
    for name in ("timeout", "retry"):
        if fields.has(name):
            fields.fault(name, "unknown_field", "An approval waits for a person, however long that takes.")
    prompt = fields.text("prompt", required=True, most=APPROVAL_CHARS_MAX)
    reading.text_template(fields.at("prompt"), prompt or "")
    reading.moments.add(("steps", step_id, "at"))
    return None, {"prompt": prompt}


def _state_update(fields: Fields, step_id: str, reading: Reading) -> Read:
    fields.choice("operation", ("create-blob",), "create-blob")
    if not fields.has("operation"):
        fields.fault("operation", "missing_field", "A state-update needs operation: create-blob.")
    schema = reading.schema(fields, fields.one_of("schema_id", "schema"))
    data = fields.required("data_map")
    if not isinstance(data, Mapping) and not is_expression(data) and data is not None:
        fields.fault("data_map", "wrong_type", "data_map is a map, or an expression such as $.result.")
    volatile = reading.template(fields.at("data_map"), data)
    title = _title(fields, reading)
    tags, metadata = fields.raw("tags"), fields.raw("metadata")
    for name, template in (("tags", tags), ("metadata", metadata)):
        if reading.template(fields.at(name), template):
            fields.fault(name, "invalid_value", f"{name} would change with every run: use data_map for that.")
    _required_members(fields, data, schema)
    if len(reading.outputs) >= OUTPUTS_MAX:
        fields.fault("", "too_many", f"A definition has at most {OUTPUTS_MAX} outputs.")
    ref = SchemaRef(schema.slug, schema.version) if schema else SchemaRef("", "")
    reading.outputs.append(
        Output(slot=step_id, schema=ref, title=title, tags=tags, metadata=metadata, volatile=volatile)
    )
    config = {"operation": "create-blob", "data_map": data, "title": title, "tags": tags, "metadata": metadata}
    return schema, config


def _title(fields: Fields, reading: Reading) -> str | None:
    title = fields.text("title", most=1000) or None
    if title and reading.text_template(fields.at("title"), title):
        fields.fault("title", "invalid_value", "The title would change with every run.")
    return title


def _required_members(fields: Fields, data: Any, schema: Schema | None) -> None:
    """What the schema requires and data_map does not fill in could never be valid."""
    effective = schema.effective if schema else None
    if not isinstance(effective, dict) or not isinstance(data, Mapping):
        return
    for name in effective.get("required", ()):
        if name not in data and schema:
            fields.noted(f"{fields.at('data_map')}/{escaped(name)}", "missing_field", f"{schema.slug} requires {name}.")


_READERS: Final[dict[str, Callable[[Fields, str, Reading], Read]]] = {
    "schema-validation": _schema_validation,
    "computation": _computation,
    "api-call": _api_call,
    "ai-call": _ai_call,
    APPROVAL: _approval,
    "state-update": _state_update,
}
