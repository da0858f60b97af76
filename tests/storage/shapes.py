"""Graphs of any size below one root, written as plan would have left them: a fan, a chain, layers, a join.

Registering ten thousand providers takes minutes, and nothing that is asked here depends on how they came to be. All
derivations are of one real provider, each under an instance of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from domain.ids import new_id
from tests.storage.engine import Engine

Edges = Sequence[tuple[int, int]]
"""From node to node; node 0 is the root, every other one is the output of its own derivation."""

_MAKE = """
with provider as (select * from providers where owner_id = $1 and slug = 'shape'),
made as (
  insert into blobs (user_id, id, content_type, schema_id, created_by, provider_id, root_id, depth)
    select $1, n.blob_id, 'application/json', 'shape-out-v1', 'shape', 'shape', $2, n.level
    from unnest($4::uuid[], $6::int[]) n(blob_id, level)
), derived as (
  insert into derivations (user_id, id, instance_id, provider_id, anchor_kind, anchor_id, execution, supersede,
      want_digest, unsettled, level)
    select $1, n.id, gen_random_uuid(), p.id, 'blob', $2, $7, 'cancel',
      p.definition_digest || ':' || (select studio_pin($1, q) from providers q where q.id = p.id), false, n.level
    from unnest($3::uuid[], $6::int[]) n(id, level), provider p
), outputs as (
  insert into derivation_outputs (user_id, derivation_id, slot, blob_id)
    select $1, n.id, p.outputs->0->>'slot', n.blob_id from unnest($3::uuid[], $4::uuid[]) n(id, blob_id), provider p
)
insert into derivation_inputs (user_id, derivation_id, blob_id)
  select $1, e.derivation_id, e.blob_id from unnest($5::uuid[], $8::uuid[]) e(derivation_id, blob_id)
"""


def fan(width: int) -> Edges:
    """So many below the root."""
    return [(0, node) for node in range(1, width + 1)]


def chain(length: int) -> Edges:
    """Each below the one before."""
    return [(node, node + 1) for node in range(length)]


def layers(count: int, width: int) -> Edges:
    """A fan whose nodes each lead to a chain."""
    return [(max(node - width, 0), node) for node in range(1, count * width + 1)]


def join(width: int) -> Edges:
    """A fan, and one node below all of it."""
    return [*fan(width), *((node, width + 1) for node in range(1, width + 1))]


async def grow(engine: Engine, edges: Edges, *, text: str = "$.data.text + '!'", execution: str = "inline") -> UUID:
    """Make a root with this graph below it; everything is settled and nothing has run. Returns the root."""
    await engine.provider("shape", "shape-in-v1", "shape-out-v1", text, origin="person")
    await engine.schemas("shape-root-v1")
    root = await engine.create("shape-root-v1")
    await engine.rest()
    count = max(node for _, node in edges)
    levels = [0] * (count + 1)
    for source, node in edges:
        levels[node] = max(levels[node], levels[source] + 1)
    blobs = [root, *(new_id() for _ in range(count))]
    derivations = [new_id() for _ in range(count + 1)]
    await engine.admin.execute(
        _MAKE, engine.user.user_id, root, derivations[1:], blobs[1:],
        [derivations[node] for _, node in edges], levels[1:], execution, [blobs[source] for source, _ in edges],
    )  # fmt: skip
    return root
