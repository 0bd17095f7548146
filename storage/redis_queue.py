"""The work queue on Redis Streams, and the department streams that other programs read."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from domain import Unavailable
from storage.queue import Ring

log = structlog.get_logger("queue")

_STREAM = "sluice:work"
_GROUP = "workers"
#: what Redis says once the stream is gone, to who reads it and to who waits for it
_WIPED = ("NOGROUP", "UNBLOCKED")


def connect(url: str) -> Redis:
    """A client with deadlines of its own: redis-py waits for ever by default."""
    client: Redis = Redis.from_url(
        url, decode_responses=True, socket_timeout=10, socket_connect_timeout=3, health_check_interval=30
    )
    return client


class RedisQueue:
    """One stream, one consumer group, one consumer a process.

    `deadline`: seconds that processing may take; what a worker held for longer is claimed by another (XAUTOCLAIM).
    """

    def __init__(self, url: str, *, deadline: float = 60.0, maxlen: int = 1_000_000, stream: str = _STREAM) -> None:
        self._redis = connect(url)
        self.deadline = deadline
        self._idle = int(deadline * 1000)
        self._maxlen = maxlen
        self._stream = stream
        self._consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._claimed_from = "0-0"
        self._looked_at = 0.0

    async def _make_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._stream, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def ring(self, message_ids: Sequence[int]) -> None:
        if not message_ids:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for message_id in message_ids:
                    pipe.xadd(self._stream, {"m": message_id}, maxlen=self._maxlen, approximate=True)
                await pipe.execute()
        except (RedisError, OSError) as error:
            # Stored is stored: the sweeper rings for these as soon as Redis is back.
            log.warning("ring_failed", error=type(error).__name__, count=len(message_ids))

    def room(self) -> bool:
        return False  # whichever worker hears the ring first takes it

    def hand(self, message_ids: Sequence[int]) -> None:
        raise NotImplementedError("there is no room")

    async def take(self, most: int, wait: float) -> list[Ring]:
        try:
            return await self._take(most, wait)
        except ResponseError as error:
            if not any(sign in str(error) for sign in _WIPED):
                raise Unavailable("Redis refused to read the work queue.") from error
            await self._remake()
            return []
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer.") from error

    async def _remake(self) -> None:
        """The stream was wiped (FLUSHALL): the group is made anew, and the sweeper rings for what was lost."""
        try:
            await self._make_group()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer.") from error

    async def _take(self, most: int, wait: float) -> list[Ring]:
        rings = await self._claim(most)
        if rings:
            return rings
        # At most 5 s a call, so that the claim above gets its turn and the client's own deadline is never met.
        answer: Any = await self._redis.xreadgroup(
            _GROUP, self._consumer, {self._stream: ">"}, count=most, block=max(1, int(min(wait, 5.0) * 1000))
        )
        streams = answer.items() if isinstance(answer, Mapping) else answer or []
        rings = []
        for _name, entries in streams:
            # RESP3 nests the entries once more than RESP2.
            flat = entries[0] if entries and isinstance(entries[0], list) and _is_entries(entries[0]) else entries
            rings.extend(_rings(flat, again=False))
        return rings

    async def _claim(self, most: int) -> list[Ring]:
        answer: Any = await self._redis.xautoclaim(
            self._stream, _GROUP, self._consumer, min_idle_time=self._idle, start_id=self._claimed_from, count=most
        )
        self._claimed_from = answer[0]
        return _rings(answer[1], again=True)

    async def done(self, rings: Sequence[Ring]) -> None:
        if not rings:
            return
        tokens = [ring.token for ring in rings]
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(self._stream, _GROUP, *tokens)
                pipe.xdel(self._stream, *tokens)
                await pipe.execute()
        except (RedisError, OSError) as error:
            # They will be claimed once more and found finished.
            log.warning("done_failed", error=type(error).__name__)

    async def give_back(self, rings: Sequence[Ring]) -> None:
        await self.ring([ring.message_id for ring in rings])
        await self.done(rings)

    async def depth(self) -> int:
        try:
            return int(await self._redis.xlen(self._stream))
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer.") from error

    async def close(self) -> None:
        await self._redis.aclose()


def _is_entries(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], list | tuple)


def _rings(entries: Any, *, again: bool) -> list[Ring]:
    # A claimed entry that was deleted meanwhile comes without fields.
    return [Ring(int(fields["m"]), entry_id, again) for entry_id, fields in entries if fields and "m" in fields]


class DepartmentStreams:
    """`queue:<department>`: entries {event id, ticket, kind, at}, at least once, at most `maxlen` kept."""

    def __init__(self, url: str, *, maxlen: int) -> None:
        self._redis = connect(url)
        self._maxlen = maxlen

    async def publish(self, entries: Sequence[tuple[str, Mapping[str, str | int]]]) -> None:
        """Append (department, entry) pairs. Raises `Unavailable`."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for department, entry in entries:
                    fields: Any = dict(entry)
                    pipe.xadd(f"queue:{department}", fields, maxlen=self._maxlen, approximate=True)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer.") from error

    async def ping(self) -> None:
        """Raises `Unavailable`."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer.") from error

    async def close(self) -> None:
        await self._redis.aclose()
