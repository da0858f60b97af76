"""``python -m devstack``: a whole Studio in the foreground until SIGTERM, SIGINT or SIGHUP.

Exit status: 0 stopped when told to, 1 a service failed (the message names it and its log), 2 usage, 5 already
running in this state folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from pathlib import Path

from devstack.apps import APPS, App, Model
from devstack.errors import AlreadyRunning, DevstackError, ServiceFailed
from devstack.stack import DEFAULT_SERVERS, SERVERS, Stack
from devstack.supervisor import Supervisor, Watcher
from devstack.units import Unit

FAILED, CONFLICT = 1, 5
_APPS: tuple[type[App], ...] = (Model, *APPS)
REPLACEABLE = {app.name: app for app in _APPS}


def main(arguments: list[str] | None = None) -> int:
    """Run the supervisor; return the exit status."""
    options = _parser().parse_args(arguments)
    watch = _watcher(options.events_fd)
    stack = _stack(options, watch)
    try:
        Supervisor(stack, watch).run()
    except ServiceFailed as failure:
        watch("failed", failure.service, f"{failure.reason}; log: {failure.log}")
    except AlreadyRunning as error:
        watch("failed", "", str(error))
        return CONFLICT
    except DevstackError as error:
        watch("failed", "", str(error))
    else:
        return 0
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    parser.add_argument("--state-dir", type=Path, help="default: STUDIO_STATE_DIR, else .studio here")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[*SERVERS, *REPLACEABLE],
        help="do not start this service (can be repeated)",
    )
    parser.add_argument(
        "--command",
        action="append",
        default=[],
        type=_replacement,
        metavar="NAME=COMMAND",
        help="start an app by this command instead of its own (can be repeated)",
    )
    parser.add_argument("--events-fd", type=int, help="write what happens here, one JSON object a line")
    return parser


def _replacement(text: str) -> tuple[str, list[str]]:
    name, _, command = text.partition("=")
    if name not in REPLACEABLE or not command:
        raise argparse.ArgumentTypeError(f"NAME=COMMAND with NAME one of {', '.join(REPLACEABLE)}")
    return name, shlex.split(command)


def _stack(options: argparse.Namespace, watch: Watcher) -> Stack:
    commands: dict[str, list[str]] = dict(options.command)
    servers = [name for name in DEFAULT_SERVERS if name not in options.without]
    apps = [app(commands.get(name)) for name, app in REPLACEABLE.items() if name not in options.without]

    def report(event: str, unit: Unit) -> None:
        watch(event, unit.name, f"{unit.seconds:.2f} s")

    return Stack(options.state_dir, servers, apps=apps, report=report)


def _watcher(events_fd: int | None) -> Watcher:
    """Return what tells a person (stderr) or a program (JSON lines); it survives a reader that has left."""

    def watch(event: str, service: str, detail: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            if events_fd is None:
                print(" ".join(filter(None, (event, service, detail))), file=sys.stderr, flush=True)
            else:
                line = json.dumps({"event": event, "service": service, "detail": detail})
                os.write(events_fd, line.encode() + b"\n")

    return watch


if __name__ == "__main__":
    sys.exit(main())
