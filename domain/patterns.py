"""Regular expressions whose matching time is linear in the text, whatever the pattern (RE2)."""

from __future__ import annotations

import functools
from typing import Any, Final

import re2

from domain.errors import Invalid

PATTERN_CHARS_MAX: Final = 500
#: bytes that one compiled pattern may take; counted repetitions such as (a{99}){99} want more and are refused
PATTERN_MEMORY_MAX: Final = 1 << 20


@functools.lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Any:
    """An RE2 pattern (``search``, ``fullmatch``), so without backreferences and lookaround.

    Raises ``Invalid`` (invalid_value) for anything else, with RE2's reason.
    """
    if len(pattern) > PATTERN_CHARS_MAX:
        raise Invalid(f"a pattern has at most {PATTERN_CHARS_MAX} characters", code="invalid_value")
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_MAX
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise Invalid(f"not a pattern that runs in linear time (RE2): {text}", code="invalid_value") from None
