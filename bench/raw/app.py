"""A bare FastAPI application over one asyncpg pool, served as ours is: ``python -m bench.raw.app --port N``."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from bench.raw import database

POOL_SIZE = 16
USER = UUID(int=1)


class NewBlob(BaseModel):
    """What a client sends."""

    content: str
    content_type: str = "text/plain"
    title: str = ""
    metadata: dict[str, Any] = {}


class Blob(BaseModel):
    """What a client gets."""

    blob_id: UUID
    version: int
    content: str
    content_type: str
    title: str
    metadata: dict[str, Any]
    created_at: datetime


class Edit(BaseModel):
    """A new content for a known version."""

    version: int
    content: str


class Edited(BaseModel):
    """The version after it."""

    blob_id: UUID
    version: int
    content: str


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    application.state.pool = await database.connect(os.environ["DATABASE_ADMIN_URL"], size=POOL_SIZE)
    yield
    await application.state.pool.close()


app = FastAPI(lifespan=_lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/blob", status_code=201)
async def create(new: NewBlob) -> Blob:
    blob_id, delta_id = uuid4(), uuid4()
    digest = hashlib.sha256(new.content.encode()).hexdigest()
    created_at = await app.state.pool.fetchval(
        database.CREATE, blob_id, USER, new.content_type, new.content, digest, delta_id, str(blob_id)
    )
    return Blob(blob_id=blob_id, version=1, created_at=created_at, **new.model_dump())


@app.patch("/blob/{blob_id}")
async def update(blob_id: UUID, edit: Edit) -> Edited:
    digest = hashlib.sha256(edit.content.encode()).hexdigest()
    version = await app.state.pool.fetchval(
        database.UPDATE, blob_id, edit.version, edit.content, digest, uuid4(), str(blob_id)
    )
    if version is None:
        raise HTTPException(412)
    return Edited(blob_id=blob_id, version=version, content=edit.content)


@app.get("/graph/{root}")
async def graph(root: UUID) -> list[dict[str, Any]]:
    return [dict(row) for row in await app.state.pool.fetch(database.GRAPH, root)]


def main() -> None:
    """Serve with the same server and settings as our API."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
    )


if __name__ == "__main__":
    main()
