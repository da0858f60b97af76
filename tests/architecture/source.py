"""The checkout as data: its Python files, their syntax trees, what they import."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("activities", "ai", "api", "bench", "cli", "devstack", "domain", "migrations", "providers"),
    *("sdk", "storage", "workflows"),
)
MODULES = ("sections.py", "settings.py", "stores.py", "worker.py")


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """Files that git tracks or would track, as they are now."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return tuple(sorted(ROOT / name for name in names if name and (ROOT / name).is_file()))


def python_files() -> list[Path]:
    """Every Python file of the checkout, tests included."""
    return [path for path in tracked_files() if path.suffix == ".py"]


def code_files() -> list[Path]:
    """Python files of the product: no tests, no documentation scripts."""
    return [path for path in python_files() if name(path).split("/")[0] in (*PACKAGES, *MODULES)]


def name(path: Path) -> str:
    """Path below the checkout, with slashes."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    """Parse one file."""
    return ast.parse(path.read_text(), name(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every imported module, absolute, with its line; ``from a import b`` gives ``a`` and ``a.b``."""
    package = name(path).removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            yield module, node.lineno
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def imports_of(path: Path, *forbidden: str) -> list[str]:
    """Where a file imports one of these modules or anything below them."""
    return [
        f"{name(path)}:{line} imports {module}"
        for module, line in imports(path)
        if any(module == root or module.startswith(f"{root}.") for root in forbidden)
    ]
