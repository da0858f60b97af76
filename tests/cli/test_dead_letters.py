from tests.cli.conftest import Studio

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_dead_letters_are_listed_shown_and_redriven_only_when_it_is_said_which(studio: Studio) -> None:
    empty: dict[str, object] = {"data": [], "next_cursor": None, "has_more": False}
    assert (await studio("dead-letter", "list", "--status", "open")).json == empty
    assert (await studio("dead-letter", "show", UNKNOWN)).status == 6
    assert (await studio("dead-letter", "redrive")).status == 2
    preview = (await studio("dead-letter", "redrive", UNKNOWN, "--dry-run")).json
    assert (preview["count"], preview["unknown"], preview["cascade_id"]) == (0, [UNKNOWN], None)
    assert "1 unknown" in (await studio("dead-letter", "redrive", UNKNOWN, "--no-json")).out
    assert (await studio("dead-letter", "list", "--status", "lost")).status == 1


async def test_an_upgrade_without_anything_older_does_nothing(studio: Studio) -> None:
    found = (await studio("provider", "upgrade", "text-expansion", "--dry-run")).json
    assert (found["provider_id"], found["count"], found["cascade_id"]) == ("text-expansion", 0, None)
    assert (await studio("provider", "upgrade", "text-expansion")).json["dry_run"] is False
    assert (await studio("provider", "upgrade", "nobody")).status == 6
