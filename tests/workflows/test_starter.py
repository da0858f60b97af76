"""Starting cascades: whoever gets the first task hears of it, and may begin before the workflow asks."""

from __future__ import annotations

from uuid import UUID

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from domain.ids import new_id
from settings import Settings
from storage.relay import Doorbell
from workflows.contracts import CASCADE, CascadeInput, CascadeOutcome, cascade_workflow_id
from workflows.starter import TemporalStarter


@workflow.defn(name=CASCADE)
class Over:
    """A cascade that has nothing to do."""

    @workflow.run
    async def run(self, _cause: CascadeInput) -> CascadeOutcome:
        """Be over."""
        return CascadeOutcome(status="completed", settled_runs=0)


def doorbell(seq: int = 1, *, interactive: bool = True) -> Doorbell:
    return Doorbell(user_id=new_id(), cascade_id=new_id(), seq=seq, interactive=interactive)


async def test_the_first_task_of_what_a_person_waits_for_is_heard_of_where_it_comes(
    temporal: Client, settings: Settings
) -> None:
    heard: list[tuple[UUID, UUID]] = []
    queue = f"starter-{new_id()}"
    here = TemporalStarter(temporal, queue, here=lambda user_id, cascade_id: heard.append((user_id, cascade_id)))
    stranger = await Client.connect(settings.workflow.temporal_host, namespace=settings.workflow.namespace)
    away = TemporalStarter(stranger, queue, here=lambda user_id, cascade_id: heard.append((user_id, cascade_id)))
    first, again, bulk, elsewhere = doorbell(), doorbell(2), doorbell(interactive=False), doorbell()
    async with Worker(temporal, task_queue=queue, workflows=[Over], workflow_runner=UnsandboxedWorkflowRunner()):
        for bell in (first, again, bulk):
            await here.ring(bell)
        await away.ring(elsewhere)  # its process has no worker
        for bell in (first, again, bulk, elsewhere):
            handle = temporal.get_workflow_handle(cascade_workflow_id(bell.cascade_id), result_type=CascadeOutcome)
            assert (await handle.result()).status == "completed"
    assert heard == [(first.user_id, first.cascade_id)]
