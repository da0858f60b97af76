"""Which object store the settings name."""

from __future__ import annotations

from pathlib import Path

from storage.object_files import FileObjects
from storage.objects import Objects, S3Objects


def object_store(
    *, folder: Path | None, bucket: str, endpoint: str | None, access_key: str | None, secret_key: str | None
) -> Objects:
    """Return the store in a folder if one is given, else the one at an S3 server."""
    if folder is not None:
        return FileObjects(folder)
    return S3Objects(bucket, endpoint=endpoint, access_key=access_key, secret_key=secret_key)
