"""SMS from end to end with a Twilio that others wrote: signed webhooks in, REST out, statuses back, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from channels import Channel, Sender, Surroundings
from channels.sms import channel
from channels.sms_compare import Comparison
from domain import ChannelError, Incoming, Notice, Reply, Role, Stored, Unavailable
from router.arrivals import Arrivals
from router.delivery import Delivery
from router.media import Media
from router.tickets import Actor
from settings import Settings
from storage.database import Database
from storage.tables import Address, Attachment, Medium, Message, Outbox, table
from tests.api_world import Api, serving
from tests.reading import answers, on, rows, ticket
from tests.samples import marks
from tests.samples.sms import ACCOUNT, incoming, make, media, record, signed
from tests.samples.sms import settings as sms_settings
from tests.sms_world import told_twilio
from tests.twilio_server import TwilioServer, reachable
from tests.worlds import make_world

LI = Actor("person:li", Role.SUPERVISOR)
CUSTOMER = "+8613800138000"


@dataclass
class Leases:
    """Held, unless somebody else has them; or the database is down."""

    answers: list[bool | None] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    async def hold(self, name: str, seconds: float) -> bool:
        assert (name, seconds > 60) == ("sms:reconcile", True)
        self.before()
        held = self.answers.pop(0) if self.answers else True
        if held is None:
            raise Unavailable
        return held


@dataclass
class Sms:
    """Our side: the real endpoint, listening, and the channel."""

    twilio: TwilioServer
    api: Api
    channel: Channel
    number: str
    database: Database

    @property
    def sender(self) -> Sender:
        assert self.channel.sender is not None
        return self.channel.sender

    @property
    def comparison(self) -> Comparison:
        [source] = self.channel.sources
        assert isinstance(source, Comparison)
        return source

    async def write(self, body: str, sender: str = CUSTOMER) -> dict[str, Any]:
        return await self.twilio.text_in(self.number, sender, body)

    async def send(self) -> Any:
        """Send what is queued; the newest row of the outbox."""
        delivery = Delivery(self.database, self.api.world.desk, {"sms": self.sender})
        while await delivery.send_due("sms"):
            pass
        return answers(self.database)[-1]

    async def compare(self, **later: float) -> int:
        arrivals = Arrivals(self.database, self.api.world.flow)
        return await self.comparison.compare(arrivals.take, datetime.now(UTC) + timedelta(**(later or {"minutes": 3})))

    def came_in(self) -> list[Any]:
        return rows(self.database, Message, direction="in")

    def suppressed(self, address: str = CUSTOMER) -> str | None:
        found = rows(self.database, Address, channel="sms", address=address)
        return found[0].suppressed if found else None


@pytest.fixture
async def sms(twilio: TwilioServer, database: Database, settings: Settings) -> AsyncIterator[Sms]:
    async with reachable() as door:
        number = await twilio.number(sms_url=f"{door.url}/hooks/sms")
        given = sms_settings(
            account_sid=twilio.account_sid,
            auth_tokens=[SecretStr(twilio.auth_token), SecretStr("an older one")],
            api_url=twilio.url,
            numbers=[number],
            timeout=10,
        )
        made = channel("sms", given, Surroundings(door.url, Leases()))
        world = make_world(database, settings, public_url=door.url)
        assert made.hook is not None
        async with serving(world, hooks=[made.hook]) as api, door.answering(api.app):
            ours = Sms(twilio, api, made, number, database)
            yield ours
            await ours.sender.close()


# --- there and back ---------------------------------------------------------------------------------------------------


async def test_a_customers_message_becomes_a_ticket_and_its_answer_is_followed_to_the_phone(sms: Sms) -> None:
    text = "#claim_status 理赔太慢 & 退款+1 🙂"
    told = await sms.write(text)
    [row] = sms.came_in()
    assert (row.channel, row.account, row.external_id) == ("sms", sms.number, told["sid"])
    assert (row.address, row.thread, row.text) == (CUSTOMER, CUSTOMER, text)
    await sms.api.world.flow.finish()
    assert (ticket(sms.database).department, ticket(sms.database).channel) == ("claims", "sms")

    out = await sms.send()
    assert (out.kind, out.state) == ("acknowledgement", "sent")
    [there] = [each for each in await sms.twilio.messages(To=CUSTOMER) if each["sid"] == out.provider_id]
    assert (there["from"], there["direction"]) == (sms.number, "outbound-api")
    states = []
    for state in ("queued", "sending", "sent", "delivered", "sent", "queued"):
        await sms.twilio.text_status(out.provider_id, state)
        states.append(answers(sms.database)[-1].state)
    assert states == ["sent", "sent", "sent", "delivered", "delivered", "delivered"]


async def test_a_failure_reaches_the_agent_and_a_late_success_does_not_hide_it(sms: Sms) -> None:
    await sms.write("#claim_status")
    await sms.api.world.flow.finish()
    await sms.send()
    await on(sms.database, sms.api.world.verbs.reply("您好，请稍候"), ticket(sms.database).id, LI)
    out = await sms.send()
    assert (out.kind, out.state) == ("reply", "sent")
    await sms.twilio.text_status(out.provider_id, "undelivered")
    assert answers(sms.database)[-1].state == "failed"
    assert answers(sms.database)[-1].error
    await sms.twilio.text_status(out.provider_id, "delivered")
    assert answers(sms.database)[-1].state == "failed"


async def test_two_messages_of_a_customer_are_one_ticket(sms: Sms) -> None:
    await sms.write("#claim_status where is it")
    await sms.api.world.flow.finish()
    await sms.write("hello?")
    await sms.write("#claim_status another customer", "+8613900139000")
    await sms.api.world.flow.finish()
    assert [each.state for each in sms.came_in()] == ["ticketed", "appended", "ticketed"]


async def test_who_says_stop_gets_nothing_more_until_they_say_start(sms: Sms) -> None:
    await sms.write("#claim_status where is it")
    await sms.api.world.flow.finish()
    await sms.send()
    await sms.write("退订")
    await sms.api.world.flow.finish()
    assert sms.suppressed() == "opted_out"
    assert [each.text for each in sms.came_in()] == ["#claim_status where is it", "退订"]
    assert len(answers(sms.database)) == 1
    await sms.write("恢复")
    assert sms.suppressed() is None


async def test_the_errors_of_twilio_are_what_they_mean(sms: Sms) -> None:
    async def error(**values: str) -> dict[str, Any]:
        given = {"to": CUSTOMER, "account": sms.number, "text": "x", "key": "k"} | values
        with pytest.raises(ChannelError) as raised:
            await sms.sender.send(Reply(**given))  # type: ignore[arg-type]
        return marks(raised.value)

    assert await error(to="+1") == marks(ChannelError(permanent=True))  # our own check
    assert await error(to="10086") == marks(ChannelError(permanent=True))  # 21201
    strange = make(
        account_sid=sms.twilio.account_sid, auth_tokens=[SecretStr(sms.twilio.auth_token)], api_url=sms.twilio.url,
        numbers=["+12025559999"],
    )  # fmt: skip
    assert strange.sender is not None
    with pytest.raises(ChannelError) as raised:  # 21606
        await strange.sender.send(Reply(to=CUSTOMER, text="x", key="k"))
    assert marks(raised.value) == marks(ChannelError(broken=True))
    await strange.sender.close()


async def test_a_repeat_finds_the_first_try(sms: Sms) -> None:
    reply = Reply(to="+8613700137000", text="只说一次", key="k", account=sms.number)
    other = channel("sms", sms_settings_of(sms), Surroundings("http://sluice.test", Leases()))
    assert other.sender is not None
    first = await other.sender.send(reply)  # by a process that dies before it can write that down
    await other.sender.close()
    again = Reply(to=reply.to, text=reply.text, key=reply.key, account=reply.account, again=True)
    assert await sms.sender.send(again) == first
    assert len(await sms.twilio.messages(To=reply.to, From=sms.number)) == 1
    assert await sms.sender.send(reply) != first


def sms_settings_of(sms: Sms, **changes: Any) -> Any:
    return sms_settings(
        account_sid=sms.twilio.account_sid, auth_tokens=[SecretStr(sms.twilio.auth_token)], api_url=sms.twilio.url,
        numbers=[sms.number], **changes,
    )  # fmt: skip


async def test_the_probe_knows_the_account(sms: Sms) -> None:
    assert sms.channel.probe is not None
    health = await sms.channel.probe.probe()
    assert (health.ok, health.detail) == (True, f"{sms.twilio.account_sid} works, as {sms.number}")
    wrong = make(account_sid=sms.twilio.account_sid, auth_tokens=[SecretStr("wrong")], api_url=sms.twilio.url)
    assert wrong.probe is not None
    health = await wrong.probe.probe()
    assert (health.ok, "auth token" in health.detail) == (False, True)


async def test_an_answer_whose_line_broke_is_found_again_and_not_sent_twice(sms: Sms) -> None:
    """The first try reaches Twilio, which has no time to say so; the second finds it there."""
    await sms.write("#claim_status")
    await sms.api.world.flow.finish()
    await sms.send()
    await on(sms.database, sms.api.world.verbs.reply("您好"), ticket(sms.database).id, LI)
    async with told_twilio() as told:
        base = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
        told.cut("POST", base)
        told.json("GET", base, {"messages": [record("SM77", body="您好")], "next_page_uri": None})
        made = make(api_url=told.url, numbers=[sms.number])
        assert made.sender is not None
        delivery = Delivery(sms.database, sms.api.world.desk, {"sms": made.sender})
        assert await delivery.send_due("sms") == 1
        row = answers(sms.database)[-1]
        assert (row.state, row.repeated, row.provider_id) == ("queued", True, "")
        past = sa.update(table(Outbox)).values(next_at=datetime.now(UTC) - timedelta(minutes=1))
        await sms.database.write(lambda connection: connection.execute(past))
        assert await delivery.send_due("sms") == 1
        row = answers(sms.database)[-1]
        assert (row.state, row.provider_id) == ("sent", "SM77")
        assert told.paths("POST") == [base]
        await made.sender.close()


async def test_a_picture_comes_in_and_a_worker_brings_it(database: Database, settings: Settings) -> None:
    async with told_twilio() as told:
        made = make(api_url=told.url)
        assert made.hook is not None
        assert made.fetcher is not None
        assert made.sender is not None
        call = signed(incoming("MM1", "#file_claim 我的车", **media(1)))
        told.body(urlsplit(media(1)["MediaUrl0"]).path, b"\x89PNG picture", "image/png")
        async with serving(make_world(database, settings), hooks=[made.hook]) as api, api.client() as client:
            answer = await client.post("/hooks/sms", content=call.body, headers=call.headers)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
            assert told.heard == []  # answered first, fetched afterwards
            assert await Media(database, {"sms": made.fetcher}).fetch_due() == 1
        await made.sender.close()
    [file] = rows(database, Attachment)
    assert (file.name, file.media_type) == ("ME1.png", "image/png")
    assert rows(database, Medium)[0].state == "fetched"


# --- what did not reach us --------------------------------------------------------------------------------------------


async def away(sms: Sms, *bodies: str, sender: str = CUSTOMER) -> None:
    """Messages that come while nobody answers at our address."""
    numbers = await sms.twilio.numbers()
    await sms.twilio.point(numbers[sms.number], sms_url="http://127.0.0.1:9/hooks/sms")
    for body in bodies:
        await sms.write(body, sender)
    await sms.twilio.point(numbers[sms.number], sms_url=f"{sms.api.world.desk.public_url}/hooks/sms")


async def test_what_came_while_we_were_away_is_brought_and_counted(sms: Sms) -> None:
    await sms.write("this one came")
    await away(sms, "理赔 #claim_status", "and where is my money")
    assert len(sms.came_in()) == 1
    assert await sms.compare() == 2
    assert sms.comparison.health.ok
    assert "3 of the last 3 days, 2 had not reached us; 2 since the start" in sms.comparison.health.detail
    assert {each.text for each in sms.came_in()} == {"this one came", "理赔 #claim_status", "and where is my money"}
    assert await sms.compare() == 0
    assert "3 of the last 3 days, 0 had not reached us; 2 since the start" in sms.comparison.health.detail
    assert await sms.api.count("event", kind="duplicate_differs") == 0


async def test_what_may_still_be_on_its_way_is_left_to_the_webhook(sms: Sms) -> None:
    await away(sms, "just now")
    assert await sms.compare(seconds=30) == 0
    assert sms.came_in() == []
    assert await sms.compare(days=4) == 0  # and what is too old is let be
    assert sms.came_in() == []


async def test_a_stop_that_did_not_reach_us_counts_all_the_same(sms: Sms) -> None:
    await away(sms, "退订")
    assert await sms.compare() == 1
    assert sms.suppressed() == "opted_out"


async def test_an_old_stop_does_not_undo_a_start_that_came(sms: Sms) -> None:
    await away(sms, "退订")
    await sms.write("恢复")
    assert await sms.compare() == 1
    assert sms.suppressed() is None


async def test_a_missed_picture_is_brought_with_its_address(database: Database, settings: Settings) -> None:
    async with told_twilio() as told:
        base = f"/2010-04-01/Accounts/{ACCOUNT}/Messages"
        picture = record("MM1", direction="inbound", body="", num_media="1", **{"from": CUSTOMER, "to": "+12025550123"})
        told.json("GET", f"{base}.json", {"messages": [picture], "next_page_uri": None})
        files = [{"sid": "ME1", "uri": f"{base}/MM1/Media/ME1.json", "content_type": "image/jpeg"}]
        told.json("GET", f"{base}/MM1/Media.json", {"media_list": files, "next_page_uri": None})
        made = make(api_url=told.url)
        [source] = made.sources
        assert isinstance(source, Comparison)
        world = make_world(database, settings)
        take = Arrivals(database, world.flow).take
        later = datetime.now(UTC) + timedelta(minutes=5)
        assert [await source.compare(take, later), await source.compare(take, later)] == [1, 0]
        assert made.sender is not None
        await made.sender.close()
        [row] = rows(database, Medium)
        assert row.reference["url"] == f"{told.url}{base}/MM1/Media/ME1"
        assert told.paths("GET").count(f"{base}/MM1/Media.json") == 1
        assert told.heard[0].query["To"] == "+12025550123"
        assert "DateSent>" in told.heard[0].query


async def nothing(items: Sequence[Incoming], notices: Sequence[Notice] = ()) -> list[Stored]:
    assert not items
    assert not notices
    return []


async def test_the_loop_outlives_every_fault_and_compares_when_it_can() -> None:
    async with told_twilio() as told:
        leases = Leases([False, None, True, True])
        made = channel("sms", sms_settings(api_url=told.url, reconcile=0.01), Surroundings("http://x.test", leases))
        [source] = made.sources
        said: list[tuple[bool, str]] = []
        enough = asyncio.Event()

        def look() -> None:
            """What the round before this one left."""
            said.append((source.health.ok, source.health.detail))
            if len(said) == 4:  # until now there was no such account
                path = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
                told.json("GET", path, {"messages": [], "next_page_uri": None})
            if len(said) == 5:
                enough.set()

        leases.before = look
        task = asyncio.create_task(source.run(nothing))
        async with asyncio.timeout(20):
            await enough.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert made.sender is not None
        await made.sender.close()
    assert [ok for ok, _words in said[:5]] == [False, True, False, False, True]
    for number, part in enumerate(["starting", "another process", "database", "account SID", "compared at"]):
        assert part in said[number][1]


async def test_without_an_interval_nothing_is_compared() -> None:
    assert make(reconcile=0).sources == ()
