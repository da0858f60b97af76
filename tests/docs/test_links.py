import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, links, pages

LOCAL = [page for page in pages() if any("://" not in target for target in links(page))]


@pytest.mark.parametrize("page", LOCAL, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    seen: set[Path] = set()
    queue = [index]
    while queue:
        page = queue.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        queue += [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if "://" not in target]
    assert [page.relative_to(ROOT).as_posix() for page in pages() if page not in seen and "docs" in page.parts] == []


def test_every_make_target_that_the_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in pages() for name in re.findall(r"`make ([a-z]+)`", page.read_text())}
    assert named <= targets
    assert named >= {"demo", "dev", "test"}


def test_decisions_are_numbered_without_gaps_and_name_what_was_rejected() -> None:
    records = sorted(path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "index.md")
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert [heading for heading in ("## Decision", "## Rejected") if heading not in text] == [], record.name
