"""A small load client: POST /api/v1/messages over kept connections, each request with an external id of its own.

Closed loop (rate 0): each connection sends as soon as it has its answer. Open loop: at a fixed rate, whatever the
server does; a request that finds no free connection waits, and its time counts from when it was due.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque
from typing import cast

import uvloop

from tests.bench_corpus import ID_HOLE, body_templates
from tests.bench_tools import quantile
from tests.server_base import HOST

CONNECTIONS = 32
_TICK = 0.002


class Load:
    """The requests to send and what became of them."""

    def __init__(self, mark: str, token: str, rate: float, seconds: float) -> None:
        head = f"POST /api/v1/messages HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: "
        self._templates = [head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body
                           for body in body_templates(1000, mark)]  # fmt: skip
        self._mark = mark
        self.rate = rate
        self.seconds = seconds
        self.statuses: Counter[str] = Counter()
        self.took: list[float] = []
        #: used in turn, for the server closes what is idle for seconds
        self.idle: deque[Line] = deque()
        self.due: deque[float] = deque()
        self.issued = 0
        self.open = 0
        self.start = self.last = 0.0
        self.over = asyncio.Event()

    def request(self) -> bytes:
        external = f"{self._mark}-{self.issued}".rjust(len(ID_HOLE), "0").encode()
        whole = self._templates[self.issued % len(self._templates)].replace(ID_HOLE, external, 1)
        self.issued += 1
        return whole

    def answered(self, line: Line, status: str, since: float) -> None:
        now = time.perf_counter()
        self.statuses[status] += 1
        self.took.append(now - since)
        self.last = now
        if self.rate:
            if self.due:
                line.send(self.due.popleft())
            else:
                self.idle.append(line)
        elif now < self.start + self.seconds:
            line.send(now)
            return
        else:
            self.idle.append(line)
        if len(self.idle) == CONNECTIONS and now >= self.start + self.seconds and not self._to_come():
            self.over.set()

    def _to_come(self) -> bool:
        """The last tick has still requests to send."""
        return self.issued + len(self.due) < int(self.seconds * self.rate)

    def tick(self) -> None:
        """Send what is due by now."""
        now = time.perf_counter()
        until = min(now - self.start, self.seconds)
        for _ in range(int(until * self.rate) - self.issued - len(self.due)):
            due = self.start + (self.issued + len(self.due)) / self.rate
            if self.idle:
                self.idle.popleft().send(due)
            else:
                self.due.append(due)
        if now < self.start + self.seconds:
            asyncio.get_running_loop().call_later(_TICK, self.tick)
        elif len(self.idle) == CONNECTIONS:
            self.over.set()


class Line(asyncio.Protocol):
    """One connection; never more than one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._got = b""
        self._since = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._load.over.is_set():
            self._load.statuses["lost"] += 1
            self._load.over.set()

    def send(self, since: float) -> None:
        assert self._transport is not None
        self._since = since
        self._transport.write(self._load.request())

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0:
            return
        place = self._got.lower().find(b"content-length:", 0, end)
        length = int(self._got[place + 15 : self._got.index(b"\r\n", place)])
        if len(self._got) < end + 4 + length:
            return
        status = self._got[9:12].decode()
        self._got = b""
        self._load.answered(self, status, self._since)


async def run(port: int, load: Load) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    lines = [(await loop.create_connection(lambda: Line(load), HOST, port))[1] for _ in range(CONNECTIONS)]
    print("ready", flush=True)
    load.start = time.perf_counter()
    if load.rate:
        load.idle.extend(lines)
        load.tick()
    else:
        for line in lines:
            line.send(load.start)
    await asyncio.wait_for(load.over.wait(), load.seconds + 60)
    return {
        "accepted": load.statuses["202"],
        "statuses": dict(load.statuses),
        "seconds": load.last - load.start,
        "p50_ms": quantile(load.took, 0.5) * 1000,
        "p99_ms": quantile(load.took, 0.99) * 1000,
    }


if __name__ == "__main__":
    number, secret, per_second, lasts, own = sys.argv[1:]
    print(json.dumps(uvloop.run(run(int(number), Load(own, secret, float(per_second), float(lasts))))))
