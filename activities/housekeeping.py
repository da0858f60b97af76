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

from activities.cascades import OPERATOR
from activities.errors import STOPPED, as_failures
from activities.heartbeat import heartbeating
from domain.errors import StudioError
from domain.housekeeping import Chore, Tidied
from domain.ports import Schedule

HALTED = timedelta(hours=1)
"""How far back reconcile looks for workflows that operators ended; what is older, leases tell."""
HALTED_MAX = 500
"""How many of them one pass looks at."""


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


@dataclass(frozen=True, kw_only=True)
class Halted:
    """A workflow that somebody has ended from outside: terminated, or else cancelled."""

    workflow_id: str
    terminated: bool

    @property
    def subject(self) -> UUID | None:
        """The run or cascade that it carries out: both kinds of ids end with it. None: somebody chose the id."""
        try:
            return UUID(self.workflow_id.rpartition(":")[2])
        except ValueError:
            return None


class Workflows(Protocol):
    """What Temporal knows about a workflow."""

    async def halted(self, *, within: timedelta, limit: int) -> Sequence[Halted]:
        """Workflows of cascades and runs that somebody has terminated or cancelled lately."""
        ...

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

    async def running(self, run_ids: Sequence[UUID]) -> Sequence[tuple[UUID, UUID]]:
        """Those of these runs that nobody has ended, as (user, run)."""
        ...

    async def unended(self, cascade_ids: Sequence[UUID]) -> Sequence[tuple[UUID, UUID]]:
        """Those of these cascades that are open and whose doorbell was delivered, as (user, cascade)."""
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
        self,
        schedule: Schedule,
        registry: Registry,
        workflows: Workflows,
        keeper: Keeper,
        *,
        idle: timedelta,
    ) -> None:
        self._schedule = schedule
        self._registry = registry
        self._workflows = workflows
        self._keeper = keeper
        self._idle = idle

    @activity.defn(name="Housekeeping.reconcile")
    async def reconcile(self) -> Reconciled:
        """Ring cascades nobody works on, free runs nobody carries out (CASCADES, lost), note what operators ended."""
        with as_failures():
            async with heartbeating():
                for user_id in await self._registry.ahead(by=self._idle):
                    await self._schedule.correct_clock(user_id)
                await self._account_for_operators()
                lost = 0
                for user_id, run_id, workflow_id in await self._registry.expired_runs():
                    if await self._workflows.is_open(workflow_id):
                        await self._schedule.extend(user_id, run_id)
                    else:
                        lost += await self._schedule.lose(user_id, run_id) in {"lost", "failed"}
                # Rung even if its workflow lives: after a restore it may wait for what PostgreSQL never heard of.
                idle = await self._registry.idle_cascades(older_than=self._idle)
                for user_id, cascade_id in idle:
                    await self._registry.ring(user_id, cascade_id)
            return Reconciled(cascades_rung=len(idle), runs_lost=lost)

    async def _account_for_operators(self) -> None:
        """What an operator ended in Temporal while nobody was there to notice (``docs/decisions/0023``).

        A run ends with its workflow: terminated it has failed, cancelled it is cancelled. A cascade is cancelled with
        its workflow; terminated it comes back, for only the workflow is gone.
        """
        halted = await self._workflows.halted(within=HALTED, limit=HALTED_MAX)
        found = {one.subject: one for one in halted if one.subject is not None}
        for user_id, run_id in await self._registry.running(list(found)):
            if await self._workflows.is_open(found[run_id].workflow_id):
                continue
            if found[run_id].terminated:
                await self._schedule.fail(user_id, run_id, code="provider_failed", detail=STOPPED, usage={})
            else:
                await self._schedule.cancel(user_id, run_id, actor=OPERATOR)
        for user_id, cascade_id in await self._registry.unended(list(found)):
            if await self._workflows.is_open(found[cascade_id].workflow_id):
                continue
            if found[cascade_id].terminated:
                await self._registry.ring(user_id, cascade_id)
            else:
                await self._schedule.cancel_cascade(user_id, cascade_id, actor=OPERATOR)

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
