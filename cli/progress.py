"""How far a long piece of work is: a bar on a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.output import err, say

LINE_EVERY = 1_000
"""Things done from one line to the next, where there is no terminal."""

Advance = Callable[[int], None]
"""Says that so many more are done."""


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Advance]:
    """Show how many of ``total`` (None: nobody knows) are done; the block calls what it is given."""
    if not sys.stderr.isatty():
        yield _lines(doing, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


def _lines(doing: str, total: int | None) -> Advance:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if done // LINE_EVERY > before // LINE_EVERY:
            say(f"{doing}: {done}" if total is None else f"{doing}: {done} of {total}")

    return advance
