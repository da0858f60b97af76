"""Answers that a JSON Schema constrains: the schema is checked before the model is asked, the answer after."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import orjson

from ai.completions import Completion
from domain.errors import Fault, Invalid, ProviderFailed

SCHEMA_BYTES_MAX = 16 * 1024
SCHEMA_DEPTH_MAX = 24
FAULTS_MAX = 10

# An API that ignores response_format answers with a Markdown code block.
_FENCED = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)


def checked_schema(schema: Mapping[str, Any], *, pointer: str) -> jsonschema_rs.Validator:
    """A validator for ``schema``; raises Invalid with faults under ``pointer``. No address is ever fetched."""
    if _depth(schema) > SCHEMA_DEPTH_MAX or len(json.dumps(schema)) > SCHEMA_BYTES_MAX:
        detail = f"At most {SCHEMA_BYTES_MAX} bytes and {SCHEMA_DEPTH_MAX} levels."
        raise Invalid("The schema is too large.", faults=[Fault(pointer, "invalid_schema", detail)])
    try:
        return jsonschema_rs.validator_for(
            dict(schema),
            offline=True,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),  # linear time, whatever the pattern
        )
    except ValueError as error:
        code = "remote_ref" if "Retrieval is disabled" in str(error) else "invalid_schema"
        fault = Fault(pointer, code, str(error).splitlines()[0])
        raise Invalid("The schema cannot be used.", faults=[fault]) from error


def parsed(completion: Completion, validator: jsonschema_rs.Validator) -> Any:
    """The JSON value of an answer; raises ProviderFailed (``invalid_output``) unless it is one of the schema."""
    try:
        value = orjson.loads(_FENCED.sub(r"\1", completion.text.strip()))
    except orjson.JSONDecodeError as error:
        why = "was cut off at max_tokens" if completion.cut_off else "is not JSON"
        raise ProviderFailed(f"The model's answer {why}.", code="invalid_output") from error
    faults = [
        Fault("/value" + "".join(f"/{part}" for part in found.instance_path), "schema_violation", found.message)
        for found, _ in zip(validator.iter_errors(value), range(FAULTS_MAX), strict=False)
    ]
    if faults:
        raise ProviderFailed("The model's answer is not of its schema.", code="invalid_output", faults=faults)
    return value


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion and no further than is needed to refuse."""
    depth = 0
    level = [value]
    while level and depth <= SCHEMA_DEPTH_MAX:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
