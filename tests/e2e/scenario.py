"""A random life of one user, from a seed: a graph of providers, and what people do to it while servers die.

What a life leads to is known however it went: in the end everything is switched on, there and in its bucket, and every
root is edited once more. Then each output says what its provider makes of its inputs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.e2e.catalogue import SOURCE, Node
from tests.e2e.people import Person
from tests.e2e.service import Rule, TestService

NODES_MAX = 7
ROOTS_MAX = 3
ACTIONS_MAX = 10
PAUSE_SECONDS_MAX = 1.0


def graph(rng: random.Random) -> list[Node]:
    """Up to seven providers, each of what an earlier one makes: inline, called, joins; acyclic by construction."""
    nodes: list[Node] = []
    for number in range(rng.randint(2, NODES_MAX)):
        made = [node.makes for node in nodes]
        reads = rng.choice([SOURCE, *made])
        collects = reads != SOURCE and rng.random() < 0.25
        calls = rng.random() < 0.4
        supersede = rng.choice((("supersede", "cancel"), ("supersede", "finish")))
        nodes.append(
            Node(
                f"n{number}", reads, f"e2e-n{number}-v1",
                calls=calls, collects=collects, attempts=1 if calls else 0, more=(supersede,),
            )
        )  # fmt: skip
    return nodes


@dataclass
class Scenario:
    """One life; ``play`` it under kills, then ``mend``, then audit."""

    seed: int
    person: Person
    service: TestService
    bucket: str = ""
    deleted: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.nodes = graph(self.rng)

    @property
    def roots(self) -> list[str]:
        return list(self.person.workload.marks)

    @property
    def forced(self) -> bool:
        """Whether somebody asked for a run that nothing had changed for."""
        return any(action.startswith(("process", "reprocess")) for action in self.done)

    async def play(self) -> None:
        """Register the graph, make a root, and do up to ten things to it; some calls fail for good meanwhile."""
        await self.person.register(self.nodes)
        self.bucket = await self.person.bucket()
        await self.person.root(self.bucket)
        with ExitStack() as rules:
            for node in self.nodes:
                if node.calls:
                    delay = self.rng.random() * 0.3
                    rules.enter_context(self.service.ruled(Rule(self.person.name, node.name, delay_seconds=delay)))
                if node.calls and self.rng.random() < 0.3:
                    rules.enter_context(self.service.ruled(Rule(self.person.name, node.name, status=400, times=1)))
            for _ in range(self.rng.randint(2, ACTIONS_MAX)):
                await self._act()
                await asyncio.sleep(self.rng.random() * PAUSE_SECONDS_MAX)

    async def mend(self) -> None:
        """Put everything back, and edit every root: whatever was held is moved by that."""
        for name in sorted(self.paused):
            await self._switch(name, active=True)
        for root in sorted(self.deleted):
            await self.person.write("POST", f"/blobs/{root}/restore", {})
        for root in sorted(self.outside):
            await self._put(root)
        await self._retry()
        for root in self.roots:
            await self.person.mark(root, "last")

    async def _act(self) -> None:
        actions: list[Callable[[], Awaitable[str]]] = [
            self._mark, self._mark, self._mark, self._note, self._root, self._pause, self._delete, self._move,
            self._ask, self._cancel, self._retry, self._reprocess,
        ]  # fmt: skip
        self.done.append(await self.rng.choice(actions)())

    async def _mark(self) -> str:
        there = [root for root in self.roots if root not in self.deleted]
        if not there:
            return "nothing to mark"
        root, count = self.rng.choice(there), self.rng.randint(1, 3)
        await asyncio.gather(*(self.person.mark(root, f"m{len(self.done)}-{n}") for n in range(count)))
        return f"mark {count}"

    async def _note(self) -> str:
        await self.person.note(f"{self.person.name} {len(self.done)}")
        return "note"

    async def _root(self) -> str:
        if len(self.roots) < ROOTS_MAX:
            await self.person.root(self.bucket)
        return "root"

    async def _pause(self) -> str:
        """Switch a provider off, or on again."""
        name = self.rng.choice(self.nodes).name
        on = name in self.paused
        await self._switch(name, active=on)
        (self.paused.discard if on else self.paused.add)(name)
        return f"{'resume' if on else 'pause'} {name}"

    async def _delete(self) -> str:
        root = self.rng.choice(self.roots)
        if root in self.deleted:
            await self.person.write("POST", f"/blobs/{root}/restore", {})
            self.deleted.discard(root)
            return "restore"
        await self.person.write("DELETE", f"/blobs/{root}", None)
        self.deleted.add(root)
        return "delete"

    async def _move(self) -> str:
        """Take a root out of the bucket, or put it back."""
        there = [root for root in self.roots if root not in self.deleted]
        if not there:
            return "nothing to move"
        root = self.rng.choice(there)
        if root in self.outside:
            await self._put(root)
            self.outside.discard(root)
            return "into the bucket"
        await self.person.write("DELETE", f"/buckets/{self.bucket}/blobs/{root}", None)
        self.outside.add(root)
        return "out of the bucket"

    async def _ask(self) -> str:
        """Ask a provider of the sources to process one, although nothing has changed."""
        there = [root for root in self.roots if root not in self.deleted]
        names = [node.name for node in self.nodes if node.reads == SOURCE and node.name not in self.paused]
        if not there or not names:
            return "nothing to ask"
        name = self.rng.choice(names)
        await self.person.write("POST", f"/providers/{name}/process", {"blob_id": self.rng.choice(there)})
        return f"process {name}"

    async def _cancel(self) -> str:
        """Cancel everything that is under way, as somebody who has changed their mind."""
        for cascade in (await self.person.get("/cascades", status="running"))["data"]:
            await self._try(f"/cascades/{cascade['id']}/cancel")
        return "cancel"

    async def _retry(self) -> str:
        """Go on with whatever was cancelled or has failed."""
        for status in ("cancelled", "partial"):
            for cascade in (await self.person.get("/cascades", status=status))["data"]:
                await self._try(f"/cascades/{cascade['id']}/retry")
        return "retry"

    async def _reprocess(self) -> str:
        """Run everything below a root again."""
        there = [root for root in self.roots if root not in self.deleted]
        if there:
            await self._try(
                f"/blobs/{self.rng.choice(there)}/reprocess", scope="subtree", force=self.rng.random() < 0.5
            )
        return "reprocess"

    async def _try(self, path: str, **body: object) -> None:
        """A control that may come too late, or find nothing to do: refused, it has done nothing."""
        try:
            await self.person.write("POST", path, body)
        except AssertionError as error:
            if ", 409" not in str(error):
                raise

    async def _switch(self, name: str, *, active: bool) -> None:
        await self.person.write("PUT", f"/providers/{name}/instance", {"active": active}, If_Match="*")

    async def _put(self, root: str) -> None:
        await self.person.write("PUT", f"/buckets/{self.bucket}/blobs/{root}", {"position": self.roots.index(root)})
