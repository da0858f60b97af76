"""Every marked snippet of the documentation runs: one shell per page, so a later one sees the earlier ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Snippet, marks, pages, snippets

MARK = "::snippet::"
PAGE_TIMEOUT_SECONDS = 110

EXECUTED = [page for page in pages() if snippets(page)]


def script(found: list[Snippet]) -> str:
    """One bash script; Python snippets go to the interpreter of this environment."""
    parts = []
    for snippet in found:
        body = snippet.code
        if snippet.language == "python":
            body = f"python - <<'END_OF_SNIPPET'\n{body}END_OF_SNIPPET\n"
        parts.append(f"echo '{MARK}'\n{body}")
    return "".join(parts)


def run(page: Path, found: list[Snippet], environment: dict[str, str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script(found)],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PAGE_TIMEOUT_SECONDS,
        check=False,
    )
    printed = result.stdout.split(f"{MARK}\n")[1:]
    last = found[len(printed) - 1]
    where = f"{page.relative_to(ROOT)}:{last.line}"
    assert result.returncode == 0, f"{where} failed:\n{last.code}\n{result.stdout}{result.stderr}"
    for snippet, output in zip(found, printed, strict=True):
        if snippet.output is not None:
            assert output == snippet.output, f"{page.relative_to(ROOT)}:{snippet.line} prints something else"


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_snippets_of_a_page_run_in_their_order(page: Path, request: pytest.FixtureRequest) -> None:
    found = snippets(page)
    environment: dict[str, str] = {}
    if any(snippet.needs_stack for snippet in found):
        environment = request.getfixturevalue("stack_environment")
    run(page, found, environment)


def test_every_mark_belongs_to_a_snippet_in_a_language_that_runs() -> None:
    assert [page.name for page in pages() if marks(page) != len(snippets(page))] == []
    assert {snippet.language for page in pages() for snippet in snippets(page)} <= {"bash", "python"}


def test_there_are_snippets_at_all() -> None:
    assert EXECUTED


def test_a_snippet_that_fails_is_named_by_its_line(tmp_path: Path) -> None:
    bad = Snippet(language="bash", code="echo before\nfalse\n", line=7, output=None, needs_stack=False)
    with pytest.raises(AssertionError, match=r"page\.md:7 failed"):
        run(ROOT / "page.md", [bad], {"HOME": str(tmp_path)})


def test_a_snippet_that_prints_something_else_is_refused(tmp_path: Path) -> None:
    wrong = Snippet(language="python", code="print(2)\n", line=3, output="1\n", needs_stack=False)
    with pytest.raises(AssertionError, match=r"page\.md:3 prints something else"):
        run(ROOT / "page.md", [wrong], {"HOME": str(tmp_path)})
