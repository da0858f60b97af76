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
from domain.documents import Document, content_size, preview, visible
from domain.patterns import compile_pattern
from domain.settlements import decide_output
from domain.steps import InputBlob, initial_context, run_pure, stage
from domain.works import RunOutput, RunWork, SettledOutput, Settlement, StepRecord, UnchangedOutput

TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")
TOKENS_MAX = 10**9
MODEL_CHARACTERS_MAX = 200
COMPUTED = "computed"
"""What a service answers as its model where it asked none."""


def declined(work: RunWork) -> str | None:
    """Why the provider does not want this input, None if it does.

    Predicates on content are decided when the input exists (rule 8).
    """
    most = work.max_input_size
    if most is not None and any(content_size(source.document) > most for source in work.inputs):
        return f"the input is larger than {most} bytes"
    if not work.trigger_patterns:
        return None
    found = any(pattern_found(work.trigger_patterns, source.document) for source in work.inputs)
    return None if found else "no pattern matches the content"


def pattern_found(patterns: Sequence[str], document: Document) -> bool:
    """Tell whether one of a provider's patterns is in what it would read of a document."""
    text = _text(document)
    return any(compile_pattern(pattern).search(text) for pattern in patterns)


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
        # Every step that keeps its whole answer has its own place in steps.
        steps = {**context.get("steps", {}), **record.entries.get("steps", {})}
        context.update({**record.entries, **({"steps": steps} if steps else {})})
    return context


def carry_out(work: RunWork, *, now: datetime, records: Sequence[StepRecord] = ()) -> Settlement:
    """Evaluate what is not recorded yet, stage every output and decide what it does to the document there.

    Raises Invalid (``schema_violation``, ``expression_failed``, ``invalid_output``) with faults, for good.
    """
    skipped = declined(work)
    if skipped is not None:
        return Settlement(run_id=work.run_id, outputs=(), usage={"skipped": skipped})
    context = context_of(work, records, now=now)
    recorded = {record.step_id for record in records}
    outputs = {output.slot: output for output in work.outputs}
    settled: list[SettledOutput] = []
    unchanged: list[UnchangedOutput] = []
    for step in work.definition.steps:
        if step.effect == "stage":
            output = outputs[step.id]
            volatile = work.definition.output(step.id).volatile
            reason, effects = decide_output(output, _staged(work, output, step, context), volatile)
            settled += effects
            if reason is not None:
                unchanged.append(UnchangedOutput(slot=output.slot, reason=reason))
        elif step.id not in recorded:
            context.update(evaluate(work, step, context))
    usage = total_usage(records)
    usage["duration_ms"] = context["execution_time"]
    return Settlement(
        run_id=work.run_id,
        outputs=tuple(settled),
        usage=usage,
        storage=work.storage,
        unchanged=tuple(unchanged),
    )


def forgotten(work: RunWork, records: Sequence[StepRecord], *, before: int | None = None) -> bool:
    """Tell whether something of a run that was carried out is on record no more: the database is a backup's.

    Of the steps ``before`` a position that is all of them; of a run that is to be settled, calls and questions, for
    whatever is pure is evaluated again.
    """
    recorded = {record.step_id for record in records}
    steps = work.definition.steps[:before]
    return any(step.id not in recorded for step in steps if before is not None or step.effect in {"call", "ask"})


def usage_of(answer: Any) -> dict[str, Any]:
    """What a service says it has used: whole tokens, and the model that answered; anything else is not believed."""
    said = answer.get("usage") if isinstance(answer, Mapping) else None
    if not isinstance(said, Mapping):
        return {}
    tokens = {name: said[name] for name in TOKENS if _is_count(said.get(name))}
    model = said.get("model")
    named = {"model": model.replace("\0", "")[:MODEL_CHARACTERS_MAX]} if isinstance(model, str) else {}
    return {**tokens, **named}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX


def total_usage(records: Sequence[StepRecord]) -> dict[str, Any]:
    """The sum of what the steps used; ``model`` names the models that really answered, in order.

    ``reused_steps`` took over what had been paid for before: they used nothing, ``saved_tokens`` they would have.
    """
    usage: dict[str, Any] = {name: sum(int(record.usage.get(name) or 0) for record in records) for name in TOKENS}
    models = dict.fromkeys(str(record.usage["model"]) for record in records if record.usage.get("model"))
    asked = [model for model in models if model != COMPUTED] or list(models)
    usage["model"] = ", ".join(asked) or None
    usage["tokens"] = usage["total_tokens"]
    usage["cost"] = sum(int(record.usage.get("cost") or 0) for record in records)
    usage["reused_steps"] = sum(1 for record in records if record.usage.get("reused"))
    usage["saved_tokens"] = sum(int(record.usage.get("saved_tokens") or 0) for record in records)
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
