"""``studio budget``: what paid steps may spend, what they did, and who waits for more."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, details, page, show
from cli.session import LIMIT_DEFAULT, Cursor, Every, Limit, fetch_page, talk

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Your budget: what paid steps may spend, and did.")

MICROS = 1_000_000
DOLLARS_MAX = 1_000_000_000
UNLIMITED = "unlimited"
NAMES = ("limit", "spent", "reserved", "remaining", "needed")


@app.command("show")
def show_(as_json: AsJson = None) -> None:
    """Show what is limited, spent, reserved and left, and how many derivations wait for how much."""
    show(as_json, talk(lambda studio: studio.budget()).body, _drawn)


@app.command("set")
def set_(
    limit: Annotated[str, typer.Argument(metavar="DOLLARS", help=f"Such as 5 or 0.25, or {UNLIMITED}.")],
    as_json: AsJson = None,
) -> None:
    """Set the limit. Who waits for money goes on as far as it reaches."""
    wanted = None if limit == UNLIMITED else micros(limit)
    show(as_json, talk(lambda studio: studio.set_budget(wanted)).body, _drawn)


@app.command("top-up")
def top_up(
    amount: Annotated[str, typer.Argument(metavar="DOLLARS", help="What to add, such as 5 or 0.25.")],
    as_json: AsJson = None,
) -> None:
    """Raise the limit. Who waits for money goes on first come first served, and pays nothing twice."""
    more = micros(amount)
    if not more:
        raise typer.BadParameter("There is nothing to add: give dollars, such as 5 or 0.25.")
    show(as_json, talk(lambda studio: studio.top_up(more)).body, _drawn)


@app.command()
def charges(
    cascade: Annotated[str | None, typer.Option(help="Of this cascade.")] = None,
    run: Annotated[str | None, typer.Option(help="Of this run.")] = None,
    provider: Annotated[str | None, typer.Option(help="Of this provider.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List what paid steps did cost, newest first."""
    filters = {"cascade_id": cascade, "run_id": run, "provider_id": provider}
    body = fetch_page("/budget/charges", limit=limit, cursor=cursor, every=every, **filters)
    columns = {
        "cost": lambda row: dollars(row["amount"]),
        "tokens": lambda row: f"{row['prompt_tokens']} + {row['completion_tokens']}",
    }
    show(as_json, body, page("created_at provider_id step_id model tokens cost run_id", columns))


def micros(text: str) -> int:
    """Return dollars as whole micro-dollars. A usage error for anything else."""
    try:
        amount = Decimal(text.removeprefix("$")) * MICROS
        whole = int(amount)
    except (InvalidOperation, ValueError, OverflowError):
        whole, amount = -1, Decimal(0)
    if not 0 <= whole <= DOLLARS_MAX * MICROS or whole != amount:
        detail = "dollars with up to six decimals, such as 5 or 0.25, a billion at most"
        raise typer.BadParameter(f"{text} is no amount: {detail}.")
    return whole


def dollars(amount: int | None) -> str:
    """Return micro-dollars as people read them, with no digit lost."""
    if amount is None:
        return "unlimited"
    return f"${amount // MICROS}.{amount % MICROS:06d}"


def _drawn(body: Any) -> RenderableType:
    flat = {**body, "needed": body["blocked"]["needed"]}
    flat |= {name: dollars(flat[name]) for name in NAMES}
    flat["waiting"] = f"{body['blocked']['derivations']} derivations"
    return details("limit spent reserved remaining waiting needed managed resumed resumed_cascades")(flat)
