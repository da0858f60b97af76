"""NATS with JetStream: tells others what happened; the outbox in PostgreSQL stays the truth."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from devstack.binaries import binary
from devstack.ports import HOST
from devstack.probes import ask
from devstack.processes import Command
from devstack.services import Service, Site

USER, LISTENER = "studio", "listener"

_CONFIGURATION = """\
server_name: studio
host: "{host}"
port: {nats}
http: "{host}:{monitor}"
jetstream {{
  store_dir: {store}
  max_mem: 64M
  max_file: 2G
  sync_interval: "10s"
}}
websocket {{
  host: "{host}"
  port: {websocket}
  no_tls: true
}}
authorization {{
  users: [
    {{ user: {user}, password: {password} }}
    {{ user: {listener}, password: {listener_password}, permissions: {{
      subscribe: ["studio.>", "_INBOX.>"], publish: {{ deny: ">" }}
    }} }}
  ]
}}
"""


class Nats(Service):
    """The message server: one account that may do everything, one that may only listen."""

    name = "nats"
    port_names = ("nats", "nats.monitor", "nats.websocket")
    stop_wave = 3

    def external(self, environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:  # noqa: ARG002
        """Use the server at NATS_URL."""
        return {"NATS_URL": environ["NATS_URL"]} if environ.get("NATS_URL") else None

    def endpoints(self, site: Site) -> dict[str, str]:
        """Return the address for each account, and the websocket's, where a client shows the account itself."""
        address = f"{HOST}:{site.ports['nats']}"
        return {
            "NATS_URL": f"nats://{USER}:{site.secrets['nats']}@{address}",
            "NATS_LISTENER_URL": f"nats://{LISTENER}:{site.secrets['nats_listener']}@{address}",
            "NATS_WEBSOCKET_URL": f"ws://{HOST}:{site.ports['nats.websocket']}",
        }

    def command(self, site: Site) -> Command:
        """Write the configuration (it holds passwords: 0600) and return the server."""
        file = site.state.folder(self.name) / "nats.conf"
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as output:
            output.write(self._configuration(site, file.parent))
        return self.server(site, [binary("nats-server"), "-c", file])

    def ready(self, site: Site) -> bool:
        """JetStream is up."""
        return ask(site.url("nats.monitor", "/healthz?js-enabled-only=true")).ok

    @staticmethod
    def _configuration(site: Site, folder: Path) -> str:
        return _CONFIGURATION.format(
            host=HOST,
            nats=site.ports["nats"],
            monitor=site.ports["nats.monitor"],
            websocket=site.ports["nats.websocket"],
            store=json.dumps(str(folder)),
            user=USER,
            password=json.dumps(site.secrets["nats"]),
            listener=LISTENER,
            listener_password=json.dumps(site.secrets["nats_listener"]),
        )
