from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.alignment import STEPS_MAX, runs
from domain.diff3 import Chunk, ChunkKind, diff3, merged

tokens = st.lists(st.sampled_from("abcd"), max_size=12)


@st.composite
def edited(draw: st.DrawFn) -> tuple[list[str], list[str], list[str]]:
    """Return a base and two edits of it, in which what is inserted tells who inserted it."""
    base = draw(st.lists(st.sampled_from("abcdefgh"), max_size=15))
    return base, _edit(draw, base, "O"), _edit(draw, base, "T")


def _edit(draw: st.DrawFn, base: Sequence[str], mark: str) -> list[str]:
    side = list(base)
    for count in range(draw(st.integers(0, 4))):
        low = draw(st.integers(0, len(side)))
        high = draw(st.integers(low, min(len(side), low + 3)))
        side[low:high] = [f"{mark}{count}{n}" for n in range(draw(st.integers(0, 2)))]
    return side


def result(base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[str], int]:
    chunks = diff3(base, ours, theirs)
    return merged(chunks, ours, theirs), sum(chunk.kind is ChunkKind.CONFLICT for chunk in chunks)


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by the textbook's table."""
    row = [0] * (len(right) + 1)
    for item in left:
        before = 0
        for column, other in enumerate(right):
            before, row[column + 1] = (
                row[column + 1],
                before + 1 if item == other else max(row[column], row[column + 1]),
            )
    return row[-1]


@given(tokens, tokens)
def test_an_alignment_is_a_longest_common_subsequence(left: list[str], right: list[str]) -> None:
    found = runs(left, right)
    at = other_at = 0
    for low, other, length in found:
        assert low >= at
        assert other >= other_at
        assert length > 0
        assert (low, other) != (at, other_at) or (low, other) == (0, 0)
        assert left[low : low + length] == right[other : other + length]
        at, other_at = low + length, other + length
    assert sum(length for *_, length in found) == common_length(left, right)


@given(tokens, tokens)
def test_a_side_that_changed_nothing_or_the_same_yields_the_other(base: list[str], side: list[str]) -> None:
    assert result(base, base, side) == (side, 0)
    assert result(base, side, base) == (side, 0)
    assert result(base, side, side) == (side, 0)


@given(edited())
def test_the_chunks_cover_all_three_sequences(sides: tuple[list[str], list[str], list[str]]) -> None:
    for trim in (False, True):
        chunks = diff3(*sides, trim=trim)
        for name, side in zip(("base", "ours", "theirs"), sides, strict=True):
            spans = [getattr(chunk, name) for chunk in chunks]
            assert [low for low, _ in spans] == [0, *(high for _, high in spans[:-1])][: len(spans)]
            assert (spans[-1][1] if spans else 0) == len(side)


@given(edited())
def test_exchanging_the_sides_exchanges_nothing_else(sides: tuple[list[str], list[str], list[str]]) -> None:
    base, ours, theirs = sides
    other = {ChunkKind.OURS: ChunkKind.THEIRS, ChunkKind.THEIRS: ChunkKind.OURS}
    for trim in (False, True):
        mirrored = [
            Chunk(other.get(chunk.kind, chunk.kind), chunk.base, chunk.theirs, chunk.ours)
            for chunk in diff3(base, theirs, ours, trim=trim)
        ]
        assert diff3(base, ours, theirs, trim=trim) == mirrored


@given(edited(), st.booleans())
def test_nothing_that_a_side_inserted_is_lost(sides: tuple[list[str], list[str], list[str]], trim: bool) -> None:  # noqa: FBT001
    base, ours, theirs = sides
    chunks = diff3(base, ours, theirs, trim=trim)
    text = set(merged(chunks, ours, theirs))
    offered = {
        item
        for chunk in chunks
        if chunk.kind is ChunkKind.CONFLICT
        for item in theirs[chunk.theirs[0] : chunk.theirs[1]]
    }
    assert set(ours) - set(base) <= text
    assert set(theirs) - set(base) <= text | offered


@given(edited())
def test_nothing_comes_back_that_a_side_deleted_without_a_conflict(
    sides: tuple[list[str], list[str], list[str]],
) -> None:
    base, ours, theirs = sides
    text, conflicts = result(base, ours, theirs)
    if not conflicts:
        assert set(text) <= set(ours) | set(theirs)
        if len(set(base)) == len(base):
            assert not (set(base) - set(ours)) & set(text)
            assert not (set(base) - set(theirs)) & set(text)


def test_changes_with_something_stable_between_them_merge_and_touching_ones_do_not() -> None:
    assert result("abc", "Xbc", "abY") == (list("XbY"), 0)
    assert result("ab", "Xb", "aY") == (list("Xb"), 1)


def test_trimming_takes_what_both_sides_share_out_of_a_conflict() -> None:
    kinds = [(chunk.kind.value, chunk.base, chunk.ours, chunk.theirs) for chunk in diff3("56", "ABE", "AXE", trim=True)]
    assert kinds == [
        ("both", (0, 0), (0, 1), (0, 1)),
        ("conflict", (0, 2), (1, 2), (1, 2)),
        ("both", (2, 2), (2, 3), (2, 3)),
    ]


# Against git ------------------------------------------------------------------------------------------------------

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git, which merges are held against, is missing")

WORDS = re.findall(
    r"\w+", "the a of river stone light and under old quiet house ran walked spoke never again to from with morning"
)


def prose_of(chance: random.Random, lines: int) -> list[str]:
    """Return lines of made-up prose; some repeat, and blank lines stand between paragraphs."""
    text: list[str] = []
    for _ in range(lines):
        kind = chance.random()
        line = " ".join(chance.choice(WORDS) for _ in range(chance.randrange(4, 14))).capitalize() + "."
        text.append("\n" if kind < 0.2 else f"{line}\n" if kind < 0.95 or not text else text[-1])
    return text


def lines_of(chance: random.Random, kinds: int, lines: int) -> list[str]:
    return [f"{chance.randrange(kinds)}\n" for _ in range(lines)]


def edit_of(chance: random.Random, base: Sequence[str], fresh: Sequence[str]) -> list[str]:
    side = list(base)
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(side) + 1)
        side[at : at + chance.randrange(4)] = [chance.choice(fresh) for _ in range(chance.randrange(4))]
    return side


def git_merge(folder: Path, style: str, *sides: Sequence[str]) -> tuple[int, str]:
    """Return how many conflicts git finds and its text; sides are base, ours, theirs."""
    for name, side in zip(("base", "ours", "theirs"), sides, strict=True):
        (folder / name).write_text("".join(side), encoding="utf-8")
    labels = ["-L", "ours", "-L", "base", "-L", "theirs"]
    command = ["git", "merge-file", "-p", style, *labels, "ours", "base", "theirs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return done.returncode, done.stdout.decode()


def our_merge(style: str, base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, str]:
    """Return the same from ``diff3``, with git's markers."""
    text: list[str] = []
    conflicts = 0
    for chunk in diff3(base, ours, theirs, trim=style == "--zdiff3"):
        was, own, its = base[slice(*chunk.base)], ours[slice(*chunk.ours)], theirs[slice(*chunk.theirs)]
        if chunk.kind is ChunkKind.CONFLICT:
            conflicts += 1
            text += ["<<<<<<< ours\n", *own, "||||||| base\n", *was, "=======\n", *its, ">>>>>>> theirs\n"]
        else:
            text += its if chunk.kind is ChunkKind.THEIRS else own
    return conflicts, "".join(text)


@needs_git
@pytest.mark.parametrize("style", ["--diff3", "--zdiff3"])
@pytest.mark.parametrize("seed", range(4))
def test_prose_merges_as_git_merges_it_conflicts_and_all(tmp_path: Path, style: str, seed: int) -> None:
    """Lines that do not repeat can be aligned in one way only: not a byte may differ, in conflicts neither."""
    chance = random.Random(seed)
    for _ in range(40):
        base = [f"{n} {line}" for n, line in enumerate(prose_of(chance, 60))]
        fresh = [f"{n} new {line}" for n, line in enumerate(prose_of(chance, 200))]
        ours, theirs = edit_of(chance, base, fresh), edit_of(chance, base, fresh)
        assert our_merge(style, base, ours, theirs) == git_merge(tmp_path, style, base, ours, theirs)


@needs_git
@pytest.mark.parametrize("kinds", [3, 8, 30, 0])
def test_repeated_lines_merge_as_git_does_or_another_alignment_is_as_long(tmp_path: Path, kinds: int) -> None:
    """Where git merges clean, so do we, to the same bytes, but for ties.

    Lines that repeat can be aligned in several ways that are equally long. Which one is taken is git's heuristics (it
    also shifts groups of lines); ours is then proved to be a longest common subsequence on both sides, so git's is no
    better, and nothing may be lost. ``kinds`` 0 is prose with blank and repeated lines.
    """
    chance = random.Random(kinds)
    seen: Counter[str] = Counter()
    for _ in range(150):
        base = lines_of(chance, kinds, chance.randrange(1, 30)) if kinds else prose_of(chance, 40)
        fresh = lines_of(chance, kinds, 30) if kinds else prose_of(chance, 40)
        ours, theirs = edit_of(chance, base, fresh), edit_of(chance, base, fresh)
        git, our = git_merge(tmp_path, "--diff3", base, ours, theirs), our_merge("--diff3", base, ours, theirs)
        clean = git[0] == 0
        seen["clean"] += clean
        if git == our:
            seen["same"] += clean
            continue
        for side in (ours, theirs):
            assert sum(length for *_, length in runs(base, side)) == common_length(base, side)
        kept = Counter(our[1].splitlines(keepends=True))
        assert not Counter(ours) - Counter(base) - kept
        assert not Counter(theirs) - Counter(base) - kept
    assert seen["clean"] > 50
    assert seen["same"] >= 0.95 * seen["clean"], seen


@needs_git
def test_a_long_text_merges_as_git_merges_it(tmp_path: Path) -> None:
    chance = random.Random(7)
    base = [f"{n} {line}" for n, line in enumerate(prose_of(chance, 10_000))]
    ours, theirs = list(base), list(base)
    for at in range(0, 10_000, 100):
        ours[at] = f"ours {at}\n"
        theirs[at + 50 * (at % 200 > 0)] = f"theirs {at}\n"
    assert our_merge("--diff3", base, ours, theirs) == git_merge(tmp_path, "--diff3", base, ours, theirs)


# Cost -------------------------------------------------------------------------------------------------------------

LONG = 200_000


def shape_of(kind: str, side: int) -> list[str]:
    chance = random.Random(side)
    if kind == "equal":
        return ["a"] * (LONG + side)
    if kind == "different":
        return [f"{side} {n}" for n in range(LONG)]
    if kind == "shuffled":
        return chance.sample([str(n) for n in range(LONG)], LONG)
    if kind == "periodic":
        return ["a", "b", "a"][: 2 + side % 2] * (LONG // 2)
    return [str(chance.randrange(2 if kind == "binary" else 5_000)) for _ in range(LONG)]


@pytest.mark.parametrize("kind", ["equal", "different", "shuffled", "periodic", "binary", "random"])
def test_the_cost_of_a_merge_is_bounded(kind: str) -> None:
    base, ours, theirs = (shape_of(kind, side) for side in range(3))
    started = time.process_time()
    chunks = diff3(base, ours, theirs)
    assert time.process_time() - started < 30
    assert chunks[-1].base[1] == LONG or kind in ("equal", "periodic")


def test_a_few_thousand_edits_of_a_long_text_are_all_found() -> None:
    chance = random.Random(3)
    base = shape_of("random", 0)
    side = list(base)
    for _ in range(3_000):
        side[chance.randrange(LONG)] = "edited"
    found = sum(length for *_, length in runs(base, side))
    assert found >= 0.999 * sum(one == other for one, other in zip(base, side, strict=True))


def test_steps_bound_an_alignment_and_the_rest_is_different() -> None:
    left, right = shape_of("binary", 0)[:2_000], shape_of("binary", 1)[:2_000]
    some, all_of = (sum(length for *_, length in runs(left, right, steps=steps)) for steps in (2_000, STEPS_MAX))
    assert 0 < some < all_of
