"""Two Temporal Schedules: Reconcile looks after what no living workflow owns, Housekeeping after content.

Content is collected when nothing refers to it, moved between tiers by who reads it, and held against its hashes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from activities.housekeeping import HousekeepingActivities, Reconciled, TidyOrder, UsersAfter
from domain.housekeeping import Chore, Tidied
from workflows.contracts import HOUSEKEEPING, PROGRESS, RECONCILE, Pass
from workflows.policies import HEARTBEAT_TIMEOUT, STORE_RETRY, STORE_TIMEOUT

USERS_AT_ONCE = 50
"""Users of one page: each chore is one activity a page."""
PAGES_MAX = 40
"""Pages of one execution; the next one continues as new, with a short history."""
CHORE_TIMEOUT = timedelta(hours=1)


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


@workflow.defn(name=HOUSEKEEPING)
class Housekeeping:
    """One pass over all users, page by page, chore by chore. Its result counts what was done and tells findings."""

    def __init__(self) -> None:
        self._pass = Pass()

    @workflow.run
    async def run(self, so_far: Pass | None = None) -> Tidied:
        """Go on after the user that ``so_far`` names, from the first one without it."""
        self._pass = so_far or Pass()
        pages = 0
        while users := await self._users():
            if (pages := pages + 1) > PAGES_MAX:
                workflow.continue_as_new(self._pass)
            for chore in Chore:
                self._pass = replace(self._pass, chore=chore)
                done = await self._tidy(TidyOrder(chore=chore, users=users))
                self._pass = replace(self._pass, done=self._pass.done + done)
            self._pass = Pass(after=users[-1], done=self._pass.done + Tidied(users=len(users)))
        return self._pass.done

    @workflow.query(name=PROGRESS)
    def progress(self) -> Pass:
        """What was done so far, and what is being done."""
        return self._pass

    async def _users(self) -> list[str]:
        return await workflow.execute_activity_method(
            HousekeepingActivities.users,
            UsersAfter(after=self._pass.after, limit=USERS_AT_ONCE),
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary="who comes next",
        )

    async def _tidy(self, order: TidyOrder) -> Tidied:
        return await workflow.execute_activity_method(
            HousekeepingActivities.tidy,
            order,
            start_to_close_timeout=CHORE_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary=f"{order.chore}: {len(order.users)} users",
        )
