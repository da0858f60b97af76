"""The normal form of a body: what early cut-off compares (CASCADES, rule 5), and nothing else.

JSON is compared as canonical JSON without the fields that a schema marks ``x-volatile``. Text counts to the last blank,
unless the schema says ``x-cutoff: normal``, at its root or at any place below: then white space is folded there. What
is stored, shown and merged is always what was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from domain.documents import Document
from domain.schema_graph import SchemaGraph
from domain.schema_places import graph_of, in_place, indexed, mentions, named
from domain.volatile import VOLATILE, strip_volatile

CUTOFF: Final = "x-cutoff"
BYTES: Final = "bytes"
NORMAL: Final = "normal"
FORMS: Final = (BYTES, NORMAL)


def has_normal_form(definition: Any) -> bool:
    """Tell whether a schema has anything left out or folded at all: most have not."""
    return mentions(definition, VOLATILE) or mentions(definition, CUTOFF)


def normal_body(definition: Any, document: Document, *, also: Iterable[str] = ()) -> Any:
    """Return the body of a document as it is compared; None stands for "as it is".

    ``also`` are JSON Pointers of fields that a definition computes per run: left out like volatile ones.
    """
    if document.binary:
        return None
    if document.is_text:
        return fold(definition, {"content": document.body})["content"] if mentions(definition, CUTOFF) else None
    return fold(definition, strip_volatile(definition, document.body, also=also))


def fold(definition: Any, value: Any) -> Any:
    """Return the value with white space folded wherever ``definition`` says ``x-cutoff: normal``.

    What it says of a place holds for everything below, until it says otherwise there; said both ways of one place,
    ``bytes`` holds. The value itself is not changed.
    """
    return _fold(graph_of(definition), [""], value, BYTES) if mentions(definition, CUTOFF) else value


def folded(text: str) -> str:
    """Return the text with one blank between words and one empty line between paragraphs, and none at its ends.

    A single line break is a blank: a text that was only wrapped anew is the same.
    """
    paragraphs: list[list[str]] = [[]]
    for line in text.splitlines():
        words = line.split()
        if words:
            paragraphs[-1] += words
        elif paragraphs[-1]:
            paragraphs.append([])
    return "\n\n".join(" ".join(words) for words in paragraphs if words)


def _fold(graph: SchemaGraph, places: list[str], value: Any, form: str) -> Any:
    schemas = list(in_place(graph, places))
    said = {schema[CUTOFF] for _, schema in schemas if CUTOFF in schema}
    form = BYTES if BYTES in said else NORMAL if NORMAL in said else form
    if isinstance(value, str):
        return folded(value) if form == NORMAL else value
    if isinstance(value, Mapping):
        return {name: _fold(graph, list(named(schemas, name)), part, form) for name, part in value.items()}
    if isinstance(value, list):
        return [_fold(graph, list(indexed(schemas, index)), part, form) for index, part in enumerate(value)]
    return value
