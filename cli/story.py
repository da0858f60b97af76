"""The book story of the demo: what a person does, through the public API, and what follows by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from cli.graph import Graph, seconds_of
from cli.narration import Narrator
from cli.stage import Stage
from cli.watching import OPEN, Sight, graph_below, watch
from sdk.client import Studio

BOOK = "Machines That Learn"
TITLES = ("Chapter 1: Introduction to AI", "Chapter 2: How Machines Learn", "Chapter 3: Living With Machines")
NEW_TITLE_1 = "Chapter 1: Introduction to AI and Its History"
NEW_TITLE_2 = "Chapter 2: How Machines Learn From Mistakes"
BY_HAND = (
    "My grandmother once asked me whether her radio was thinking. It was not, I said. She did not look convinced,"
    " and today I understand why."
)
CONCEPT, CHECKED, MANUSCRIPT = "concept-v1", "checked-text-v1", "manuscript-v1"
KILL_WHILE = "text-expansion"
KILL_AFTER_SECONDS = 0.5
"""So long the run has been under way when its worker is killed: its call of the model is out."""
PATIENCE_SECONDS = 600.0
"""Of one act: then the story has failed."""


@dataclass(slots=True)
class Story:
    """What was done, for the claims to be held against."""

    user_id: str
    bucket_id: str = ""
    chapters: list[str] = field(default_factory=list)
    fixed_blob: str = ""
    edits: dict[str, str] = field(default_factory=dict)
    """Cascade of each edit of a title -> the chapter edited."""
    killed_pid: int | None = None
    killed_run: str | None = None
    graph: Graph = field(default_factory=Graph)


class StoryFailed(RuntimeError):
    """Something in the story did not become what it should; the message names it and its run."""


class Teller:
    """Tells the story on a stage. Raises ApiProblem, StageFailed, StoryFailed, TimeoutError."""

    def __init__(self, studio: Studio, stage: Stage, narrator: Narrator, user_id: str) -> None:
        self._studio = studio
        self._stage = stage
        self._narrator = narrator
        self.story = Story(user_id)

    async def tell(self) -> Story:
        """Tell it from beginning to end; return what was done."""
        await self._write_titles()
        await self._fix_by_hand()
        await self._edit_title()
        await self._edit_and_kill()
        return self.story

    async def _write_titles(self) -> None:
        self._narrator.act("1  Three titles become a book")
        bucket = await self._studio.create_bucket(BOOK, type="book")
        self.story.bucket_id = bucket["id"]
        self._narrator.say(f"A person makes the book “{BOOK}” and writes three titles, nothing else.")
        cascades = []
        for number, title in enumerate(TITLES, 1):
            made = await self._studio.create_blob(
                schema_id=CONCEPT,
                title=title,
                data={"title": title, "metadata": {"type": "chapter", "book_title": BOOK, "chapter_num": number}},
                bucket_ids=[self.story.bucket_id],
            )
            self.story.chapters.append(made["id"])
            cascades.append(made["cascade_id"])
        await self._follow(cascades)

    async def _fix_by_hand(self) -> None:
        self._narrator.act("2  A person fixes a paragraph by hand")
        blob_id = next(
            blob
            for blob, node in self.story.graph.nodes.items()
            if node["schema_id"] == CHECKED and self.story.graph.sources(blob) == [self.story.chapters[0]]
        )
        self.story.fixed_blob = blob_id
        chapter = await self._studio.get_blob(blob_id)
        paragraphs = chapter["data"]["text"].split("\n\n")
        place = min(1, len(paragraphs) - 1)
        self._narrator.say("In the finished first chapter, which the machine wrote, this paragraph goes:")
        self._narrator.say(Text(f"  - {paragraphs[place]}", style="red"))
        self._narrator.say("and this one comes:")
        self._narrator.say(Text(f"  + {BY_HAND}", style="green"))
        text = "\n\n".join([*paragraphs[:place], BY_HAND, *paragraphs[place + 1 :]])
        patch = [{"op": "replace", "path": "/data/text", "value": text}]
        edited = await self._studio.patch_blob(blob_id, patch, if_match=chapter["version"])
        await self._follow([edited["cascade_id"]])

    async def _edit_title(self) -> None:
        self._narrator.act("3  The title of that chapter changes")
        cascade = await self._retitle(0, NEW_TITLE_1)
        sight = await self._follow([cascade])
        ran = len({run["derivation_id"] for run in (sight.cascade or {}).get("runs", [])})
        total = sum(node["derivation_id"] is not None for node in sight.graph.nodes.values())
        self._narrator.say(f"{ran} of {total} derivations ran again; the other two chapters were not touched.")
        chapter = await self._studio.get_blob(self.story.fixed_blob)
        text = Text(
            f"The chapter was written anew around the paragraph of the person (version {chapter['version']}):\n"
        )
        for paragraph in chapter["data"]["text"].split("\n\n"):
            text.append(f"  {paragraph}\n", "green" if paragraph == BY_HAND else "dim")
        self._narrator.say(text)

    async def _edit_and_kill(self) -> None:
        self._narrator.act("4  Another title changes, and the worker is killed in the middle")
        cascade = await self._retitle(1, NEW_TITLE_2)
        await self._follow([cascade], disturb=self._kill_worker)
        if self.story.killed_pid is None:
            self._narrator.say(f"It was over before {KILL_WHILE} could be caught; nothing was killed.")

    async def _retitle(self, chapter: int, title: str) -> str:
        """Change the title of a chapter; return the cascade that follows."""
        blob_id = self.story.chapters[chapter]
        self._narrator.say(f"“{TITLES[chapter]}” becomes “{title}”.")
        patch = [
            {"op": "replace", "path": "/title", "value": title},
            {"op": "replace", "path": "/data/title", "value": title},
        ]
        edited = await self._studio.patch_blob(blob_id, patch)
        cascade_id: str = edited["cascade_id"]
        self.story.edits[cascade_id] = blob_id
        return cascade_id

    async def _follow(self, cascades: list[str], disturb: Callable[[Sight], None] | None = None) -> Sight:
        """Show what follows until all of it is settled; ``disturb`` sees how it stands and may interfere."""
        with self._narrator.watching(BOOK, in_picture=not self.story.fixed_blob) as view:

            async def look() -> Sight:
                sight = await self._look(cascades)
                if disturb is not None:
                    disturb(sight)
                self._tell_news()
                return sight

            sight = await watch(look, view, timeout_seconds=PATIENCE_SECONDS)
        self.story.graph = sight.graph
        await self._require_fresh(sight.graph)
        return sight

    async def _require_fresh(self, graph: Graph) -> None:
        for blob, node in graph.nodes.items():
            if node["state"] == "failed":
                run = [run async for run in self._studio.runs(blob_id=blob, status="failed", limit=1)]
                why = run[0]["error"] if run else node["reason"]
                raise StoryFailed(f"{graph.name(blob)} failed: {why}")
            if node["state"] not in {"source", "fresh"}:
                raise StoryFailed(f"{graph.name(blob)} is {node['state']}: {node['reason']}")

    async def _look(self, cascades: list[str]) -> Sight:
        waiting: list[Awaitable[Any]] = [self._studio.get_cascade(cascade) for cascade in cascades]
        graph, *answers = await asyncio.gather(graph_below(self._studio, self.story.chapters), *waiting)
        bodies: list[Mapping[str, Any]] = [answer.body for answer in answers]
        seconds = seconds_of(run for body in bodies for run in body["runs"])
        over = graph.settled and not any(body["status"] in OPEN for body in bodies)
        return Sight(graph, seconds, over, bodies[0] if len(bodies) == 1 else None)

    def _kill_worker(self, sight: Sight) -> None:
        """Kill the worker once, while the expansion of the chapter is under way."""
        if self.story.killed_pid is not None:
            return
        for node in sight.graph.nodes.values():
            running = node["provider_id"] == KILL_WHILE and node["state"] == "running"
            if running and sight.seconds.get(node["derivation_id"], 0.0) >= KILL_AFTER_SECONDS:
                self.story.killed_run = node["run_id"]
                self.story.killed_pid = self._stage.kill("worker")
                self._narrator.say(
                    Text(
                        f"kill -9 {self.story.killed_pid}: the worker is dead, {KILL_WHILE} was under way.", "bold red"
                    )
                )

    def _tell_news(self) -> None:
        for event in self._stage.news():
            self._narrator.say(Text(f"supervisor: {event.service} {event.event} ({event.detail})", "dim"))
