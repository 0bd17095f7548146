"""`kill -9` between any two steps, under load and with redeliveries: what was accepted is there once, and only once."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from domain import InState, OutState
from tests.crash_world import Count, Load, World, count, message, outbox, sighting
from tests.processes import Deployment, mail_settings, until
from tests.servers import Dovecot
from tests.smtp_sink import SmtpSink, Stage

_QUICK = {
    "SLUICE_QUEUE__DEADLINE": "3s",
    "SLUICE_DELIVERY__DEADLINE": "2s",
    "SLUICE_DELIVERY__BACKOFF": "200ms",
    "SLUICE_LOG__LEVEL": "error",
}
Aim = Callable[[World, Load, random.Random], str]


# --- where a blow lands: each aim strikes, and says whom --------------------------------------------------------------


def at_random(world: World, load: Load, chance: random.Random) -> str:
    """Some moment while it works."""
    name = chance.choice(["web", "worker", "listen"])
    before = world.ended()
    until(lambda: world.ended() > before, "work goes on")
    threading.Event().wait(chance.random() * 0.4)
    world.processes[name].strike()
    return name


def while_posting(world: World, load: Load, chance: random.Random) -> str:
    """The request is out, and no answer was read: stored or not, the customer posts it again."""
    name = f"cut-{chance.getrandbits(48)}"
    request = httpx.Request("POST", world.url("messages"), json=load.body(name), headers=load.headers)
    head = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
    place = urlsplit(str(request.url))
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=5) as line:
        line.sendall(f"POST {place.path} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        threading.Event().wait(chance.random() * 0.012)
        world.processes["web"].strike()
    load.again.append(name)
    return "web"


def when_accepted(world: World, load: Load, chance: random.Random) -> str:
    """The 202 has just arrived: committed, and perhaps nobody rang."""
    name = f"kept-{chance.getrandbits(48)}"
    with httpx.Client(timeout=5, headers=load.headers) as client:
        until(lambda: load.post(client, name), "a post is accepted")
        world.processes["web"].strike()
    load.again.append(name)
    return "web"


def when_received(world: World, load: Load, chance: random.Random) -> str:
    """A message is stored, and not processed yet."""
    waiting = message.c.state == InState.RECEIVED.value
    before = world.newest(message.c.id)
    until(lambda: world.newest(message.c.id, waiting) > before, "a message waits")
    world.processes["worker"].strike()
    return "worker"


def when_mail_is_stored(world: World, load: Load, chance: random.Random) -> str:
    """A mail is committed, and its mark in the mailbox is on its way."""
    before = world.newest(sighting.c.message_id)
    until(lambda: world.newest(sighting.c.message_id) > before, "a mail is stored")
    world.processes["listen"].strike()
    return "listen"


def when_sending(world: World, load: Load, chance: random.Random) -> str:
    """A mail was claimed for sending."""
    sending = [outbox.c.state == OutState.SENDING.value, outbox.c.channel == "mail"]
    now = datetime.now(UTC)
    until(lambda: world.newest(outbox.c.id, *sending, outbox.c.updated_at > now), "a mail is being sent")
    world.processes["worker"].strike()
    return "worker"


def inside_smtp(world: World, load: Load, chance: random.Random, *, stage: Stage, by_person: bool | None = None) -> str:
    """At an exact step of the SMTP conversation: the server itself strikes before it reads or says anything more."""

    def wanted(mail: EmailMessage | None) -> bool:
        return by_person is None or (mail is not None and (mail["Auto-Submitted"] is None) == by_person)

    sprung = world.sink.trap(stage, world.processes["worker"].strike, wanted)
    until(sprung.is_set, f"a mail at {stage}")
    return "worker"


def when_redis_forgets(world: World, load: Load, chance: random.Random) -> str:
    """FLUSHALL, and the worker dies with what it has in hand."""
    with redis.Redis.from_url(world.deployment.settings["SLUICE_QUEUE__URL"]) as client:
        client.flushall()
    return at_random(world, load, chance)


AIMS: dict[str, Aim] = {
    "FLUSHALL": when_redis_forgets,
    "random": at_random,
    "posting": while_posting,
    "accepted": when_accepted,
    "received": when_received,
    "mail stored": when_mail_is_stored,
    "sending": when_sending,
    "DATA": partial(inside_smtp, stage=Stage.DATA),
    "content": partial(inside_smtp, stage=Stage.CONTENT),
    "dot of a receipt": partial(inside_smtp, stage=Stage.DOT, by_person=False),
    "dot of an answer": partial(inside_smtp, stage=Stage.DOT, by_person=True),
    "250 of a receipt": partial(inside_smtp, stage=Stage.SAID, by_person=False),
    "250 of an answer": partial(inside_smtp, stage=Stage.SAID, by_person=True),
}


# --- the worlds -------------------------------------------------------------------------------------------------------


@contextmanager
def embedded(folder: Path, dovecot: Dovecot, sink: SmtpSink) -> Iterator[World]:
    """All roles in one process, SQLite, the database as queue."""
    deployment = Deployment(folder, {**_QUICK, **mail_settings(dovecot, sink.port, "embedded@insurer.test")})
    with deployment.process() as everything:
        world = World(deployment, dict.fromkeys(("web", "worker", "listen"), everything), sink, dovecot)
        with closing(world.database):
            yield world


@contextmanager
def apart(folder: Path, dovecot: Dovecot, sink: SmtpSink, database: str, queue: str) -> Iterator[World]:
    """Web, worker and the rest in processes of their own, PostgreSQL, Redis."""
    servers = {"SLUICE_DATABASE__URL": database, "SLUICE_QUEUE__URL": queue}
    deployment = Deployment(folder, {**_QUICK, **servers, **mail_settings(dovecot, sink.port, "apart@insurer.test")})
    deployment.command("migrate")
    with ExitStack() as stack:
        roles = {"web": ["web"], "worker": ["worker"], "listen": ["listen", "clock"]}
        processes = {name: stack.enter_context(deployment.process(*each)) for name, each in roles.items()}
        world = World(deployment, processes, sink, dovecot)
        with closing(world.database):
            yield world


# --- the test ---------------------------------------------------------------------------------------------------------


def strike(world: World, aims: list[str], seed: int) -> Load:
    """Load, and blow after blow with a restart each. Returns when nobody waits for an answer any more."""
    chance = random.Random(seed)
    load = Load(world, seed)
    with load.running():
        until(lambda: world.ended() > 0, "the world works")
        for aim in chance.sample(aims, len(aims)):
            world.revive(AIMS[aim](world, load, chance), aim)
    return load


def counted(name: str, world: World, load: Load) -> Count:
    """Let it come to rest, and count."""
    until(world.settled, f"{name}: every message has ended and every answer is out")
    found = count(world, load)
    print(f"\ncrash, {name}: kills {world.strikes.total()} ({dict(world.strikes)}), {found}")  # for the record
    return found


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled(tmp_path: Path, dovecot: Dovecot, postgres_url: str, redis_url: str) -> None:
    with SmtpSink() as one_sink, SmtpSink() as other_sink, embedded(tmp_path / "one", dovecot, one_sink) as one:
        one_load = strike(one, [aim for aim in AIMS if aim != "FLUSHALL"] * 2 + ["random"] * 2, seed=1)
        # While the first rests: what a killed sender held is called lost only after a while.
        with apart(tmp_path / "apart", dovecot, other_sink, postgres_url, redis_url) as other:
            other_load = strike(other, [*AIMS] * 2, seed=2)
            counts = [
                counted("one process, SQLite", one, one_load),
                counted("web and worker apart, PostgreSQL and Redis", other, other_load),
            ]
    assert one.strikes.total() + other.strikes.total() >= 50
    for found in counts:
        assert not found.problems
        assert found.tickets == found.posts + found.mails > 0
        assert (found.tickets_lost, found.tickets_doubled) == (0, 0)
        assert found.receipts_doubled == 0
        assert found.receipts_missing <= found.receipts_unknown
        assert found.answers > 0
        assert found.answers_lost == 0
