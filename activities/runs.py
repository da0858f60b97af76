"""The activities of one run: load what it reads, carry out its steps, settle, fail.

Steps are dynamic activities, named by the definition: the Temporal UI shows them as the provider's author wrote them.
Outputs of steps live in ``run_steps``; a step that has finished is not carried out again, whatever Temporal repeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.common import RawValue

from activities.cascades import OPERATOR
from activities.errors import as_failures
from activities.heartbeat import heartbeating
from activities.inline import MERGE_ATTEMPTS_MAX
from activities.patience import PATIENCE_SECONDS, patiently
from activities.wholes import Wholes
from domain.definitions import AI_SERVICE, Step
from domain.errors import ProviderFailed, StudioError, Unavailable, Unusable
from domain.execution import carry_out, context_of, declined, evaluate, forgotten, total_usage, usage_of
from domain.memo import Cache, Lookup, Recall, ServiceTerms, reused_usage
from domain.ports import Schedule, Services
from domain.prices import Prices, Quote, StepCharge
from domain.retries import DEFAULT, UNSAID, Retry
from domain.runs import RunStatus
from domain.steps import ServiceCall, absorb, kept_answer, question, request
from domain.works import RunWork, Settlement, StepRecord

WAITING = "waiting"
PARKED = RunStatus.PARKED.value
"""The status of a run that waits for a person: its workflow ends, and is started again when somebody has decided."""
BLOCKED = RunStatus.BLOCKED_BUDGET.value
"""The status of a run that ended because its next step does not fit the budget."""
LEASE_MARGIN = timedelta(seconds=PATIENCE_SECONDS + 10)
"""What a caller has beyond its call's own timeout, to store the answer, before others take it for dead."""


@dataclass(frozen=True, kw_only=True)
class RunRef:
    """Which run, and whose."""

    user_id: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One step of the pinned definition, as far as the workflow needs to know it."""

    id: str
    effect: str
    position: int
    timeout_seconds: float
    attempts_max: int
    first_pause: float = 1.0
    factor: float = 2.0
    longest_pause: float = 60.0


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run consists of, recorded in history: the workflow branches on nothing else."""

    status: str
    blob_id: str = ""
    steps: list[StepPlan] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """One step of one run."""

    user_id: str
    run_id: str
    step_id: str
    position: int


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What a step answers to the workflow: its results are in PostgreSQL.

    ``waiting``: another run is making the same; nothing is held meanwhile, ask again.
    """

    status: str
    model: str | None = None
    tokens: int = 0
    duration_ms: int = 0
    reused: bool = False


@dataclass(frozen=True, kw_only=True)
class RunFailure:
    """Why a run failed for good: a problem code and a sentence."""

    user_id: str
    run_id: str
    code: str
    detail: str


class RunActivities:
    """Everything a ProviderRun workflow does to the world."""

    def __init__(
        self,
        schedule: Schedule,
        services: Services,
        *,
        step_timeout: timedelta,
        step_attempts: int,
        step_retry: Retry = DEFAULT,
        terms: Mapping[str, ServiceTerms] | None = None,
        prices: Prices | None = None,
        wholes: Wholes | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._schedule = schedule
        self._services = services
        self._step_timeout = step_timeout
        self._step_attempts = step_attempts
        self._step_retry = step_retry.or_else(DEFAULT)
        self._terms = dict(terms or {})
        self._paying: set[asyncio.Task[StepRecord]] = set()
        self._prices = prices or Prices()
        self._now = now
        self._wholes = wholes or Wholes(schedule, now=now)

    @activity.defn(name="Run.load")
    async def load(self, ref: RunRef) -> RunPlan:
        """The steps of the run's pinned definition; none if the run has ended or its provider declines the input.

        A run that neither calls nor asks anybody is carried out here and now: the answer is what it has ended as.
        """
        with as_failures():
            whole = await self._wholes.carry_out(UUID(ref.user_id), UUID(ref.run_id))
            work = whole.work
            if work is None:
                return RunPlan(status=await self._unworkable(UUID(ref.user_id), UUID(ref.run_id)))
            blob_id = str(work.inputs[0].blob_id) if work.anchor_kind == "blob" and work.inputs else ""
            if whole.ended is not None:
                return RunPlan(status=whole.ended, blob_id=blob_id)
            steps = [self._plan(work, step, position) for position, step in enumerate(work.definition.steps)]
            return RunPlan(status="running", blob_id=blob_id, steps=steps if declined(work) is None else [])

    @activity.defn(dynamic=True)
    async def step(self, arguments: Sequence[RawValue]) -> StepOutcome:
        """One step of one run, recorded; the definition says what it does."""
        request_ = activity.payload_converter().from_payload(arguments[0].payload, StepRequest)
        with as_failures():
            return await self._step(request_)

    @activity.defn(name="Run.settle")
    async def settle(self, ref: RunRef) -> str:
        """Stage the outputs, merge them with what people changed, apply: settled or superseded."""
        with as_failures():
            user_id, run_id = UUID(ref.user_id), UUID(ref.run_id)
            for _ in range(MERGE_ATTEMPTS_MAX):
                work = await self._work(ref)
                if work is None:
                    return await self._settle_nothing(user_id, run_id)
                records = await self._schedule.steps(user_id, run_id)
                if declined(work) is None and forgotten(work, records):
                    return await self._schedule.lose(user_id, run_id)
                try:
                    settlement = carry_out(work, records=records, now=self._now())
                except StudioError as error:
                    await self._distrust(work, error)
                    raise
                verdicts = await self._schedule.settle(user_id, [settlement], caller=None)
                if verdicts[run_id] != "moved":
                    return verdicts[run_id]
            raise Unavailable("People are editing the output faster than it can be merged.")

    @activity.defn(name="Run.fail")
    async def fail(self, failure: RunFailure) -> str:
        """Record that a run failed for good: failed, or what it had ended as before."""
        with as_failures():
            user_id, run_id = UUID(failure.user_id), UUID(failure.run_id)
            records = await self._schedule.steps(user_id, run_id)
            return await self._schedule.fail(
                user_id, run_id, code=failure.code, detail=failure.detail, usage=total_usage(records)
            )

    @activity.defn(name="Run.lose")
    async def lose(self, failure: RunFailure) -> str:
        """Free the place of a run whose workflow is gone: its derivation is claimed again."""
        with as_failures():
            return await self._schedule.lose(UUID(failure.user_id), UUID(failure.run_id))

    @activity.defn(name="Run.cancel")
    async def cancel(self, ref: RunRef) -> str:
        """Record that somebody cancelled the run's workflow in Temporal, unless the run has ended before."""
        with as_failures():
            return await self._schedule.cancel(UUID(ref.user_id), UUID(ref.run_id), actor=OPERATOR)

    async def _step(self, asked: StepRequest) -> StepOutcome:
        user_id, run_id = UUID(asked.user_id), UUID(asked.run_id)
        work = await self._work(RunRef(user_id=asked.user_id, run_id=asked.run_id))
        if work is None:
            return StepOutcome(status=await self._unworkable(user_id, run_id))
        step = work.definition.steps[asked.position]
        records = await self._schedule.steps(user_id, run_id)
        done = next((record for record in records if record.step_id == step.id), None)
        if done is None:
            if forgotten(work, records, before=asked.position):
                await self._schedule.lose(user_id, run_id)
                return StepOutcome(status="superseded")
            context = context_of(work, records, now=self._now())
            carry_out_ = {"call": self._call, "ask": self._ask}.get(step.effect, self._evaluate)
            found = await carry_out_(work, step, asked.position, context, total_usage(records))
            if isinstance(found, StepOutcome):
                return found
            done = found
        return _outcome(done)

    async def _unworkable(self, user_id: UUID, run_id: UUID) -> str:
        """What a run is that is not under way: it waits for a person, or is over, be it by us a moment ago."""
        status = await self._schedule.status(user_id, run_id)
        return status if status in {PARKED, RunStatus.SETTLED.value} else "superseded"

    async def _ask(
        self, work: RunWork, step: Step, position: int, context: dict[str, Any], _: Mapping[str, Any]
    ) -> StepRecord | StepOutcome:
        """Let the run wait for a person; nothing of it stays here meanwhile."""
        try:
            prompt = question(step, context)
        except StudioError as error:
            await self._schedule.begin_step(work.user_id, work.run_id, step.id, position, step.type)
            await self._fail_step(work, step, error)
            raise
        status = await self._schedule.park(work.user_id, work.run_id, step.id, position, prompt)
        return StepOutcome(status={"running": "done", PARKED: PARKED}.get(status, "superseded"))

    async def _evaluate(
        self, work: RunWork, step: Step, position: int, context: dict[str, Any], _: Mapping[str, Any]
    ) -> StepRecord | StepOutcome:
        status = await self._schedule.begin_step(work.user_id, work.run_id, step.id, position, step.type)
        if status != "running":
            return StepOutcome(status="superseded")
        try:
            entries = evaluate(work, step, context) if step.effect == "pure" else {}
        except StudioError as error:
            await self._fail_step(work, step, error)
            await self._distrust(work, error)
            raise
        record = StepRecord(step_id=step.id, entries=entries)
        await patiently(lambda: self._schedule.end_step(work.user_id, work.run_id, record))
        return record

    async def _call(
        self, work: RunWork, step: Step, position: int, context: dict[str, Any], used: Mapping[str, Any]
    ) -> StepRecord | StepOutcome:
        """Take over what the memo has for this request, else call; or wait, while another run is calling."""
        patience = self._timeout(work, step)
        try:
            call = request(step, context, self._terms_of(step.config["service"]).revision)
        except StudioError as error:
            await self._schedule.begin_step(work.user_id, work.run_id, step.id, position, step.type)
            await self._fail_step(work, step, error)
            raise
        lookup = Lookup(key=call.key, patience=patience + LEASE_MARGIN) if self._reuses(work, step) else None
        worst = self._prices.worst(step)
        quote = Quote(worst=worst, used=used) if worst else None
        begun = await self._schedule.begin_call(work.user_id, work.run_id, step.id, position, step.type, lookup, quote)
        if begun.status != "running":
            return StepOutcome(status=BLOCKED if begun.status == BLOCKED else "superseded")
        if begun.recall is Recall.LEASED:
            return StepOutcome(status=WAITING)
        if begun.recall is Recall.HIT:
            record = StepRecord(
                step_id=step.id,
                entries=absorb(step, begun.answer, context),
                usage=reused_usage(begun.usage or {}),
                reused_from=begun.maker,
            )
            await patiently(lambda: self._schedule.end_step(work.user_id, work.run_id, record))
            return record
        paying = asyncio.create_task(self._pay(work, step, call, context, patience, begun.attempt))
        self._paying.add(paying)
        paying.add_done_callback(self._paid)
        async with heartbeating():
            # Whoever cancels the step does not unmake the call: its answer and what it cost are recorded all the same.
            return await asyncio.shield(paying)

    def _paid(self, paying: asyncio.Task[StepRecord]) -> None:
        self._paying.discard(paying)
        if not paying.cancelled():
            paying.exception()  # told by whoever still waits for it

    async def _pay(
        self, work: RunWork, step: Step, call: ServiceCall, context: dict[str, Any], patience: timedelta, attempt: int
    ) -> StepRecord:
        """Call, and record what came of it and what it cost; whoever asks for the same later gets the same."""
        started, charge = self._now(), None
        try:
            answer = await self._services.call(call, key=f"{work.run_id}:{step.id}", patience=patience)
            usage = {"duration_ms": int((self._now() - started).total_seconds() * 1000), **usage_of(answer)}
            charge = self._prices.charge(step, usage, attempt)
            entries = absorb(step, answer, context)
        except StudioError as error:  # an answer that is of no use is charged all the same
            if isinstance(error, Unusable):
                charge = self._prices.charge(step, error.usage, attempt)
            if self._retry(work, step).final(error.members):
                refused = ProviderFailed(error.detail, code="service_rejected")
                await self._fail_step(work, step, refused, charge)
                raise refused from error
            await self._fail_step(work, step, error, charge)
            raise
        if charge is not None:
            usage["cost"] = charge.amount
        record = StepRecord(step_id=step.id, entries=entries, usage=usage)
        ended = (work.user_id, work.run_id, record, charge)
        if self._reuses(work, step):
            kept = kept_answer(step, answer)
            await patiently(lambda: self._schedule.end_call(*ended, key=call.key, answer=kept))
        else:
            await patiently(lambda: self._schedule.end_step(*ended))
        return record

    def _reuses(self, work: RunWork, step: Step) -> bool:
        """Whether answers from before do: the step says so, and its service is paid for or answers equally."""
        service = step.config["service"]
        return step.cache(work.cache) == Cache.INPUTS and (service == AI_SERVICE or self._terms_of(service).pure)

    def _terms_of(self, service: str) -> ServiceTerms:
        return self._terms.get(service, ServiceTerms())

    async def _fail_step(self, work: RunWork, step: Step, error: StudioError, charge: StepCharge | None = None) -> None:
        failed = (work.user_id, work.run_id, step.id, error.problem_code, error.detail, charge)
        if charge is None:
            await self._schedule.fail_step(*failed)
        else:
            await patiently(lambda: self._schedule.fail_step(*failed))

    async def _distrust(self, work: RunWork, error: StudioError) -> None:
        """What was made of the answers broke a rule for good: nobody is to get the same answers again."""
        if not error.retryable:
            await self._schedule.distrust(work.user_id, work.run_id)

    async def _settle_nothing(self, user_id: UUID, run_id: UUID) -> str:
        """A run that is not running any more: its own status says what became of it (CASCADES rule 3)."""
        settlement = Settlement(run_id=run_id, outputs=(), usage={})
        return (await self._schedule.settle(user_id, [settlement], caller=None))[run_id]

    async def _work(self, ref: RunRef) -> RunWork | None:
        works = await self._schedule.load(UUID(ref.user_id), [UUID(ref.run_id)])
        return works[0] if works else None

    def _timeout(self, work: RunWork, step: Step) -> timedelta:
        """The step's own, else its provider's, else that of the settings."""
        seconds = step.timeout_seconds or work.timeout_seconds
        return timedelta(seconds=seconds) if seconds else self._step_timeout

    def _retry(self, work: RunWork, step: Step) -> Retry:
        """The same of pauses, and of answers that are final."""
        return (step.retry or UNSAID).or_else(work.retry).or_else(self._step_retry)

    def _plan(self, work: RunWork, step: Step, position: int) -> StepPlan:
        retry = self._retry(work, step)
        first = retry.first_pause or 1.0
        return StepPlan(
            id=step.id,
            effect=step.effect,
            position=position,
            timeout_seconds=self._timeout(work, step).total_seconds(),
            attempts_max=step.max_attempts or work.max_attempts or self._step_attempts,
            first_pause=first,
            factor=retry.factor or 1.0,
            longest_pause=max(first, retry.longest_pause or first),
        )


def _outcome(record: StepRecord) -> StepOutcome:
    usage = record.usage
    return StepOutcome(
        status="done",
        model=usage.get("model"),
        tokens=int(usage.get("total_tokens") or 0),
        duration_ms=int(usage.get("duration_ms") or 0),
        reused=record.reused_from is not None,
    )
