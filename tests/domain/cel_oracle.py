"""Google's CEL as an oracle for our evaluator, on expressions that both languages read alike.

No null ever leaves the library: version 0.1.3 drops a reference to None each time, which kills Python 3.11.
"""

from __future__ import annotations

from typing import Any

from cel_expr_python import cel
from hypothesis import strategies as st

VARIABLES = {
    "v_a": 7,
    "v_b": -3,
    "v_word": "storm",
    "v_other": "sea",
    "v_yes": True,
    "v_xs": [3, 1, 2],
    "v_words": ["x", "yz", ""],
}
_ENV = cel.NewEnv(variables=dict.fromkeys(VARIABLES, cel.Type.DYN))
FAILED = "failed"


def cel_value(source: str) -> Any:
    """What CEL makes of the source, ``FAILED`` where it refuses it or reports an error."""
    try:
        value = _ENV.compile(source).eval(data=VARIABLES)
    except RuntimeError:
        return FAILED
    return FAILED if value.type() == cel.Type.ERROR else value.plain_value()


def _binary(operands: st.SearchStrategy[str], signs: list[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda left, sign, right: f"({left} {sign} {right})", operands, st.sampled_from(signs), operands)


def _integers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return _binary(inner, ["+", "-", "*", "%"])


_literal_integers = st.integers(0, 2**40).map(str) | st.sampled_from(
    ["v_a", "v_b", "size(v_word)", "size(v_xs)", "v_xs[0]"]
)
integers = st.recursive(_literal_integers, _integers, max_leaves=6)
_literal_texts = st.sampled_from(["v_word", "v_other", "'é😀'", '"a\\n\\"b"', "v_words[1]"])
texts = st.recursive(_literal_texts, lambda inner: _binary(inner, ["+"]), max_leaves=4)
_compared = _binary(integers, ["<", "<=", ">", ">=", "==", "!="]) | _binary(texts, ["<", ">=", "==", "!="])
_asked = st.builds(
    lambda name, whole, part: f"{whole}.{name}({part})",
    st.sampled_from(["contains", "startsWith", "endsWith"]), texts, texts,
)  # fmt: skip
_quantified = st.builds(
    lambda macro, limit: f"v_xs.{macro}(x, x * 2 > {limit})",
    st.sampled_from(["exists", "all", "exists_one"]), integers,
)  # fmt: skip
_within = st.builds(lambda item: f"({item} in v_xs)", integers)
_literal_booleans = st.sampled_from(["v_yes", "true", "false", "(v_xs == [3, 1, 2])"])
booleans = st.recursive(
    _literal_booleans | _compared | _asked | _quantified | _within,
    lambda inner: _binary(inner, ["&&", "||"]) | inner.map(lambda operand: f"!{operand}"),
    max_leaves=5,
)
_chosen = st.builds(lambda test, left, right: f"({test} ? {left} : {right})", booleans, integers, integers)
_lists = st.builds(
    lambda number, limit: f"v_xs.filter(x, x > {limit}).map(x, x + {number})", integers, integers
) | st.builds(lambda text: f"v_words.map(w, size(w) > 0, w + {text})", texts)
expressions = integers | texts | booleans | _chosen | _lists
