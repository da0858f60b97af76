"""How a run's output becomes a delta: cut-off, merge with what people changed, patch and inverse.

Pure: the schedule's lock is not held here (CASCADES rule 7). If the output's version moves meanwhile, ``settle`` says
``moved`` and the same decision is taken again against the newer document.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.canonical import same
from domain.diffs import diff, patch_bytes
from domain.disputes import disputed_head
from domain.documents import Document, cutoff_hash, document_hash, visible
from domain.errors import Invalid, TooLarge
from domain.merge import ABSENT, Conflict, Merge, OnConflict, merge
from domain.normal_forms import normal_body
from domain.schemas import Schema
from domain.works import RunOutput, SameBy, SettledOutput


def output_cutoff(document: Document, schema: Schema, volatile: tuple[str, ...] = ()) -> str:
    """The hash by which early cut-off compares outputs: that of the normal form (``domain/normal_forms.py``).

    ``volatile`` are JSON Pointers into the data, beside the schema's own ``x-volatile``.
    """

    def made() -> str:
        normal = schema.has_normal_form or volatile
        return cutoff_hash(document, body=normal_body(schema.definition, document, also=volatile) if normal else None)

    return document.cutoff_under(schema.definition, volatile, made)


def settle_output(output: RunOutput, staged: Document, volatile: tuple[str, ...] = ()) -> tuple[SettledOutput, ...]:
    """Decide what ``staged``, new machine output for a slot, does to the document there; empty for nothing.

    The machine head advances even where the human side won, else the same conflict would return at each run; what
    the machine says there is offered until somebody decides. Under ``wait`` nothing moves, and the offer waits for a
    person. Raises Invalid ``immutable_field`` if the content type of the output would change.
    """
    return decide_output(output, staged, volatile)[1]


def decide_output(
    output: RunOutput, staged: Document, volatile: tuple[str, ...] = ()
) -> tuple[SameBy | None, tuple[SettledOutput, ...]]:
    """As ``settle_output``, and for nothing also why: what ``staged`` is the same by as the machine head.

    By bytes first; else by the normal form that early cut-off compares (``output_cutoff``).
    """
    if output.deleted:
        return None, ()
    settling = _Settling(output, staged, volatile)
    if output.current is None:
        return None, (settling.effect("change", staged),)
    head = output.machine or output.current
    if head.to_bytes() == staged.to_bytes():
        return SameBy.BYTES, ()
    if _same(head, staged, output.schema, volatile):
        return SameBy.NORMAL_FORM, ()
    return None, settling.decided(head, output.current)


class _Settling:
    """One machine document on its way into one slot."""

    def __init__(self, output: RunOutput, staged: Document, volatile: tuple[str, ...]) -> None:
        self._output, self._staged, self._volatile = output, staged, volatile

    def decided(self, head: Document, current: Document) -> tuple[SettledOutput, ...]:
        """Merge, and say what becomes of what cannot be merged, as the policy has it."""
        policy = OnConflict(self._output.on_conflict)
        if not self._output.disputed and (head is current or head.to_bytes() == current.to_bytes()):
            return (self._replaced(current),)
        disputed = disputed_head(head, self._output.disputed)
        if policy is OnConflict.TAKE_MACHINE:
            return (self._taken(current, self._merged(disputed, current, policy)),)
        merged = self._merged(head, current, policy)
        offered = self._merged(disputed, current, OnConflict.TAKE_MACHINE)
        waits = policy is OnConflict.WAIT and bool(merged.conflicts)
        offer = self.effect("hold" if waits else "offer", offered.document, offered.conflicts, onto=merged.document)
        if waits:
            return (offer,)
        done = self._taken(current, merged)
        return (done, offer) if offered.conflicts else (done,)

    def effect(
        self, kind: str, document: Document, conflicts: Sequence[Conflict] = (), *, onto: Document | None = None
    ) -> SettledOutput:
        """One effect; its patch leads from ``onto``, if that is there, to ``document``."""
        patch = inverse = None
        if onto is not None:
            forward, backward = diff(onto.to_json(), document.to_json())
            patch, inverse = patch_bytes(forward), patch_bytes(backward)
        head = self._output.machine
        return SettledOutput(
            slot=self._output.slot,
            expected=self._output.version,
            effect=kind,
            document=document,
            machine=self._staged,
            base_hash=None if head is None else document_hash(head.to_bytes()),
            patch=patch,
            inverse=inverse,
            cutoff_hash=output_cutoff(document, self._output.schema, self._volatile),
            conflicts=tuple(conflict.to_json() for conflict in conflicts),
            volatile=self._volatile,
        )

    def _replaced(self, current: Document) -> SettledOutput:
        """Nobody has changed what the machine wrote, which is nearly always so: what it writes now takes its place."""
        if current.content_type != self._staged.content_type:
            raise Invalid("content_type does not change; create another blob.", code="immutable_field")
        return self.effect("change", self._staged, onto=current)

    def _taken(self, current: Document, merged: Merge) -> SettledOutput:
        """What the document takes in: a version, or nothing but the new head where people have it already."""
        if not merged.changed or _same(current, merged.document, self._output.schema, self._volatile):
            return self.effect("head", current, merged.conflicts)
        return self.effect("change", merged.document, merged.conflicts, onto=current)

    def _merged(self, base: Document, current: Document, policy: OnConflict) -> Merge:
        """Merge, and hold the result against the output schema: what does not satisfy it is one conflict about all."""
        schema = self._output.schema
        try:
            merged = merge(base, current, self._staged, on_conflict=policy, schema=schema.definition)
        except (Invalid, TooLarge) as error:
            if error.problem_code == "immutable_field":
                raise
            return _whole(base, current, self._staged, policy)
        if not merged.changed or not schema.validator.faults(visible(merged.document)):
            return merged
        return _whole(base, current, self._staged, policy)


def _whole(base: Document, current: Document, staged: Document, policy: OnConflict) -> Merge:
    """Two documents that cannot be one: each of their fields that differs is a conflict."""
    roots = [document.to_json() for document in (base, current, staged)]
    fields = {name: [root.get(name, ABSENT) for root in roots] for name in {**roots[1], **roots[2]}}
    conflicts = tuple(
        Conflict(pointer=f"/{name}", base=before, ours=ours, theirs=theirs)
        for name, (before, ours, theirs) in fields.items()
        if not same(ours, theirs)
    )
    document = staged if policy is OnConflict.TAKE_MACHINE else current
    return Merge(document=document, conflicts=conflicts, changed=document != current)


def _same(head: Document, staged: Document, schema: Schema, volatile: tuple[str, ...]) -> bool:
    if (head.title, head.tags, head.metadata) != (staged.title, staged.tags, staged.metadata):
        return False
    return output_cutoff(head, schema, volatile) == output_cutoff(staged, schema, volatile)
