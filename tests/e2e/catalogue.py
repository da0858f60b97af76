"""What the tests register through the public API: schemas, workflows, providers of a graph with every shape.

The graph below one root in a bucket has 33 derivations: five cuts of the root (three inline, two that call the test
service), each measured and polished, each polished text checked and refined, each checked text finished; the refined
parts of the bucket are joined into a volume (so every root is the top of a five-fold diamond), the measured ones into
an index, and the volume is digested. Every node says what it is made of: ``text = provider(inputs)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DERIVATIONS = 33
BUCKET_TYPE = "e2e-shelf"
SOURCE = "e2e-source-v1"
OF_SOURCE = "$.data.text + ' #' + string(len($.data.marks))"
OF_TEXT = "$.data.text"
OF_MEMBERS = "$.inputs.map(member, member.data.text).join('+')"
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}


@dataclass(frozen=True)
class Node:
    """One provider: what it reads, what it makes, and whether it calls the test service."""

    name: str
    reads: str
    makes: str
    calls: bool = False
    collects: bool = False
    bucket_type: str = BUCKET_TYPE
    endpoint: str = "/transform"
    attempts: int = 0
    inputs: tuple[tuple[str, str], ...] = ()
    more: tuple[tuple[str, Any], ...] = ()

    def workflow(self, scope: str) -> dict[str, Any]:
        text = OF_MEMBERS if self.collects else OF_SOURCE if self.reads == SOURCE else OF_TEXT
        call = {
            "id": "ask",
            "type": "api-call",
            "service": "test",
            "endpoint": self.endpoint,
            "input_map": {"scope": scope, "tag": self.name, "text": "$.given", **dict(self.inputs)},
            "output_map": {"text": "$.text"},
            # What we break is not the service's failure: it may not use up the only attempt.
            **({"retry": {"max_attempts": self.attempts}} if self.attempts else {}),
        }
        here = {"id": "say", "type": "computation", "operations": [{"text": f"'{self.name}(' + $.given + ')'"}]}
        keep = {
            "id": "keep",
            "type": "state-update",
            "operation": "create-blob",
            "schema_id": self.makes,
            "data_map": {"text": "$.text"},
        }
        given = {"id": "read", "type": "computation", "operations": [{"given": text}]}
        return {"id": f"wf-{self.name}", "name": self.name, "steps": [given, call if self.calls else here, keep]}

    def provider(self) -> dict[str, Any]:
        common = {"id": self.name, "name": self.name, "workflow_id": f"wf-{self.name}", **dict(self.more)}
        if self.collects:
            collect = {"bucket_type": self.bucket_type, "schema_id": self.reads, "order": "position"}
            return {**common, "anchor": "bucket", "collect": collect}
        return {**common, "input_schema_id": self.reads}


GRAPH: tuple[Node, ...] = (
    *(Node(f"cut-{number}", SOURCE, "e2e-part-v1", calls=number > 2, attempts=1) for number in range(5)),
    Node("measure", "e2e-part-v1", "e2e-measured-v1"),
    Node("polish", "e2e-part-v1", "e2e-polished-v1", calls=True, attempts=1),
    Node("check", "e2e-polished-v1", "e2e-checked-v1"),
    Node("refine", "e2e-polished-v1", "e2e-refined-v1", calls=True, attempts=1),
    Node("finish", "e2e-checked-v1", "e2e-final-v1"),
    Node("index", "e2e-measured-v1", "e2e-index-v1", calls=True, attempts=1, collects=True),
    Node("volume", "e2e-refined-v1", "e2e-volume-v1", collects=True),
    Node("digest", "e2e-volume-v1", "e2e-digest-v1", calls=True, attempts=1),
)


def schemas(nodes: Sequence[Node]) -> list[str]:
    """Every schema that these nodes name."""
    return sorted({slug for node in nodes for slug in (node.reads, node.makes)})
