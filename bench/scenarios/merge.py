"""Merge two people's edits of a 100,000-word text, against ``git merge-file`` on the same three texts.

Git merges lines and starts a process; ours aligns paragraphs, merges within them by word, and checks the result as a
document. Each side changes a word in every fiftieth paragraph; one time in ten it is the paragraph that the other side
changed too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import Figure
from bench.scenario import Configurations, Scenario
from bench.sizes import Sizes
from bench.stage import Stage
from domain.documents import Document
from domain.merge import merge

PARAGRAPH_WORDS = 100
CHANGED_SHARE = 50
BOTH_SHARE = 10
CONFLICTS_MAX = 127
"""Git's exit status is the number of conflicts up to this; beyond, and negative, it is an error."""
FIGURES = (
    Figure(
        key="merge-text",
        title="merge of a 100,000-word text, three ways",
        unit="ms",
        ours="ours",
        raw="git",
    ),
)


@asynccontextmanager
async def setting(_stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """The three texts, in memory and as files."""
    texts = _texts(random.Random(100), sizes.words)
    base, ours, theirs = (Document.parse({"content": text}) for text in texts)
    with TemporaryDirectory(prefix="studio-bench-") as folder:
        paths = [Path(folder) / name for name in ("ours", "base", "theirs")]
        for path, text in zip(paths, (texts[1], texts[0], texts[2]), strict=True):
            path.write_text(text)

        async def both() -> dict[str, float]:
            started = time.perf_counter()
            merge(base, ours, theirs, words=True)
            merged = time.perf_counter()
            git = await asyncio.create_subprocess_exec(
                "git", "merge-file", "--stdout", "--quiet", *map(str, paths), stdout=asyncio.subprocess.DEVNULL
            )
            assert 0 <= await git.wait() <= CONFLICTS_MAX
            return {"ours": (merged - started) * 1000, "git": (time.perf_counter() - merged) * 1000}

        yield {"both": both}


def _texts(chance: random.Random, words: int) -> tuple[str, str, str]:
    """A text, and what two people made of it."""
    count = max(words // PARAGRAPH_WORDS, 4)
    paragraphs = [[f"w{chance.randrange(5000)}" for _ in range(PARAGRAPH_WORDS)] for _ in range(count)]
    changed = max(count // CHANGED_SHARE, 1)
    both = chance.sample(range(count), max(changed // BOTH_SHARE, 1))
    sides = [_side(chance, paragraphs, [*both, *chance.sample(range(count), changed)], name) for name in ("o", "t")]
    return _text(paragraphs), sides[0], sides[1]


def _side(chance: random.Random, paragraphs: list[list[str]], changed: list[int], name: str) -> str:
    mine = [list(words) for words in paragraphs]
    for at in changed:
        mine[at][chance.randrange(PARAGRAPH_WORDS)] = f"{name}{at}"
    return _text(mine)


def _text(paragraphs: list[list[str]]) -> str:
    return "\n\n".join(" ".join(words) for words in paragraphs) + "\n"


SCENARIO = Scenario(name="merge", figures=FIGURES, setting=setting)
