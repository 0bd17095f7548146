"""The real servers that tests talk to. Each runs on a free loopback port, in a temporary folder, and is stopped again.

As classes (`with RedisServer() as server: ...`), and as fixtures through `pytest_plugins` in conftest.py.
"""

from __future__ import annotations

import contextlib
import glob
import signal
import subprocess
import uuid
from collections.abc import Iterator

import psycopg
import pytest
import redis

from tests.mail_servers import Dovecot, MailDrop, Postfix
from tests.server_base import HOST, ROOT, Server, ServerError, find, free_port, listening

__all__ = [
    "Dovecot",
    "MailDrop",
    "Postfix",
    "PostgresServer",
    "RedisServer",
    "Server",
    "ServerError",
    "chromium",
    "dovecot",
    "find",
    "free_port",
    "listening",
    "postfix",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
]  # fmt: skip


class RedisServer(Server):
    name = "redis-server"

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def command(self) -> list[str]:
        return [find(self.name), "--bind", HOST, "--port", str(self.port), "--dir", str(self.dir), "--save", ""]

    def ready(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(HOST, self.port) as client:
            return bool(client.ping())
        return False


class PostgresServer(Server):
    name = "postgres"
    stop_signal = signal.SIGQUIT  # nothing in it is worth a checkpoint

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__()
        self.durable = durable
        #: Debian keeps each version's programs in a folder of its own; the newest first
        self.folders = tuple(sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True))

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        return f"postgresql+psycopg://sluice@{self.host}:{self.port}/{name}"

    def prepare(self) -> None:
        if (self.dir / "data").exists():
            return
        initdb = [find("initdb", folders=self.folders), "--auth=trust", "--username=sluice", "--encoding=UTF8"]
        if self._drops():
            self.own(self.dir)
        done = subprocess.run(
            [*self._wrapper(), *initdb, "--locale=C.UTF-8", "--no-sync", "-D", str(self.dir / "data")],
            check=False, capture_output=True, text=True, cwd=self.dir,
        )  # fmt: skip
        if done.returncode:
            raise ServerError(f"initdb: {done.stderr}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST, "unix_socket_directories": "", "max_connections": "200",
            **({} if self.durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}),
        }  # fmt: skip
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [find(self.name, folders=self.folders), "-D", str(self.dir / "data"), "-p", str(self.port), *options]

    def _admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=HOST, port=self.port, user="sluice", dbname="postgres", autocommit=True)

    def ready(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self._admin():
            return True
        return False

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """URL of an empty database, dropped at the end with everybody in it."""
        name = f"t_{uuid.uuid4().hex}"
        with self._admin() as admin:
            admin.execute(f"create database {name}".encode())
        try:
            yield self.database_url(name)
        finally:
            with self._admin() as admin:
                admin.execute(f"drop database {name} with (force)".encode())


# --- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as server:
        yield server


@pytest.fixture(scope="session")
def postfix(dovecot: Dovecot) -> Iterator[Postfix | MailDrop]:
    """Postfix where we may start it, else a small SMTP server that delivers to the same Maildirs."""
    with Postfix(dovecot.mail_root) if ROOT else MailDrop(dovecot.mail_root, free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    return find("chromium", "chromium-browser", "google-chrome")
