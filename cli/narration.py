"""How the demo tells its story: to the terminal (or a log) as it goes, and into a picture at the end."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from cli.graph import Graph, tree
from cli.watching import Sight, View, summary, viewing

PICTURE_COLUMNS = 110
_FONT_FACE = re.compile(r"@font-face \{\{.*?\}\}", re.DOTALL)


class Narrator:
    """Says things on a console and, if a picture is wanted, draws them there too (but not what moves)."""

    def __init__(self, console: Console, *, picture: bool) -> None:
        self.console = console
        self._began = time.monotonic()
        self._canvas = _canvas() if picture else None
        self._seen: Graph | None = None

    @property
    def seconds(self) -> float:
        """Return how long the story has been told."""
        return time.monotonic() - self._began

    def act(self, title: str) -> None:
        """Begin a part of the story."""
        self.show(Text())
        self.show(Text(title, style="bold cyan"))

    def say(self, text: str | Text) -> None:
        """Say a sentence."""
        self.show(text if isinstance(text, Text) else Text(text))

    def aside(self, text: str) -> None:
        """Say what matters less, and not in the picture."""
        self.console.print(Text(text, style="dim"), soft_wrap=True)

    def address(self, name: str, address: str) -> None:
        """Name an address, in one piece however narrow the console is."""
        self.console.print(Text.assemble((f"{name:<26}", "dim"), (address, "cyan")), soft_wrap=True)

    def show(self, what: RenderableType, *, in_picture: bool = True) -> None:
        """Show anything."""
        self.console.print(what)
        if self._canvas is not None and in_picture:
            self._canvas.print(what)

    @contextlib.contextmanager
    def watching(self, heading: str, *, in_picture: bool) -> Iterator[View]:
        """Show work going on; the picture gets how it ends, the whole tree or one line."""
        with viewing(self.console, heading, known=self._seen) as view:
            kept = Kept(view)
            yield kept
        self._seen = kept.last.graph if kept.last is not None else self._seen
        if self._canvas is not None and kept.last is not None:
            if in_picture:
                bold = Text(heading, style="bold")
                self._canvas.print(tree(kept.last.graph, heading=bold, seconds=kept.last.seconds))
            self._canvas.print(Text(summary(kept.last), style="dim"))

    def save(self, path: Path, title: str) -> None:
        """Write the picture. It names no font to fetch: a document that shows it fetches nothing."""
        from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: PLC0415 - rich has no public name for it

        if self._canvas is not None:
            own = _FONT_FACE.sub("", CONSOLE_SVG_FORMAT)
            self._canvas.save_svg(str(path), title=title, code_format=own, unique_id="studio-demo")


class Kept:
    """Shows what a view shows, and remembers the last of it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.last: Sight | None = None

    def show(self, sight: Sight) -> None:
        """Show how it stands now."""
        self.last = sight
        self._view.show(sight)


def _canvas() -> Console:
    return Console(
        record=True,
        file=io.StringIO(),
        width=PICTURE_COLUMNS,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
