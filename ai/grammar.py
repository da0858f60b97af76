"""Corrections of English that need no model: rules that are nearly never wrong, and say where they applied. Pure.

A rule that is right only most of the time is left out: a writer trusts a checker that is silent when unsure.
Code, links, lists and other languages are left alone. The word lists are in ``ai/lexicon.py``.
"""

# ruff: noqa: RUF001 - typographic quotation marks are what some rules look at

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from ai.lexicon import DOUBLED_BY_MISTAKE, ENGLISH, NOT_AFTER_ARTICLE, REPLACED
from ai.prose import is_prose, sentence_ends, words
from ai.revisions import Correction, Edit, Revision

PASSES_MAX = 6  # a correction can uncover another; texts settle in two or three passes
FINAL_PERIOD_WORDS_MIN = 8  # a shorter line without a full stop may be a title
ENGLISH_SHARE_MIN = 1 / 12  # of the words; English prose has about a third of them in the list

Rule = Callable[[str], Iterator[Edit]]

# Every repetition is bounded or ends at a character it cannot contain, so that no input takes quadratic time.
_PROTECTED = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\]\([^)\s]{0,200}\)|\b(?:https?|ftp)://\S+|\bwww\.\S+"
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w.-]{1,255}|\$\.\S+|<[^<>\n]{1,200}>",
    re.DOTALL,
)
_BLOCK = re.compile(r"[^\s](?:[^\n]|\n(?![ \t]*(?:\n|\Z)))*")
_DOUBLED = re.compile(rf"\b({'|'.join(sorted(DOUBLED_BY_MISTAKE))})(?:[ \t\n]+\1)+(?=[ \t\n])", re.IGNORECASE)
_ARTICLE = re.compile(r"(?<![\w'’./-])([Aa]n?)[ \t]+([A-Za-z]+)(?=[\s,.;:!?'’)-]|$)")
_AN = re.compile(r"hour|honest|honou?r|heir|[aeio]|un(?!i)|up|um|ul|ug", re.IGNORECASE)
_A = re.compile(
    r"eu|ew|one\b|once\b|ouija|unit|univer|unique|union|uniform|unicorn|use|usu|util|ubiq|[b-df-gj-np-tv-z]|h",
    re.IGNORECASE,
)
# Where spelling does not tell: "an historic", single letters, acronyms, "unidentified", "urban" and "Uranus".
_UNSURE = re.compile(r"h(?:isto|ero|abit|otel|ypo|ysteri|erb|omage)|[A-Za-z]\b|[A-Z]{2}", re.ASCII)
_SENTENCE_START = re.compile(r"[ \t\n]+[\"“‘(]?([a-z])(?=[a-z]*[\s,.;:!?'’)])")
_BLOCK_START = re.compile(r"[\"“‘(]?([a-z])(?=[a-z]*[\s,'’])")
_PRONOUN = re.compile(r"(?<![\w'’./(&-])i(?=(?:['’](?:m|ve|ll|d))?[ \t,](?!\s*=))")
_SPACES = re.compile(r"(?<=\S)[ \t]{2,}(?=[^\s|])")
_SPACE_BEFORE_MARK = re.compile(r"(?<=[A-Za-z])[ \t]+([,;.!?])(?=\s|$)")
_NO_SPACE_AFTER_COMMA = re.compile(r"(?<=[a-z])[ \t]*([,;])(?=[A-Za-z]{2,})")


def correct(text: str) -> tuple[str, list[Correction]]:
    """``text`` corrected, and each correction with its offset in ``text``; correcting again changes nothing."""
    if not is_english(text):
        return text, []
    revision = Revision(text)
    for _ in range(PASSES_MAX):
        before = revision.text
        for name, rule in RULES:
            revision.apply(list(_allowed(rule(revision.text), revision.text)), rule=name)
        if revision.text == before:
            break
    return revision.text, revision.corrections


def is_english(text: str) -> bool:
    """Whether enough of the words are ones that English alone has."""
    found = words(text)
    return sum(word.lower() in ENGLISH for word in found) >= max(1, len(found) * ENGLISH_SHARE_MIN)


def _allowed(edits: Iterable[Edit], text: str) -> Iterator[Edit]:
    """Those edits that change something, do not overlap, and stay out of code and links."""
    spans = [match.span() for match in _PROTECTED.finditer(text)]
    at = 0
    for edit in edits:
        index = bisect_right(spans, (edit.end - 1, len(text))) - 1  # the last span that begins before its end
        outside = index < 0 or spans[index][1] <= edit.start
        if outside and edit.start >= at and text[edit.start : edit.end] != edit.after:
            yield edit
            at = edit.end


def _doubled_words(text: str) -> Iterator[Edit]:
    for match in _DOUBLED.finditer(text):
        yield Edit(*match.span(), match.group(1))


def _articles(text: str) -> Iterator[Edit]:
    for match in _ARTICLE.finditer(text):
        article, word = match.groups()
        before = text[max(0, match.start() - 8) : match.start()].rstrip(' \t\n"“‘(')
        if word.lower() in NOT_AFTER_ARTICLE or (article == "A" and before[-1:] not in {"", ".", "!", "?"}):
            continue
        wanted = _article(word)
        if wanted and wanted != article.lower():
            yield Edit(*match.span(1), wanted.capitalize() if article[0] == "A" else wanted)


def _article(word: str) -> str | None:
    """``a`` or ``an`` by sound; None where spelling does not tell."""
    if word.isupper() and len(word) > 1:
        # Said letter by letter or as a word, these begin with a vowel either way.
        return "an" if word[0] in "AEIO" else None
    if _UNSURE.match(word):
        return None
    if _A.match(word) and not _AN.match(word):
        return "a"
    if _AN.match(word):
        return "a" if re.match(r"eu|ew|one\b|once\b|ouija", word, re.IGNORECASE) else "an"
    return None


def _spaces(text: str) -> Iterator[Edit]:
    for match in _SPACES.finditer(text):
        yield Edit(*match.span(), " ")


def _space_before_mark(text: str) -> Iterator[Edit]:
    for match in _SPACE_BEFORE_MARK.finditer(text):
        yield Edit(*match.span(), match.group(1))


def _space_after_comma(text: str) -> Iterator[Edit]:
    for match in _NO_SPACE_AFTER_COMMA.finditer(text):
        yield Edit(*match.span(), f"{match.group(1)} ")


def _pronoun(text: str) -> Iterator[Edit]:
    for match in _PRONOUN.finditer(text):
        yield Edit(*match.span(), "I")


def _capitals(text: str) -> Iterator[Edit]:
    for block in _BLOCK.finditer(text):
        start, end = block.span()
        if not is_prose(block.group()):
            continue
        ends = [start + at for at in sentence_ends(block.group())]
        first = _BLOCK_START.match(text, start, end)
        if first and ends:
            yield Edit(*first.span(1), first.group(1).upper())
        for at in ends:
            # "..." trails off within a sentence; "Yahoo! is" and "“Why?” he said" go on.
            following = _SENTENCE_START.match(text, at, end)
            if following and text[at - 1] in ".?" and not text.endswith("..", start, at):
                yield Edit(*following.span(1), following.group(1).upper())


def _final_period(text: str) -> Iterator[Edit]:
    for block in _BLOCK.finditer(text):
        line = block.group().rstrip().rsplit("\n", 1)[-1]
        at = block.start() + len(block.group().rstrip())
        if not (line[0].isupper() and line[-1].isascii() and line[-1].isalpha() and is_prose(block.group())):
            continue
        if len(line.split()) >= FINAL_PERIOD_WORDS_MIN or next(sentence_ends(line), None) is not None:
            yield Edit(at - 1, at, f"{line[-1]}.")


def _replacement(pattern: str, replacement: str) -> Rule:
    compiled = re.compile(rf"(?<![\w'’./-]){pattern}(?![\w'’/-])", re.IGNORECASE)

    def rule(text: str) -> Iterator[Edit]:
        for match in compiled.finditer(text):
            yield Edit(*match.span(), _cased(match.expand(replacement), like=match.group()))

    return rule


def _cased(word: str, *, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


RULES: tuple[tuple[str, Rule], ...] = (
    ("spacing", _spaces),
    ("spacing", _space_before_mark),
    ("spacing", _space_after_comma),
    ("doubled_word", _doubled_words),
    *((name, _replacement(pattern, replacement)) for name, pattern, replacement in REPLACED),
    ("pronoun_i", _pronoun),
    ("article", _articles),
    ("sentence_capital", _capitals),
    ("final_period", _final_period),
)
