"""Temporal's development server with its Web UI, tuned; its state is re-creatable from PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from devstack.binaries import binary
from devstack.ports import HOST
from devstack.probes import ask
from devstack.processes import Command
from devstack.services import Service, Site

NAMESPACE = "memmie-studio"
RETENTION_DAYS = 30
RETENTION = f"{RETENTION_DAYS * 24 * 60 * 60}s"
SEARCH_ATTRIBUTES = ("StudioUser", "StudioBlob", "StudioProvider", "StudioCascade", "StudioOutcome")

# "tuned-2" of the measurements: the limits of a shared production server make no sense on one's own machine, a
# poll rate of 20 per second costs 50 ms per hop, and re-reading the search attributes costs a third of the CPU.
_WITHOUT_LIMIT = 100_000
_DYNAMIC: dict[str, Any] = {
    **dict.fromkeys(
        ("frontend.rps", "frontend.namespaceRPS", "frontend.globalNamespaceRPS", "history.rps", "matching.rps"),
        _WITHOUT_LIMIT,
    ),
    **{f"{part}.persistenceMaxQPS": 1_000_000 for part in ("frontend", "history", "matching", "worker")},
    **{f"history.{queue}ProcessorMaxPollRPS": 5000 for queue in ("transfer", "timer", "visibility")},
    "matching.numTaskqueueReadPartitions": 1,
    "matching.numTaskqueueWritePartitions": 1,
    "system.forceSearchAttributesCacheRefreshOnRead": False,
    "system.enableEagerWorkflowStart": True,
    "system.enableActivityEagerExecution": True,
    "matching.useNewMatcher": True,
    "matching.enableFairness": True,
}
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")  # half the server's CPU; safe against a kill


class Temporal(Service):
    """The workflow engine."""

    name = "temporal"
    port_names = ("temporal", "temporal.ui", "temporal.http", "temporal.metrics")
    stop_wave = 3

    def external(self, environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:  # noqa: ARG002
        """Use the cluster at TEMPORAL_HOST; the namespace and search attributes are its operator's."""
        if not environ.get("TEMPORAL_HOST"):
            return None
        return {
            "TEMPORAL_HOST": environ["TEMPORAL_HOST"],
            "TEMPORAL_NAMESPACE": environ.get("TEMPORAL_NAMESPACE", NAMESPACE),
            "TEMPORAL_UI_URL": environ.get("TEMPORAL_UI_URL", ""),
        }

    def endpoints(self, site: Site) -> dict[str, str]:
        """Return address, namespace and the Web UI."""
        return {
            "TEMPORAL_HOST": f"{HOST}:{site.ports['temporal']}",
            "TEMPORAL_NAMESPACE": NAMESPACE,
            "TEMPORAL_UI_URL": site.url("temporal.ui"),
        }

    def command(self, site: Site) -> Command:
        """Return the server on its own database file."""
        ports = {"port": "temporal", "ui-port": "temporal.ui", "http-port": "temporal.http"}
        ports["metrics-port"] = "temporal.metrics"
        database = site.state.folder(self.name) / "temporal.db"
        return self.server(
            site,
            [
                binary("temporal"), "server", "start-dev", "--ip", HOST, "--db-filename", database,
                *(part for flag, port in ports.items() for part in (f"--{flag}", str(site.ports[port]))),
                *(part for pragma in _PRAGMAS for part in ("--sqlite-pragma", pragma)),
                "--namespace", NAMESPACE,
                *(part for name in SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")),
                *(
                    part
                    for key, value in _DYNAMIC.items()
                    for part in ("--dynamic-config-value", f"{key}={json.dumps(value)}")
                ),
                "--log-level", "error", "--ui-disable-news-fetch",
            ],
        )  # fmt: skip

    def ready(self, site: Site) -> bool:
        """Describe the namespace and serve the UI."""
        return retention(site) is not None and ask(site.url("temporal.ui")).ok

    def complete(self, site: Site) -> Iterator[Command]:
        """Keep closed workflows for 30 days; the server's own default is one. Kept in its database: done once."""
        if retention(site) != RETENTION:
            yield self.server(
                site,
                [
                    binary("temporal"), "operator", "namespace", "update", "--namespace", NAMESPACE,
                    "--retention", f"{RETENTION_DAYS}d", "--address", f"{HOST}:{site.ports['temporal']}",
                ],
            )  # fmt: skip


def retention(site: Site) -> str | None:
    """Return how long the namespace keeps closed workflows ("2592000s"), None while it does not answer."""
    answer = ask(site.url("temporal.http", f"/api/v1/namespaces/{NAMESPACE}"))
    if not answer.ok:
        return None
    return str(json.loads(answer.body)["config"]["workflowExecutionRetentionTtl"])
