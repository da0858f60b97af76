"""The JSON of the ai-service's requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

TEXT_CHARS_MAX = 40_000
TITLE_CHARS_MAX = 300
STYLE_CHARS_MAX = 60
PROMPT_CHARS_MAX = 8_000
TOKENS_MAX = 1_024
TOKENS_DEFAULT = 200

# ``\S`` somewhere: a text of blanks alone says nothing to a model.
Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_CHARS_MAX, pattern=r"\S")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=TITLE_CHARS_MAX, pattern=r"\S")]
Question = Annotated[str, StringConstraints(min_length=1, max_length=PROMPT_CHARS_MAX, pattern=r"\S")]
# One line of words: it becomes part of a prompt.
StyleName = Annotated[str, StringConstraints(max_length=STYLE_CHARS_MAX, pattern=r"^[\w ,'-]*$")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TextIn(_In):
    """A text to look at."""

    text: Text = Field(examples=["The ship sailed into the storm."])


class ExpandIn(_In):
    """A text to expand; ``context`` may name its ``title``, other keys are ignored."""

    original: Text = Field(examples=["The ship sailed into the storm."])
    style: StyleName | None = Field(default=None, examples=["creative"])
    context: dict[str, Any] | None = Field(default=None, examples=[{"type": "chapter", "book_id": "my-novel"}])


class OutlineIn(_In):
    """A title to outline; ``context`` is accepted, as the other skills take it, but not used."""

    title: Title = Field(examples=["Chapter 1: Introduction to AI"])
    style: StyleName | None = None
    context: dict[str, Any] | None = None


class RestyleIn(_In):
    """A text to put into another style."""

    text: Text = Field(examples=["so we took the old boat out at dawn, and the waves were big."])
    style: StyleName | None = Field(default=None, examples=["formal"])


class CompleteIn(_In):
    """A question of one's own; with ``response_schema`` (JSON Schema) the answer is a JSON value of it."""

    prompt: Question = Field(examples=["Name a colour."])
    system: Question | None = None
    response_schema: dict[str, Any] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None


class UsageOut(BaseModel):
    """What an answer cost: ``model`` is the one that answered, ``computed`` (no tokens) where none was asked."""

    model: str = Field(examples=["SmolLM2-135M-Instruct-Q4_1"])
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    duration_ms: int


class StyleOut(BaseModel):
    """The seeds' style analysis; ``complexity`` is a school grade, ``readability_score`` 0 (hard) to 100."""

    tone: str
    complexity: float
    readability_score: float
    detected_style: str


class AnalyzedOut(BaseModel):
    """How a text reads."""

    style: StyleOut
    usage: UsageOut


class ExpandedOut(BaseModel):
    """A text of two or more paragraphs, separated by blank lines."""

    expanded: str
    usage: UsageOut


class OutlinedOut(BaseModel):
    """Section headings, and the same as lines that begin with ``- ``."""

    outline: str
    sections: list[str]
    usage: UsageOut


class SummaryOut(BaseModel):
    """A short summary."""

    summary: str
    usage: UsageOut


class ReadabilityOut(BaseModel):
    """Measures of one text."""

    words: int
    sentences: int
    words_per_sentence: float
    syllables_per_word: float
    long_word_ratio: float
    lexical_diversity: float
    readability_score: float
    complexity: float


class StyleMetricsOut(BaseModel):
    """Before and after, and how many parts are the model's words and how many the writer's."""

    before: ReadabilityOut
    after: ReadabilityOut
    parts_rewritten: int
    parts_kept: int


class RestyledOut(BaseModel):
    """A text in another style, with the same paragraphs."""

    text: str
    style_metrics: StyleMetricsOut
    usage: UsageOut


class CorrectionOut(BaseModel):
    """``before`` at ``offset`` (characters of the text that was sent) became ``after``, because of ``rule``."""

    offset: int
    before: str
    after: str
    rule: str


class CorrectedOut(BaseModel):
    """A text with its corrections made."""

    text: str
    corrections: list[CorrectionOut]
    usage: UsageOut


class CompletedOut(BaseModel):
    """The answer as text, and as a value if a schema was given."""

    text: str
    value: Any = None
    usage: UsageOut
