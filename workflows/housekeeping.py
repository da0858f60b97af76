"""Reconcile: a Temporal Schedule that looks after what no living workflow owns (DESIGN section 5)."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from activities.housekeeping import HousekeepingActivities, Reconciled
from workflows.contracts import RECONCILE
from workflows.policies import STORE_RETRY


@workflow.defn(name=RECONCILE)
class Reconcile:
    """Rings cascades whose workflow is gone and frees runs whose lease has expired."""

    @workflow.run
    async def run(self) -> Reconciled:
        """One pass over everything that is open."""
        return await workflow.execute_activity_method(
            HousekeepingActivities.reconcile,
            start_to_close_timeout=timedelta(minutes=5),
            schedule_to_close_timeout=timedelta(minutes=10),
            retry_policy=STORE_RETRY,
            summary="look after what nobody owns",
        )
