"""(b) POST /api/v1/messages, (c) from receipt to a routed ticket, (f) start and memory."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.bench_corpus import body_templates
from tests.bench_tools import ROOT, Row, Running, World, disk, fresh_world, one_core, quantile, running
from tests.server_base import HOST

_BURST = 5.0  # seconds of unbraked acceptance
_TRY, _CONFIRM = 12.0, 60.0  # seconds of a run at a fixed rate
_GROWTH = 128  # messages, one worker's batch: a backlog that grew by more is growing
_STEP = 1.07


@dataclass(slots=True)
class Load:
    """What a run of the load client found, and the backlog meanwhile."""

    found: dict[str, Any]
    backlog: list[int]

    @property
    def rate(self) -> float:
        return float(self.found["accepted"]) / float(self.found["seconds"])

    def keeps_up(self, rate: float) -> bool:
        """The client sent in time, and the backlog of the last third is no longer than that of the first."""
        third = max(1, len(self.backlog) // 3)
        growth = statistics.median(self.backlog[-third:]) - statistics.median(self.backlog[:third])
        return self.rate > 0.98 * rate and growth <= _GROWTH


def load(world: World, server: Running, rate: float, seconds: float, mark: str) -> Load:
    command = [sys.executable, "-m", "tests.bench_load", str(server.port), server.token, str(rate), str(seconds), mark]
    backlog: list[int] = []
    with subprocess.Popen(command, cwd=ROOT, env=world.environment, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()  # "ready": it makes its bodies first
        while client.poll() is None:
            backlog.append(world.backlog())
            time.sleep(0.25)
        answer = client.stdout.read()
    if client.returncode:
        raise RuntimeError("the load client failed")
    found = json.loads(answer)
    if set(found["statuses"]) != {"202"}:
        raise RuntimeError(f"not all were accepted: {found['statuses']}")
    return Load(found, backlog[:-1] or [0])


def drained(world: World) -> float:
    """Seconds until nothing waits any more."""
    began = time.perf_counter()
    while world.backlog():
        if time.perf_counter() - began > 300:
            raise RuntimeError("the backlog does not drain")
        time.sleep(0.05)
    return time.perf_counter() - began


def part_b() -> Iterator[Row]:
    with fresh_world() as world, one_core(), running(world) as server:
        load(world, server, 200, 3, "warm")
        drained(world)
        burst = load(world, server, 0, _BURST, "burst")
        left = world.backlog()
        wait = drained(world)
        yield Row("b", f"accepted for {_BURST:.0f} s, 32 connections", f"{burst.rate:,.0f} req/s", "2,500")
        latency = f"{burst.found['p50_ms']:.0f} / {burst.found['p99_ms']:.0f} ms"
        yield Row("b", "- a request takes, p50 / p99", latency)
        drain = f"{left:,} in {wait:.1f} s" + (f", {left / wait:,.0f} msg/s" if wait > 0.2 else "")
        yield Row("b", "- the backlog after it, drained", drain)
        yield Row("b", "the same message again by hey -c 32 (answered 200)", _hey(server))
        # Each second holds acceptances and processing at the cost that the burst and the drain showed.
        rate = 1 / (1 / burst.rate + wait / max(left, 1)) if left > _GROWTH else burst.rate
        yield from _steady(world, server, rate)
        yield Row("b", "the disk", disk())


def _steady(world: World, server: Running, rate: float) -> Iterator[Row]:
    """The highest rate at which the backlog does not grow: sought by short runs, shown by one of a minute."""
    runs = 0

    def keeps_up(seconds: float) -> Load | None:
        nonlocal runs
        runs += 1
        found = load(world, server, round(rate), seconds, f"steady{runs}")
        drained(world)
        return found if found.keeps_up(rate) else None

    if keeps_up(_TRY):
        while runs < 6:
            rate *= _STEP
            if not keeps_up(_TRY):
                rate /= _STEP
                break
    else:
        while runs < 8:
            rate /= _STEP
            if keeps_up(_TRY):
                break
    shown = keeps_up(_CONFIRM)
    if shown is None:
        rate /= _STEP
        shown = keeps_up(_CONFIRM)
    if shown is None:
        yield Row("b", "the backlog does not grow for 60 s", f"not at {rate:,.0f} msg/s", "800")
        return
    yield Row("b", "the backlog does not grow for 60 s", f"{shown.rate:,.0f} msg/s", "800")
    yield Row("b", "- most that waited meanwhile", f"{max(shown.backlog):,} messages")
    queued = world.ask("SELECT count(*) FROM outbox WHERE state = 'queued'")
    yield Row("b", "- acknowledgements not yet sent at the end", f"{queued:,}")


def _hey(server: Running) -> str:
    """The way of a redelivery: hey sends one body again and again."""
    hey = shutil.which("hey")
    if hey is None:
        return "hey is not installed"
    with tempfile.NamedTemporaryFile() as body:
        body.write(body_templates(1, "hey")[0])
        body.flush()
        command = [hey, "-z", f"{_BURST:.0f}s", "-c", "32", "-m", "POST", "-T", "application/json", "-D", body.name]
        command += ["-H", f"Authorization: Bearer {server.token}", f"http://{HOST}:{server.port}/api/v1/messages"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = next(float(line.split()[1]) for line in output.splitlines() if "Requests/sec" in line)
    return f"{rate:,.0f} req/s"


def part_c() -> Iterator[Row]:
    rate, seconds = 200, 20.0
    with fresh_world() as world, one_core(), running(world) as server:
        load(world, server, rate, 3, "warm")
        drained(world)
        first = world.ask("SELECT max(id) FROM message")
        found = load(world, server, rate, seconds, "latency")
        drained(world)
        lags = [
            lag / 1000
            for (lag,) in world.rows(
                "SELECT event.at - ticket.created_at FROM event JOIN ticket ON ticket.id = event.ticket_id"
                f" WHERE event.kind = 'opened' AND json_extract(event.data, '$.message') > {first}"
            )
        ]
        if len(lags) != found.found["accepted"]:
            raise RuntimeError(f"{len(lags)} tickets of {found.found['accepted']} messages")
    yield Row("c", f"stored to ticket at {found.rate:.0f} msg/s, p50", f"{quantile(lags, 0.5):.1f} ms", "10")
    yield Row("c", "- p99", f"{quantile(lags, 0.99):.1f} ms", "50")
    answer = f"{found.found['p50_ms']:.1f} / {found.found['p99_ms']:.1f} ms"
    yield Row("c", "the client's own wait for its 202, p50 / p99", answer)
    yield Row("c", "the disk", disk())


def part_f() -> Iterator[Row]:
    starts: list[float] = []
    sizes: list[float] = []
    for run in range(4):
        with fresh_world() as world, one_core(), running(world) as server:
            if run:  # the first one compiles
                starts.append(server.start)
                sizes.append(server.resident)
    yield Row("f", "from exec to the first accepted POST", f"{statistics.median(starts):.2f} s", "1.5")
    yield Row("f", "resident then", f"{statistics.median(sizes):.0f} MB", "160")
    yield Row("f", "runs", ", ".join(f"{each:.2f} s" for each in starts))
