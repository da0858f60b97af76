"""A problem in the words of the command line: options in place of fields, commands in place of requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdk.problems import ApiProblem

PLAN_POINTER = "/header/studio-plan"
OPTIONS: Mapping[str, str] = {
    "/step_id": "--step",
    "/comment": "--comment",
    PLAN_POINTER: "--plan",
    "/header/if-match": "--if-version",
    "/budget_limit": "--budget",
    "/bytes_quota": "--quota",
    "/runs_limit": "--runs",
}
"""What sets a field that has another name here. Others that no document holds go by ``_IN_ADDRESS``."""

HINTS: Mapping[str, str] = {
    "not_waiting": "studio approvals lists the runs that wait, and the step that each asks at.",
    "not_running": "It has ended: studio run get RUN, or studio cascade get CASCADE, says how.",
    "nothing_to_retry": "Only what failed or was cancelled can be retried: studio blob why BLOB says how it stands.",
    "no_budget": "studio budget set DOLLARS sets a limit.",
    "budget_in_use": "Set at least that; studio budget top-up DOLLARS adds to the limit as it is.",
    "budget_managed": "Only an admin changes it: studio admin limits USER --budget DOLLARS.",
    "budget_exhausted": "studio budget top-up DOLLARS: what waits goes on, and repeats nothing that was paid.",
    "plan_expired": "Plan again: studio cascade plan.",
    "plan_moved": "Look at what is different, plan again (studio cascade plan), and name the new plan with --plan.",
    "plan_used": "Plan again, a plan counts for one write: studio cascade planned PLAN says what came of it.",
    "plan_mismatch": "Name a plan that was made for this very command with --plan.",
    "precondition_required": "Say the version that you know with --if-version.",
    "provider_inactive": "studio provider activate PROVIDER switches it on.",
    "unknown_schema": "Register the schema first: studio schema register FILE.",
    "unknown_workflow": "Register the definition first: studio workflow register FILE.",
    "unknown_provider": "studio provider list shows the known ones.",
    "nothing_to_reprocess": "Ask a provider for it: studio provider process PROVIDER BLOB.",
    "deleted": "studio blob restore BLOB brings it back.",
    "unknown_version": "studio blob history BLOB lists them.",
}
"""What leads on, by problem code, where the API's own hint is a request."""

COMMANDS: Sequence[tuple[str, str]] = (
    ("PATCH /blobs/([^/]+)", "studio blob edit {0}"),
    ("POST /blobs/([^/]+)/restore", "studio blob restore {0}"),
    ("POST /derivations/([^/]+)/reprocess", "studio derivation reprocess {0}"),
    ("GET /cascades/([^/]+)", "studio cascade watch {0}"),
    ("POST /cascades/([^/]+)/retry", "studio cascade retry {0}"),
    ("POST /runs/([^/]+)/reject", "studio run reject {0} --comment WHY"),
    ("POST /runs/([^/]+)/(approve|cancel|retry)", "studio run {1} {0}"),
    ("POST /deltas/([^/]+)/(accept|reject)", "studio blob {1} {0}"),
    ("POST /dead-letters/([^/]+)/redrive", "studio dead-letter redrive {0}"),
    ("POST /providers/([^/]+)/upgrade", "studio provider upgrade {0}"),
    ("PUT /providers/([^/]+)/instance", "studio provider activate {0}"),
    ("POST /budget/top-up", "studio budget top-up {dollars}"),
)
"""What sends the requests that explanations name."""
_PREFIX = "/api/v1/studio"
_MICROS = 1_000_000

_IN_ADDRESS = re.compile(r"^/(query|path)/([a-z_]+?)(?:_id)?$")


def option_of(pointer: str) -> str:
    """Return what to correct on the command line: an option, an argument, or the field itself."""
    found = _IN_ADDRESS.match(pointer)
    if found is None:
        return OPTIONS.get(pointer, pointer)
    where, name = found.groups()
    return name.upper() if where == "path" else f"--{name.replace('_', '-')}"


def hint_of(problem: ApiProblem) -> str | None:
    """Return what leads on, None if nothing is known."""
    if any(fault.get("pointer") == PLAN_POINTER for fault in problem.errors):
        return "studio cascade plan makes a plan and says its id."
    found = HINTS.get(problem.code) or problem.document.get("hint")
    return None if found is None else str(found)


def sentences_of(problem: ApiProblem) -> tuple[str, Sequence[tuple[str, str]]]:
    """Return the sentence that says what is wrong, and the faults that it does not name: where, and what."""
    faults = [(option_of(str(one.get("pointer") or "/")), str(one.get("detail", ""))) for one in problem.errors]
    if len(faults) != 1:
        return problem.detail, faults
    [(where, detail)] = faults
    if where == OPTIONS[PLAN_POINTER]:
        return f"{where} names a plan by its id.", ()
    return (detail if where in detail else f"{where}: {detail}"), ()


def command_of(action: Mapping[str, Any]) -> str:
    """Return the command that does what an explanation names as a request; that itself where there is none."""
    request = f"{action['method']} {str(action['url']).removeprefix(_PREFIX)}"
    for pattern, command in COMMANDS:
        if (found := re.fullmatch(pattern, request)) is not None:
            amount = (action.get("body") or {}).get("amount", 0)
            return command.format(*found.groups(), dollars=f"{amount / _MICROS:.6f}")
    return f"{action['method']} {action['url']}"
