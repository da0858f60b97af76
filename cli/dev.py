"""``studio dev``, ``studio dev down``, ``studio doctor``: the functions behind the commands, free of typer.

Each returns the exit status. What a person reads goes to the terminal by rich; with ``as_json`` stdout carries one
JSON object (progress stays on stderr).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from devstack import control
from devstack.control import Event, Supervision
from devstack.doctor import Finding, examine
from devstack.endpoints import NAME
from devstack.errors import DevstackError
from devstack.processes import tail
from devstack.state import StateFolder, default_folder
from devstack.supervisor import STOP_SIGNALS

OK, FAILURE, INTERRUPTED = 0, 1, 130
LOG_LINES = 15

Out = Console(highlight=False)
Err = Console(stderr=True, highlight=False)


def dev(
    *,
    state_dir: Path | None = None,
    detach: bool = False,
    reset: bool = False,
    as_json: bool = False,
    arguments: Sequence[str] = (),
) -> int:
    """Run the whole Studio: in the foreground until Ctrl-C, or detached.

    0: up (detached), already running, or stopped in order; 1: a service failed, which is named with its log;
    130: stopped by Ctrl-C. ``arguments`` go to ``python -m devstack`` (leave out a service, replace a command).
    """
    folder = _folder(state_dir)
    try:
        if reset:
            control.reset(folder)
        if control.running(folder) is not None:
            return _already_running(folder, as_json=as_json)
        supervision = control.supervise(folder, detached=detach, arguments=arguments)
    except (DevstackError, OSError) as error:
        return _fail(str(error))
    if detach:
        return _until_up(supervision, folder, as_json=as_json)
    return _foreground(supervision, folder, as_json=as_json)


def down(*, state_dir: Path | None = None, as_json: bool = False) -> int:
    """Stop what runs in the state folder. 0 even if nothing does; afterwards no process, no endpoints file."""
    folder = _folder(state_dir)
    try:
        stopped = control.stop(folder)
    except (DevstackError, OSError) as error:
        return _fail(str(error))
    if as_json:
        print(json.dumps({"stopped": stopped, "state_dir": str(folder)}))
    else:
        Err.print("Stopped." if stopped else "Nothing was running.")
    return OK


def doctor(*, state_dir: Path | None = None, as_json: bool = False) -> int:
    """Name what is missing on this machine and the fix. 0 when a stack would run, else 1."""
    findings = examine(_folder(state_dir), os.environ)
    healthy = all(finding.level != "missing" for finding in findings)
    if as_json:
        looks = [{"name": f.name, "level": f.level, "detail": f.detail, "fix": f.fix} for f in findings]
        print(json.dumps({"healthy": healthy, "findings": looks}))
    else:
        _print_findings(findings)
    return OK if healthy else FAILURE


def _folder(state_dir: Path | None) -> Path:
    return state_dir.absolute() if state_dir else default_folder(os.environ)


def _fail(message: str) -> int:
    Err.print(f"[red]failed[/] {escape(message)}")
    return FAILURE


def _already_running(folder: Path, *, as_json: bool) -> int:
    found = control.await_up(folder)
    if found is None:
        return _fail(f"the stack in {folder} ended while it was starting; see {StateFolder(folder).logs}")
    Err.print("Already running.")
    _print_urls(found, folder, as_json=as_json, already_running=True)
    return OK


def _until_up(supervision: Supervision, folder: Path, *, as_json: bool) -> int:
    """Follow a detached start to its end, then leave it alone."""
    for event in supervision.events():
        _print_event(event)
        if event.event == "up":
            supervision.leave()
            _print_urls(control.read_endpoints(folder) or {}, folder, as_json=as_json)
            return OK
    return _ended(supervision, folder)


def _foreground(supervision: Supervision, folder: Path, *, as_json: bool) -> int:
    """Show what happens until the supervisor ends; pass stop signals on to it."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        received.append(number)
        supervision.stop()

    with _handling(pass_on):
        for event in supervision.events():
            _print_event(event)
            if event.event == "up":
                _print_urls(control.read_endpoints(folder) or {}, folder, as_json=as_json)
                Err.print("Ctrl-C stops everything.")
        status = _ended(supervision, folder)
    return INTERRUPTED if signal.SIGINT in received and status == OK else status


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler for the stop signals for the block."""
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _ended(supervision: Supervision, folder: Path) -> int:
    status = supervision.wait()
    if status == OK:
        return OK
    log = StateFolder(folder).log("supervisor")
    said = tail(log, LOG_LINES)
    if said:
        Err.print(escape(said))
    Err.print(f"The stack in {escape(str(folder))} is not running; its logs are in {escape(str(log.parent))}")
    return FAILURE


def _print_event(event: Event) -> None:
    marks = {"ready": "[green]ready[/]", "restarted": "[green]restarted[/]", "died": "[yellow]died[/]"}
    marks["failed"] = "[red]failed[/]"
    if event.event in marks:
        Err.print(f"{marks[event.event]} {event.service} [dim]{escape(event.detail)}[/]")


def _print_urls(found: dict[str, Any], folder: Path, *, as_json: bool, already_running: bool = False) -> None:
    urls = {
        "API": found.get("api_url"),
        "Temporal UI": found.get("temporal_ui_url"),
        "PostgreSQL": _without_password(found.get("database_url")),
        "NATS": _without_password(found.get("nats_url")),
        "S3": found.get("s3_endpoint"),
        "AI service": found.get("ai_url"),
    }
    file = str(folder / NAME)
    persistence = control.persistence(folder)
    if as_json:
        print(
            json.dumps(
                {
                    "already_running": already_running,
                    "api_url": found.get("api_url"),
                    "temporal_ui_url": found.get("temporal_ui_url"),
                    "endpoints_file": file,
                    "state": persistence,
                }
            )
        )
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, url in urls.items():
        table.add_row(name, f"[cyan]{escape(url or 'not given')}[/]")
    table.add_row("Keys", escape(file))
    Out.print(table)
    Out.print(escape(persistence), soft_wrap=True)


def _without_password(url: str | None) -> str | None:
    """Return a URL as it may stand on a screen."""
    if not url or "@" not in url:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _print_findings(findings: list[Finding]) -> None:
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    for finding in findings:
        colour = colours[finding.level]
        Out.print(f"[{colour}]{finding.level:8}[/] {finding.name}: {escape(finding.detail)}", soft_wrap=True)
        if finding.fix:
            Out.print(f"         fix: {escape(finding.fix)}", soft_wrap=True)
