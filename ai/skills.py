"""The text skills: what the model is asked, and what is made of its answer.

Designed for a model of 135 million parameters, so: one short, plain question per paragraph, no examples (it
copies them), no roles (it talks about them), and every answer tidied by rule. Each paragraph depends on its own
part of the input alone: a changed outline point changes its paragraph and leaves the others byte for byte, which
is what edit-safe regeneration merges by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai.answers import checked_schema, parsed
from ai.completions import Completion, Completions, Prompt, Usage
from ai.prose import (
    headline,
    is_prose,
    likeness,
    loops,
    paragraphs,
    points,
    printable,
    sentences,
    shortened,
    tidied,
    topic,
    whole,
    without_aside,
    words,
)
from domain.errors import ProviderFailed
from domain.paragraphs import split

PARAGRAPHS_MAX = 4  # of an expansion
PARAGRAPH_TOKENS = 42
POINT_CHARS_MAX = 500  # of one part of the original, in a prompt
SUBJECT_CHARS_MAX = 120
OUTLINE_TOKENS = 90
OUTLINE_SECTIONS_MIN = 3
OUTLINE_SECTIONS_MAX = 3
OUTLINE_SECTIONS_ASKED = 4  # the model repeats itself, and repeats are dropped
SECTION_LIKENESS_MAX = 0.8  # "The future of learning" and "The future of education" are two, with 0.75
SUMMARY_TOKENS = 52
SUMMARY_SOURCE_CHARS_MAX = 1600
REWRITE_CHARS_MAX = 480  # of one call: longer paragraphs are rewritten in parts
REWRITE_CALLS_MAX = 8
REWRITE_TOKENS_MAX = 180
REWRITE_KEPT_SHARE_MIN = 0.35  # a rewriting that loses more words than this is not used
DEFAULT_STYLE = "clear"
# Short: with none, the model's template puts a longer one of its own in, to be read at every call.
WRITER = "You write clear prose."
EDITOR = "You edit prose."
PLANNER = "You plan books."

_NUMBERED = re.compile(r"^(?:[A-Za-z]{0,10}[- ]?\d{1,3}[.:)] *|[#>*-]+ +)+")

OUTLINE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "sections": {
            "type": "array",
            "minItems": OUTLINE_SECTIONS_ASKED,
            "maxItems": OUTLINE_SECTIONS_ASKED,
            "items": {"type": "string", "minLength": 8, "maxLength": 44},
        }
    },
    "required": ["sections"],
    "additionalProperties": False,
}

# What is taken of an API that does not hold answers to lengths and counts.
OUTLINE_ACCEPTED: Mapping[str, Any] = {
    "type": "object",
    "properties": {"sections": {"type": "array", "items": {"type": "string", "maxLength": 200}}},
    "required": ["sections"],
}

# Names a writer gives the subject of a text, in the order in which they count.
SUBJECT_KEYS = ("title", "subject", "topic", "chapter_title", "book_title")


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A text in another style, and how many of its parts the model's words replaced."""

    text: str
    parts_rewritten: int
    parts_kept: int


def subject_of(context: Mapping[str, Any] | None) -> str | None:
    """What a request's context says the text is about; None if it does not."""
    for key in SUBJECT_KEYS:
        value = (context or {}).get(key)
        if isinstance(value, str) and value.strip():
            return shortened(topic(" ".join(value.split())), chars_max=SUBJECT_CHARS_MAX)
    return None


async def expand(
    completions: Completions, original: str, *, style: str | None, subject: str | None
) -> tuple[str, Usage]:
    """At least two paragraphs on ``original``, one for each of its points, separated by blank lines."""
    subject = subject or _headline(original)
    answers = await completions.complete_all(_expansion_prompts(original, style=style, subject=subject))
    written = (without_aside(tidied(answer.text, cut_off=answer.cut_off), subject) for answer in answers)
    return _not_empty("\n\n".join(dict.fromkeys(filter(None, written)))), _total(answers)


def _headline(original: str) -> str | None:
    found = headline(original)
    return shortened(topic(found), chars_max=SUBJECT_CHARS_MAX) if found else None


def _expansion_prompts(original: str, *, style: str | None, subject: str | None) -> list[Prompt]:
    said = points(original, count_max=PARAGRAPHS_MAX) or [original.strip()]
    manner = f", in a {style} style" if style else ""
    asked = [f"about this{manner}: {_within(point, subject)}" for point in said]
    if len(said) == 1:
        asked.append(f"about the consequences of this{manner}: {_within(said[0], subject)}")
    return [
        Prompt(system=WRITER, user=f"Write one paragraph of three sentences {ask}", tokens_max=PARAGRAPH_TOKENS)
        for ask in asked
    ]


def _within(point: str, subject: str | None) -> str:
    """A point and, in brackets, what it is part of, unless it says so itself."""
    short = shortened(point, chars_max=POINT_CHARS_MAX)
    return f"{short} ({subject})" if subject and subject.lower() not in short.lower() else short


async def outline(completions: Completions, title: str, *, style: str | None) -> tuple[list[str], Usage]:
    """Section headings for a chapter called ``title``; a second question is asked if the first gives too few.

    If both answers hold nothing but the title, the title is the one heading.

    The book's title is not in the question: the model makes it the first heading of every chapter.
    """
    subject = topic(" ".join(title.split()))
    manner = f"{style} " if style else ""
    asked = (
        f'List four section headings for a {manner}chapter titled "{subject}".',
        f"List four different topics of a {manner}chapter about {subject}.",
    )
    validator = checked_schema(OUTLINE_ACCEPTED, pointer="/schema")
    sections: list[str] = []
    usage = Usage()
    for question in asked:
        completion = await completions.complete(
            Prompt(
                system=PLANNER,
                user=f'{question} Answer as JSON: {{"sections": [...]}}',
                tokens_max=OUTLINE_TOKENS,
                schema=OUTLINE_SCHEMA,
            )
        )
        usage += completion.usage
        sections = _sections([*sections, *parsed(completion, validator)["sections"]], subject=subject)
        if len(sections) >= OUTLINE_SECTIONS_MIN:
            break
    # A small model may only say the title again; a chapter of one section is better than none.
    return sections or [subject], usage


def _sections(found: Sequence[str], *, subject: str) -> list[str]:
    """Headings without numbers, near repeats, and the chapter's own title."""
    known = [subject]
    kept: list[str] = []
    for heading in found:
        clean = _NUMBERED.sub("", topic(" ".join(heading.split()))).rstrip(" ,;:-.")
        if words(clean) and all(likeness(clean, other) < SECTION_LIKENESS_MAX for other in known):
            known.append(clean)
            kept.append(clean)
    return kept[:OUTLINE_SECTIONS_MAX]


async def summarize(completions: Completions, text: str) -> tuple[str, Usage]:
    """One or two sentences on ``text``; of a long one the beginnings of its paragraphs are read."""
    prompt = Prompt(
        system=EDITOR,
        user=f"{_source(text)}\n\nSummarize the text above in one short sentence.",
        tokens_max=SUMMARY_TOKENS,
    )
    answer = await completions.complete(prompt)
    return _not_empty(tidied(answer.text, cut_off=answer.cut_off)), answer.usage


def _source(text: str) -> str:
    if len(text) <= SUMMARY_SOURCE_CHARS_MAX:
        return text.strip()
    leads = " ".join(sentences(part)[0] for part in paragraphs(text) if sentences(part))
    return shortened(leads if len(leads) > SUMMARY_SOURCE_CHARS_MAX // 2 else text, chars_max=SUMMARY_SOURCE_CHARS_MAX)


async def restyle(completions: Completions, text: str, *, style: str | None) -> tuple[Rewriting, Usage]:
    """``text`` paragraph by paragraph in another style; headings and lists stay as they are.

    A rewriting that is empty, that lost most of its words, or that is beyond ``REWRITE_CALLS_MAX`` is not used:
    the writer's words stay, and the result counts them.
    """
    prose = split(text)
    parts = [(index, part) for index, paragraph in enumerate(prose.paragraphs) for part in _parts(paragraph)]
    asked = [number for number, (_, part) in enumerate(parts) if is_prose(part)][:REWRITE_CALLS_MAX]
    answers = await completions.complete_all([_rewrite_prompt(parts[number][1], style) for number in asked])
    rewritten = 0
    for number, answer in zip(asked, answers, strict=True):
        index, part = parts[number]
        better = _rewriting(part, answer)
        if better is not None:
            parts[number] = (index, better)
            rewritten += 1
    joined = tuple(
        " ".join(part for at, part in parts if at == index) if _parts(paragraph) else paragraph
        for index, paragraph in enumerate(prose.paragraphs)
    )
    result = type(prose)(prose.lead, joined, prose.separators, prose.tail).join()
    return Rewriting(result, rewritten, len(parts) - rewritten), _total(answers)


def _parts(paragraph: str) -> list[str]:
    """A paragraph as pieces short enough for one call each, cut between sentences."""
    if len(paragraph) <= REWRITE_CHARS_MAX or not is_prose(paragraph):
        return [paragraph] if paragraph.strip() else []
    pieces: list[str] = []
    for sentence in sentences(paragraph):
        if pieces and len(pieces[-1]) + len(sentence) < REWRITE_CHARS_MAX:
            pieces[-1] = f"{pieces[-1]} {sentence}"
        else:
            pieces.append(sentence)
    return pieces


def _rewrite_prompt(part: str, style: str | None) -> Prompt:
    # English takes about four characters a token; a third more leaves room for longer words.
    tokens = min(REWRITE_TOKENS_MAX, 24 + len(part) // 3)
    return Prompt(
        system=EDITOR,
        user=f"Rewrite this paragraph in a {style or DEFAULT_STYLE} style. Keep the meaning.\n\n{part}",
        tokens_max=tokens,
    )


def _rewriting(part: str, answer: Completion) -> str | None:
    text = tidied(answer.text, cut_off=answer.cut_off)
    enough = len(words(text)) >= len(words(part)) * REWRITE_KEPT_SHARE_MIN
    return text if text and enough and not loops(text) else None


async def complete(completions: Completions, prompt: Prompt) -> tuple[tuple[str, Any], Usage]:
    """The answer to a question of the caller's own, and its JSON value if a schema was given."""
    if prompt.schema is None:
        answer = await completions.complete(prompt)
        text = whole(printable(answer.text)) if answer.cut_off else printable(answer.text)
        return (_not_empty(text), None), answer.usage
    validator = checked_schema(prompt.schema, pointer="/response_schema")
    answer = await completions.complete(prompt)
    return (answer.text.strip(), parsed(answer, validator)), answer.usage


def _total(answers: Sequence[Completion]) -> Usage:
    return sum((answer.usage for answer in answers), Usage())


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ProviderFailed("The model's answer holds no usable text.", code="invalid_output")
    return text
