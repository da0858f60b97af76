"""The stack's own credentials: made once, kept in the state folder (0600), given to children by environment."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

BYTES = 24
# name -> prefix; an API key carries the prefix of CONTRACT.md
KINDS = {
    "postgres_admin": "",
    "postgres_app": "",
    "postgres_relay": "",
    "nats": "",
    "nats_listener": "",
    "s3_access_key": "",
    "s3_secret_key": "",
    "ai_token": "",
    "model_api_key": "",
    "dev_api_key": "mst_live_",
    "admin_api_key": "mst_live_",
}


def complete(known: Mapping[str, str]) -> dict[str, str]:
    """Return all credentials: the known ones kept, the missing ones made (hexadecimal, safe in any URL)."""
    return {name: known.get(name) or prefix + secrets.token_hex(BYTES) for name, prefix in KINDS.items()}
