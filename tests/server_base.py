"""A server process of the tests: a free loopback port, a temporary folder, and a sure end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
ROOT = os.geteuid() == 0
#: servers that refuse to run as root run as this user
USER = "nobody" if ROOT else pwd.getpwuid(os.geteuid()).pw_name
UID, GID = pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid
_PLACES = ("/usr/sbin", "/sbin", "/usr/local/bin")


class ServerError(RuntimeError):
    """A server is missing or does not start."""


def find(*names: str, folders: tuple[str, ...] = ()) -> str:
    """Path of a program. Raises ServerError that says how to install it."""
    path = os.pathsep.join((*folders, os.environ.get("PATH", os.defpath), *_PLACES))
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise ServerError(f"{names[0]} is not installed: run scripts/servers.sh")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


class Server:
    """A child process on a port. Ends with its `with` block, and also when this process is killed."""

    name = "server"
    #: what the server gets when its parent dies, and when it shall stop
    stop_signal = signal.SIGTERM
    unprivileged = True
    #: seconds
    started_within = 30.0

    def __init__(self) -> None:
        self.host = HOST
        self.port = 0
        self.dir = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def prepare(self) -> None:
        """Write what the server needs into `dir`. Called again for every new port."""

    def ready(self) -> bool:
        return listening(self.port)

    def __enter__(self) -> Self:
        self.dir = Path(tempfile.mkdtemp(prefix="sluice-"))
        self.dir.chmod(0o755)
        try:
            for attempt in range(3):  # somebody may take the free port before the server does
                self.port = free_port()
                self.prepare()
                try:
                    self.start()
                    return self
                except ServerError:
                    if attempt == 2:
                        raise
            raise AssertionError
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start, or start again on the same port with the same files."""
        (self.dir / "output").touch()
        if self._drops():
            self.own(self.dir)
        with (self.dir / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [*self._wrapper(), *self.command()],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=self.dir,
            )  # fmt: skip
        until = time.monotonic() + self.started_within
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise ServerError(f"{self.name} did not start:\n{self.log()}")
            time.sleep(0.02)
        if self.process.poll() is not None:  # another one answers on the port
            raise ServerError(f"{self.name} did not start:\n{self.log()}")

    def _wrapper(self) -> list[str]:
        wrapper = [find("setpriv"), "--pdeathsig", self.stop_signal.name]
        return wrapper + (["--reuid", str(UID), "--regid", str(GID), "--clear-groups"] if self._drops() else [])

    def _drops(self) -> bool:
        return ROOT and self.unprivileged

    def own(self, folder: Path) -> None:
        """Give a folder and what is in it to the user that the server runs as."""
        for path in (folder, *folder.rglob("*")):
            os.chown(path, UID, GID, follow_symlinks=False)

    def log(self) -> str:
        output = self.dir / "output"
        return output.read_text(errors="replace")[-4000:] if output.exists() else ""

    def stop(self) -> None:
        """Stop in good order; kill what does not."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        self.kill()

    def kill(self) -> None:
        """`kill -9` for the server and all its children."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
