"""How a run's output becomes a delta: cut-off, merge with what people changed, patch and inverse.

Pure: the schedule's lock is not held here (CASCADES rule 7). If the output's version moves meanwhile, ``settle`` says
``moved`` and the same decision is taken again against the newer document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.diffs import diff, patch_bytes
from domain.documents import Document, cutoff_hash, document_hash, visible
from domain.merge import Merge, merge
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


def settle_output(output: RunOutput, staged: Document, volatile: tuple[str, ...] = ()) -> SettledOutput | None:
    """Decide what ``staged``, new machine output for a slot, does to the document there; None for nothing.

    The machine head advances even where the human side won, else the same conflict would return at each run.
    """
    if output.deleted:
        return None
    if output.current is None:
        return _settled(output, staged, staged, changed=True, volatile=volatile)
    head = output.machine or output.current
    if _same(head, staged, output.schema, volatile):
        return None
    merged = _merged(output, head, output.current, staged)
    return _settled(
        output,
        merged.document,
        staged,
        changed=merged.changed,
        conflicts=tuple(conflict.to_json() for conflict in merged.conflicts),
        volatile=volatile,
    )


def _merged(output: RunOutput, head: Document, current: Document, staged: Document) -> Merge:
    """Merge, and hold the result against the output schema: what does not satisfy it is a conflict."""
    merged = merge(head, current, staged, on_conflict=output.on_conflict)
    if not merged.changed or not output.schema.validator.faults(visible(merged.document)):
        return merged
    return Merge(document=current, conflicts=merge(head, current, staged, on_conflict="wait").conflicts, changed=False)


def _settled(
    output: RunOutput,
    document: Document,
    machine: Document,
    *,
    changed: bool,
    conflicts: tuple[Mapping[str, Any], ...] = (),
    volatile: tuple[str, ...],
) -> SettledOutput:
    patch = inverse = None
    if changed and output.current is not None:
        forward, backward = diff(output.current.to_json(), document.to_json())
        patch, inverse = patch_bytes(forward), patch_bytes(backward)
    return SettledOutput(
        slot=output.slot,
        expected=output.version,
        changed=changed,
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
