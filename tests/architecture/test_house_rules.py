"""Rules of the house that a machine can check on every file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import CATALOGUE
from tests.architecture.source import ROOT, code_files, name, python_files, tracked_files, tree

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "misc", "common"}
CODE = re.compile(r"[a-z][a-z_]+")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_migration(path: Path) -> bool:
    """A migration is a record of what was done, not code to be reshaped."""
    return name(path).startswith("migrations/versions/")


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    """Lines from ``def`` on, without the docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_no_module_has_a_vague_name() -> None:
    found = [name(path) for path in python_files() if VAGUE_NAMES & set(name(path).removesuffix(".py").split("/"))]
    assert found == []


def test_no_file_is_longer_than_500_lines() -> None:
    sizes = {name(path): len(path.read_text().splitlines()) for path in python_files() if not is_migration(path)}
    assert {file: lines for file, lines in sizes.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_70_lines() -> None:
    found = {
        f"{name(path)}:{function.lineno} {function.name}": lines_of(function)
        for path in python_files()
        if not is_migration(path)
        for function in functions(path)
        if lines_of(function) > FUNCTION_LINES_MAX
    }
    assert found == {}


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    found = [
        f"{name(path)}:{number} {line.strip()}"
        for path in python_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_every_ignored_finding_names_its_rule() -> None:
    bare = re.compile(r"#\s*(noqa(?!: [A-Z]+\d)|type: ignore(?!\[))")
    found = [
        f"{name(path)}:{number} {line.strip()}"
        for path in python_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("what", ["registry", "machine"])
def test_no_file_names_a_machine_path_or_a_registry(what: str) -> None:
    patterns = {
        "registry": re.compile(rb"//[\w.-]*(pypi|python" + rb"hosted|npm" + rb"js)\.(org|com)|--(extra-)?index-url"),
        "machine": re.compile(rb"(?<![\w./-])/(wo" + rb"rk|ro" + rb"ot|home/\w+)/"),
    }
    found = [
        f"{name(path)}: {match.group().decode()}"
        for path in tracked_files()
        if (match := patterns[what].search(path.read_bytes()))
    ]
    assert found == []


def error_codes(path: Path) -> Iterator[tuple[str, int]]:
    """Yield problem codes as they are written: ``code=`` of a call, the second argument of ``Fault``."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        callee = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        given = [keyword.value for keyword in node.keywords if keyword.arg in {"code", "problem_code"}]
        if callee == "Fault" and len(node.args) > 1:
            given.append(node.args[1])
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value, value.lineno


def test_every_problem_code_is_in_the_catalogue() -> None:
    found = [
        f"{name(path)}:{line} {code}"
        for path in code_files()
        for code, line in error_codes(path)
        if code not in CATALOGUE
    ]
    assert found == []
    assert any(error_codes(path) for path in code_files())


def test_every_code_of_the_catalogue_is_spelled_in_snake_case() -> None:
    assert [code for code in CATALOGUE if not CODE.fullmatch(code)] == []


def test_every_package_of_ours_is_installed_and_linted_by_layers() -> None:
    """A new folder must be named in pyproject.toml, or its code is neither shipped nor checked."""
    text = (ROOT / "pyproject.toml").read_text()
    packages = {name(path.parent).replace("/", ".") for path in code_files() if path.name == "__init__.py"}
    assert [package for package in sorted(packages) if f'"{package}"' not in text] == []
