"""How a text reads, computed, not guessed: readability, lexical measures, tone and style. Pure.

Reading ease is Flesch's (1948), the grade Kincaid's (1975). Syllables are counted by rule, so a score is a
measure for English prose and a stable number for anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ai.lexicon import CASUAL, CREATIVE, FORMAL, NEGATIVE, POSITIVE, TECHNICAL
from ai.prose import sentences, words

STYLES = ("formal", "casual", "creative", "technical")
TONES = ("excited", "inquisitive", "positive", "sombre", "neutral")
LONG_WORD_CHARS = 7

_VOWEL_GROUP = re.compile(r"[aeiouyà-öø-ÿ]+")
_SILENT_END = re.compile(r"(?:[^laeiouy]es|[^tdaeiouy]ed|[^laeiouy]e)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readability:
    """Measures of one text; ``readability_score`` is 0 (hard) to 100 (easy), ``complexity`` a school grade."""

    words: int
    sentences: int
    words_per_sentence: float
    syllables_per_word: float
    long_word_ratio: float
    lexical_diversity: float
    readability_score: float
    complexity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The seeds' ``style_analysis``: a tone, a school grade, a reading ease, and which of ``STYLES`` it is."""

    tone: str
    complexity: float
    readability_score: float
    detected_style: str


def syllables(word: str) -> int:
    """Syllables of one word by English spelling: vowel groups less a silent ending; at least one."""
    lower = word.lower()
    groups = len(_VOWEL_GROUP.findall(lower))
    if groups > 1 and _SILENT_END.search(lower):
        groups -= 1
    return max(1, groups)


def readability(text: str) -> Readability:
    """Measure ``text``; one without words has zeros throughout."""
    found = words(text)
    if not found:
        return Readability(
            words=0,
            sentences=0,
            words_per_sentence=0.0,
            syllables_per_word=0.0,
            long_word_ratio=0.0,
            lexical_diversity=0.0,
            readability_score=0.0,
            complexity=0.0,
        )
    count = len(found)
    sentence_count = max(1, sum(1 for sentence in sentences(text) if words(sentence)))
    per_sentence = count / sentence_count
    per_word = sum(map(syllables, found)) / count
    return Readability(
        words=count,
        sentences=sentence_count,
        words_per_sentence=round(per_sentence, 2),
        syllables_per_word=round(per_word, 2),
        long_word_ratio=round(sum(len(word) >= LONG_WORD_CHARS for word in found) / count, 3),
        lexical_diversity=round(len({word.lower() for word in found}) / count, 3),
        readability_score=round(min(100.0, max(0.0, 206.835 - 1.015 * per_sentence - 84.6 * per_word)), 1),
        complexity=round(max(0.0, 0.39 * per_sentence + 11.8 * per_word - 15.59), 1),
    )


def analyse(text: str) -> Style:
    """Tone, grade, reading ease and detected style of ``text``; the same text always gives the same answer."""
    measures = readability(text)
    lowered = [word.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'") for word in words(text)]
    return Style(
        tone=_tone(text, lowered, sentence_count=measures.sentences),
        complexity=measures.complexity,
        readability_score=measures.readability_score,
        detected_style=_detected_style(text, lowered, measures),
    )


def _tone(text: str, lowered: list[str], *, sentence_count: int) -> str:
    if text.count("!") * 3 > sentence_count > 0:
        return "excited"
    if text.count("?") * 3 > sentence_count > 0:
        return "inquisitive"
    balance = _hits(lowered, POSITIVE) - _hits(lowered, NEGATIVE)
    if balance == 0:
        return "neutral"
    return "positive" if balance > 0 else "sombre"


def _detected_style(text: str, lowered: list[str], measures: Readability) -> str:
    if not lowered:
        return "formal"
    share = 100 / len(lowered)
    contractions = sum("'" in word for word in lowered)
    acronyms = len(re.findall(r"\b(?:[A-Z]{2,6}|\w*\d\w*|\w+_\w+)\b", text))
    scores = {
        "formal": share * 2 * _hits(lowered, FORMAL) + 12 * measures.long_word_ratio + measures.complexity / 3,
        "casual": share * (_hits(lowered, CASUAL) + 1.5 * contractions + text.count("!")),
        "creative": share * 1.5 * _hits(lowered, CREATIVE),
        "technical": share * (_hits(lowered, TECHNICAL) + acronyms),
    }
    return max(STYLES, key=lambda style: scores[style])  # of equals the first


def _hits(lowered: Iterable[str], lexicon: frozenset[str]) -> int:
    return sum(word in lexicon for word in lowered)
