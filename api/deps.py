"""What handlers are given: ports, opened once, and the shorthand for their parameters.

To add a port: a field of ``Ports``, a line in ``open_ports``. Handlers take ``ports: Stores``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from api.addresses import Addresses
from api.pages import Cursors
from api.streams import Places
from domain.errors import Unavailable
from settings import Settings, required
from storage.api_keys import ApiKeys
from storage.batches import Batches
from storage.bell import Bell
from storage.blobs import Blobs
from storage.buckets import Buckets
from storage.budgets import Budgets
from storage.cascade_views import CascadeViews
from storage.contents import Contents
from storage.controls import Controls
from storage.dag import Dags
from storage.database import Database
from storage.dead_letters import DeadLetters
from storage.definitions import Definitions
from storage.deltas import Deltas
from storage.downloads import Downloads
from storage.events import Events
from storage.idempotency import IdempotencyKeys
from storage.instances import Instances
from storage.members import Members
from storage.plans import Bounds, Plans
from storage.proposals import Proposals
from storage.providers import Providers
from storage.queues import Queues
from storage.reprocess import Reprocess
from storage.runs import Runs
from storage.schema_lookup import SchemaLookup
from storage.schemas import Schemas
from storage.uploads import Uploads
from storage.users import KeyHolders, Users
from storage.whys import Whys
from stores import make_contents, make_objects, make_uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that handlers reach outside of their process."""

    service_name: str
    services: frozenset[str]
    pure_services: frozenset[str]
    paid_services: frozenset[str]
    """Names that definitions may call."""
    temporal_namespace: str
    temporal_ui_url: str | None
    database: Database
    contents: Contents
    uploads: Uploads
    downloads: Downloads
    places: Places
    part_size: int
    """Bytes of a part of an upload, and of a piece of a body."""
    addresses: Addresses
    bell: Bell
    cursors: Cursors
    installation_id: UUID
    keys: KeyHolders
    idempotency: IdempotencyKeys
    blobs: Blobs
    deltas: Deltas
    proposals: Proposals
    batches: Batches
    dags: Dags
    whys: Whys
    depth_max: int
    """Derivations on the longest path below a root."""
    schema_lookup: SchemaLookup
    users: Users
    api_keys: ApiKeys
    buckets: Buckets
    members: Members
    budgets: Budgets
    runs: Runs
    dead_letters: DeadLetters
    cascades: CascadeViews
    controls: Controls
    queues: Queues
    plans: Plans
    events: Events
    schemas: Schemas
    definitions: Definitions
    providers: Providers
    instances: Instances
    reprocess: Reprocess


async def open_ports(settings: Settings) -> Ports:
    """Connect to what the API needs. Raises Unavailable, or Invalid for a missing setting."""
    metadata = settings.storage.metadata
    url = required(metadata.url, "storage.metadata.url").get_secret_value()
    database = await Database.connect(url, size_max=metadata.pool_size)
    objects = make_objects(settings)
    installation = await database.call("select id, secret from installation")
    if installation is None:
        await database.close()
        raise Unavailable("The database has no installation: run python -m migrations first.")
    schemas = Schemas(database)
    contents = make_contents(settings, database, objects)
    return Ports(
        service_name=settings.service.name,
        services=frozenset(settings.services),
        pure_services=frozenset(name for name, called in settings.services.items() if called.pure),
        paid_services=frozenset(name for name, called in settings.services.items() if called.is_paid),
        temporal_namespace=settings.workflow.namespace,
        temporal_ui_url=settings.workflow.ui_url,
        database=database,
        contents=contents,
        uploads=make_uploads(settings, database, objects),
        downloads=Downloads(database, contents, objects),
        places=Places(settings.storage.parts_at_once),
        part_size=settings.storage.part_size,
        addresses=Addresses(installation["secret"], settings.storage.url_expires.total_seconds()),
        bell=Bell(database),
        cursors=Cursors(installation["secret"]),
        installation_id=installation["id"],
        keys=KeyHolders(database),
        idempotency=IdempotencyKeys(database),
        blobs=Blobs(database, contents),
        deltas=Deltas(database, contents, snapshot_every=settings.storage.snapshot_every),
        proposals=Proposals(database, contents),
        batches=Batches(database, contents, snapshot_every=settings.storage.snapshot_every),
        dags=Dags(database),
        whys=Whys(database),
        depth_max=settings.cascades.depth_max,
        schema_lookup=SchemaLookup(schemas),
        users=Users(database, quota_default=settings.storage.quota_default),
        api_keys=ApiKeys(database),
        buckets=Buckets(database),
        members=Members(database),
        budgets=Budgets(database),
        runs=Runs(database),
        dead_letters=DeadLetters(database, redrive_max=settings.cascades.redrive_max),
        cascades=CascadeViews(database),
        controls=_controls(settings, database, contents),
        queues=Queues(database, runs_per_user=settings.cascades.runs_per_user),
        plans=Plans(database, _plan_bounds(settings)),
        events=Events(database),
        schemas=schemas,
        definitions=Definitions(database),
        providers=Providers(database),
        instances=Instances(database),
        reprocess=Reprocess(database),
    )


def _plan_bounds(settings: Settings) -> Bounds:
    cascades = settings.cascades
    return Bounds(
        depth_max=cascades.depth_max,
        nodes_max=cascades.nodes_max,
        window=cascades.window,
        timeout=cascades.plan_timeout,
        expires=cascades.plan_expires,
        history_runs=cascades.plan_history_runs,
        nodes_shown=cascades.plan_nodes_shown,
    )


def _controls(settings: Settings, database: Database, contents: Contents) -> Controls:
    return Controls(
        database,
        contents,
        lease=timedelta(seconds=settings.cascades.lease_seconds),
        depth_max=settings.cascades.depth_max,
        nodes_max=settings.cascades.nodes_max,
    )


async def close_ports(ports: Ports) -> None:
    """Let go of everything ``open_ports`` opened."""
    await ports.bell.close()
    await ports.contents.close()
    await ports.database.close()


def ports_of(request: Request) -> Ports:
    """Return the ports of this application."""
    ports: Ports = request.app.state.ports
    return ports


Stores = Annotated[Ports, Depends(ports_of)]
