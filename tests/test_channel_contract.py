"""What every adapter keeps to, whoever wrote it: a table of adapters and checks, through the real endpoint.

An adapter comes in by writing `tests/samples/<channel>.py`. Checks that need a database run on both kinds.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import httpx
import pytest
import sqlalchemy as sa

from channels import Channel, Hook, Limits, pieces
from domain import ChannelError, Forbidden, ForbiddenMove, InvalidInput, PartKind, Receipt, Reply, Role, Status
from router.delivery import Delivery
from router.tickets import Actor
from settings import Settings
from storage.database import Database
from storage.tables import Event, Message, ProviderMessage, Raw, Ticket, table
from tests.api_world import Api, serving
from tests.contract import NONE, Property, adapters, cell, samples_of
from tests.provider_server import Said, provider
from tests.reading import answers, rows
from tests.samples import Call, Example, Samples, marks, request_of
from tests.worlds import make_world

LI = Actor("person:li", Role.SUPERVISOR)
TABLE = "Adapters and checks"
EXAMPLES = {"zh", "en", "emoji", "empty", "unknown"}
every_adapter = pytest.mark.parametrize("adapter", adapters())


@pytest.fixture
def says(request: pytest.FixtureRequest, record_property: Property, adapter: str) -> Any:
    """Notes the result of this check for this adapter; `says(NONE)` where the channel has no such thing."""
    row = str(request.function.__doc__)
    cell(record_property, TABLE, row, adapter)
    return lambda text: cell(record_property, TABLE, row, adapter, text)


@dataclass
class Bench:
    samples: Samples
    channel: Channel
    hook: Hook
    api: Api

    async def call(self, call: Call) -> httpx.Response:
        path = f"/hooks/{self.hook.name}" + (f"/{call.rest}" if call.rest else "")
        url = path + (f"?{call.query}" if call.query else "")
        headers = {name.encode(): value.encode() for name, value in call.headers.items()}
        async with self.api.client(raise_app_exceptions=False) as client:
            return await client.request(call.method, url, content=call.body, headers=headers)

    def came_in(self) -> list[Any]:
        return rows(self.api.world.database, Message, direction="in")

    async def nothing_stored(self) -> bool:
        names = ("message", "event", "provider_message", "sighting", "quarantine", "medium", "customer")
        return [await self.api.count(name) for name in names] == [0] * len(names)

    def example(self, name: str) -> Example:
        return next(each for each in self.samples.examples if each.name == name)


def channel_of(samples: Samples) -> tuple[Channel, Hook]:
    """As the application makes it, but without hurry: a slow machine is no part of these checks."""
    channel = samples.make()
    assert channel.hook is not None
    channel.hook.patience = None
    return channel, channel.hook


@pytest.fixture
async def bench(adapter: str, database: Database, settings: Settings) -> AsyncIterator[Bench]:
    samples = samples_of(adapter)
    channel, hook = channel_of(samples)
    carries = {channel.name: channel.sender.limits} if channel.sender is not None else {}
    mute = frozenset() if channel.sender is not None else frozenset({channel.name})
    world = make_world(database, settings, carries=carries, mute=mute)
    async with serving(world, hooks=[hook]) as api:
        yield Bench(samples, channel, hook, api)
        if channel.sender is not None:
            await channel.sender.close()


# --- what comes in ----------------------------------------------------------------------------------------------------


@every_adapter
async def test_every_example(says: Any, bench: Bench) -> None:
    """Chinese, English, emoji, media, no words: read as meant, raw kept, ended"""
    names = {each.name for each in bench.samples.examples}
    assert names >= (EXAMPLES | {"media"} if bench.channel.fetcher is not None else EXAMPLES)
    for example in bench.samples.examples:
        before = len(bench.came_in())
        answer = await bench.call(example.call)
        assert answer.status_code == 200, (example.name, answer.text)
        new = bench.came_in()[before:]
        read = [each for each in new if each.state != "quarantined"]
        assert [each.text for each in read] == list(example.texts), example.name
        kinds = [part["kind"] for each in read for part in (each.extra or {}).get("parts", [])]
        assert kinds == [each.value for each in example.kinds], example.name
        assert len(new) - len(read) == example.unreadable, (example.name, [each.reason for each in new])
        for each in new:
            [raw] = rows(bench.api.world.database, Raw, message_id=each.id)
            assert raw.body, example.name
            if example.name == "en":
                assert all(line in unquote_plus(raw.body.decode()) for line in each.text.splitlines())
    rung = [each.id for each in bench.came_in() if each.state == "received"]
    await bench.api.world.flow.process(rung)
    assert {each.state for each in bench.came_in()} <= {"ticketed", "appended", "automatic", "quarantined"}


@every_adapter
async def test_unknown(adapter: str, says: Any) -> None:
    """An unknown kind is a typed unknown, never an exception"""
    samples = samples_of(adapter)
    example = next(each for each in samples.examples if each.name == "unknown")
    assert PartKind.UNKNOWN in example.kinds or example.unreadable, "the example says what becomes of it"
    _channel, hook = channel_of(samples)
    request = request_of(hook.name, example.call)
    hook.verify(request)
    assert hook.parse(request).items


@every_adapter
async def test_garbage(says: Any, bench: Bench) -> None:
    """What is signed and unreadable is acknowledged and kept with its reason"""
    assert (await bench.call(bench.samples.garbage)).status_code == 200
    [row] = bench.came_in()
    assert row.state == "quarantined"
    assert row.reason
    [raw] = rows(bench.api.world.database, Raw, message_id=row.id)
    assert raw.body


@every_adapter
async def test_twice(says: Any, bench: Bench) -> None:
    """The same delivery twice, and twice at once, is stored once"""
    for example in bench.samples.examples:
        before = len(bench.came_in())
        both = await asyncio.gather(bench.call(example.call), bench.call(example.call))
        last = await bench.call(example.call)
        assert {each.status_code for each in [*both, last]} == {200}, example.name
        assert len(bench.came_in()) - before == len(example.texts) + example.unreadable, example.name
    assert rows(bench.api.world.database, Event, kind="duplicate_differs") == []


# --- signatures -------------------------------------------------------------------------------------------------------


@every_adapter
async def test_refused(says: Any, bench: Bench) -> None:
    """A missing, wrong, truncated or too old signature: 403, nothing stored"""
    names = " ".join(bench.samples.unsigned)
    assert all(word in names for word in ("missing", "wrong", "truncated")), names
    for name, call in bench.samples.unsigned.items():
        answer = await bench.call(call)
        assert answer.status_code == 403, (name, answer.status_code, answer.text)
    assert await bench.nothing_stored()
    hooks = bench.api.web.hooks
    assert hooks is not None
    assert hooks.refused[bench.hook.name] == len(bench.samples.unsigned)
    assert hooks.spooled() == {}


@every_adapter
def test_constant_time(adapter: str, says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comparison in constant time decides, and nothing else does"""
    samples = samples_of(adapter)
    _channel, hook = channel_of(samples)
    good = request_of(hook.name, next(each for each in samples.examples if each.name == "en").call)
    wrong = request_of(hook.name, next(call for name, call in samples.unsigned.items() if "wrong" in name))
    hook.verify(good)
    with monkeypatch.context() as patched:
        _decide(patched, False)
        with pytest.raises(Forbidden):
            hook.verify(good)
        if samples.challenge is not None:
            with pytest.raises(Forbidden):
                hook.challenge(request_of(hook.name, samples.challenge[0]))
    with monkeypatch.context() as patched:
        _decide(patched, True)
        hook.verify(wrong)
    with pytest.raises(Forbidden):
        hook.verify(wrong)


def _decide(patched: pytest.MonkeyPatch, answer: bool) -> None:
    """Whoever compares in constant time hears this."""

    def compared(*_arguments: Any) -> bool:
        return answer

    patched.setattr(hmac, "compare_digest", compared)
    patched.setattr(secrets, "compare_digest", compared)
    for name, module in list(sys.modules.items()):
        if name.startswith("channels.") and hasattr(module, "compare_digest"):
            patched.setattr(module, "compare_digest", compared)
    if "twilio.request_validator" in sys.modules:
        patched.setattr("twilio.request_validator.compare", compared)


@every_adapter
async def test_rotated(says: Any, bench: Bench) -> None:
    """The older of two secrets is accepted"""
    assert (await bench.call(bench.samples.rotated)).status_code == 200
    assert len(bench.came_in()) == 1


@every_adapter
async def test_challenge(says: Any, bench: Bench) -> None:
    """GET: the provider makes sure of us, and nobody else does"""
    challenge, bad = bench.samples.challenge, bench.samples.bad_challenge
    if challenge is None:
        assert (await bench.call(Call(b"", method="GET"))).status_code == 403
        says("403")
        return
    answer = await bench.call(challenge[0])
    assert (answer.status_code, answer.content) == (200, challenge[1])
    assert bad is not None
    for call in (bad, Call(b"", method="GET")):
        assert (await bench.call(call)).status_code == 403
    assert await bench.nothing_stored()


# --- the database is down ---------------------------------------------------------------------------------------------


@every_adapter
async def test_down(says: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is down: the provider tries again, or it is kept on disk"""

    def down(*_arguments: Any) -> list[Any]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise sa.exc.OperationalError("BEGIN", {}, error)

    example = bench.example("en")
    hooks = bench.api.web.hooks
    assert hooks is not None
    with monkeypatch.context() as broken:
        broken.setattr(Database, "_together", down)
        answer = await bench.call(example.call)
        assert answer.status_code == bench.samples.when_down
        assert (answer.headers.get("retry-after") is not None) is (answer.status_code == 503)
        for name, call in bench.samples.unsigned.items():
            assert (await bench.call(call)).status_code == 403, name
    assert await bench.nothing_stored()
    if bench.samples.when_down == 200:
        assert await hooks.replay_once() == 1
        says("on disk")
    else:
        assert hooks.spooled() == {}
        assert (await bench.call(example.call)).status_code == 200
        says("503")
    assert [each.text for each in bench.came_in()] == list(example.texts)
    assert (await bench.call(example.call)).status_code == 200
    assert len(bench.came_in()) == len(example.texts)


# --- what goes out ----------------------------------------------------------------------------------------------------


async def ticket_of(bench: Bench) -> Any:
    assert (await bench.call(bench.example("en").call)).status_code == 200
    await bench.api.world.flow.process([each.id for each in bench.came_in() if each.state == "received"])
    [ticket] = rows(bench.api.world.database, Ticket)
    return ticket


@every_adapter
async def test_limits(says: Any, bench: Bench) -> None:
    """What the channel cannot carry is refused before it is queued, in words"""
    ticket = await ticket_of(bench)
    verbs, database = bench.api.world.verbs, bench.api.world.database
    before = len(answers(database))
    if bench.channel.sender is None:
        with pytest.raises(ForbiddenMove, match="takes no answers"):
            await database.write(lambda connection: verbs.reply("hello")(connection, ticket.id, LI))
        says("no way out")
    else:
        limits = bench.channel.sender.limits
        assert limits.text is not None
        assert all(limits.measure(each) <= limits.text for each in pieces(bench.samples.too_long, limits))
        with pytest.raises(InvalidInput) as refused:
            await database.write(lambda connection: verbs.reply(bench.samples.too_long)(connection, ticket.id, LI))
        assert refused.value.field == "text"
        assert f"{limits.text:,}" in str(refused.value)
        assert limits.unit in str(refused.value)
    assert len(answers(database)) == before


@every_adapter
async def test_provider_errors(adapter: str, says: Any) -> None:
    """Each error of the provider is permanent, retry later, unknown, a pause or broken, as it should"""
    samples = samples_of(adapter)
    if samples.at is None or samples.taken is None or samples.reply is None:
        assert samples.make().sender is None or not samples.errors, "errors need `at`, `taken` and `reply`"
        says(NONE)
        return
    seen = set()
    for name, status, headers, body, expected in samples.errors:
        async with provider(Said(*samples.taken), samples.beside) as server:
            sender = samples.at(server.url).sender
            assert sender is not None
            assert isinstance(await sender.send(samples.reply), Receipt)
            server.script.extend([Said(status, headers, body)] * 2)
            with pytest.raises(ChannelError) as raised:
                await sender.send(samples.reply)
            await sender.close()
        assert marks(raised.value) == marks(ChannelError()) | dict(expected), (name, str(raised.value))
        assert str(raised.value), name
        seen |= {mark for mark, value in marks(raised.value).items() if value}
    assert seen >= {"permanent", "retry", "unknown"}
    says(f"yes ({len(samples.errors)})")


@dataclass
class _Numbered:
    """The channel's way out, whose provider gives the number that the sample's status names."""

    name: str
    limits: Limits
    provider_id: str

    async def send(self, reply: Reply) -> Receipt:
        assert reply.text
        return Receipt(self.provider_id)

    async def close(self) -> None: ...


@every_adapter
async def test_statuses(says: Any, bench: Bench) -> None:
    """Each state that the provider tells lands in the outbox, and none goes backwards"""
    statuses, sender = bench.samples.statuses, bench.channel.sender
    if not statuses or sender is None:
        assert sender is None or not sender.limits.receipts, "a channel with receipts has samples of them"
        says(NONE)
        return
    ticket = await ticket_of(bench)
    database, world = bench.api.world.database, bench.api.world
    rank = {"sent": 1, "delivered": 2, "failed": 3}
    account = _told_account(bench, statuses[0][0])
    limits = replace(sender.limits, receipts=True, window=None, automatic_window=None, rate=None)

    async def forget() -> None:
        await database.write(lambda connection: connection.execute(sa.delete(table(ProviderMessage))))

    async def answered(provider_id: str) -> int:
        await database.write(lambda connection: world.verbs.reply("hello")(connection, ticket.id, LI))
        row = answers(database)[-1]
        assert row.account == account, "a status names the account of the message that it is about"
        delivery = Delivery(database, world.desk, {bench.channel.name: _Numbered(bench.hook.name, limits, provider_id)})
        while await delivery.send_due(bench.channel.name):
            pass
        return int(row.id)

    def state(row_id: int) -> tuple[str, str]:
        row = next(each for each in answers(database) if each.id == row_id)
        return row.state, row.error

    for call, provider_id, expected in statuses:
        await forget()
        row_id = await answered(provider_id)
        assert (await bench.call(call)).status_code == 200
        told, reason = state(row_id)
        assert told == expected.value, (call, told)
        assert bool(reason) is (told == "failed"), "a failure has its reason, and nothing else has one"
        for other, other_id, later in statuses:  # the same once more, and all that is less
            if other_id == provider_id and rank[later.value] <= rank[expected.value]:
                assert (await bench.call(other)).status_code == 200
                assert state(row_id)[0] == expected.value
        await forget()
        assert (await bench.call(call)).status_code == 200  # before we know the number
        assert state(await answered(provider_id))[0] == expected.value
    says(f"yes ({len(statuses)})")


def _told_account(bench: Bench, call: Call) -> str:
    parsed = bench.hook.parse(request_of(bench.hook.name, call, received_at=datetime.now(UTC)))
    [status] = [each for each in parsed.notices if isinstance(each, Status)]
    return status.account
