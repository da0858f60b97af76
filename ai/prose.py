"""Where paragraphs, sentences and words begin and end, and how a model's answer becomes clean prose. Pure."""

# ruff: noqa: RUF001 - typographic quotation marks and dashes are what this looks at

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ai.lexicon import ABBREVIATIONS
from domain.paragraphs import split

HEADLINE_CHARS_MAX = 120
LOOP_WORDS_MIN = 12
LOOP_DIVERSITY_MIN = 0.45  # different words of all; a sentence of prose has 0.7 and more

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)")
_LAST_WORD = re.compile(r"([\w.]+)$")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•–]|\d{1,3}[.)])\s+(\S.*)$")
_HEADING = re.compile(r"^\s*#{1,6}\s+(\S.*)$")
_CHAPTER_PREFIX = re.compile(r"^\s*(?:chapter|part|section|lesson)\s+[\w.]{1,12}\s*[:.–—-]\s*(?=\S)", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]")
# Small models wrap what was asked for in talk about it: "Here's a rewritten version: "…" I made …".
_PREAMBLE = re.compile(r"^(?:sure|certainly|of course|here(?:'|’)?s|here is|this is)\b[^\n:]{0,80}:\s*", re.IGNORECASE)
_NO_QUOTES = str.maketrans("", "", '"“”')
_QUOTED_WHOLE = re.compile(r"^[\"“](.+?)[\"”](?:\s|$)", re.DOTALL)


def paragraphs(text: str) -> list[str]:
    """The parts of ``text`` between blank lines, without their outer white space; never an empty one."""
    return [part.strip() for part in split(text).paragraphs if part.strip()]


def sentences(text: str) -> list[str]:
    """The sentences of ``text`` in order, stripped; a trailing part without a full stop counts as one."""
    found = [text[start:end].strip() for start, end in pairwise((0, *sentence_ends(text), len(text)))]
    return [sentence for sentence in found if sentence]


def sentence_ends(text: str) -> Iterator[int]:
    """The offsets just behind each sentence's closing mark; abbreviations and initials do not close one."""
    for match in _SENTENCE_END.finditer(text):
        before = text[max(0, match.start() - 12) : match.start()]
        if not (match.group().startswith(".") and _is_abbreviation(before)):
            yield match.end()


def _is_abbreviation(before: str) -> bool:
    word = _LAST_WORD.search(before)
    if word is None:
        return False
    last = word.group().lower()
    if last.isdigit():
        return word.start() == 0 or before[word.start() - 1] == "\n"  # the number of a list item
    # One letter is an initial ("J. Verne"), but "I" ends sentences too ("So do I."); "a.m." is short for words.
    return last in ABBREVIATIONS or "." in last.strip(".") or (len(last) == 1 and last not in {"i", "a"})


def words(text: str) -> list[str]:
    """The words of ``text``: runs of letters or digits, apostrophes and hyphens inside included."""
    return _WORD.findall(text)


def likeness(left: str, right: str) -> float:
    """How alike two short texts are, 0 to 1: the share of words (Dice) that they have in common, in any case."""
    one, other = ({word.lower() for word in words(text)} for text in (left, right))
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is running text, not a list or a heading, which are never rewritten."""
    return not any(_LIST_ITEM.match(line) or _HEADING.match(line) for line in paragraph.splitlines())


def topic(title: str) -> str:
    """A title without its numbering: ``Chapter 1: Introduction`` is about ``Introduction``."""
    return _CHAPTER_PREFIX.sub("", title).strip() or title.strip()


def headline(text: str) -> str | None:
    """The title that a text begins with: a heading, or one line without a full stop before other paragraphs."""
    parts = paragraphs(text)
    if not parts or "\n" in parts[0] or _LIST_ITEM.match(parts[0]):
        return None
    heading = _HEADING.match(parts[0])
    if heading:
        return heading.group(1).strip()
    is_title = len(parts) > 1 and len(parts[0]) <= HEADLINE_CHARS_MAX and next(sentence_ends(parts[0]), None) is None
    return parts[0] if is_title else None


def points(text: str, *, count_max: int) -> list[str]:
    """What a text says, in at most ``count_max`` parts: list items, else paragraphs, else sentences.

    Its headline is not one of them, unless there is nothing else.
    """
    items = [match.group(1).strip() for line in text.splitlines() if (match := _LIST_ITEM.match(line))]
    if items:
        return grouped(items, count_max=count_max, joint="; ")
    parts = [_HEADING.sub(r"\1", part) for part in paragraphs(text)]
    if len(parts) > 1 and headline(text):
        parts = parts[1:]
    return grouped(parts if len(parts) > 1 else sentences(" ".join(parts)), count_max=count_max, joint=" ")


def grouped(parts: Sequence[str], *, count_max: int, joint: str) -> list[str]:
    """Neighbours joined so that at most ``count_max`` groups of nearly equal length remain, in order."""
    count = min(count_max, len(parts))
    bounds = [round(index * len(parts) / count) for index in range(count + 1)] if count else [0]
    return [joint.join(parts[start:end]) for start, end in pairwise(bounds)]


def shortened(text: str, *, chars_max: int) -> str:
    """The beginning of ``text``, stripped and cut between words, at most ``chars_max`` characters."""
    stripped = text.strip()
    if len(stripped) <= chars_max:
        return stripped
    return stripped[: chars_max + 1].rsplit(maxsplit=1)[0][:chars_max].rstrip()


def printable(text: str) -> str:
    """``text`` without control characters (but for tabs and line ends) and replacement characters, stripped."""
    return _CONTROLS.sub("", text).strip()


def tidied(answer: str, *, cut_off: bool) -> str:
    """One clean paragraph out of a model's answer: no preamble, quotes, line breaks, repeats or half sentence.

    ``cut_off`` says that the model stopped at its token limit. Empty when there is nothing to keep.
    """
    parts = paragraphs(printable(answer))
    if not parts:
        return ""
    flat = " ".join(" ".join(_HEADING.sub(r"\1", line) for line in _unwrapped(parts).splitlines()).split())
    kept = list(dict.fromkeys(sentences(whole(flat) if cut_off else flat)))  # tiny models loop at temperature 0
    closed = [sentence for sentence in kept if _quotes_close(sentence) and not loops(sentence)]
    return " ".join(closed) if closed else " ".join(kept).translate(_NO_QUOTES)


def loops(text: str) -> bool:
    """Whether a text of a dozen words or more says mostly the same words again, as a stuck model does."""
    found = [word.lower() for word in words(text)]
    return len(found) >= LOOP_WORDS_MIN and len(set(found)) < len(found) * LOOP_DIVERSITY_MIN


def _quotes_close(sentence: str) -> bool:
    return sentence.count('"') % 2 == 0 and sentence.count("“") == sentence.count("”")


def without_aside(text: str, aside: str | None) -> str:
    """``text`` without ``(aside)``, which a model copies from its question."""
    return text.replace(f" ({aside})", "") if aside else text


def _unwrapped(parts: Sequence[str]) -> str:
    text = _PREAMBLE.sub("", parts[0], count=1).strip()
    if not text or _HEADING.match(text):  # the first paragraph was only talk or a heading
        text = parts[1] if len(parts) > 1 else text
    quoted = _QUOTED_WHOLE.match(text)
    return quoted.group(1) if quoted else text.strip('"“” ')


def whole(text: str) -> str:
    """``text`` up to its last complete sentence; without one, up to its last complete word and a full stop."""
    ends = list(sentence_ends(text))
    if ends:
        return text[: ends[-1]]
    parts = text.rsplit(maxsplit=1)
    stem = parts[0].rstrip(" ,;:–—-") if parts else ""
    return f"{stem}." if stem else ""
