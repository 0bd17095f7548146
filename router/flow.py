"""One way down: receive (row, then bell), process (tags, route, ticket), and the loops that keep both going."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from domain import Conflict, Incoming, InState, Route, Stored, Tags, Unavailable
from nlu import Tagger, Text
from router.desk import Desk
from router.intake import Intake
from router.intake_values import Outcome, Prepared
from router.rules import Facts, decide
from storage import messages
from storage.database import Database
from storage.queue import Ring, WorkQueue
from storage.types import AnyRow

log = structlog.get_logger("flow")

_MOST_TRIES = 3
#: a machine that is killed again and again must not be blamed on what it happened to hold
_MOST_DEATHS = 5
_BATCH = 256
#: many together cost a fifth of many one by one: where several came at a time, more are coming
_SEVERAL = 4
_GATHER, _GATHER_MOST = 0.002, 0.25
_SWEEP_AGE = timedelta(seconds=10)
_SWEEP_EVERY = 5.0
_SWEEP_ANYWAY = 60.0


class Flow:
    """The river. `receive` for channels, `process` for workers."""

    def __init__(self, database: Database, queue: WorkQueue, tagger: Tagger, desk: Desk) -> None:
        self._database = database
        self._queue = queue
        self._tagger = tagger
        self._desk = desk
        self._intake = Intake(desk)
        self._flood = _Flood()
        self._finished: set[str] = set()
        self._store_held = partial(messages.store, hold=timedelta(seconds=queue.deadline))
        self._swept_at = 0.0
        #: called after each batch with its outcomes: live pages and tests listen here
        self.listeners: list[Callable[[Sequence[Outcome]], None]] = []

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def receive(self, items: Sequence[Incoming], *, ring: bool = True, hold: bool = False) -> list[Stored]:
        """Store messages; returns after the commit, and only then may a channel say "received" (promise P1).

        `hold`: no worker takes them until `let_go`, or until the queue's deadline when this process dies before.
        Raises `Unavailable` when the database is down: then nothing was stored, and nothing may be acknowledged.
        """
        if not items:
            return []
        own = ring and not hold and self._queue.room()
        stored = await self._database.write_batch(self._store_held if own or hold else messages.store, items)
        self._flood.count()
        new = [each.message_id for each in stored if each.new]
        if own:
            self._queue.hand(new)
        elif ring and not hold:
            await self._queue.ring(new)
        return stored

    async def let_go(self, message_ids: Sequence[int]) -> None:
        """What was received with `hold` may be processed now. Raises `Unavailable`; then it is at the deadline."""
        if self._queue.room():
            self._queue.hand(message_ids)
            return
        await self._database.write(lambda connection: messages.release(connection, message_ids))
        await self._queue.ring(message_ids)

    # --- processing ---------------------------------------------------------------------------------------------------

    async def process(self, ids: Sequence[int]) -> list[Outcome]:
        """Lead stored messages to their ends. What fails is tried again later, the third time it is quarantined.

        Raises `Unavailable` when the database is down: nothing was changed.
        """
        prepared, failed = await self._database.off_loop(lambda: self._prepared(ids))
        outcomes: list[Outcome] = []
        if prepared:
            results = await self._database.write_each(self._intake.apply, prepared)
            for each, result in zip(prepared, results, strict=True):
                if isinstance(result, Unavailable):
                    raise result
                if isinstance(result, Conflict):  # others were faster, again: no fault of the message
                    await self._queue.ring([each.row.id])
                elif isinstance(result, BaseException):
                    failed.append((each.row.id, "route", result))
                elif result.state is not None:
                    outcomes.append(result)
        for message_id, step, error in failed:
            outcomes.extend(await self._failed(message_id, step, error))
        for listener in self.listeners:
            listener(outcomes)
        return outcomes

    def _prepared(self, ids: Sequence[int]) -> tuple[list[Prepared], list[tuple[int, str, BaseException]]]:
        with self._database.reading() as connection:
            rows = messages.waiting(connection, ids)
        return self._prepare(rows)

    def _prepare(self, rows: Sequence[AnyRow]) -> tuple[list[Prepared], list[tuple[int, str, BaseException]]]:
        """Tag and route, off the event loop and outside of any transaction."""
        people = [row for row in rows if row.automatic is None]
        tagged: dict[int, Tags | BaseException] = {}
        try:
            texts = [_text(row) for row in people]
            tagged = dict(zip([row.id for row in people], self._tagger.tag(texts), strict=True))
        except Exception:
            # One text that the tagger cannot take must not hold up the others.
            for row in people:
                try:
                    tagged[row.id] = self._tagger.tag([_text(row)])[0]
                except Exception as error:
                    tagged[row.id] = error
        prepared: list[Prepared] = []
        failed: list[tuple[int, str, BaseException]] = []
        for row in rows:
            tags = tagged.get(row.id)
            if isinstance(tags, BaseException):
                failed.append((row.id, "tag", tags))
                continue
            route: Route | None = None
            if tags is not None:
                route = decide(tags, Facts(row.channel, row.address), self._desk.rules)
            prepared.append(Prepared(row, tags, route))
        return prepared, failed

    async def _failed(self, message_id: int, step: str, error: BaseException) -> list[Outcome]:
        # The type alone: an exception's text may quote the customer.
        reason = f"{type(error).__name__} in step {step!r}"
        log.error("step_failed", message=message_id, step=step, error=type(error).__name__)

        def unit(connection: Any) -> bool:
            return messages.count_try(connection, message_id, step, reason, _MOST_TRIES)

        if await self._database.write(unit):
            return [Outcome(message_id, InState.QUARANTINED)]
        await self._queue.ring([message_id])
        return []

    # --- loops --------------------------------------------------------------------------------------------------------

    async def work(self, stop: asyncio.Event) -> None:
        """Take rings and process, until `stop`. A server that is away is waited for."""
        while not stop.is_set():
            try:
                rings = await self._queue.take(_BATCH, 2.0)
            except Unavailable as error:
                log.warning("queue_unavailable", error=str(error))
                await pause(stop, 1.0)
                continue
            if not rings:
                continue
            await self._flood.give_way(stop)
            await self._work_off([ring for ring in rings if not ring.again], stop)
            if stop.is_set():
                with suppress(Unavailable):
                    await self._queue.give_back([ring for ring in rings if ring.token not in self._finished])
            self._finished.clear()
            # What a worker had and never finished goes alone, so that only what kills its worker is blamed for it, and
            # in no fixed order, so that no message is the first each time when somebody else kills them.
            again = [ring for ring in rings if ring.again]
            for ring in random.sample(again, len(again)):
                if stop.is_set():
                    break
                await self._count_lost(ring.message_id)
                await self._work_off([ring], stop)
            if _SEVERAL <= len(rings) < _BATCH:
                await pause(stop, min(_GATHER * len(rings), _GATHER_MOST))

    async def _work_off(self, rings: Sequence[Ring], stop: asyncio.Event) -> None:
        while rings and not stop.is_set():
            try:
                await self.process([ring.message_id for ring in rings])
            except Unavailable:
                await pause(stop, 1.0)
                continue
            self._finished.update(ring.token for ring in rings)
            await self._queue.done(rings)
            return

    async def _count_lost(self, message_id: int) -> None:
        """A worker had this and never finished: in the end it is suspected of killing them."""
        reason = f"the worker that had it stopped, {_MOST_DEATHS} times"

        def unit(connection: Any) -> None:
            messages.count_try(connection, message_id, "process", reason, _MOST_DEATHS, release=False)

        with suppress(Unavailable):
            await self._database.write(unit)

    async def sweep(self, stop: asyncio.Event) -> None:
        """Ring again for what was stored and is not processed, e.g. after Redis lost its streams."""
        while not await pause(stop, _SWEEP_EVERY):
            with suppress(Unavailable):
                await self.sweep_once()

    async def sweep_once(self, age: timedelta = _SWEEP_AGE) -> int:
        """How many messages were rung for again."""
        ids = await self._database.read(lambda connection: messages.overdue(connection, older_than=age))
        if not ids:
            return 0
        # Where as many rings wait as messages, the workers are probably only behind: more rings would not make them
        # faster. But what waits may be other rings, so that they are rung for all the same, just not each time.
        now = time.monotonic()
        if await self._queue.depth() >= len(ids) and now - self._swept_at < _SWEEP_ANYWAY:
            return 0
        self._swept_at = now
        log.info("swept", count=len(ids))
        await self._queue.ring(ids)
        return len(ids)

    async def finish(self, stop: asyncio.Event | None = None) -> None:
        """Process all that is stored and waiting, without the queue: for `ingest`."""
        while stop is None or not stop.is_set():
            ids = await self._database.read(
                lambda connection: messages.overdue(connection, older_than=timedelta(0), limit=_BATCH)
            )
            if not ids:
                return
            await self.process(ids)


class _Flood:
    """Lets acceptance go first while more comes in than could be processed at the same time.

    Processing takes half of a core's time slices, so that in a burst providers would wait and retry. What was stored
    can wait instead; but for `_LONGEST` only, then both share until the burst is over.
    """

    _FAST = 1500.0  # calls of `receive` a second
    _WINDOW = 0.05  # seconds over which they are counted
    _CALM = 0.15  # seconds without so many: a burst comes in waves, one a commit
    _LONGEST = 10.0
    _LOOK = 0.05

    def __init__(self) -> None:
        self._came = 0
        self._since = 0.0
        self._last = -1.0
        self._given = 0.0

    def count(self) -> None:
        """One more came in."""
        now = time.monotonic()
        self._came += 1
        if (passed := now - self._since) >= self._WINDOW:
            if self._came >= self._FAST * passed:
                self._last = now
            self._came, self._since = 0, now

    def _burst(self) -> bool:
        return time.monotonic() - self._last < self._CALM

    async def give_way(self, stop: asyncio.Event) -> None:
        if not self._burst():
            self._given = 0.0
        while self._burst() and self._given < self._LONGEST:
            self._given += self._LOOK
            if await pause(stop, self._LOOK):
                return


def _text(row: AnyRow) -> Text:
    return Text(text=row.clean if row.clean is not None else row.text, subject=row.subject, channel=row.channel)


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait, or until `stop`; True when it is time to stop."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
