"""Pages of the documentation as data: their links, headings and the snippets that a test executes.

A fenced block is executed when the line before it says so: ``<!-- run -->`` for what needs nothing but the
checkout, ``<!-- run on the stack -->`` for what needs a running stack. A ``text`` block under ``<!-- output -->``
is what the snippet before it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SNIPPET = re.compile(
    r"^<!-- run(?P<stack> on the stack)? -->\n+```(?P<language>\w+)\n(?P<code>.*?)^```\n"
    r"(?:\n*<!-- output -->\n+```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_FENCE = re.compile(r"^```.*?^```\n?", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Snippet:
    """One executed block: its language, text, first line, and what it must print (None: anything)."""

    language: str
    code: str
    line: int
    output: str | None
    needs_stack: bool


def pages() -> list[Path]:
    """README, CHANGELOG and everything below docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def snippets(page: Path) -> list[Snippet]:
    """Return the blocks of a page that are marked for execution, in their order."""
    text = page.read_text()
    return [
        Snippet(
            language=match["language"],
            code=match["code"],
            line=text.count("\n", 0, match.start("code")),
            output=match["output"],
            needs_stack=match["stack"] is not None,
        )
        for match in _SNIPPET.finditer(text)
    ]


def marks(page: Path) -> int:
    """Count the marks of a page; each must belong to a block."""
    return len(re.findall(r"^<!-- run.*-->$", page.read_text(), re.MULTILINE))


def links(page: Path) -> list[str]:
    """Return the targets of links and pictures outside code."""
    return [match["target"] for match in _LINK.finditer(_FENCE.sub("", page.read_text()))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that headings of a page have, as GitHub spells them."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
