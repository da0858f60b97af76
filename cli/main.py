"""``studio``: Memmie Studio from a terminal, over the HTTP API (but for ``dev``, ``doctor``, ``demo``, ``admin``)."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    admin,
    blobs,
    buckets,
    budgets,
    cascades,
    catalogue,
    comparisons,
    dead_letters,
    deltas,
    exits,
    instances,
    plans,
    queues,
    reprocess,
    requests,
    runs,
    transfers,
    whys,
)
from cli.output import AsJson, details, forget, print_json, say, show, show_problem, wants_json

app = typer.Typer(
    name="studio",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Memmie Studio: blobs, what is derived from them, and why. It talks to the API that STUDIO_API_URL and"
    " STUDIO_API_KEY name, else to the stack that runs in STUDIO_STATE_DIR or in .studio here.",
)
dev = typer.Typer(invoke_without_command=True, help="Run the whole stack: here until Ctrl-C, or detached.")

app.add_typer(dev, name="dev")
app.add_typer(blobs.app, name="blob")
app.add_typer(buckets.app, name="bucket")
app.add_typer(catalogue.workflows, name="workflow")
app.add_typer(catalogue.providers, name="provider")
app.add_typer(catalogue.schemas, name="schema")
app.add_typer(runs.app, name="run")
app.add_typer(dead_letters.app, name="dead-letter")
app.add_typer(cascades.app, name="cascade")
app.add_typer(budgets.app, name="budget")
app.add_typer(whys.derivations, name="derivation")
app.add_typer(runs.events, name="events")
app.add_typer(admin.app, name="admin")
app.command()(requests.api)
app.command()(queues.queue)
app.command()(runs.approvals)
app.command()(transfers.quota)
blobs.app.command("why")(whys.blob_why)
blobs.app.command("reprocess")(reprocess.blob_reprocess)
whys.derivations.command("reprocess")(reprocess.derivation_reprocess)
catalogue.providers.command()(instances.instance)
catalogue.providers.command()(instances.configure)
catalogue.providers.command()(instances.activate)
catalogue.providers.command()(instances.pause)
catalogue.providers.command("explain")(whys.provider_explain)
admin.app.command("limits")(transfers.limits)
cascades.app.command()(plans.plan)
cascades.app.command()(plans.planned)
blobs.app.command("import")(transfers.import_)
blobs.app.command("export")(transfers.export)
for command in (
    comparisons.diff,
    comparisons.compare,
    deltas.revert,
    deltas.restore,
    deltas.reset,
    deltas.proposals,
    deltas.accept,
    deltas.reject,
):
    blobs.app.command()(command)


@dev.callback()
def dev_up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all answers; `studio dev down` stops it.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Begin with nothing: data, logs and keys are removed.")
    ] = False,
    as_json: AsJson = None,
) -> None:
    """Run the whole stack: here until Ctrl-C, or detached."""
    from cli import dev as stack  # noqa: PLC0415 - only who starts servers needs it

    if context.invoked_subcommand is None:
        raise typer.Exit(stack.dev(detach=detach, reset=reset, as_json=bool(as_json)))


@dev.command("down")
def dev_down(as_json: AsJson = None) -> None:
    """Stop the stack; 0 even if nothing runs."""
    from cli import dev as stack  # noqa: PLC0415 - as above

    raise typer.Exit(stack.down(as_json=bool(as_json)))


@app.command()
def doctor(as_json: AsJson = None) -> None:
    """Say what is missing on this machine, and the fix."""
    from cli import dev as stack  # noqa: PLC0415 - as above

    raise typer.Exit(stack.doctor(as_json=bool(as_json)))


@app.command()
def demo(
    svg: Annotated[Path | None, typer.Option(help="Draw what is shown into this file too.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Begin with nothing: its earlier data is removed.")] = False,
    as_json: AsJson = None,
) -> None:
    """Tell the book story on a stack of its own, and check every claim in its database.

    Exit 1 if a claim does not hold. Its state folder is STUDIO_STATE_DIR, else .studio-demo.
    """
    from cli.demo import run  # noqa: PLC0415 - only who wants the story needs it

    raise typer.Exit(run(svg=svg, reset=reset, as_json=bool(as_json)))


@app.command()
def version(as_json: AsJson = None) -> None:
    """Say which version this is, and which one the API is, if it answers."""
    from cli.versions import own_version, version_of_api  # noqa: PLC0415 - as above

    answers = version_of_api()
    body = {"version": own_version(), "api": answers}
    if wants_json(as_json):
        print_json(body)
    else:
        sys.stdout.write(f"studio {body['version']}\n")
        say(f"API {answers['version']} ({answers['name']})" if answers else "No API answers.")


@app.command()
def whoami(as_json: AsJson = None) -> None:
    """Say whose key is used and what it allows."""
    from cli.session import talk  # noqa: PLC0415 - as above

    show(as_json, talk(lambda studio: studio.me()).body, details("user_id name roles scopes expires_at api_key_id"))


def main() -> None:
    """Run one command; end with its exit status (``cli/exits.py``)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    status = status_of(sys.argv[1:])
    if "temporalio" in sys.modules:  # its threads may be at work yet: they abort an interpreter that ends under them
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def status_of(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    forget()
    try:
        app(arguments, prog_name="studio")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        _let_go_of_stdout()
    except TimeoutError:
        say("It is not over yet; look again later.")
        return exits.RETRYABLE
    except Exception as error:  # noqa: BLE001 - told apart here, the rest is raised again
        return _failed(error)
    return exits.OK


def _failed(error: Exception) -> int:
    from cli.conflicts import explained  # noqa: PLC0415 - only after a failure
    from sdk.endpoints import NoEndpoints  # noqa: PLC0415 - as above
    from sdk.problems import ApiProblem, unreachable  # noqa: PLC0415 - as above

    if isinstance(error, NoEndpoints):
        error = unreachable("The API", str(error))
    if not isinstance(error, ApiProblem):
        raise error
    show_problem(error, explained(error))
    return exits.exit_status(error)


def _let_go_of_stdout() -> None:
    """Whoever read our output has gone; what is still buffered must not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
