"""Recorded histories: keep one, play one on today's code, and say what to do where they do not fit.

A feature that changes what a workflow does keeps a history of itself: run it once in a test, then
``await kept(handle, "cascade-with-approval")``. The history is replayed at once; ``STUDIO_RECORD_HISTORIES=1`` writes
it to ``histories/``, and from then on every test run replays it, after whatever is changed later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import NondeterminismError

from workflows.cascades import Cascade
from workflows.housekeeping import Housekeeping, Reconcile
from workflows.runs import ProviderRun

HISTORIES = Path(__file__).parent / "histories"
WORKFLOWS = (Cascade, ProviderRun, Reconcile, Housekeeping)
EXPLANATION = """\
The recorded history {name!r} does not replay on today's code: a workflow's commands have changed (an activity, timer, \
child, search attribute or patch marker more, less, or in another order). Workflows that are running now would stop at \
this point as soon as the new worker takes them.

If the change is meant, keep the old way for them:

    if workflow.patched("what-is-new"):   # new runs, and from now on
        ...                               # the new commands
    else:
        ...                               # the old ones, as they were recorded

then add a history of the new way: STUDIO_RECORD_HISTORIES=1 .venv/bin/pytest tests/workflows/test_replay.py, or
`await kept(handle, "name")` in the feature's own test. Never delete or record again an old history to make this pass.
If the change is not meant, undo it: something in a workflow depends on a setting, a clock or the order of a set.

What Temporal says: {reason}"""


class Unreplayable(AssertionError):
    """A history does not fit today's workflows; the message says what to do."""


def recorded(path: Path) -> WorkflowHistory:
    """Read a history."""
    return WorkflowHistory.from_json(path.stem, path.read_text())


async def replays(history: WorkflowHistory, name: str, *, workflows: Sequence[type[Any]] = WORKFLOWS) -> None:
    """Play a history on these workflows. Raises Unreplayable where their commands are others.

    A workflow that failed when it was recorded fails again, which is what is replayed.
    """
    replayer = Replayer(
        workflows=workflows,
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_all_modules()
        ),
    )
    try:
        await replayer.replay_workflow(history)
    except NondeterminismError as error:
        raise Unreplayable(EXPLANATION.format(name=name, reason=error)) from error


async def kept(handle: WorkflowHandle[Any, Any], name: str) -> WorkflowHistory:
    """Replay what a workflow has just done; write it down as ``name`` where that is asked for."""
    history = await handle.fetch_history()
    await replays(history, name)
    if os.environ.get("STUDIO_RECORD_HISTORIES"):
        (HISTORIES / f"{name}.json").write_text(_without_paths(history.to_json()) + "\n")
    return history


def _without_paths(history: str) -> str:
    """Stack traces name files of whoever recorded; the file's own name is enough."""
    return re.sub(r'File \\"[^"]*/', r'File \\"', history)
