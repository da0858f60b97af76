"""The stores of the settings, opened alike by the API, the worker and the command line."""

from __future__ import annotations

from settings import Settings, required
from storage.caches import caches
from storage.contents import Contents
from storage.database import Database
from storage.object_stores import object_store
from storage.objects import Objects
from storage.uploads import Uploads


def make_objects(settings: Settings) -> Objects:
    """Return the object store. Raises Invalid for a missing setting."""
    blobs = settings.storage.blobs
    return object_store(
        folder=required(blobs.path, "storage.blobs.path") if blobs.backend == "filesystem" else None,
        bucket=blobs.bucket,
        endpoint=blobs.endpoint,
        access_key=blobs.access_key.get_secret_value() if blobs.access_key else None,
        secret_key=blobs.secret_key.get_secret_value() if blobs.secret_key else None,
    )


def make_contents(settings: Settings, database: Database, objects: Objects) -> Contents:
    """Return the content store with its caches."""
    cache = settings.storage.cache
    hot = caches(
        database,
        bytes_max=cache.bytes_max,
        url=cache.url.get_secret_value() if cache.url else None,
        ttl=cache.ttl,
    )
    return Contents(database, objects, inline_max=settings.storage.inline_max, caches=hot)


def make_uploads(settings: Settings, database: Database, objects: Objects) -> Uploads:
    """Return the uploads."""
    return Uploads(
        database,
        objects,
        part_size=settings.storage.part_size,
        inline_max=settings.storage.inline_max,
        lifetime=settings.storage.upload_expires,
    )
