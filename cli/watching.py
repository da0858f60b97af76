"""Watching work go on: a tree that moves on a terminal, one line for each change anywhere else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cli.graph import MARKS, OTHER_MARK, Graph, seconds_of, tree
from cli.output import err

if TYPE_CHECKING:
    from sdk.client import Studio

POLL_SECONDS = 0.2
FRAMES_PER_SECOND = 5
QUIET_SECONDS = 5.0
"""After this long without a change a line says what is still running."""
ROOTS_MAX = 50
OPEN = frozenset({"pending", "running"})


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see at one moment."""

    graph: Graph
    seconds: Mapping[str, float]
    over: bool
    cascade: Mapping[str, Any] | None = None


class View(Protocol):
    """Where sights are shown."""

    def show(self, sight: Sight) -> None:
        """Show how it stands now."""
        ...


Look = Callable[[], Awaitable[Sight]]


async def watch(look: Look, view: View, *, timeout_seconds: float | None = None) -> Sight:
    """Look and show until it is over; return the last sight. Raises TimeoutError."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            sight = await look()
            view.show(sight)
            if sight.over:
                return sight
            await asyncio.sleep(POLL_SECONDS)


async def follow(look: Look, timeout_seconds: float | None) -> Sight:
    """Watch on stderr until it is over. Raises TimeoutError."""
    with viewing(err()) as view:
        sight = await watch(look, view, timeout_seconds=timeout_seconds)
    for line in advice(sight.graph):
        err().print(line, soft_wrap=True)
    return sight


def advice(graph: Graph) -> list[str]:
    """Say what failed or waits for somebody, why, and which commands go on; every id pastes."""
    said: dict[str, str] = {}
    for blob, node in graph.nodes.items():
        if node["state"] in _WAYS:  # once for all outputs of a derivation
            what, way = _WAYS[node["state"]]
            named = {"blob": blob, "run": node.get("run_id"), "provider": node["provider_id"],
                     "source": next(iter(graph.parents[blob]), blob)}  # fmt: skip
            line = f"{node['provider_id']} {what}: {node['reason']}\n  {way.format(**named)}"
            said.setdefault(node.get("derivation_id") or blob, line)
    return list(said.values())


_WAYS = {
    "failed": (
        "failed",
        (
            "The run says more: studio run list --status failed --blob {blob}\n"
            "  Again, once it is mended: studio provider process {provider} {source}"
        ),
    ),
    "awaiting_approval": (
        "waits for a person",
        (
            "What it asks: studio approvals\n"
            "  Go on: studio run approve {run}; or end it: studio run reject {run} --comment WHY"
        ),
    ),
    "blocked_budget": (
        "waits for money",
        "What is left and needed: studio budget show\n  Go on: studio budget top-up DOLLARS",
    ),
    "conflict": (
        "waits for a decision",
        (
            "What is proposed: studio blob proposals {blob}\n"
            "  Take it: studio blob accept DELTA; or keep what is there: studio blob reject DELTA"
        ),
    ),
    "cancelled": (
        "was stopped",
        "Who did so, and the run to retry: studio blob why {blob}\n  Go on: studio run retry RUN",
    ),
}
"""Commands that show more and lead on, by the state that waits for somebody."""


@contextlib.contextmanager
def viewing(console: Console, heading: str = "", *, known: Graph | None = None) -> Iterator[View]:
    """Return the view that suits a console; on a terminal the last picture stays. ``known`` was shown before."""
    if console.is_terminal:
        moving = Moving(heading)
        with Live(console=console, get_renderable=moving.draw, refresh_per_second=FRAMES_PER_SECOND):
            yield moving
    else:
        yield Lines(console, known)


class Moving:
    """A tree that is drawn again and again, so that elapsed times run."""

    def __init__(self, heading: str = "") -> None:
        self._heading = heading
        self._began = time.monotonic()
        self._sight: Sight | None = None
        self._seen = 0.0

    def show(self, sight: Sight) -> None:
        """Show how it stands now."""
        self._sight, self._seen = sight, time.monotonic()

    def draw(self) -> RenderableType:
        """Draw the last sight; what runs has been running a little longer since."""
        if self._sight is None:
            return Text("…", style="dim")
        sight, since = self._sight, time.monotonic() - self._seen
        running = {node["derivation_id"] for node in sight.graph.nodes.values() if node["state"] == "running"}
        seconds = {name: value + since * (name in running) for name, value in sight.seconds.items()}
        heading = Text(self._heading, style="bold") if self._heading else None
        return Group(tree(sight.graph, heading=heading, seconds=seconds), self._foot(sight))

    def _foot(self, sight: Sight) -> Text:
        elapsed = time.monotonic() - self._began if not sight.over else self._seen - self._began
        return Text(f"{summary(sight)}, {elapsed:.1f} s", style="dim")


class Lines:
    """One line for each change: for logs and for people without a terminal."""

    def __init__(self, console: Console, known: Graph | None = None) -> None:
        self._console = console
        self._began = time.monotonic()
        self._said = self._began
        self._known = {} if known is None else known.states()
        self._first = known is None

    def show(self, sight: Sight) -> None:
        """Say what has changed since the last time; if nothing has for a while, what is still running."""
        states = sight.graph.states()
        changed = [blob for blob, state in states.items() if self._known.get(blob) != state and self._tells(state[0])]
        for blob in changed:
            state, version = states[blob]
            made = f" v{version}" if version else ""
            self._line(f"{MARKS.get(state, OTHER_MARK)[0]} {state:8} {sight.graph.name(blob)}{made}")
        now = time.monotonic()
        if not changed and now - self._said > QUIET_SECONDS:
            self._line(f"… {summary(sight)}")
        self._known, self._first = states, False

    def _tells(self, state: str) -> bool:
        """Tell whether a change is news: what has not begun is none, nor what was done before we came."""
        return state != "stale" and not (self._first and state == "fresh")

    def _line(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(Text(f"{self._said - self._began:6.1f} s  {text}"), soft_wrap=True)


def summary(sight: Sight) -> str:
    """Say in a few words how far it is and what runs now."""
    nodes = [node for node in sight.graph.nodes.values() if node["derivation_id"] is not None]
    fresh = sum(node["state"] == "fresh" for node in nodes)
    running = [
        f"{node['provider_id']} {sight.seconds.get(node['derivation_id'], 0.0):.1f} s"
        for node in nodes
        if node["state"] == "running"
    ]
    status = f"cascade {sight.cascade['status']}, " if sight.cascade else ""
    now = f", now {', '.join(running)}" if running else ""
    return f"{status}{fresh} of {len(nodes)} fresh{now}"


def cascade_look(studio: Studio, cascade_id: str) -> Look:
    """Return what looks at one cascade: its roots with everything below them, its runs."""

    async def look() -> Sight:
        cascade = (await studio.get_cascade(cascade_id)).body
        graph = await graph_below(studio, cascade["roots"] or await _made_by(studio, cascade))
        over = cascade["status"] not in OPEN
        return Sight(graph, seconds_of(cascade["runs"]), over, cascade)

    return look


def blob_look(studio: Studio, blob_id: str) -> Look:
    """Return what looks at one blob with everything below it, and at the cascades that touch any of that."""
    cascades: dict[str, None] = {}

    async def look() -> Sight:
        body = (await studio.dag(blob_id)).body
        cascades.update((found["id"], None) for found in body["cascades"][:ROOTS_MAX])
        answers = await asyncio.gather(*(studio.get_cascade(cascade) for cascade in cascades))
        runs = [run for answer in answers for run in answer["runs"]]
        return Sight(Graph.of(body), seconds_of(runs), body["settled"])

    return look


async def graph_below(studio: Studio, roots: list[str]) -> Graph:
    """Return the graph below some blobs; those that are gone are left out."""
    from sdk.problems import ApiProblem  # noqa: PLC0415 - only who talks to the API needs it

    async def below(root: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = (await studio.dag(root)).body
        except ApiProblem as problem:
            if problem.status in {404, 410}:
                return None
            raise
        return found

    found = await asyncio.gather(*(below(root) for root in roots[:ROOTS_MAX]))
    return Graph.of(*(body for body in found if body is not None))


async def _made_by(studio: Studio, cascade: Mapping[str, Any]) -> list[str]:
    """Return what the runs of a cascade make, for a cause that is no blob."""
    runs = [run async for run in studio.runs(cascade_id=cascade["id"], limit=ROOTS_MAX)] if cascade["runs"] else []
    return list(dict.fromkeys(item["blob_id"] for run in runs for item in run["outputs"]))
