"""Changes sent, and what is said when they are for another kind of blob."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sdk.answers import Answer
    from sdk.client import Studio


async def patched(studio: Studio, blob_id: str, patch: Any, **asked: Any) -> Answer:
    """Send a patch; raises ApiProblem, or a usage error that says what to use for a blob of this kind."""
    from sdk.problems import ApiProblem  # noqa: PLC0415 - `studio --help` need not pay for it

    try:
        return await studio.patch_blob(blob_id, patch, **asked)
    except ApiProblem as problem:
        missing = {member for member in ("content", "data") if problem.detail == f"There is no member '{member}'."}
        if problem.code != "path_not_found" or not missing:
            raise
        told = _kind((await studio.get_blob(blob_id)).body, missing.pop())
        if told is None:
            raise
        raise typer.BadParameter(told) from problem


def _kind(blob: dict[str, Any], missing: str) -> str | None:
    """Return what the blob has instead; None if it is of that kind, and lacks something else."""
    large = "data" if "json" in blob["content_type"] else "content"  # then the answer shows neither
    kind = next((member for member in ("content", "data", "binary") if member in blob), large)
    if kind == missing:
        return None
    return {
        "content": "This blob has content (a text): use --content, or --set for its title, tags and metadata.",
        "data": "This blob has data (JSON): use --data, or --set /data/...=VALUE.",
        "binary": f"This blob is a file ({blob['content_type']}): it has no {missing}.",
    }[kind]
