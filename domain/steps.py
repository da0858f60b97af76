"""What each step of a definition means when it runs: pure functions from a context to what it gains.

A context is one JSON map. A run starts with ``initial_context``; then, in order, a pure step adds what ``run_pure``
returns, a call step sends ``request`` and adds what ``absorb`` makes of the answer, and a stage step makes a
document with ``stage``. Whoever runs them puts ``execution_time`` (integer milliseconds since the run began) into
the context before staging, and merges each returned map with ``{**context, **gained}``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from domain.canonical import canonical
from domain.definition_ir import CONTENT_TYPE, Step
from domain.documents import Document, visible
from domain.errors import Fault, Invalid, StudioError
from domain.expressions import compile_expression, render, resolve
from domain.memo import Request
from domain.schemas import Schema, require_valid

INPUTS_MAX: Final = 1000
QUESTION_CHARS_MAX: Final = 8000
READABLE: Final = ("title", "tags", "metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputBlob:
    """One pinned input of a run; ``position`` is its place in the collection, if it is a member of one."""

    blob_id: str
    version: int
    document: Document
    position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCall:
    """One request to a service; None stands for the default of whoever sends it.

    ``key`` is the same exactly for equal requests of equal steps: the memo's.
    """

    step_id: str
    name: str
    service: str
    endpoint: str
    body: dict[str, Any] = field(hash=False)
    key: str
    timeout_seconds: float | None = None
    max_attempts: int | None = None


def initial_context(
    inputs: Sequence[InputBlob],
    settings: Mapping[str, Any],
    *,
    collection: bool = False,
    reads: Collection[str] = READABLE,
) -> dict[str, Any]:
    """The context that a run begins with.

    For a blob as anchor ``data``, ``title``, ``tags``, ``metadata``, ``blob``, ``settings``; for a ``collection``
    ``inputs`` (ordered by position, then id) and ``settings``. Of title, tags and metadata only those that the
    provider ``reads`` are shown, so that nothing can depend on what cut-off ignores. Raises ``Invalid`` (too_many)
    beyond 1000 inputs.
    """
    if len(inputs) > INPUTS_MAX:
        raise Invalid(f"A run has at most {INPUTS_MAX} inputs, not {len(inputs)}.", code="too_many")
    if collection:
        ordered = sorted(inputs, key=_place)
        return {"inputs": [_member(item, reads) for item in ordered], "settings": dict(settings)}
    if len(inputs) != 1:
        raise ValueError("a run that is anchored at a blob has exactly one input")
    only = inputs[0]
    context = {"data": visible(only.document), "settings": dict(settings), **_attributes(only.document, reads)}
    context["blob"] = {"id": only.blob_id, "version": only.version, "title": context.get("title")}
    return context


def _place(item: InputBlob) -> tuple[bool, int, str]:
    return (item.position is None, item.position or 0, item.blob_id)


def _attributes(document: Document, reads: Collection[str]) -> dict[str, Any]:
    shown = {
        "title": document.title or None,  # no title is null, so that || can give another
        "tags": list(document.tags),
        "metadata": dict(document.metadata),
    }
    return {name: value for name, value in shown.items() if name in reads}


def _member(item: InputBlob, reads: Collection[str]) -> dict[str, Any]:
    return {
        "data": visible(item.document),
        "position": item.position,
        "blob_id": item.blob_id,
        "version": item.version,
        **_attributes(item.document, reads),
    }


def run_pure(step: Step, context: Mapping[str, Any], schema: Schema | None = None) -> dict[str, Any]:
    """What a pure step adds to the context. ``schema`` is the one that ``step.schema`` names, if it names one.

    Raises ``Invalid``: schema_violation with every fault, expression_failed, expression_budget_exceeded.
    """
    if step.type == "schema-validation":
        if schema is None:
            raise ValueError(f"{step.id} needs its schema")
        require_valid(schema, resolve(step.config["value"], context))
        return {}
    if step.type == "computation":
        return _compute(step, context)
    raise ValueError(f"{step.type} is not a pure step")


def _compute(step: Step, context: Mapping[str, Any]) -> dict[str, Any]:
    gained: dict[str, Any] = {}
    for name, source in step.config["operations"]:
        try:
            gained[name] = compile_expression(source).evaluate({**context, **gained})
        except Invalid as error:
            raise _of_step(error, step, f"operations/{name}") from None
    return gained


def _of_step(error: Invalid, step: Step, place: str) -> Invalid:
    fault = Fault(f"/steps/{step.id}/{place}", error.problem_code, error.detail)
    return Invalid(f"Step {step.id}, {place}: {error.detail}", code=error.problem_code, faults=[fault])


def request(step: Step, context: Mapping[str, Any], revision: str = "") -> ServiceCall:
    """The call that a call step makes; raises ``Invalid`` where an expression cannot be evaluated.

    ``revision`` is what the settings call the service as it is now.
    """
    config = step.config
    try:
        body = {**resolve(config["input_map"], context), **config.get("parameters", {})}
        body |= {name: render(text, context) for name, text in config["texts"].items()}
    except Invalid as error:
        raise _of_step(error, step, "input_map") from None
    return ServiceCall(
        step_id=step.id,
        name=step.name,
        service=config["service"],
        endpoint=config["endpoint"],
        body=body,
        key=Request(
            step_digest=step.digest,
            service=config["service"],
            revision=revision,
            method="POST",
            endpoint=config["endpoint"],
            body=body,
        ).key,
        timeout_seconds=step.timeout_seconds,
        max_attempts=step.max_attempts,
    )


def absorb(step: Step, response: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a call step adds to the context: ``output_map`` reads response field to context path.

    A field that the answer lacks is null. Without an ``output_map`` the answer is at ``$.steps["<id>"]``. Raises
    ``Invalid`` (invalid_output) if fields are wanted of an answer that is not a map.
    """
    output_map: Mapping[str, str] = step.config["output_map"]
    if not output_map:
        return {"steps": {**context.get("steps", {}), step.id: response}}
    if not isinstance(response, Mapping):
        raise Invalid(f"Step {step.id}: the answer is not a map.", code="invalid_output")
    gained: dict[str, Any] = {}
    for name, target in output_map.items():
        root, *rest = target.split(".")[1:]
        gained[root] = _placed(gained.get(root, context.get(root)), rest, _field(response, name))
    return gained


def kept_answer(step: Step, response: Any) -> Any:
    """As much of an answer as ``absorb`` reads, in whatever context: what the memo keeps of it."""
    output_map: Mapping[str, str] = step.config["output_map"]
    return {name: _field(response, name) for name in output_map} if output_map else response


def question(step: Step, context: Mapping[str, Any]) -> str:
    """What an approval step asks a person, shortened; raises ``Invalid`` where an expression cannot be evaluated."""
    try:
        return _text(render(step.config["prompt"], context))[:QUESTION_CHARS_MAX]
    except Invalid as error:
        raise _of_step(error, step, "prompt") from None


def approval(step_id: str, *, by: str, comment: str | None, at: str) -> dict[str, Any]:
    """What an approved step adds to the context: ``$.steps["<id>"]`` says who approved, when, and what they wrote."""
    return {"steps": {step_id: {"approved": True, "by": by, "comment": comment, "at": at}}}


def _field(response: Mapping[str, Any], name: str) -> Any:
    if name in response:
        return response[name]
    value: Any = response
    for part in name.removeprefix("$.").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _placed(current: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    base = dict(current) if isinstance(current, Mapping) else {}
    return {**base, path[0]: _placed(base.get(path[0]), path[1:], value)}


def stage(step: Step, context: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The output document of a stage step: ``{content_type, data, title, tags, metadata}``, valid for ``schema``.

    Without a ``title`` of its own an output takes that of its input, if the provider reads titles. Raises
    ``Invalid`` (invalid_output) with every fault, pointers into the document.
    """
    try:
        document = {
            "content_type": CONTENT_TYPE,
            "data": resolve(step.config["data_map"], context),
            "title": _text(render(step.config["title"] or "$.title", context)),
            "tags": resolve(step.config["tags"], context) or [],
            "metadata": resolve(step.config["metadata"], context) or {},
        }
    except Invalid as error:
        raise _of_step(error, step, "data_map") from None
    require_valid(schema, document["data"], pointer="/data", code="invalid_output")
    try:
        return Document.parse(document).to_json()
    except StudioError as error:
        raise Invalid(error.detail, code="invalid_output", faults=error.faults) from None


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else canonical(value).decode()
