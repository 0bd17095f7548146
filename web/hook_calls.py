"""What providers call: verified, stored, committed, and only then answered (promises P1 and P8)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from channels import Answer, Hook, Parsed, Request
from domain import Forbidden, Incoming, NotFound, Unavailable, Unreadable
from router.arrivals import Arrivals
from router.flow import pause
from storage.spool import Spool

log = structlog.get_logger("hooks")

#: larger bodies are taken apart beside the event loop
_LARGE = 64 * 1024
_REPLAY_EVERY = 2.0


class Hooks:
    """The webhooks of the channels that are on, and what was kept for them while the database was down."""

    def __init__(self, hooks: Mapping[str, Hook], arrivals: Arrivals, spool: Path) -> None:
        self.known = dict(hooks)
        self._arrivals = arrivals
        self._spools = {name: Spool(spool / name) for name in hooks}
        #: requests without a valid signature since the start, by channel
        self.refused: Counter[str] = Counter()
        #: kept requests that failed when they were brought in; they stay on the disk and are tried after a restart
        self._stuck: set[Path] = set()

    async def called(self, name: str, request: Request) -> Answer:
        """Raises `NotFound`, `Forbidden` (nothing is stored), `Unavailable` (the provider tries again)."""
        hook = self.known.get(name)
        if hook is None:
            raise NotFound("There is no such channel here, or it is off.")
        try:
            if request.method == "GET":
                return hook.challenge(request)
            hook.verify(request)
        except Forbidden:
            self.refused[name] += 1
            log.warning("hook_refused", channel=name, times=self.refused[name])
            raise
        parsed = hook.parse(request) if len(request.body) < _LARGE else await asyncio.to_thread(hook.parse, request)
        try:
            async with asyncio.timeout(hook.patience):
                await self._arrivals.take(parsed.items, parsed.notices)
        except (Unavailable, TimeoutError) as error:
            return await self._kept(name, hook, request, parsed, error)
        except Exception as error:  # the type alone: its text may quote the customer
            log.error("delivery_refused", channel=name, error=type(error).__name__)
            await self._parked(parsed)
        return parsed.answer

    async def _parked(self, parsed: Parsed) -> None:
        """One by one; what cannot be stored as what it is goes to quarantine, or its provider would send it for ever.

        Raises `Unavailable`.
        """
        for item in parsed.items:
            try:
                await self._arrivals.take([item])
            except Unavailable:
                raise
            except Exception as error:
                await self._arrivals.take([_unstorable(item, type(error).__name__)])
        for notice in parsed.notices:
            try:
                await self._arrivals.take([], [notice])
            except Unavailable:
                raise
            except Exception as error:
                log.error("notice_refused", kind=type(notice).__name__, error=type(error).__name__)

    async def _kept(self, name: str, hook: Hook, request: Request, parsed: Parsed, error: Exception) -> Answer:
        answer = hook.spooled(request)
        if answer is None:
            raise error if isinstance(error, Unavailable) else Unavailable from error
        if parsed.keep is not None:
            request = replace(request, body=parsed.keep)
        try:
            await asyncio.to_thread(self._spools[name].keep, _packed(request))
        except OSError as failed:
            raise Unavailable("Neither the database nor the disk takes it.") from failed
        log.warning("spooled", channel=name)
        return answer

    # --- what was kept ------------------------------------------------------------------------------------------------

    async def replay(self, stop: asyncio.Event) -> None:
        """Bring in what was kept, as soon as the database is back. Until `stop`."""
        while not await pause(stop, _REPLAY_EVERY):
            with suppress(Unavailable):
                await self.replay_once()

    async def replay_once(self) -> int:
        """How many were brought in; what fails holds up nothing else. Raises `Unavailable`: the rest waits."""
        done = 0
        for name, spool in self._spools.items():
            for entry in await asyncio.to_thread(spool.waiting):
                if entry in self._stuck:
                    continue
                try:
                    parsed = await asyncio.to_thread(self._read, name, entry)
                    await self._arrivals.take(parsed.items, parsed.notices)
                    await asyncio.to_thread(spool.done, entry)
                except Unavailable:
                    raise
                except Exception as error:  # the type alone: its text may quote the customer
                    self._stuck.add(entry)
                    log.error("spool_stuck", channel=name, entry=entry.name, error=type(error).__name__)
                    continue
                done += 1
        if done:
            log.info("spool_replayed", count=done)
        return done

    def _read(self, name: str, entry: Path) -> Parsed:
        try:
            body = entry.read_bytes()
        except FileNotFoundError:  # another process was faster
            return Parsed()
        return self.known[name].parse(_unpacked(body))

    def spooled(self) -> dict[str, int]:
        """How many requests wait on this machine's disk, by channel."""
        return {name: n for name, spool in self._spools.items() if (n := len(spool.waiting()))}


def _unstorable(item: Incoming, error: str) -> Unreadable:
    return Unreadable(
        channel=item.channel,
        account=item.account,
        external_id=f"sha256:{hashlib.sha256(item.raw).hexdigest()}",
        received_at=item.received_at,
        reason=f"It could not be stored ({error}).",
        raw=item.raw,
    )


def _packed(request: Request) -> bytes:
    return json.dumps(
        {
            "method": request.method,
            "url": request.url,
            "rest": request.rest,
            "query": dict(request.query),
            "headers": dict(request.headers),
            "body": base64.b64encode(request.body).decode(),
            "received_at": request.received_at.isoformat(),
        }
    ).encode()


def _unpacked(entry: bytes) -> Request:
    kept: dict[str, Any] = json.loads(entry)
    kept["body"] = base64.b64decode(kept["body"])
    kept["received_at"] = datetime.fromisoformat(kept["received_at"])
    return Request(**kept)
