from collections.abc import Callable

import pytest

from docs.generate import HERE, PAGES
from settings import VARIABLES, leaves


@pytest.mark.parametrize(("path", "page"), sorted(PAGES.items()))
def test_a_generated_page_follows_from_the_code(path: str, page: Callable[[], str]) -> None:
    assert (HERE / path).read_text() == page(), f"docs/{path} is stale: make docs"


def test_every_setting_and_every_variable_is_documented_with_its_meaning() -> None:
    rows = [line for line in PAGES["reference/settings.md"]().splitlines() if line.startswith("| `")]
    documented = {row.split("`")[1]: row for row in rows}
    assert set(documented) == {key for key, _, _ in leaves()}
    assert [key for key, row in documented.items() if row.split("|")[5].strip() in {"", "None"}] == []
    assert [name for name in VARIABLES if not any(f"`{name}`" in row for row in rows)] == []
