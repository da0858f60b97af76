"""``studio blob diff`` and ``compare``."""

from __future__ import annotations

import pytest

from cli import output
from tests.cli.conftest import Studio
from tests.cli.test_blobs import created

STORY = "The ship sailed at dawn.\n\nThe storm came at noon."


async def test_a_diff_is_json_unless_somebody_reads_along(studio: Studio) -> None:
    made = await created(studio, "--content", STORY)
    await studio("blob", "edit", made["id"], "--content", STORY.replace("noon", "night"))
    piped = await studio("blob", "diff", made["id"])
    assert (piped.json["left"]["version"], piped.json["right"]["version"]) == (1, 2)
    read = await studio("blob", "diff", made["id"], "--from", "1", "--to", "2", "--unit", "word", "--no-json")
    assert "/content" in read.out
    assert "The storm came at -[noon]-+[night]+." in read.out
    assert "1 field, 1 words in, 1 out" in read.out


async def test_values_are_shown_by_their_pointer(studio: Studio) -> None:
    one = await created(studio, "--data", '{"a": 1}')
    two = await created(studio, "--data", '{"a": 2, "b": true}')
    read = await studio("blob", "compare", one["id"], f"{two['id']}@1", "--no-json")
    assert "/data/a\n-[1]-+[2]+" in read.out
    assert "/data/b\n+[true]+" in read.out
    same = await studio("blob", "compare", one["id"], one["id"], "--no-json")
    assert "say the same" in same.out


async def test_what_commands_a_terminal_is_not_printed(studio: Studio) -> None:
    one = await created(studio, "--content", "plain words here")
    two = await created(studio, "--content", "plain \x1b[31mwords here")
    read = await studio("blob", "compare", one["id"], two["id"], "--no-json")
    assert "\x1b" not in read.out


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "NO_COLOR"])
async def test_colour_is_for_terminals_and_no_color_is_respected(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    made = await created(studio, "--content", STORY)
    await studio("blob", "edit", made["id"], "--content", STORY.replace("noon", "night"))
    read = await studio("blob", "diff", made["id"], "--no-json")
    assert ("\x1b[32m" in read.out) is (variable == "FORCE_COLOR")


async def test_a_long_text_shows_what_stands_around_its_changes(studio: Studio) -> None:
    long = "\n\n".join(f"Paragraph {n} of a long book." for n in range(60))
    made = await created(studio, "--content", long)
    await studio("blob", "edit", made["id"], "--content", long.replace("Paragraph 30 of", "Chapter 30 of"))
    read = await studio("blob", "diff", made["id"], "--no-json")
    assert "-[Paragraph]-+[Chapter]+ 30 of a long book." in read.out
    assert "Paragraph 5 of" not in read.out
    assert len(read.out) < output.LINE_MAX * 5


async def test_a_bad_unit_is_told_by_the_api(studio: Studio) -> None:
    made = await created(studio, "--content", "x")
    bad = await studio("blob", "diff", made["id"], "--unit", "letter")
    assert (bad.status, bad.json["errors"][0]["pointer"]) == (1, "/query/unit")
