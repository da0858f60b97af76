"""The page of events names exactly the events there are, and says which are told today."""

import re

from domain.events import EVENT_TYPES
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "reference" / "events.md").read_text()
TOLD = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", PAGE, re.MULTILINE))
LATER = set(re.findall(r"`([a-z]+\.[a-z_]+)`", PAGE.split("Known to consumers already", 1)[1].split("##", 1)[0]))


def emitted() -> set[str]:
    """The types that stand as literals in SQL functions and in the storage that calls ``event``."""
    entities = "|".join(sorted({name.partition(".")[0] for name in EVENT_TYPES}))
    files = [*(ROOT / "storage" / "functions").glob("*.sql"), *(ROOT / "storage").glob("*.py")]
    literal = re.compile(rf"""['"]((?:{entities})\.[a-z_]+)['"]""")
    return {name for path in files for name in literal.findall(path.read_text())}


def test_every_event_that_is_told_is_known_and_documented_as_told() -> None:
    assert emitted() - set(EVENT_TYPES) == set()
    assert emitted() == TOLD


def test_the_page_names_every_known_event_once() -> None:
    assert set(EVENT_TYPES) == TOLD | LATER
    assert not TOLD & LATER
