"""The ai-service as an HTTP application: parse, take a place, ask the skill, answer with what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ai import grammar, metrics, skills, wire
from ai.completions import FREQUENCY_PENALTY, Completions, Prompt, Usage
from ai.guard import Admission, Guard
from ai.problems import ProblemOut, install
from domain.errors import UnsupportedMedia

CONCURRENCY_DEFAULT = 2
QUEUE_MAX_DEFAULT = 32
CLIENT_CLOSED_REQUEST = 499  # nobody reads it but the access log

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the service needs to know; ``token`` None means that anyone who reaches it may ask."""

    model_url: str
    model_name: str
    model_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    concurrency: int = CONCURRENCY_DEFAULT
    queue_max: int = QUEUE_MAX_DEFAULT


class Desk:
    """One request at work: takes a place at the model, stops when its client has gone, and measures."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._completions: Completions = request.app.state.completions
        self._admission: Admission = request.app.state.admission
        self._started = monotonic()

    async def ask(self, skill: Callable[[Completions], Awaitable[tuple[_T, Usage]]]) -> tuple[_T, wire.UsageOut]:
        """Run a skill that asks the model."""

        async def placed() -> tuple[_T, Usage]:
            async with self._admission.place():
                return await skill(self._completions)

        result, usage = await self._attended(placed())
        return result, self.usage(usage)

    def usage(self, usage: Usage = Usage()) -> wire.UsageOut:  # noqa: B008 - frozen
        """What the request cost so far."""
        return wire.UsageOut(
            model=usage.model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            duration_ms=round((monotonic() - self._started) * 1000),
        )

    async def _attended(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The work's result; it is cancelled, and its place given on, when nobody waits for it any more."""
        task = asyncio.create_task(work)
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientDisconnect
            return task.result()
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


def _json_only(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMedia("Send application/json.")


AtDesk = Annotated[Desk, Depends(Desk)]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemOut, "description": description}
    for status, description in {
        400: "The body is not JSON",
        401: "The token is missing or wrong",
        413: "The body is too large",
        415: "The body is not application/json",
        422: "A field cannot be accepted",
        429: "The queue for the model is full",
        502: "The model refused, or answered nothing usable",
        503: "The model does not answer now",
    }.items()
}
router = APIRouter(dependencies=[Depends(_json_only)], responses=_PROBLEMS)
probes = APIRouter(tags=["platform"])


@router.post("/analyze/style", operation_id="analyze_style", tags=["analyze"])
async def analyze_style(body: wire.TextIn, desk: AtDesk) -> wire.AnalyzedOut:
    """Tone, complexity, readability and style of a text; computed, no model is asked."""
    style = await asyncio.to_thread(metrics.analyse, body.text)
    return wire.AnalyzedOut(style=wire.StyleOut(**asdict(style)), usage=desk.usage())


@router.post("/generate/expand", operation_id="generate_expand", tags=["generate"])
async def generate_expand(body: wire.ExpandIn, desk: AtDesk) -> wire.ExpandedOut:
    """Two to four paragraphs on a text, one for each of its points."""
    subject = skills.subject_of(body.context)
    expanded, usage = await desk.ask(
        lambda model: skills.expand(model, body.original, style=body.style, subject=subject)
    )
    return wire.ExpandedOut(expanded=expanded, usage=usage)


@router.post("/generate/outline", operation_id="generate_outline", tags=["generate"])
async def generate_outline(body: wire.OutlineIn, desk: AtDesk) -> wire.OutlinedOut:
    """Section headings for a title."""
    sections, usage = await desk.ask(lambda model: skills.outline(model, body.title, style=body.style))
    return wire.OutlinedOut(outline="\n".join(f"- {section}" for section in sections), sections=sections, usage=usage)


@router.post("/generate/summarize", operation_id="generate_summarize", tags=["generate"])
async def generate_summarize(body: wire.TextIn, desk: AtDesk) -> wire.SummaryOut:
    """A short summary of a text."""
    summary, usage = await desk.ask(lambda model: skills.summarize(model, body.text))
    return wire.SummaryOut(summary=summary, usage=usage)


@router.post("/edit/style", operation_id="edit_style", tags=["edit"])
async def edit_style(body: wire.RestyleIn, desk: AtDesk) -> wire.RestyledOut:
    """A text in another style, paragraph by paragraph, with its readability before and after."""
    rewriting, usage = await desk.ask(lambda model: skills.restyle(model, body.text, style=body.style))
    before, after = await asyncio.to_thread(
        lambda: [asdict(metrics.readability(t)) for t in (body.text, rewriting.text)]
    )
    return wire.RestyledOut(
        text=rewriting.text,
        style_metrics=wire.StyleMetricsOut(
            before=wire.ReadabilityOut(**before),
            after=wire.ReadabilityOut(**after),
            parts_rewritten=rewriting.parts_rewritten,
            parts_kept=rewriting.parts_kept,
        ),
        usage=usage,
    )


@router.post("/edit/grammar", operation_id="edit_grammar", tags=["edit"])
async def edit_grammar(body: wire.TextIn, desk: AtDesk) -> wire.CorrectedOut:
    """A text with sure mistakes corrected by rule, and what was corrected; no model is asked."""
    text, corrections = await asyncio.to_thread(grammar.correct, body.text)
    return wire.CorrectedOut(
        text=text, corrections=[wire.CorrectionOut(**asdict(found)) for found in corrections], usage=desk.usage()
    )


@router.post("/complete", operation_id="complete", tags=["complete"])
async def complete(body: wire.CompleteIn, desk: AtDesk) -> wire.CompletedOut:
    """The model's answer to a question of one's own."""
    prompt = Prompt(
        system=body.system,
        user=body.prompt,
        schema=body.response_schema,
        tokens_max=body.max_tokens or wire.TOKENS_DEFAULT,
        temperature=body.temperature or 0.0,
        frequency_penalty=FREQUENCY_PENALTY if body.response_schema is None else 0.0,
    )

    (text, value), usage = await desk.ask(lambda model: skills.complete(model, prompt))
    return wire.CompletedOut(text=text, value=value, usage=usage)


@probes.get("/healthz", operation_id="healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@probes.get("/readyz", operation_id="readyz", responses={502: _PROBLEMS[502], 503: _PROBLEMS[503]})
async def readyz(request: Request) -> dict[str, str]:
    """The model API answers too."""
    completions: Completions = request.app.state.completions
    await completions.check()
    return {"status": "ready", "model": completions.model}


async def _nobody_there(request: Request, error: Exception) -> Response:
    del request, error
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def create_app(options: Options) -> FastAPI:
    """The application, with its own model client, which it closes when it stops."""
    completions = Completions(url=options.model_url, model=options.model_name, key=options.model_key)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await completions.close()

    app = FastAPI(title="Memmie Studio ai-service", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.completions = completions
    app.state.admission = Admission(concurrency=options.concurrency, queue_max=options.queue_max)
    app.include_router(router)
    app.include_router(probes)
    install(app)
    app.add_exception_handler(ClientDisconnect, _nobody_there)
    app.add_middleware(Guard, token=options.token)
    return app
