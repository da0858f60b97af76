"""A setting that nothing reads is a promise that nothing keeps."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from settings import leaves
from tests.architecture.source import code_files, imports_of, name, tree


def readers() -> list[Path]:
    return [path for path in code_files() if name(path) != "settings.py" and imports_of(path, "settings")]


def chain(node: ast.expr) -> list[str]:
    """Names of ``a.b["c"].d`` from the right: d, b, a; calls and indexes are looked through."""
    names: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return [*names, node.id] if isinstance(node, ast.Name) else names


def aliases(module: ast.Module) -> dict[str, str]:
    """Names that stand for a section: ``blobs = settings.storage.blobs`` and parameters ``blobs: BlobsGroup``."""
    found: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and chain(node.value):
            found[node.targets[0].id] = chain(node.value)[0]
        elif isinstance(node, ast.arg) and node.annotation is not None:
            annotation = ast.unparse(node.annotation)
            if annotation.endswith("Group"):
                found[node.arg] = "".join(f"_{c.lower()}" if c.isupper() else c for c in annotation[:-5]).lstrip("_")
            elif annotation == "CalledService":
                found[node.arg] = "services"
        elif isinstance(node, ast.For | ast.comprehension) and "services" in ast.unparse(node.iter):
            found |= {target.id: "services" for target in ast.walk(node.target) if isinstance(target, ast.Name)}
    return found


def reads(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(section, field)`` for each attribute read; a dumped section reads all of itself."""
    known = aliases(tree(path))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            names = chain(node)
            if len(names) > 1:
                yield known.get(names[1], names[1]), "*" if names[0] == "model_dump" else names[0]


def test_every_setting_is_read_by_a_composition_root() -> None:
    read = {pair for path in readers() for pair in reads(path)}
    unread = []
    for key, group, field in leaves():
        section = key.removesuffix(".<name>." + field).split(".")
        parent = section[0] if section[0] == "services" else section[-2]
        annotation = group.model_fields[field].annotation
        one_choice = get_origin(annotation) is Literal and len(get_args(annotation)) == 1
        if not one_choice and not {(parent, field), (parent, "*")} & read:
            unread.append(key)
    assert unread == [], f"nothing reads {', '.join(unread)}: wire them, or drop them from sections.py"
