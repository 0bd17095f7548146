"""What every benchmark uses: one core for everything, a fresh world, the disk's own speed, and the table's rows."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.server_base import HOST, free_port

ROOT = Path(__file__).resolve().parents[1]
#: what is slow to make and the same every time is kept here between runs
CACHE = Path(tempfile.gettempdir()) / "sluice-bench"
CORE = max(os.sched_getaffinity(0))
_PRIORITY = 5
_DISTURBED = 0.3  # ms
_DEADLINE = 120.0

Item = TypeVar("Item")


@dataclass(slots=True)
class Row:
    part: str
    what: str
    figure: str
    aim: str = ""


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """This process and all that it starts meanwhile: as under `chrt -r 5 taskset -c <core>`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORE})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, before)


def may_use_real_time() -> bool:
    with one_core():
        return os.sched_getscheduler(0) == os.SCHED_RR


def fdatasync_p50(*, append: bool = False, count: int = 400) -> float:
    """Milliseconds that a small write takes to be on disk, where the worlds of the benchmarks lie."""
    CACHE.mkdir(exist_ok=True)
    took: list[float] = []
    with tempfile.NamedTemporaryFile(dir=CACHE) as file, one_core():
        file.write(bytes(4 << 20))
        file.flush()
        os.fsync(file.fileno())
        for index in range(count):
            place = (4 << 20) + index * 4096 if append else index % 1024 * 4096
            start = time.perf_counter()
            os.pwrite(file.fileno(), bytes(4096), place)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took) * 1000


def disk() -> str:
    """The disk's state beside a figure."""
    took = fdatasync_p50()
    return f"fdatasync p50 {took:.2f} ms{' DISTURBED' if took > _DISTURBED else ''}"


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def latencies(call: Callable[[Item], object], items: Sequence[Item], turns: int = 2) -> list[float]:
    """Seconds that each item takes, one at a time, in some turns after a first one that does not count."""
    took: list[float] = []
    for turn in range(1 + turns):
        for item in items:
            began = time.perf_counter()
            call(item)
            if turn:
                took.append(time.perf_counter() - began)
    return took


def resident(pid: int | str = "self") -> float:
    """MB of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


# --- worlds -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class World:
    """A state_dir of its own with the schema present, and the commands in it."""

    folder: Path
    changes: dict[str, str] = field(default_factory=dict)
    #: the SQLite database, where it is not the state_dir's own
    file: Path | None = None

    @property
    def database(self) -> Path:
        return self.file or self.folder / "sluice.db"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        # Compiled modules are kept, as in an installed world, but not in the source tree.
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        kept["PYTHONPYCACHEPREFIX"] = str(CACHE / "compiled")
        return kept | {"SLUICE_STATE_DIR": str(self.folder), "SLUICE_LOG__LEVEL": "warning"} | self.changes

    def command(self, *arguments: str) -> str:
        """The last line that a command of bot.py prints."""
        return last_line([sys.executable, "bot.py", *arguments], self.environment)

    def child(self, module: str, *arguments: str) -> Any:
        """Run a module of the benchmarks in this world; its last line is JSON."""
        return json.loads(last_line([sys.executable, "-m", module, *arguments], self.environment))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        errors = (self.folder / "stderr").open("ab")
        with errors:
            return subprocess.Popen(
                [sys.executable, "bot.py", "run", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def ask(self, query: str) -> Any:
        """One value of the SQLite database, read beside the server."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query).fetchone()[0]

    def rows(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def backlog(self) -> int:
        """Messages that are stored and not processed."""
        return int(self.ask("SELECT count(*) FROM message WHERE state = 'received'"))


def last_line(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout.strip().rpartition("\n")[2]


@contextlib.contextmanager
def fresh_world(**changes: str) -> Iterator[World]:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="world-") as folder:
        world = World(Path(folder), changes)
        world.command("migrate")
        yield world


@dataclass(slots=True)
class Running:
    process: subprocess.Popen[bytes]
    port: int
    token: str
    #: seconds from exec to the first accepted message
    start: float

    @property
    def resident(self) -> float:
        """MB"""
        return resident(self.process.pid)

    @property
    def cpu(self) -> float:
        """Seconds used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(world: World, *arguments: str) -> Iterator[Running]:
    """`bot.py run` on a free port, from its first accepted message until SIGTERM."""
    token = world.command("token", "add", "bench", "--role", "admin")
    port = free_port()
    world.changes["SLUICE_WEB__PORT"] = str(port)
    began = time.perf_counter()
    process = world.start(*arguments)
    try:
        _first_accepted(world, process, port, token)
        yield Running(process, port, token, time.perf_counter() - began)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def _first_accepted(world: World, process: subprocess.Popen[bytes], port: int, token: str) -> None:
    body = json.dumps({"external_id": "first", "sender": "first@example.com", "text": "Where is my claim?"})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    until = time.monotonic() + _DEADLINE
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        try:
            connection.request("POST", "/api/v1/messages", body, headers)
            status = connection.getresponse().status
            if status != 202:
                raise RuntimeError(f"the first message got {status}")
            return
        except ConnectionRefusedError:
            if process.poll() is not None:
                break
            time.sleep(0.005)
        finally:
            connection.close()
    raise RuntimeError(f"the server did not start:\n{(world.folder / 'stderr').read_text(errors='replace')[-4000:]}")
