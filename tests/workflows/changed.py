"""Workflows as a careless change would leave them: what the guard of recorded histories must notice."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from workflows.cascades import Cascade
from workflows.contracts import CASCADE, CascadeInput, CascadeOutcome


@workflow.defn(name=CASCADE)
class ImpatientCascade(Cascade):
    """Sleeps first: a timer that no recorded history has."""

    @workflow.run
    async def run(self, cause: CascadeInput) -> CascadeOutcome:
        """Sleep, then as before."""
        await workflow.sleep(timedelta(seconds=1))
        return await super().run(cause)


@workflow.defn(name=CASCADE)
class PatchedCascade(Cascade):
    """Sleeps first, behind a patch: those that were recorded before do not."""

    @workflow.run
    async def run(self, cause: CascadeInput) -> CascadeOutcome:
        """Sleep unless this began before there was a pause, then as before."""
        if workflow.patched("pause-first"):
            await workflow.sleep(timedelta(seconds=1))
        return await super().run(cause)
