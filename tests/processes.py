"""Sluice as its deployer runs it: `bot.py run` in processes of its own, set up by the environment alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.server_base import Server, ServerError, find
from tests.servers import Dovecot

T = TypeVar("T")
BOT = Path(__file__).parents[1] / "bot.py"
_URL = re.compile(rb"^Sluice is at (\S+)$", re.M)


def until(check: Callable[[], T], what: str, seconds: float = 60.0, every: float = 0.005) -> T:
    """What `check` says as soon as that is true: for what another process does, which sends no signal."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)
    return found


class SluiceProcess(Server):
    """`bot.py run` with some roles. `url` is where its web server listens, if it has that role."""

    name = "sluice"
    unprivileged = False

    def __init__(self, environment: Mapping[str, str], roles: Collection[str] = ()) -> None:
        super().__init__()
        self.environment = dict(environment)
        self.roles = tuple(roles)
        self.url = ""
        self._said = 0

    def command(self) -> list[str]:
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        roles = [part for role in self.roles for part in ("--role", role)]
        return [find("env"), *settings, sys.executable, str(BOT), "run", *roles]

    def start(self) -> None:
        output = self.dir / "output"
        self._said = output.stat().st_size if output.exists() else 0
        super().start()

    def ready(self) -> bool:
        """A web server says where it is; other roles show themselves by their work alone."""
        if self.roles and "web" not in self.roles:
            return True
        with (self.dir / "output").open("rb") as output:
            output.seek(self._said)
            found = _URL.search(output.read())
        self.url = found[1].decode() if found else ""
        return found is not None

    def strike(self) -> None:
        """`kill -9` now, from any thread; `kill` afterwards collects what is left."""
        process = self.process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def dead(self) -> bool:
        return self.process is None or self.process.poll() is not None


@dataclass
class Deployment:
    """One world: a state folder and the settings that all its processes share."""

    state_dir: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLUICE_STATE_DIR": str(self.state_dir), "SLUICE_WEB__PORT": "0", **self.settings}

    @property
    def database_url(self) -> str:
        return self.settings.get("SLUICE_DATABASE__URL") or f"sqlite:///{self.state_dir / 'sluice.db'}"

    def process(self, *roles: str) -> SluiceProcess:
        """A process to be started: `with deployment.process("web") as web:`. All roles when none is named."""
        return SluiceProcess(self.environment, roles)

    def command(self, *words: str, given: str = "") -> str:
        """Stdout of a command of `bot.py`. Raises `ServerError` when it fails."""
        done = subprocess.run(
            [sys.executable, str(BOT), *words],
            input=given, capture_output=True, text=True, env={**os.environ, **self.environment}, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ServerError(f"bot.py {' '.join(words)}: {done.stderr}")
        return done.stdout

    def token(self, name: str, role: str) -> str:
        """A new token's secret."""
        return self.command("token", "add", name, "--role", role).splitlines()[-1]

    def user(self, name: str, role: str, password: str, *departments: str) -> None:
        words = [word for department in departments for word in ("--department", department)]
        self.command("user", "add", name, "--role", role, *words, "--password-stdin", given=password + "\n")

    def export(self, what: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.command("export", what, "--jsonl").splitlines()]


def mail_settings(dovecot: Dovecot, smtp_port: int, address: str) -> dict[str, str]:
    """Settings of the mail channel: one mailbox of Dovecot, and an SMTP server on this machine."""
    given = {
        "ENABLED": "true",
        "FROM_ADDRESS": address,
        "MAILBOXES__0__HOST": dovecot.host,
        "MAILBOXES__0__PORT": str(dovecot.port),
        "MAILBOXES__0__USER": address,
        "MAILBOXES__0__PASSWORD": dovecot.password,
        "MAILBOXES__0__TLS": "false",
        "SMTP__HOST": "127.0.0.1",
        "SMTP__PORT": str(smtp_port),
        "SMTP__TLS": "none",
    }
    return {f"SLUICE_MAIL__{name}": value for name, value in given.items()}
