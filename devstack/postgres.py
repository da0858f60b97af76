"""PostgreSQL: the cluster is made on first start; loopback TCP only, passwords on every connection."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

from devstack.binaries import postgres_folder
from devstack.errors import DevstackError
from devstack.ports import HOST, accepts
from devstack.processes import Command, Identity
from devstack.services import Service, Site

ADMIN, APP, RELAY = "studio_admin", "studio_app", "studio_relay"
DATABASE = "studio"
MAX_CONNECTIONS = 200
SHARED_MEMORY_MIN_BYTES = 256 << 20  # containers often have 64 MB of /dev/shm: parallel queries would fail there
BUILTIN_LOCALE_SINCE = 17  # the first release with a locale of its own that knows Unicode
IO_METHOD_SINCE = 18
PSQL_TIMEOUT_SECONDS = 10


class Postgres(Service):
    """The database. Durable: fsync and synchronous_commit stay on."""

    name = "postgres"
    port_names = ("postgres",)
    stop_wave = 4
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # SIGTERM would wait for clients to leave

    def external(self, environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:
        """Use the given URLs. One URL of an administrator is enough: the two roles' URLs follow from it."""
        admin = environ.get("DATABASE_ADMIN_URL") or environ.get("DATABASE_URL")
        if not admin:
            return None
        urls = {
            "DATABASE_ADMIN_URL": admin,
            "DATABASE_URL": environ.get("DATABASE_URL") or with_role(admin, APP, secrets["postgres_app"]),
            "DATABASE_RELAY_URL": environ.get("DATABASE_RELAY_URL")
            or with_role(admin, RELAY, secrets["postgres_relay"]),
        }
        if "DATABASE_ADMIN_URL" not in environ and urlsplit(admin).username != APP:
            urls["DATABASE_URL"] = with_role(admin, APP, secrets["postgres_app"])
        return {**urls, **passwords(urls, secrets)}

    def endpoints(self, site: Site) -> dict[str, str]:
        """Return one URL per role."""
        port = site.ports["postgres"]
        accounts = {
            "DATABASE_ADMIN_URL": (ADMIN, site.secrets["postgres_admin"]),
            "DATABASE_URL": (APP, site.secrets["postgres_app"]),
            "DATABASE_RELAY_URL": (RELAY, site.secrets["postgres_relay"]),
        }
        urls = {
            name: f"postgresql://{role}:{password}@{HOST}:{port}/{DATABASE}"
            for name, (role, password) in accounts.items()
        }
        return {**urls, **passwords(urls, site.secrets)}

    def prepare(self, site: Site) -> Iterator[Command]:
        """Make the cluster unless it is there. It gets its name when it is whole; half-made, it is made again."""
        cluster, unfinished = self._cluster(site), site.state.path / "postgres.new"
        if cluster.is_dir():
            return
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        password_file = site.state.path / ".postgres-password"
        password_file.touch(mode=0o600)
        password_file.write_text(site.secrets["postgres_admin"] + "\n")
        identity = self._identity(site)
        if identity is not None:
            os.chown(unfinished, identity.uid, identity.gid)
            os.chown(password_file, identity.uid, identity.gid)
        try:
            yield self._as_server(site, self._initdb(unfinished, password_file), identity)
        finally:
            password_file.unlink(missing_ok=True)
        unfinished.rename(cluster)

    def command(self, site: Site) -> Command:
        """Return the server with the settings of this stack."""
        folder = postgres_folder()
        settings = {
            "listen_addresses": HOST,
            "port": str(site.ports["postgres"]),
            "unix_socket_directories": "",  # TCP only: no limit on the length of the state folder's path
            "shared_buffers": "128MB",
            "max_connections": str(MAX_CONNECTIONS),
            "log_min_messages": "warning",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            "timezone": "UTC",
        }
        if major(folder) >= IO_METHOD_SINCE:
            settings["io_method"] = "sync"  # no worker processes: the data fits the page cache
        if not enough_shared_memory():
            settings["dynamic_shared_memory_type"] = "mmap"
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._as_server(site, [folder / "postgres", "-D", self._cluster(site), *options], self._identity(site))

    def ready(self, site: Site) -> bool:
        """Answer SQL; the database itself is made here on the first start."""
        if not accepts(site.ports["postgres"]):
            return False
        found = psql(site, "postgres", f"select 1 from pg_database where datname = '{DATABASE}'")  # noqa: S608 - ours
        if found == "":
            psql(site, "postgres", f"create database {DATABASE}")
        return found == "1" and psql(site, DATABASE, "select 1") == "1"

    def _cluster(self, site: Site) -> Path:
        return site.state.path / self.name

    @staticmethod
    def _initdb(cluster: Path, password_file: Path) -> list[str | Path]:
        folder = postgres_folder()
        builtin = ["--locale-provider=builtin", "--locale=C.UTF-8"]
        locale = builtin if major(folder) >= BUILTIN_LOCALE_SINCE else ["--locale=C"]
        # --no-sync saves two seconds once; the kernel writes an empty cluster back within half a minute.
        return [
            folder / "initdb", "-D", cluster, "-U", ADMIN, f"--pwfile={password_file}", "--encoding=UTF8", *locale,
            "--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--wal-segsize=4", "--no-sync",
            "--no-instructions",
        ]  # fmt: skip

    def _as_server(self, site: Site, argv: list[str | Path], identity: Identity | None) -> Command:
        return Command(
            argv=[str(argument) for argument in argv],
            env=site.server_env(HOME="/"),
            cwd=Path("/"),  # the dropped identity may not enter ours
            death_signal=self.stop_signal,
            identity=identity,
        )

    def _identity(self, site: Site) -> Identity | None:
        """Return who the server becomes: nobody, or whoever owns the cluster; None when we are not root."""
        if os.geteuid() != 0:
            return None
        uid, gid = nobody()
        cluster = self._cluster(site)
        if cluster.is_dir() and cluster.stat().st_uid != 0:
            uid, gid = cluster.stat().st_uid, cluster.stat().st_gid
        open_path = passable(site.state.path) and passable(postgres_folder() / "postgres")
        return Identity(uid, gid, access=not open_path)


def psql(site: Site, database: str, sql: str) -> str | None:
    """Run one statement as the administrator; return its unaligned output, None when the server refuses."""
    env = site.server_env(PGPASSWORD=site.secrets["postgres_admin"], PGCONNECT_TIMEOUT="3")
    address = ["-h", HOST, "-p", str(site.ports["postgres"]), "-U", ADMIN, "-d", database]
    try:
        done = subprocess.run(
            [str(postgres_folder() / "psql"), "-XAtq", *address, "-c", sql],
            env=env,
            capture_output=True,
            text=True,
            timeout=PSQL_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def with_role(url: str, role: str, password: str) -> str:
    """Return the same database's URL for another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{parts.netloc.rpartition('@')[2]}"))


def passwords(urls: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the passwords that migrate gives the two roles: those in their URLs."""
    return {
        "DATABASE_APP_PASSWORD": urlsplit(urls["DATABASE_URL"]).password or secrets["postgres_app"],
        "DATABASE_RELAY_PASSWORD": urlsplit(urls["DATABASE_RELAY_URL"]).password or secrets["postgres_relay"],
    }


def major(folder: Path) -> int:
    """Return the major version of the binaries in a folder."""
    said = subprocess.run(
        [str(folder / "postgres"), "--version"],
        capture_output=True,
        text=True,
        timeout=PSQL_TIMEOUT_SECONDS,
        check=True,
    ).stdout
    found = re.search(r"(\d+)", said)
    if found is None:
        raise DevstackError(f"{folder / 'postgres'} does not say its version: {said!r}")
    return int(found.group(1))


def enough_shared_memory() -> bool:
    """Tell whether /dev/shm has room for parallel queries."""
    try:
        space = os.statvfs("/dev/shm")  # noqa: S108 - we only look at its size
    except OSError:
        return False
    return space.f_frsize * space.f_bavail >= SHARED_MEMORY_MIN_BYTES


def passable(path: Path) -> bool:
    """Tell whether everybody may pass through all folders above a path and, for a file, execute it."""
    everybody = 0o001
    return all(folder.stat().st_mode & everybody for folder in (path, *path.parents))


def nobody() -> tuple[int, int]:
    """Return uid and gid of the account with no rights."""
    try:
        account = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return account.pw_uid, account.pw_gid
