"""(d) Stored messages to routed tickets by 1, 2 and 4 worker processes: PostgreSQL, Redis, both cores."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import redis

from channels import api
from domain import Incoming
from storage import messages
from storage.database import Database
from storage.redis_queue import RedisQueue
from tests.bench_corpus import ID_HOLE, body_templates
from tests.bench_tools import CACHE, Row, World, disk, stop
from tests.servers import PostgresServer, RedisServer

_MESSAGES, _TOGETHER = 10_000, 500
_AIMS = {1: "700", 2: "1,100", 4: "= 2"}
_DEADLINE = 120.0


@dataclass(slots=True)
class Servers:
    database: str
    queue: str

    def waiting(self) -> int:
        """Workers that wait for work: their read of the empty stream blocks."""
        with redis.Redis.from_url(self.queue) as client:
            return int(client.info("clients")["blocked_clients"])


def _until(servers: Servers, count: int, workers: list[subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + _DEADLINE
    while servers.waiting() < count:
        if time.monotonic() > until or any(worker.poll() is not None for worker in workers):
            raise RuntimeError("the workers did not start")
        time.sleep(0.05)


async def _store(servers: Servers, mark: str) -> list[int]:
    """Store all messages without a ring; their ids."""
    database = Database(servers.database)
    templates = body_templates(1000, mark)
    ids: list[int] = []
    try:
        for start in range(0, _MESSAGES, _TOGETHER):
            items: list[Incoming] = []
            for index in range(start, start + _TOGETHER):
                body = templates[index % len(templates)].replace(ID_HOLE, f"{mark}-{index}".encode())
                items.append(api.parse_line(body, "bench", datetime.now(UTC)))
            ids += [each.message_id for each in await database.write_batch(messages.store, items)]
    finally:
        await asyncio.to_thread(database.close)
    return ids


async def _ring(servers: Servers, ids: list[int]) -> None:
    queue = RedisQueue(servers.queue)
    try:
        await queue.ring(ids)
    finally:
        await queue.close()


def _drain(servers: Servers, workers: list[subprocess.Popen[bytes]]) -> float:
    """Seconds until every message has ended."""
    began = time.perf_counter()
    url = servers.database.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            found = connection.execute("SELECT count(*) FROM message WHERE state = 'received'").fetchone()
            took = time.perf_counter() - began
            if found is not None and found[0] == 0:
                break
            if took > _DEADLINE or any(worker.poll() is not None for worker in workers):
                raise RuntimeError("the workers did not finish")
            time.sleep(0.02)
        tickets = connection.execute("SELECT count(*) FROM ticket").fetchone()
    if tickets is None or tickets[0] != _MESSAGES:
        raise RuntimeError(f"{tickets} tickets of {_MESSAGES} messages")
    return took


def _run(servers: Servers, count: int) -> float:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="world-") as folder, redis.Redis.from_url(servers.queue) as all_:
        all_.flushall()
        world = World(Path(folder), {"SLUICE_DATABASE__URL": servers.database, "SLUICE_QUEUE__URL": servers.queue})
        world.command("migrate")
        workers = [world.start("--role", "worker") for _ in range(count)]
        try:
            _until(servers, count, workers)
            ids = asyncio.run(_store(servers, f"w{count}"))
            asyncio.run(_ring(servers, ids))
            return _drain(servers, workers)
        finally:
            for worker in workers:
                stop(worker)


def part_d() -> Iterator[Row]:
    with PostgresServer(durable=True) as postgres, RedisServer() as bell:
        for count, aim in _AIMS.items():
            with postgres.database() as url:
                rate = _MESSAGES / _run(Servers(url, bell.url), count)
            yield Row(
                "d", f"{count} worker{'s' if count > 1 else ''} on {os.cpu_count()} cores", f"{rate:,.0f} msg/s", aim
            )
    yield Row("d", "the disk", disk())
