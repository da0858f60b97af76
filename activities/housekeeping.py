"""Look after what no living workflow owns: cascades whose workflow is gone, runs whose lease has expired.

And after contents: one chore for a page of users at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.errors import as_failures
from activities.heartbeat import heartbeating
from domain.errors import StudioError
from domain.housekeeping import Chore, Tidied
from domain.ports import Schedule


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What one pass found nobody looking after."""

    cascades_rung: int
    runs_lost: int


@dataclass(frozen=True, kw_only=True)
class UsersAfter:
    """Which page of users to tell: the first ``limit`` beyond ``after``."""

    after: str | None
    limit: int


@dataclass(frozen=True, kw_only=True)
class TidyOrder:
    """One chore for these users."""

    chore: Chore
    users: list[str]


class Workflows(Protocol):
    """What Temporal knows about a workflow."""

    async def is_open(self, workflow_id: str) -> bool:
        """Whether a workflow with this id is running now."""
        ...


class Registry(Protocol):
    """What is open according to PostgreSQL, of all users: ids only."""

    async def idle_cascades(self, *, older_than: timedelta) -> Sequence[tuple[UUID, UUID]]:
        """Open cascades rung long ago, and closed ones that still own claimable work, as (user, cascade)."""
        ...

    async def expired_runs(self) -> Sequence[tuple[UUID, UUID, str]]:
        """Running runs past their lease, as (user, run, id of the workflow that carries them out)."""
        ...

    async def ring(self, user_id: UUID, cascade_id: UUID) -> None:
        """Ring a cascade's doorbell: its workflow is started again if it is gone."""
        ...

    async def ahead(self, *, by: timedelta) -> Sequence[UUID]:
        """Users of whom something was rung later than it is now."""
        ...

    async def users(self, *, after: UUID | None, limit: int) -> Sequence[UUID]:
        """Up to ``limit`` users in the order of their ids, those beyond ``after``."""
        ...


class Keeper(Protocol):
    """The chores of housekeeping."""

    async def tidy(self, chore: Chore, user_id: UUID) -> Tidied:
        """Do one chore for one user; may be repeated at any time. Raises Unavailable."""
        ...


class HousekeepingActivities:
    """The work of the reconcile and the housekeeping schedule."""

    def __init__(
        self, schedule: Schedule, registry: Registry, workflows: Workflows, keeper: Keeper, *, idle: timedelta
    ) -> None:
        self._schedule = schedule
        self._registry = registry
        self._workflows = workflows
        self._keeper = keeper
        self._idle = idle

    @activity.defn(name="Housekeeping.reconcile")
    async def reconcile(self) -> Reconciled:
        """Ring cascades nobody works on, free runs nobody carries out (CASCADES, lost)."""
        with as_failures():
            async with heartbeating():
                for user_id in await self._registry.ahead(by=self._idle):
                    await self._schedule.correct_clock(user_id)
                lost = 0
                for user_id, run_id, workflow_id in await self._registry.expired_runs():
                    if not await self._workflows.is_open(workflow_id):
                        lost += await self._schedule.lose(user_id, run_id) in {"lost", "failed"}
                # Rung even if its workflow lives: after a restore it may wait for what PostgreSQL never heard of.
                idle = await self._registry.idle_cascades(older_than=self._idle)
                for user_id, cascade_id in idle:
                    await self._registry.ring(user_id, cascade_id)
            return Reconciled(cascades_rung=len(idle), runs_lost=lost)

    @activity.defn(name="Housekeeping.users")
    async def users(self, page: UsersAfter) -> list[str]:
        """Tell a page of users."""
        with as_failures():
            after = UUID(page.after) if page.after else None
            return [str(user) for user in await self._registry.users(after=after, limit=page.limit)]

    @activity.defn(name="Housekeeping.tidy")
    async def tidy(self, order: TidyOrder) -> Tidied:
        """Do one chore for a page of users; what cannot be done for one of them does not stop the others."""
        done = Tidied()
        with as_failures():
            async with heartbeating():
                for user in order.users:
                    try:
                        done += await self._keeper.tidy(order.chore, UUID(user))
                    except StudioError as error:
                        if error.retryable:  # a server is away: all of it again, later
                            raise
                        done += Tidied(failed=1, findings=(f"user {user}, {order.chore}: {error.detail}",))
        return done
