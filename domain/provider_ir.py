"""A provider as it is stored, and the rule who reacts; ``providers.py`` reads registrations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from domain.canonical import canonical
from domain.definition_ir import Output, output_from_json, output_to_json
from domain.patterns import compile_pattern
from domain.retries import Retry

#: spellings of the seeds that the built-in catalogue answers to
PROVIDER_ALIASES: Final = {"content-expander": "text-expansion"}
WORKFLOW_ALIASES: Final = {"expand-content-workflow": "wf-text-expansion"}

PRIORITY_DEFAULT: Final = 3
EVENTS: Final = ("onCreate", "onEdit", "onDelete")


@dataclass(frozen=True, slots=True)
class Collect:
    """What a provider that joins collects: blobs of one schema in buckets of one type, in this order."""

    bucket_type: str
    schema_id: str
    order: str = "position"


@dataclass(frozen=True, slots=True)
class Debounce:
    """Wait until ``quiet_seconds`` have passed without a further edit, but never longer than ``max_wait_seconds``."""

    quiet_seconds: float
    max_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What a user has decided instead of the provider: None leaves it to the provider."""

    on_conflict: str | None = None
    supersede: str | None = None
    debounce: Debounce | None = None
    on_parent_failure: str | None = None


PROVIDERS: Final = Policies()
"""Everything is left to the provider."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where outputs are kept (seed 004): ``inline`` in PostgreSQL, ``url`` in the object store, ``hybrid`` by size.

    ``threshold`` (bytes) is what ``hybrid`` keeps in PostgreSQL at most; None stands for the setting.
    """

    strategy: str = "hybrid"
    threshold: int | None = None


BY_SIZE: Final = Placement()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A registered processor. Immutable: registering it again makes another version.

    ``input_schemas``: slugs, empty for every schema. ``origin``: ``person`` reacts to blobs that a person made only,
    ``any`` to derived ones too. ``anchor``: what one derivation hangs on. ``execution``: ``inline`` runs many to an
    activity, ``workflow`` one workflow each. ``reads``: what counts as a change besides the content.
    ``services``: those that its definition calls. ``max_input_size`` is in bytes. None stands for the default of the
    settings.
    """

    id: str
    name: str
    workflow_id: str
    definition_digest: str
    outputs: tuple[Output, ...]
    description: str = ""
    version: str = "1.0.0"
    input_schemas: tuple[str, ...] = ()
    supported_types: tuple[str, ...] = ()
    events: tuple[str, ...] = ("onCreate", "onEdit")
    trigger_patterns: tuple[str, ...] = ()
    origin: str = "person"
    anchor: str = "blob"
    collect: Collect | None = None
    execution: str = "workflow"
    priority: int = PRIORITY_DEFAULT
    max_concurrency: int | None = None
    max_input_size: int | None = None
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    retry: Retry | None = None
    supersede: str = "finish"
    services: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    on_conflict: str = "keep_human"
    on_delete: str = "keep"
    on_parent_failure: str = "block"
    cache: str | None = None
    debounce: Debounce | None = None
    storage: Placement = BY_SIZE
    settings_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    activate: bool = True

    @property
    def digest(self) -> str:
        """sha256 (hexadecimal) of the whole registration, its definition included."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    def reacts_to(self, *, schema_id: str, content_type: str, by_person: bool) -> bool:
        """Whether a blob of this schema and type, made by a person or derived, is an anchor of this provider.

        ``schema_id`` is the slug. Content is looked at later, by ``triggered_by``, when there is some.
        """
        if self.anchor != "blob" or (self.origin == "person" and not by_person):
            return False
        if self.input_schemas and schema_id not in self.input_schemas:
            return False
        return not self.supported_types or any(covers(kind, content_type) for kind in self.supported_types)

    def triggered_by(self, content: str) -> bool:
        """Whether the text matches one of ``trigger_patterns``; true if there are none."""
        return not self.trigger_patterns or any(
            compile_pattern(pattern).search(content) is not None for pattern in self.trigger_patterns
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as ``from_json`` reads it."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "retry"}
        return {
            **({"retry": self.retry.to_json()} if self.retry else {}),  # what says nothing has the digest of before
            **{name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()},
            "outputs": [output_to_json(output) for output in self.outputs],
            "collect": asdict(self.collect) if self.collect else None,
            "debounce": asdict(self.debounce) if self.debounce else None,
            "storage": asdict(self.storage),
            "settings": dict(self.settings),
            "settings_schema": dict(self.settings_schema) if self.settings_schema is not None else None,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Provider:
        """The provider that ``to_json`` wrote; it is trusted, not checked again."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
        }
        plain["outputs"] = tuple(output_from_json(output) for output in stored["outputs"])
        plain["collect"] = Collect(**stored["collect"]) if stored["collect"] else None
        plain["debounce"] = Debounce(**stored["debounce"]) if stored["debounce"] else None
        plain["retry"] = Retry.from_json(stored["retry"]) if stored.get("retry") else None
        plain["storage"] = Placement(**stored.get("storage", {}))
        return cls(**plain)


def covers(kind: str, content_type: str) -> bool:
    """Whether ``text/*``, ``*/*`` or an exact type covers a content type, parameters aside."""
    bare = content_type.partition(";")[0].strip().lower()
    return kind in ("*", "*/*", bare) or (kind.endswith("/*") and bare.startswith(kind[:-1]))


def canonical_provider(provider_id: str) -> str:
    """The built-in provider that an id of the seeds stands for, or the id itself."""
    return PROVIDER_ALIASES.get(provider_id, provider_id)


def canonical_workflow(workflow_id: str) -> str:
    """The built-in definition that an id of the seeds stands for, or the id itself."""
    return WORKFLOW_ALIASES.get(workflow_id, workflow_id)
