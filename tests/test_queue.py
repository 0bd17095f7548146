"""The work queue: one contract for both implementations, and what only Redis can suffer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import pytest
import redis

from domain import Unavailable
from router.intake_values import Outcome
from settings import Settings
from storage.database import Database
from storage.queue import EmbeddedQueue, Ring, WorkQueue
from storage.redis_queue import DepartmentStreams, RedisQueue
from storage.tables import Message
from tests.reading import rows, tickets
from tests.servers import RedisServer
from tests.worlds import World, make_world, message

LONG = 60.0
#: short enough to wait for, in seconds
SHORT = 0.05

Make = Callable[[float], WorkQueue]


@pytest.fixture(params=["embedded", "redis"])
async def make(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Make]:
    """A maker of queues, one a worker, with the deadline that it is given."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    async with AsyncExitStack() as stack:

        def new(deadline: float) -> WorkQueue:
            queue: WorkQueue
            embedded = EmbeddedQueue(database, deadline=deadline, poll=0.01)
            queue = RedisQueue(url, deadline=deadline) if url else embedded
            stack.push_async_callback(queue.close)
            return queue

        yield new


async def some(world: World, count: int) -> list[int]:
    return [each.message_id for each in await world.flow.receive([message() for _ in range(count)])]


def ids(rings: list[Ring]) -> list[int]:
    return [ring.message_id for ring in rings]


async def take_all(queue: WorkQueue, count: int) -> list[Ring]:
    """Take until so many came: what was lost comes when its time is over."""
    found: list[Ring] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += await queue.take(10, 0.2)
    return found


# --- the contract -----------------------------------------------------------------------------------------------------


async def test_what_is_rung_is_taken_in_order_and_once(database: Database, settings: Settings, make: Make) -> None:
    first, second = make(LONG), make(LONG)
    world = make_world(database, settings, queue=first)
    wanted = await some(world, 5)
    # A fresh consumer group is made by the first look.
    taken = await take_all(first, 5)
    assert ids(taken) == wanted
    assert not any(ring.again for ring in taken)
    assert await second.take(10, 0.0) == []
    await world.flow.process(wanted)
    await first.done(taken)
    assert await first.depth() == 0
    assert await first.take(10, 0.0) == []


async def test_no_more_are_taken_than_asked_for(database: Database, settings: Settings, make: Make) -> None:
    first, second = make(LONG), make(LONG)
    wanted = await some(make_world(database, settings, queue=first), 5)
    taken = [*await take_all(first, 1)]
    while len(taken) < 5:
        more = await second.take(2, 1.0)
        assert len(more) <= 2
        taken += more
    assert sorted(ids(taken)) == wanted
    assert await first.depth() == 5


async def test_a_worker_that_waits_is_woken_by_the_ring(database: Database, settings: Settings, make: Make) -> None:
    queue = make(LONG)
    world = make_world(database, settings, queue=queue)
    waiting = asyncio.create_task(take_all(queue, 1))
    wanted = await some(world, 1)
    assert ids(await waiting) == wanted


async def test_what_a_dead_worker_held_comes_back_as_such(database: Database, settings: Settings, make: Make) -> None:
    dead, alive = make(SHORT), make(SHORT)
    wanted = await some(make_world(database, settings, queue=dead), 3)
    assert ids(await take_all(dead, 3)) == wanted
    back = await take_all(alive, 3)
    assert sorted(ids(back)) == wanted
    assert all(ring.again for ring in back)


async def test_a_message_that_kills_its_worker_again_and_again_is_quarantined(
    database: Database, settings: Settings, make: Make
) -> None:
    world = make_world(database, settings, queue=make(SHORT))
    [killer] = await some(world, 1)
    for taken in range(6):
        rings = await take_all(make(SHORT), 1)
        assert [ring.again for ring in rings] == [taken > 0]
        # What a worker does before it processes; then it is gone.
        for ring in rings:
            if ring.again:
                await world.flow._count_lost(ring.message_id)
    [row] = rows(database, Message, id=killer)
    assert (row.state, row.tries) == ("quarantined", 5)


async def test_a_slow_worker_and_its_claimer_together_make_one_ticket(
    database: Database, database_url: str, settings: Settings, make: Make
) -> None:
    other_database = Database(database_url)
    slow = make_world(database, settings, queue=make(SHORT))
    claimer = make_world(other_database, settings, queue=make(SHORT))
    try:
        wanted = await some(slow, 4)
        held = await take_all(slow.queue, 4)
        claimed = await take_all(claimer.queue, 4)
        assert sorted(ids(claimed)) == ids(held) == wanted
        outcomes = await asyncio.gather(slow.flow.process(ids(held)), claimer.flow.process(ids(claimed)))
        await asyncio.gather(slow.queue.done(held), claimer.queue.done(claimed))
    finally:
        other_database.close()
    assert sorted(each.message_id for each in outcomes[0] + outcomes[1]) == wanted
    assert len(tickets(database)) == 4
    assert await slow.queue.depth() == 0


# --- what one process stores and works off itself --------------------------------------------------------------------


async def test_what_a_working_process_stores_is_its_own_without_a_claim(database: Database, settings: Settings) -> None:
    own, other = EmbeddedQueue(database, deadline=LONG), EmbeddedQueue(database, deadline=LONG)
    world = make_world(database, settings, queue=own)
    assert await own.take(10, 0.0) == []  # from now on it works
    wanted = await some(world, 3)
    assert await other.take(10, 0.0) == []
    taken = await own.take(2, 1.0) + await own.take(2, 1.0)
    assert ids(taken) == wanted
    assert not any(ring.again for ring in taken)


async def test_what_was_handed_over_is_held_for_the_deadline_alone(database: Database, settings: Settings) -> None:
    own = EmbeddedQueue(database, deadline=SHORT)
    world = make_world(database, settings, queue=own)
    await own.take(10, 0.0)
    wanted = await some(world, 3)  # its process dies here
    back = await take_all(EmbeddedQueue(database, deadline=LONG, poll=0.01), 3)
    assert ids(back) == wanted
    assert all(ring.again for ring in back)


async def test_a_process_that_stops_gives_back_what_was_handed_to_it(database: Database, settings: Settings) -> None:
    own, other = EmbeddedQueue(database, deadline=LONG), EmbeddedQueue(database, deadline=LONG)
    world = make_world(database, settings, queue=own)
    await own.take(10, 0.0)
    wanted = await some(world, 3)
    await own.close()
    taken = await other.take(10, 0.0)
    assert ids(taken) == wanted
    assert not any(ring.again for ring in taken)


async def test_beyond_a_measure_messages_are_stored_for_any_worker(database: Database, settings: Settings) -> None:
    own, other = EmbeddedQueue(database, deadline=LONG), EmbeddedQueue(database, deadline=LONG)
    world = make_world(database, settings, queue=own)
    await own.take(10, 0.0)
    handed = await some(world, 600)
    free = await some(world, 5)
    assert not own.room()
    assert ids(await other.take(10, 0.0)) == free
    assert sorted(ids(await take_all_of(own, 600))) == handed


async def test_free_messages_do_not_wait_until_the_own_ones_end(database: Database, settings: Settings) -> None:
    own = EmbeddedQueue(database, deadline=LONG, poll=0.0)
    [free] = await some(make_world(database, settings, queue=EmbeddedQueue(database)), 1)
    world = make_world(database, settings, queue=own)
    own._works = True
    wanted = await some(world, 2)
    assert ids(await own.take(10, 0.0)) == [*wanted, free]


async def test_what_is_held_back_is_taken_once_it_is_let_go(database: Database, settings: Settings) -> None:
    """A chat line gets its number first, whichever process has the worker."""
    web, worker = EmbeddedQueue(database, deadline=LONG), EmbeddedQueue(database, deadline=LONG, poll=0.0)
    flow = make_world(database, settings, queue=web).flow
    [stored] = await flow.receive([message()], hold=True)
    assert await worker.take(10, 0.0) == []
    await flow.let_go([stored.message_id])
    [ring] = await worker.take(10, 0.0)
    assert (ring.message_id, ring.again) == (stored.message_id, False)
    # In a process that works as well it is handed on.
    await web.take(10, 0.0)
    [own] = await flow.receive([message()], hold=True)
    await flow.let_go([own.message_id])
    assert await worker.take(10, 0.0) == []
    assert ids(await web.take(10, 0.0)) == [own.message_id]


async def take_all_of(queue: WorkQueue, count: int) -> list[Ring]:
    found: list[Ring] = []
    while len(found) < count:
        found += await queue.take(128, 0.0)
    return found


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with RedisServer() as server:
        yield server


async def test_a_flushall_in_the_middle_of_a_run_loses_no_message(
    database: Database, settings: Settings, redis_url: str
) -> None:
    queue = RedisQueue(redis_url, deadline=LONG)
    world = make_world(database, settings, queue=queue)
    stop, done = asyncio.Event(), asyncio.Event()
    ended: set[int] = set()

    def listen(outcomes: Sequence[Outcome]) -> None:
        ended.update(each.message_id for each in outcomes)
        done.set()

    world.flow.listeners.append(listen)
    await some(world, 30)  # the group does not exist yet: the worker must not miss what was rung before
    work = asyncio.create_task(world.flow.work(stop))
    async with asyncio.timeout(60):
        while not ended:
            await done.wait()
        with redis.Redis.from_url(redis_url) as client:
            await some(world, 30)
            client.flushall()
            await some(world, 30)
            client.flushall()
        while len(ended) < 90:
            await world.flow.sweep_once(age=timedelta(0))
            done.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 0.2)
    stop.set()
    await work
    await queue.close()
    assert len(tickets(database)) == 90


async def test_the_group_is_made_again_after_a_flushall(redis_url: str) -> None:
    queue = RedisQueue(redis_url, deadline=LONG)
    await queue.ring([1])
    assert ids(await take_all(queue, 1)) == [1]
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert await queue.take(10, 0.0) == []
    await queue.ring([2])
    assert ids(await take_all(queue, 1)) == [2]
    await queue.close()


async def test_a_flushall_while_a_worker_waits_is_no_fault(redis_url: str) -> None:
    queue = RedisQueue(redis_url, deadline=LONG)
    await queue.take(1, 0.0)
    waiting = asyncio.create_task(queue.take(10, 5.0))
    with redis.Redis.from_url(redis_url) as client:
        while not client.info("clients")["blocked_clients"]:
            await asyncio.sleep(0)
        client.flushall()
    assert await waiting == []
    await queue.ring([1])
    assert ids(await take_all(queue, 1)) == [1]
    await queue.close()


async def test_a_dead_redis_stops_no_receiving_and_comes_back(
    database: Database, settings: Settings, own_redis: RedisServer
) -> None:
    queue = RedisQueue(own_redis.url, deadline=LONG)
    world = make_world(database, settings, queue=queue)
    await some(world, 1)
    taken = await take_all(queue, 1)
    own_redis.kill()
    wanted = await some(world, 3)
    await queue.done(taken)
    with pytest.raises(Unavailable):
        await queue.take(10, 0.0)
    with pytest.raises(Unavailable):
        await queue.depth()
    with pytest.raises(Unavailable):
        await world.flow.sweep_once(age=timedelta(0))
    own_redis.start()
    await queue.take(10, 0.0)  # makes the group anew
    assert await world.flow.sweep_once(age=timedelta(0)) == 4
    assert sorted(ids(await take_all(queue, 4))) == [taken[0].message_id, *wanted]
    await queue.close()


async def test_a_message_of_the_stream_that_names_nothing_is_passed_over(redis_url: str) -> None:
    queue = RedisQueue(redis_url, deadline=LONG)
    await queue.take(1, 0.0)
    with redis.Redis.from_url(redis_url) as client:
        client.xadd("sluice:work", {"other": "thing"})
    await queue.ring([7])
    assert ids(await take_all(queue, 1)) == [7]
    await queue.close()


async def test_department_streams_keep_only_the_newest(redis_url: str, own_redis: RedisServer) -> None:
    streams = DepartmentStreams(redis_url, maxlen=100)
    await streams.publish([("claims", {"event": number}) for number in range(1000)])
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        entries = client.xrange("queue:claims")
        assert 100 <= len(entries) < 300
        assert entries[-1][1] == {"event": "999"}
    await streams.close()
    gone = DepartmentStreams(own_redis.url, maxlen=100)
    own_redis.kill()
    with pytest.raises(Unavailable):
        await gone.publish([("claims", {"event": 1})])
    with pytest.raises(Unavailable):
        await gone.ping()
    await gone.close()
