"""How a run's output becomes a delta: cut-off, merge with what people changed, patch and inverse.

Pure: the schedule's lock is not held here (CASCADES rule 7). If the output's version moves meanwhile, ``settle`` says
``moved`` and the same decision is taken again against the newer document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.diffs import diff, patch_bytes
from domain.documents import Document, cutoff_hash, document_hash, visible
from domain.merge import Merge, OnConflict, merge, unmerged
from domain.schemas import Schema
from domain.volatile import strip_volatile
from domain.works import RunOutput, SettledOutput


def output_cutoff(document: Document, schema: Schema, volatile: tuple[str, ...] = ()) -> str:
    """The hash by which early cut-off compares outputs: content without what the schema or definition call volatile.

    ``volatile`` are JSON Pointers into the data, beside the schema's own ``x-volatile``.
    """
    if document.is_text:
        return cutoff_hash(document)
    return cutoff_hash(document, body=strip_volatile(schema.definition, document.body, also=volatile))


def settle_output(output: RunOutput, staged: Document, volatile: tuple[str, ...] = ()) -> tuple[SettledOutput, ...]:
    """Decide what ``staged``, new machine output for a slot, does to the document there; empty for nothing.

    The machine head advances even where the human side won, else the same conflict would return at each run; what
    the machine says there is offered. Under ``wait`` nothing moves, and the offer waits for a person.
    """
    if output.deleted:
        return ()
    if output.current is None:
        return (_settled(output, staged, staged, effect="change", volatile=volatile),)
    head = output.machine or output.current
    if _same(head, staged, output.schema, volatile):
        return ()
    merged = _merged(output, head, output.current, staged, output.on_conflict)
    effect = "change" if merged.changed else "head"
    conflicts = tuple(conflict.to_json() for conflict in merged.conflicts)
    done = _settled(output, merged.document, staged, effect=effect, conflicts=conflicts, volatile=volatile)
    if not conflicts or output.on_conflict == OnConflict.TAKE_MACHINE:
        return (done,)
    theirs = _merged(output, head, output.current, staged, OnConflict.TAKE_MACHINE).document
    waits = output.on_conflict == OnConflict.WAIT
    offer = _settled(
        output,
        theirs,
        staged,
        effect="hold" if waits else "offer",
        conflicts=conflicts,
        volatile=volatile,
        onto=merged.document,
    )
    return (offer,) if waits else (done, offer)


def _merged(output: RunOutput, head: Document, current: Document, staged: Document, on_conflict: str) -> Merge:
    """Merge, and hold the result against the output schema: what does not satisfy it is one conflict about all."""
    merged = merge(head, current, staged, on_conflict=on_conflict)
    if not merged.changed or not output.schema.validator.faults(visible(merged.document)):
        return merged
    return unmerged(head, current, staged, on_conflict=on_conflict)


def _settled(
    output: RunOutput,
    document: Document,
    machine: Document,
    *,
    effect: str,
    conflicts: tuple[Mapping[str, Any], ...] = (),
    volatile: tuple[str, ...],
    onto: Document | None = None,
) -> SettledOutput:
    """One effect; its patch leads from ``onto``, else from the current document, to ``document``."""
    patch = inverse = None
    before = onto or output.current
    if effect != "head" and before is not None:
        forward, backward = diff(before.to_json(), document.to_json())
        patch, inverse = patch_bytes(forward), patch_bytes(backward)
    return SettledOutput(
        slot=output.slot,
        expected=output.version,
        effect=effect,
        document=document,
        machine=machine,
        base_hash=None if output.machine is None else document_hash(output.machine.to_bytes()),
        patch=patch,
        inverse=inverse,
        cutoff_hash=output_cutoff(document, output.schema, volatile),
        conflicts=conflicts,
    )


def _same(head: Document, staged: Document, schema: Schema, volatile: tuple[str, ...]) -> bool:
    if (head.title, head.tags, head.metadata) != (staged.title, staged.tags, staged.metadata):
        return False
    return output_cutoff(head, schema, volatile) == output_cutoff(staged, schema, volatile)
