from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.canonical import load
from domain.definitions import Definition
from domain.documents import Document
from domain.errors import Invalid
from domain.providers import Provider
from domain.schemas import Schema
from domain.steps import InputBlob, absorb, initial_context, request, run_pure, stage
from storage.catalog import Catalogue, builtin_catalogue

SEED = Path(__file__).parent / "seed"
PROVIDERS = Path(__file__).parents[2] / "providers"
SERVICES = ("ai-service",)
# What the skills of the ai-service answer, as its own tests have it.
ANSWERS: dict[str, dict[str, Any]] = {
    "/generate/outline": {"outline": "- The harbour\n- The storm", "sections": ["The harbour", "The storm"]},
    "/analyze/style": {
        "style": {"tone": "calm", "complexity": 5.0, "readability_score": 80.0, "detected_style": "creative"}
    },
    "/generate/expand": {"expanded": "The harbour was calm.\n\nTeh storm came."},
    "/edit/style": {
        "text": "The harbour lay calm.\n\nTeh storm came.",
        "style_metrics": {"before": {"readability_score": 70.0}, "after": {"readability_score": 75.5}},
    },
    "/edit/grammar": {
        "text": "The harbour lay calm.\n\nThe storm came.",
        "corrections": [{"offset": 23, "before": "Teh", "after": "The", "rule": "spelling"}],
    },
    "/generate/summarize": {"summary": "A storm."},
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return builtin_catalogue(SERVICES)


@pytest.mark.parametrize(
    ("seed", "packaged"),
    [
        ("wf-text-expansion.yaml", "wf-text-expansion.yaml"),
        ("text-input-v1.json", "schemas/text-input-v1.json"),
        ("expanded-text-v1.json", "schemas/expanded-text-v1.json"),
    ],
)
def test_the_files_of_seed_003_are_packaged_byte_for_byte(seed: str, packaged: str) -> None:
    assert (PROVIDERS / packaged).read_bytes() == (SEED / seed).read_bytes()


def test_the_catalogue_has_the_story(catalogue: Catalogue) -> None:
    assert set(catalogue.providers) == {
        "outline-generator",
        "text-expansion",
        "style-editor",
        "grammar-checker",
        "summarizer",
        "book-compiler",
    }
    assert set(catalogue.schemas) == {
        "text-v1",
        "blob-v1",
        "bucket-v1",
        "concept-v1",
        "text-input-v1",
        "expanded-text-v1",
        "styled-text-v1",
        "checked-text-v1",
        "summary-v1",
        "manuscript-v1",
    }
    assert set(catalogue.sources) == set(catalogue.definitions)
    assert catalogue.sources["wf-text-expansion"] == (SEED / "wf-text-expansion.yaml").read_text()


def test_the_chain_follows_from_the_schemas(catalogue: Catalogue) -> None:
    routes = {
        (provider.input_schemas[0], provider.id, provider.outputs[0].schema.slug)
        for provider in catalogue.providers.values()
    }
    assert routes == {
        ("concept-v1", "outline-generator", "text-input-v1"),
        ("text-input-v1", "text-expansion", "expanded-text-v1"),
        ("expanded-text-v1", "style-editor", "styled-text-v1"),
        ("styled-text-v1", "grammar-checker", "checked-text-v1"),
        ("checked-text-v1", "summarizer", "summary-v1"),
        ("checked-text-v1", "book-compiler", "manuscript-v1"),
    }


def test_only_the_compiler_runs_inline_and_collects(catalogue: Catalogue) -> None:
    inline = [provider.id for provider in catalogue.providers.values() if provider.execution == "inline"]
    assert inline == ["book-compiler"]
    compiler = catalogue.providers["book-compiler"]
    assert (compiler.anchor, compiler.reads) == ("bucket", ("title",))
    assert compiler.collect is not None
    assert compiler.collect.bucket_type == "book"


def test_no_built_in_reacts_to_blobs_without_a_schema_of_their_own(catalogue: Catalogue) -> None:
    for slug in ("text-v1", "blob-v1"):
        assert not any(
            provider.reacts_to(schema_id=slug, content_type="text/plain", by_person=True)
            for provider in catalogue.providers.values()
        )


@pytest.mark.parametrize("slug", ["text-v1", "blob-v1", "bucket-v1"])
@pytest.mark.parametrize("value", [None, 1, "text", [1], {"any": {"thing": None}}])
def test_the_schemas_of_what_names_none_accept_anything(catalogue: Catalogue, slug: str, value: Any) -> None:
    assert catalogue.schemas[slug].validator.is_valid(value)


def test_everything_survives_being_stored(catalogue: Catalogue) -> None:
    for schema in catalogue.schemas.values():
        assert Schema.from_json(schema.to_json()) == schema
    for definition in catalogue.definitions.values():
        assert Definition.from_json(definition.to_json()) == definition
    for provider in catalogue.providers.values():
        assert Provider.from_json(provider.to_json()) == provider


def test_the_catalogue_does_not_load_without_the_services_that_it_calls() -> None:
    with pytest.raises(Invalid):
        builtin_catalogue(())


def derive(catalogue: Catalogue, provider_id: str, inputs: list[InputBlob]) -> Document:
    """Run a provider's steps, the services answering what ``ANSWERS`` says."""
    provider = catalogue.providers[provider_id]
    definition = catalogue.definitions[provider.workflow_id]
    context = initial_context(inputs, provider.settings, collection=provider.anchor == "bucket", reads=("title",))
    staged: dict[str, Any] = {}
    for step in definition.steps:
        schema = catalogue.schemas[step.schema.slug] if step.schema else None
        if step.effect == "pure":
            context |= run_pure(step, context, schema)
        elif step.effect == "call":
            context |= absorb(step, ANSWERS[request(step, context).endpoint], context)
        else:
            assert schema is not None
            staged = stage(step, {**context, "execution_time": 7}, schema)
    return Document.parse(staged)


def as_input(document: Document, blob_id: str = "b", position: int | None = None) -> InputBlob:
    return InputBlob(blob_id=blob_id, version=1, document=document, position=position)


def chapter(catalogue: Catalogue, title: str) -> Document:
    document = Document.parse({"content_type": "application/json", "data": {"title": title}, "title": ""})
    for provider_id in ("outline-generator", "text-expansion", "style-editor", "grammar-checker"):
        document = derive(catalogue, provider_id, [as_input(document)])
    return document


def test_an_outline_is_a_text_input_that_names_its_chapter(catalogue: Catalogue) -> None:
    concept = {"title": "The Storm", "style": "formal", "metadata": {"book_id": "b", "chapter_num": 2}}
    document = Document.parse({"content_type": "application/json", "data": concept})
    outline = derive(catalogue, "outline-generator", [as_input(document)])
    assert outline.title == "The Storm"
    assert outline.body == {
        "content": "The Storm\n\n- The harbour\n- The storm",
        "style": "formal",
        "metadata": {"type": "chapter", "title": "The Storm", "book_id": "b", "chapter_num": 2},
    }


def test_a_chapter_goes_through_the_whole_chain(catalogue: Catalogue) -> None:
    checked = chapter(catalogue, "The Storm")
    assert checked.title == "The Storm"
    assert checked.body == {
        "text": "The harbour lay calm.\n\nThe storm came.",
        "corrections": [{"offset": 23, "before": "Teh", "after": "The", "rule": "spelling"}],
        "correction_count": 1,
        "word_count": 7,
        "readability_score": 75.5,
    }
    summary = derive(catalogue, "summarizer", [as_input(checked)])
    assert summary.body == {"summary": "A storm.", "word_count": 2, "source_word_count": 7, "ratio": 0.286}


def test_a_book_is_compiled_in_order_each_chapter_under_its_title(catalogue: Catalogue) -> None:
    chapters = [
        as_input(chapter(catalogue, "Dusk"), "a", 2),
        as_input(chapter(catalogue, "Dawn"), "b", 1),
    ]
    text = "The harbour lay calm.\n\nThe storm came."
    manuscript = derive(catalogue, "book-compiler", chapters)
    assert manuscript.body == {
        "text": f"# Dawn\n\n{text}\n\n# Dusk\n\n{text}",
        "chapters": [{"title": "Dawn", "position": 1, "words": 7}, {"title": "Dusk", "position": 2, "words": 7}],
        "word_count": 14,
    }
    assert derive(catalogue, "book-compiler", []).body == {"text": "", "chapters": [], "word_count": 0}


def test_a_long_book_is_within_the_budget_of_expressions(catalogue: Catalogue) -> None:
    body = {"text": "word " * 2000, "corrections": []}
    document = Document.parse({"content_type": "application/json", "data": body, "title": "T"})
    manuscript = derive(catalogue, "book-compiler", [as_input(document, f"b{n:04}", n) for n in range(500)])
    assert manuscript.body["word_count"] == 1_000_000


def test_every_packaged_schema_is_plain_json_schema() -> None:
    for file in (PROVIDERS / "schemas").glob("*.json"):
        assert "$schema" in load(file.read_text())
