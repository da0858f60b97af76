"""Who did what to a blob, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def who(row: Mapping[str, Any]) -> str:
    """Return who changed something: you, a provider, or you with what a provider has written.

    Whatever a key reads is its own user's, so a person in it is always whoever asks.
    """
    actor, provider = str(row.get("actor") or ""), row.get("provider_id")
    person = actor.startswith("user:")
    if person and provider:
        return f"accepted by you, written by {provider}"
    return "you" if person else str(provider or actor)


def operations(rows: Sequence[Any]) -> Callable[[Any], str]:
    """Return what names a row's operation; of a revert also the version whose content it has, if it is among them.

    Which version was asked for is not recorded, only what came of it: the same content by its hash.
    """
    versions: dict[str, list[int]] = {}
    for row in rows:
        versions.setdefault(row["content_hash"], []).append(row["version"])

    def named(row: Any) -> str:
        same = [version for version in versions[row["content_hash"]] if version < row["version"]]
        if row["operation"] != "revert" or not same or same[-1] == row["version"] - 1:
            return str(row["operation"])
        return f"revert (content of {same[-1]})"

    return named
