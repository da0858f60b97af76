"""``studio budget``: dollars in, micro-dollars out."""

from __future__ import annotations

from tests.cli.conftest import Studio


async def test_a_budget_is_set_raised_shown_and_taken_away(studio: Studio) -> None:
    assert (await studio("budget", "set", "5")).json["limit"] == 5_000_000
    assert (await studio("budget", "top-up", "0.25")).json["limit"] == 5_250_000
    assert "$5.250000" in (await studio("budget", "show", "--no-json")).out
    assert (await studio("budget", "charges")).json["data"] == []
    assert (await studio("budget", "set", "1.0000001")).status == 2
    assert (await studio("budget", "set", "much")).status == 2
    assert (await studio("budget", "set", "unlimited")).json["limit"] is None


async def test_a_refusal_speaks_of_dollars_and_names_the_command_that_helps(studio: Studio) -> None:
    nothing = await studio("budget", "top-up", "5", "--no-json")
    assert (nothing.status, "studio budget set DOLLARS" in nothing.err) == (5, True)
    assert "PUT" not in nothing.err
    for wrong in ("0", "0.0000001", "1000000001"):
        assert (await studio("budget", "top-up", wrong)).status == 2
