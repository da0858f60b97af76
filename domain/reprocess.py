"""What a person asks for who wants something to run again although nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from domain.ids import CascadeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How far: these derivations, or everything below them too; ``force``: no answer from before counts."""

    subtree: bool
    force: bool

    def options(self, **more: str) -> dict[str, object]:
        """What the cascade keeps of it."""
        return {"scope": "subtree" if self.subtree else "node", "force": self.force, **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The cascade that follows it up, and which derivations were meant, a hundred of them by name."""

    cascade_id: CascadeId
    derivation_ids: tuple[UUID, ...]
