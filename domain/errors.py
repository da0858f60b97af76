"""The one error tree and the one catalogue of problem codes.

StudioError
├── Invalid              the request can be parsed but not accepted (faults name the fields)
├── Malformed            the request cannot be parsed
├── Unauthenticated      no identity, or one that is no longer valid
├── Forbidden            an identity without the scope
├── NotFound             unknown, or somebody else's
├── Gone                 deleted; older versions are still readable
├── Conflict             the state does not allow it now
│   └── VersionConflict  the blob has moved on since the version named
├── PreconditionRequired If-Match is required here
├── TooLarge             beyond a named bound
├── UnsupportedMedia     a media type that is not accepted here
├── LimitExceeded        too much at once; later is fine
├── ProviderFailed       a provider's own, final failure: recorded on the run
│   └── Unusable         a service did what it was asked to, and its answer is of no use: it is paid for
└── Unavailable          something we need does not answer; a retry may help

Errors know no transport: ``api/problems.py`` alone turns them into HTTP (RFC 9457), ``activities/errors.py``
alone into Temporal failures. Both use the same ``code``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field: JSON Pointer (RFC 6901), a catalogue code, and words that name the fix."""

    pointer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What a problem code means, for people: its page is served at ``/problems/{code}``."""

    title: str
    hint: str
    retryable: bool = False


CATALOGUE: dict[str, ProblemKind] = {
    "invalid_request": ProblemKind("The request is not valid", "Each entry of errors names a field and its fix."),
    "unknown_field": ProblemKind("Unknown field", "Remove the field or correct its spelling."),
    "missing_field": ProblemKind("Missing field", "Add the field."),
    "wrong_type": ProblemKind("Wrong type", "Give the field the type that detail names."),
    "invalid_value": ProblemKind("Invalid value", "Give the field one of the values that detail names."),
    "invalid_id": ProblemKind("Not an id", "Ids are UUIDs, or the slugs that the lists show."),
    "invalid_operation": ProblemKind("Unknown operation", "RFC 6902 knows add, remove, replace, move, copy, test."),
    "path_not_found": ProblemKind("The patch names a path that does not exist", "Read the blob and correct path."),
    "immutable_field": ProblemKind("This field does not change", "Create another blob instead."),
    "schema_violation": ProblemKind("The content does not satisfy its schema", "Correct what errors points at."),
    "invalid_schema": ProblemKind("Not a JSON Schema", "Correct what errors points at."),
    "remote_ref": ProblemKind("A schema may not refer to another address", "Inline the referenced schema."),
    "unknown_schema": ProblemKind("Unknown schema", "Register the schema first: POST /schemas."),
    "unknown_content": ProblemKind("Unknown content", "Send the bytes first: POST /uploads."),
    "unknown_provider": ProblemKind("Unknown provider", "GET /providers lists the known ones."),
    "unknown_workflow": ProblemKind("Unknown workflow", "Register the definition first: POST /workflows."),
    "unknown_service": ProblemKind("Unknown service", "Declare the service under services in the configuration."),
    "unknown_step_type": ProblemKind("Unknown step type", "detail names the nearest known one."),
    "unknown_step": ProblemKind("Unknown step", "Name a step of this definition."),
    "duplicate_id": ProblemKind("The id is used twice", "Give each its own id."),
    "invalid_expression": ProblemKind("The expression cannot be read", "detail names the position."),
    "expression_failed": ProblemKind("The expression cannot be evaluated", "Check the types of what it reads."),
    "expression_budget_exceeded": ProblemKind("The expression costs too much", "Simplify it."),
    "invalid_definition": ProblemKind("The definition is not valid", "Correct what errors points at."),
    "cycle": ProblemKind("This would close a cycle", "Derivations form a directed acyclic graph."),
    "unparsable_body": ProblemKind("The body cannot be parsed", "Send valid JSON (or YAML where it is accepted)."),
    "invalid_header": ProblemKind("A header cannot be read", "detail names the header and its form."),
    "invalid_cursor": ProblemKind("The cursor is not one of ours", "Start again without a cursor."),
    "resync_required": ProblemKind(
        "The cursor is of another installation", "Read the current state, then start again without a cursor."
    ),
    "missing_credentials": ProblemKind("Who are you?", "Send Authorization: Bearer with an API key."),
    "invalid_credentials": ProblemKind("Unknown API key", "Check the key, or make another: POST /api-keys."),
    "expired_credentials": ProblemKind("The API key has expired or was revoked", "Make another: POST /api-keys."),
    "missing_scope": ProblemKind("The API key does not allow this", "detail names the missing scope."),
    "not_found": ProblemKind("There is nothing here", "Check the id; somebody else's things are not shown."),
    "method_not_allowed": ProblemKind("This method is not allowed here", "The Allow header lists the methods."),
    "not_acceptable": ProblemKind("No acceptable representation", "Accept application/json."),
    "deleted": ProblemKind("The blob is deleted", "POST /blobs/{id}/restore brings it back; ?version= reads it."),
    "version_conflict": ProblemKind("The blob has moved on", "Read what changed at deltas_url and try again."),
    "precondition_failed": ProblemKind("The blob has moved on", "Read what changed at deltas_url and try again."),
    "precondition_required": ProblemKind("If-Match is required", "Send If-Match with the ETag you read, or *."),
    "unknown_version": ProblemKind("There is no such version", "GET blobs/{id}/versions lists them."),
    "merge_conflict": ProblemKind(
        "Both sides changed the same thing",
        "Look at conflicts; on_conflict=last_write_wins takes the delta's side, or reject it.",
    ),
    "already_decided": ProblemKind("The delta has been decided", "GET the delta says how."),
    "no_machine_version": ProblemKind("No provider makes this blob", "Go back to a version of it: revert."),
    "test_failed": ProblemKind("A test operation of the patch failed", "Read the blob again."),
    "already_exists": ProblemKind("It exists already", "Choose another name, or use the existing one."),
    "built_in": ProblemKind("Built-in things do not change", "Register one of your own under another id."),
    "provider_inactive": ProblemKind(
        "The provider is switched off", "Switch it on: PUT /providers/{id}/instance with active true."
    ),
    "plan_moved": ProblemKind(
        "What would happen is not what was planned", "Look at difference, plan again, and name the new plan."
    ),
    "plan_used": ProblemKind("The plan has been used", "Plan again: a plan counts for one write."),
    "plan_expired": ProblemKind("The plan has expired", "Plan again: POST /cascades/plan."),
    "plan_mismatch": ProblemKind("The plan is for another write", "Name a plan that was made for this very write."),
    "plan_too_slow": ProblemKind(
        "The plan is too large to be made in time", "Plan a smaller change, or raise cascades.plan_timeout."
    ),
    "nothing_to_reprocess": ProblemKind(
        "Nothing is made of this blob", "Ask a provider for it: POST /providers/{id}/process."
    ),
    "idempotency_key_in_flight": ProblemKind(
        "The same request is being processed", "Wait for Retry-After and repeat.", retryable=True
    ),
    "idempotency_key_reused": ProblemKind(
        "The Idempotency-Key was used for another request", "Use a new key for a new request."
    ),
    "body_too_large": ProblemKind("The body is too large", "detail names the limit."),
    "content_too_large": ProblemKind("The content is too large", "detail names the limit."),
    "too_deep": ProblemKind("The JSON is nested too deeply", "detail names the limit."),
    "too_many": ProblemKind("Too many items", "detail names the limit."),
    "number_out_of_range": ProblemKind("A number is out of range", "Integers have 64 bits; send longer ones as text."),
    "unsupported_media_type": ProblemKind("Unsupported media type", "Accept-Patch or detail lists the known ones."),
    "content_type_mismatch": ProblemKind(
        "The content is not of its declared type", "Declare the type that it has, or application/octet-stream."
    ),
    "body_too_slow": ProblemKind(
        "The body comes too slowly", "Send it in parts, which can be repeated: POST /uploads.", retryable=True
    ),
    "digest_mismatch": ProblemKind("The bytes do not match their digest", "Send them again."),
    "invalid_part": ProblemKind("Not a part of this upload", "detail names the numbers and sizes that parts have."),
    "parts_missing": ProblemKind("The upload is not complete", "Send the parts that missing lists, then complete it."),
    "upload_ended": ProblemKind("The upload has ended", "GET the upload says how; begin another one."),
    "range_not_satisfiable": ProblemKind("The range lies outside of the content", "Content-Range has its size."),
    "signature_invalid": ProblemKind("The address was altered", "Read the blob for a new content_url."),
    "signature_expired": ProblemKind("The address has expired", "Read the blob for a new content_url."),
    "storage_quota_exceeded": ProblemKind(
        "The storage quota is used up",
        "Deleted blobs count as well, their history stays readable: shorten something, or ask for a higher quota.",
    ),
    "budget_exhausted": ProblemKind(
        "The budget is used up",
        "Raise it: POST /budget/top-up. What waits goes on by itself, and repeats nothing that was paid.",
    ),
    "budget_in_use": ProblemKind("The limit is below what is spent and reserved", "minimum says what it can be."),
    "budget_managed": ProblemKind(
        "An admin has set this budget", "Only an admin changes it: PUT /users/{id}/limits with budget_limit."
    ),
    "no_budget": ProblemKind("There is no budget", "Nothing is limited; PUT /budget sets a limit."),
    "rate_limited": ProblemKind("Too many requests", "Wait for Retry-After.", retryable=True),
    "egress_denied": ProblemKind("This address may not be called", "Declare the service in the configuration."),
    "provider_failed": ProblemKind("The provider failed", "The run says why; mend it, then retry."),
    "service_rejected": ProblemKind("The service refused the call", "The run's error quotes its answer."),
    "invalid_output": ProblemKind("The provider's output is not valid", "It does not satisfy its output schema."),
    "run_lost": ProblemKind(
        "The run was lost again and again",
        "Whoever carried it out was gone each time; see the worker's log, then retry.",
    ),
    "rejected": ProblemKind("A person did not approve it", "The comment says why; correct the input, or retry."),
    "cancelled": ProblemKind("A person cancelled it", "Retry it to go on."),
    "not_running": ProblemKind("There is nothing to cancel", "It has ended; GET says how."),
    "not_waiting": ProblemKind("This run does not wait for an approval", "GET /approvals lists those that do."),
    "nothing_to_retry": ProblemKind("There is nothing to retry", "Only what failed or was cancelled can be retried."),
    "superseded": ProblemKind("The run's inputs have moved on", "A newer run takes its place."),
    "service_unavailable": ProblemKind("A service does not answer", "It is tried again.", retryable=True),
    "unavailable": ProblemKind("Something we need does not answer", "Try again shortly.", retryable=True),
    "invalid_settings": ProblemKind(
        "The settings are not valid", "Each entry of errors names a key and where it was set."
    ),
    "integrity": ProblemKind("Stored content does not match its hash", "Restore it from a backup."),
    "internal": ProblemKind("Something went wrong on our side", "Tell us the request_id.", retryable=True),
}


class StudioError(Exception):
    """Base of every error of ours: a catalogue ``code``, a sentence, faults per field, and typed extra members."""

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        faults: Sequence[Fault] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem_code = code or self.code
        self.kind = CATALOGUE[self.problem_code]
        self.detail = detail
        self.faults = tuple(faults)
        self.members = dict(members or {})

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.kind.retryable


class Invalid(StudioError):
    """Understood but not acceptable; ``faults`` names every field that is wrong."""

    code = "invalid_request"


class Malformed(StudioError):
    """The body or a header cannot be parsed at all."""

    code = "unparsable_body"


class Unauthenticated(StudioError):
    """No identity, or one that is not valid any more."""

    code = "missing_credentials"


class Forbidden(StudioError):
    """The identity lacks a scope."""

    code = "missing_scope"


class NotFound(StudioError):
    """Unknown, or somebody else's: the two are never told apart."""

    code = "not_found"


class Gone(StudioError):
    """Deleted; older versions are still readable."""

    code = "deleted"


class Conflict(StudioError):
    """The present state does not allow it."""

    code = "already_exists"


class VersionConflict(Conflict):
    """The blob is at another version than the one named; members carry the current one."""

    code = "version_conflict"


class PreconditionRequired(StudioError):
    """``If-Match`` is required here."""

    code = "precondition_required"


class TooLarge(StudioError):
    """Beyond a named bound."""

    code = "body_too_large"


class UnsupportedMedia(StudioError):
    """A media type that this resource does not take."""

    code = "unsupported_media_type"


class LimitExceeded(StudioError):
    """Too much at once; ``members['retry_after']`` says in how many seconds to come back."""

    code = "rate_limited"


class ProviderFailed(StudioError):
    """A provider's final failure; it is recorded on its run and not tried again."""

    code = "provider_failed"


class Unusable(ProviderFailed):
    """A service has answered, and what it says is of no use; ``usage`` is what it says that it took, if it says so."""

    def __init__(self, detail: str, *, code: str | None = None, usage: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail, code=code)
        self.usage = dict(usage or {})


class Unavailable(StudioError):
    """Something we need does not answer; a retry may help."""

    code = "unavailable"
