"""S3: SeaweedFS in one process, for content above the inline threshold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from devstack.binaries import binary
from devstack.ports import HOST
from devstack.probes import Answer, ask
from devstack.processes import Command
from devstack.services import Service, Site
from devstack.signature import sign

BUCKET = "memmie-studio-blobs"
CANARY = ".devstack-canary"
MEMORY_LIMIT = "256MiB"  # below the live heap (160 MiB) the garbage collector would burn a fifth of a core
_LISTENERS = ("s3", "master", "volume", "filer", "admin")  # each has a gRPC port too; all are set because the
# defaults are fixed numbers, on which two stacks would collide


def port_name(part: str, suffix: str) -> str:
    """Return our name of a port: ``s3`` for the store itself, ``s3.filer.grpc`` for what is inside."""
    return "s3" if (part, suffix) == ("s3", "") else f"s3.{part}{suffix}"


_PORTS = {port_name(part, suffix): f"-{part}.port{suffix}" for part in _LISTENERS for suffix in ("", ".grpc")}


class S3(Service):
    """The object store."""

    name = "s3"
    port_names = tuple(_PORTS)
    stop_wave = 3

    def external(self, environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:
        """Use the store at S3_ENDPOINT; its bucket must exist."""
        if not environ.get("S3_ENDPOINT"):
            return None
        return {
            "S3_ENDPOINT": environ["S3_ENDPOINT"],
            "S3_BUCKET": environ.get("S3_BUCKET", BUCKET),
            "S3_ACCESS_KEY": environ.get("S3_ACCESS_KEY", secrets["s3_access_key"]),
            "S3_SECRET_KEY": environ.get("S3_SECRET_KEY", secrets["s3_secret_key"]),
        }

    def endpoints(self, site: Site) -> dict[str, str]:
        """Return address, bucket and keys."""
        return {
            "S3_ENDPOINT": site.url("s3"),
            "S3_BUCKET": BUCKET,
            "S3_ACCESS_KEY": site.secrets["s3_access_key"],
            "S3_SECRET_KEY": site.secrets["s3_secret_key"],
        }

    def command(self, site: Site) -> Command:
        """Return the server; ``mini`` is ready in a second, ``server`` would take up to twelve.

        A master that resumes its own old state elects itself a moment too late for the volume server's first
        heartbeat one time in seven, which then waits five seconds; the heartbeat tells it the volumes anyway.
        """
        sockets = site.state.sockets()
        ports = [f"{option}={site.ports[name]}" for name, option in _PORTS.items()]
        return self.server(
            site,
            [
                binary("weed"), "-logtostderr=true", "mini", f"-dir={site.state.folder(self.name)}", f"-ip={HOST}",
                f"-ip.bind={HOST}", f"-bucket={BUCKET}", "-idleTimeout=2", "-volume.preStopSeconds=0",
                "-disableHttp", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
                "-master.telemetry=false", "-master.resumeState=false", *ports,
                f"-filer.localSocket={sockets}/filer.sock", f"-s3.localSocket={sockets}/s3.sock",
            ],
            AWS_ACCESS_KEY_ID=site.secrets["s3_access_key"],
            AWS_SECRET_ACCESS_KEY=site.secrets["s3_secret_key"],
            GOMEMLIMIT=MEMORY_LIMIT,
        )  # fmt: skip

    def ready(self, site: Site) -> bool:
        """Write an object and remove it."""
        if not ask(site.url("s3", "/healthz")).ok:
            return False
        address = site.url("s3", f"/{BUCKET}/{CANARY}")
        return signed(site, "PUT", address, b"ready").ok and signed(site, "DELETE", address, b"").ok


def signed(site: Site, method: str, url: str, body: bytes) -> Answer:
    """Send one signed request to our server."""
    headers = sign(
        method,
        url,
        body,
        access_key=site.secrets["s3_access_key"],
        secret_key=site.secrets["s3_secret_key"],
        now=dt.datetime.now(dt.UTC),
    )
    return ask(url, method=method, headers=headers, body=body)
