"""Hypothesis strategies for JSON values, documents and texts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from domain.documents import Document

names = st.text(st.sampled_from("ab/~0-é\0"), max_size=3)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, 1, 1.0, 0.0, -0.0, 1e16, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(names, inner, max_size=4)),
    max_leaves=20,
)
objects = st.dictionaries(names, values, max_size=4)

# Few different paragraphs, so that the sides of a merge often meet; separators and ends of every kind.
_paragraphs = st.one_of(
    st.sampled_from(
        ["# One", "## Two", "the cat sat on the mat today", "the cat sat on a mat", "dog", "---", "  code", "x\r"]
    ),
    st.text(st.sampled_from("ab c\n\r\t#é"), max_size=12),
)
_separators = st.sampled_from(["\n\n", "\n\n\n", "\r\n\r\n", "\n \n", "\n"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    parts = [draw(st.sampled_from(["", "\n", " \n\n", " "]))]
    for paragraph in draw(st.lists(_paragraphs, max_size=6)):
        parts += [paragraph, draw(_separators)]
    return "".join([*parts, draw(st.sampled_from(["", "\n", " "]))])


titles = st.text(st.sampled_from("aé 1"), max_size=4)
tags = st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, max_size=4)


def text_document(text: str, **fields: Any) -> Document:
    return Document.parse({"content": text, **fields})


def json_document(data: Any, **fields: Any) -> Document:
    return Document.parse({"data": data, **fields})


text_documents = st.builds(
    lambda text, title, own, meta: text_document(text, title=title, tags=own, metadata=meta),
    texts(),
    titles,
    tags,
    objects,
)
json_documents = st.builds(
    lambda data, title, own, meta: json_document(data, title=title, tags=own, metadata=meta),
    values,
    titles,
    tags,
    objects,
)
documents = st.one_of(text_documents, json_documents)
