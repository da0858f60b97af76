"""A conflict in words: who changed what meanwhile, where two sides clash, and the commands that lead on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cli.history import who
from cli.output import moment, short

if TYPE_CHECKING:
    from sdk.problems import ApiProblem

CONTEXT_WORDS = 2
"""What is shown of the words that both sides share, before and after those that differ."""
SHOWN_MAX = 20
"""Changes and clashes that people are shown one by one; JSON has them all."""
_SINCE = re.compile(r"/blobs/([^/?]+)/deltas\?from_version=(\d+)$")


def explained(problem: ApiProblem) -> Iterator[str]:
    """Yield what a refused write says of the other side's changes, a line each; nothing for any other problem."""
    document = problem.document
    changes, conflicts = document.get("changes") or [], document.get("conflicts") or []
    for change in changes[-SHOWN_MAX:]:
        places = ", ".join(pointer or "everything" for pointer in change["pointers"])
        yield f"version {change['version']}: {change['operation']} by {who(change)}, {moment(change['at'])}: {places}"
    yield from clashes(conflicts)
    found = _SINCE.search(document.get("deltas_url") or "")
    if changes and found:
        blob, since = found.groups()
        yield f"look: studio blob diff {blob}" + (f" --from {since}" if since != "0" else "")
        yield "then say the version that you know now with --if-version, or --on-conflict merge to keep both sides"
    elif conflicts:
        yield "to decide: --on-conflict merge keeps what is there in these places, last_write_wins takes the other side"


def clashes(conflicts: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each place where two sides clash: what is there, then the other side."""
    for conflict in conflicts[:SHOWN_MAX]:
        ours, theirs = (_words(conflict, side) for side in ("ours", "theirs"))
        yield f"Clash at {conflict['pointer'] or '/'}: {_differing(ours, theirs)}"
    if len(conflicts) > SHOWN_MAX:
        yield f"and {len(conflicts) - SHOWN_MAX} more clashes: --json has them all."


def _words(conflict: Mapping[str, Any], side: str) -> list[str]:
    if side not in conflict:
        return ["(nothing)"]
    value = conflict[side]
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split()


def _differing(ours: list[str], theirs: list[str]) -> str:
    if ours == theirs:
        return "only white space differs"
    least = min(len(ours), len(theirs))
    before = next((at for at in range(least) if ours[at] != theirs[at]), least)
    after = next((at for at in range(least - before) if ours[-1 - at] != theirs[-1 - at]), least - before)
    return " / ".join(_stretch(words, before, len(words) - after) for words in (ours, theirs))


def _stretch(words: list[str], start: int, end: int) -> str:
    """Return the words from start to end with what stands next to them."""
    first, last = max(start - CONTEXT_WORDS, 0), min(end + CONTEXT_WORDS, len(words))
    shown = short(" ".join(words[first:last]))
    return ("…" if first else "") + (shown or "(nothing)") + ("…" if last < len(words) else "")
