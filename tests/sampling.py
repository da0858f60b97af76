"""Cases that every run of the suite tries, and those that only a soak does.

The same test has both: the others are called ``soak-...``, which ``make soak`` selects, and are skipped elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

import pytest

_SOAKING = bool(os.environ.get("STUDIO_SOAK_KILLS"))
_SKIPPED = pytest.mark.skipif(not _SOAKING, reason="a soak: set STUDIO_SOAK_KILLS")


def sampled(cases: Iterable[Any], brief: Collection[Any]) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize``: each case, a tuple if it has several; ``brief`` are always tried.

    A case that is brief and does not exist is a mistake of the test's: ValueError.
    """
    every = list(cases)
    unknown = [case for case in brief if case not in every]
    if unknown:
        raise ValueError(f"no such cases: {unknown}")
    return [_parameter(case, always=case in brief) for case in every]


def _parameter(case: Any, *, always: bool) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    name = "-".join(str(value) for value in values)
    return pytest.param(*values, id=name if always else f"soak-{name}", marks=() if always else _SKIPPED)
