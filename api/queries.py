"""Query parameters that a route does not have: refused, because a misspelt one would silently change nothing."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request
from fastapi.routing import APIRoute

from domain.errors import Fault, Invalid


def require_known(request: Request, known: Collection[str]) -> None:
    """Raise Invalid ``unknown_field``, with a pointer for each, if there are query parameters beside these."""
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if not unknown:
        return
    said = f"Known are {', '.join(sorted(known))}." if known else "There are none here."
    faults = [Fault(f"/query/{name}", "unknown_field", said) for name in unknown]
    raise Invalid(f"Unknown query parameter {unknown[0]!r}.", code="unknown_field", faults=faults)


def require_documented(request: Request) -> None:
    """Raise Invalid for a query parameter that a write does not document; lists look at theirs (``api/pages.py``)."""
    if request.method == "GET" or not request.scope["query_string"]:
        return
    route = request.scope.get("route")
    described = (getattr(route, "openapi_extra", None) or {}).get("parameters", ())
    names = {parameter["name"] for parameter in described if parameter["in"] == "query"}
    if isinstance(route, APIRoute):
        names |= {declared.alias for declared in route.dependant.query_params}
    require_known(request, names)
