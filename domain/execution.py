"""Carrying out a run: from its pinned inputs and recorded steps to a settlement. Pure: no clock, no effect.

Inline runs are carried out here whole; a workflow run's calls are recorded by activities, and what is left, pure
steps and staging, is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from domain.definitions import Step
from domain.documents import Document, preview, visible
from domain.patterns import compile_pattern
from domain.settlements import settle_output
from domain.steps import InputBlob, initial_context, run_pure, stage
from domain.works import RunOutput, RunWork, SettledOutput, Settlement, StepRecord

COMPUTED = "computed"
"""What a service answers as its model where it asked none."""


def matches(work: RunWork) -> bool:
    """Whether the provider wants this input: predicates on content are decided when the input exists (rule 8)."""
    if not work.trigger_patterns:
        return True
    patterns = [compile_pattern(pattern) for pattern in work.trigger_patterns]
    texts = [_text(source.document) for source in work.inputs]
    return any(pattern.search(text) for pattern in patterns for text in texts)


def context_of(work: RunWork, records: Sequence[StepRecord], *, now: datetime) -> dict[str, Any]:
    """What expressions of the next step see: the inputs, the settings, and what finished steps have added."""
    inputs = [
        InputBlob(
            blob_id=str(source.blob_id), version=source.version, document=source.document, position=source.position
        )
        for source in work.inputs
    ]
    context = initial_context(inputs, work.settings, collection=work.anchor_kind != "blob", reads=work.reads)
    context["execution_time"] = max(int((now - work.started_at).total_seconds() * 1000), 0)
    for record in records:
        context.update(record.entries)
    return context


def carry_out(work: RunWork, *, now: datetime, records: Sequence[StepRecord] = ()) -> Settlement:
    """Evaluate what is not recorded yet, stage every output and decide what it does to the document there.

    Raises Invalid (``schema_violation``, ``expression_failed``, ``invalid_output``) with faults, for good.
    """
    if not matches(work):
        return Settlement(run_id=work.run_id, outputs=(), usage={"skipped": "no pattern matches the content"})
    context = context_of(work, records, now=now)
    recorded = {record.step_id for record in records}
    outputs = {output.slot: output for output in work.outputs}
    settled: list[SettledOutput] = []
    for step in work.definition.steps:
        if step.effect == "stage":
            output = outputs[step.id]
            volatile = work.definition.output(step.id).volatile
            settled += settle_output(output, _staged(work, output, step, context), volatile)
        elif step.id not in recorded:
            context.update(evaluate(work, step, context))
    usage = total_usage(records)
    usage["duration_ms"] = context["execution_time"]
    return Settlement(run_id=work.run_id, outputs=tuple(settled), usage=usage)


def total_usage(records: Sequence[StepRecord]) -> dict[str, Any]:
    """The sum of what the steps used; ``model`` names the models that really answered, in order."""
    tokens = ("prompt_tokens", "completion_tokens", "total_tokens")
    usage: dict[str, Any] = {name: sum(int(record.usage.get(name) or 0) for record in records) for name in tokens}
    models = dict.fromkeys(str(record.usage["model"]) for record in records if record.usage.get("model"))
    asked = [model for model in models if model != COMPUTED] or list(models)
    usage["model"] = ", ".join(asked) or None
    usage["tokens"] = usage["total_tokens"]
    return usage


def evaluate(work: RunWork, step: Step, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a pure step adds to the context; raises Invalid where it cannot be evaluated."""
    return run_pure(step, context, None if step.schema is None else work.schemas[step.schema.slug])


def _staged(work: RunWork, output: RunOutput, step: Step, context: Mapping[str, Any]) -> Document:
    """The new machine document; it is called like what it is made from unless its step says otherwise."""
    document = Document.stored(stage(step, context, output.schema))
    return document if document.title else replace(document, title=_title(work))


def _title(work: RunWork) -> str:
    return work.inputs[0].document.title if work.anchor_kind == "blob" and work.inputs else work.anchor_title


def _text(document: Document) -> str:
    seen = visible(document)
    return (
        str(seen["content"]) if isinstance(seen, dict) and isinstance(seen.get("content"), str) else preview(document)
    )
