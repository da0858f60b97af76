"""The page of promises names tests that exist, and every test here stands behind a promise."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "explanation" / "promises.md"
API = HERE.parent / "api"
ELSEWHERE = {"test_demo.py", "test_promises.py"}


def test_every_promise_names_a_test_and_every_test_is_named() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    files = [path for path in HERE.glob("test_*.py") if path.name not in ELSEWHERE]
    found = {name for path in files for name in re.findall(r"^async def (test_\w+)", path.read_text(), re.MULTILINE)}
    routes = {
        name
        for path in API.glob("test_*.py")
        for name in re.findall(r"^async def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named <= found | routes, "promised, but not tried"
    assert found <= named, "tried, but not promised"


def test_every_check_that_the_page_names_exists() -> None:
    checks = set(re.findall(r"`(?:Auditor\.)?([a-z_]+)`", PAGE.read_text()))
    defined = set(re.findall(r"def ([a-z_]+)", (HERE / "audit.py").read_text()))
    assert {check for check in checks if "_" in check and not check.startswith("test_")} <= defined
