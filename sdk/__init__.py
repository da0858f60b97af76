"""What API clients and provider developers install: a client of the HTTP API that needs nothing else of ours."""

from sdk.answers import Answer
from sdk.client import Studio
from sdk.endpoints import Endpoints, NoEndpoints, find_endpoints
from sdk.problems import ApiProblem

__all__ = ["Answer", "ApiProblem", "Endpoints", "NoEndpoints", "Studio", "find_endpoints"]
