"""Where a cascade was stopped by a bound, in words: ``cascades.error`` as plan and claim leave it.

Two bounds stop what would grow (``depth``, ``nodes``): what is beyond them is not made. One puts off what would repeat
(``runs``): it goes on by itself once its window has passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SETTINGS = {
    "depth": "cascades.depth_max",
    "nodes": "cascades.nodes_max",
    "derivation": "cascades.runs_per_derivation_max",
    "root": "cascades.runs_per_root_max",
}
"""The setting behind each bound; of ``runs`` by what they were counted."""


def bound_words(error: Mapping[str, Any]) -> str:
    """Say which bound a cascade met, where, and what becomes of the rest; other errors are said by their code."""
    bound, limit = error.get("bound"), error.get("limit")
    stopped = error.get("stopped") or []
    where = stopped[0] if stopped else {}
    if bound == "depth":
        return (
            f"It stopped at blob {where.get('blob_id')}: what provider {where.get('provider_id')} would make of it"
            f" would be deeper than {limit} derivations ({SETTINGS['depth']})."
        )
    if bound == "nodes":
        return (
            f"It stopped at blob {where.get('blob_id')}, before provider {where.get('provider_id')}: one cascade makes"
            f" at most {limit} new derivations ({SETTINGS['nodes']})."
        )
    if bound == "runs":
        per = str(error.get("per") or "derivation")
        what = f"Derivation {where.get('derivation_id')}" if per == "derivation" else f"Root {where.get('root_id')}"
        return (
            f"{what} has had {limit} runs within the window ({SETTINGS.get(per, per)}), which looks like a loop;"
            f" the rest goes on at {error.get('until')}."
        )
    return str(error.get("detail") or error.get("code") or "It met an error.")


def explained(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the error of a cascade with its ``detail``; None if there is none."""
    return None if error is None else {**error, "detail": bound_words(error)}
