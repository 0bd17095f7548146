"""SMS out: what each answer and each silence of Twilio means, repeats that send nothing twice, and the probe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from app_channels import channels
from channels import Channel, Sender, pieces, too_long
from domain import ChannelError, Receipt, Reply, SettingsError
from settings import load
from tests.samples import NoLeases, marks
from tests.samples.sms import ACCOUNT, CUSTOMER, NEW, OLD, OURS, make, record
from tests.server_base import HOST, free_port
from tests.sms_world import ToldTwilio, told_twilio

BASE = f"/2010-04-01/Accounts/{ACCOUNT}"
MESSAGES = f"{BASE}/Messages.json"
SERVICE = "MG" + "a" * 32


@pytest.fixture
async def twilio_says() -> AsyncIterator[ToldTwilio]:
    async with told_twilio() as made:
        yield made


def sender_of(made: Channel) -> Sender:
    assert made.sender is not None
    return made.sender


def reply(**values: Any) -> Reply:
    given: dict[str, Any] = {"to": CUSTOMER, "text": "您好", "key": "k", "account": OURS}
    return Reply(**(given | values))


async def sent(told: ToldTwilio, message: Reply, **changes: Any) -> Receipt:
    sender = sender_of(make(api_url=told.url, **changes))
    try:
        return await sender.send(message)
    finally:
        await sender.close()


async def failed(told: ToldTwilio, message: Reply | None = None, **changes: Any) -> ChannelError:
    with pytest.raises(ChannelError) as raised:
        await sent(told, message or reply(), **changes)
    return raised.value


# --- what goes out ----------------------------------------------------------------------------------------------------


async def test_a_message_goes_out_from_the_number_that_was_written_to(twilio_says: ToldTwilio) -> None:
    twilio_says.json("POST", MESSAGES, record("SM1"), 201)
    assert await sent(twilio_says, reply(text="理赔 & 退款+1🙂")) == Receipt("SM1")
    [heard] = twilio_says.heard
    assert heard.form == {
        "To": CUSTOMER,
        "From": OURS,
        "Body": "理赔 & 退款+1🙂",
        "StatusCallback": "http://sluice.test/hooks/sms/status?account=%2B12025550123",
    }
    assert heard.headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("account", "changes", "number", "service"),
    [
        ("+19995550000", {}, OURS, None),  # a number that we gave up
        ("", {}, OURS, None),
        ("+19995550000", {"numbers": []}, "+19995550000", None),
        ("whatsapp:+19995550000", {}, "whatsapp:+19995550000", None),
        (OURS, {"messaging_service": SERVICE}, OURS, SERVICE),
        ("", {"messaging_service": SERVICE, "numbers": []}, None, SERVICE),
    ],
)
async def test_who_it_comes_from(
    twilio_says: ToldTwilio, account: str, changes: dict[str, Any], number: str | None, service: str | None
) -> None:
    twilio_says.json("POST", MESSAGES, record("SM1"), 201)
    await sent(twilio_says, reply(account=account), **changes)
    [heard] = twilio_says.heard
    assert (heard.form.get("From"), heard.form.get("MessagingServiceSid")) == (number, service)


async def test_what_cannot_be_sent_is_refused_without_asking(twilio_says: ToldTwilio) -> None:
    error = await failed(twilio_says, reply(to="PINGAN"))
    assert marks(error) == marks(ChannelError(permanent=True))
    error = await failed(twilio_says, reply(account=""), numbers=[])
    assert marks(error) == marks(ChannelError(broken=True))
    assert "sms.numbers" in str(error)
    assert twilio_says.heard == []


def test_long_answers_are_cut_and_too_long_ones_refused() -> None:
    limits = sender_of(make()).limits
    text = "赔" * 1590 + "。" + "款" * 1500
    assert [len(each) for each in pieces(text, limits)] == [1591, 1500]
    assert too_long(text, limits) == ""
    assert limits.measure("🙂") == 2
    assert "1,600 characters in each of 3 messages" in too_long("赔" * 4801, limits)


def test_the_settings_turn_the_channel_on(tmp_path: Path) -> None:
    given = {
        "SLUICE_STATE_DIR": str(tmp_path),
        "SLUICE_WEB__PUBLIC_URL": "https://help.example.com",
        "SLUICE_SMS__ENABLED": "true",
        "SLUICE_SMS__ACCOUNT_SID": ACCOUNT,
        "SLUICE_SMS__AUTH_TOKENS__0": NEW,
        "SLUICE_SMS__NUMBERS__0": OURS,
    }
    settings = load(given)
    [made] = channels(settings, NoLeases())
    assert (made.name, [each.name for each in made.sources]) == ("sms", ["sms comparison"])
    assert None not in (made.sender, made.hook, made.fetcher, made.probe)
    assert NEW not in repr(settings)
    with pytest.raises(SettingsError, match="auth token"):
        load({name: value for name, value in given.items() if "TOKENS" not in name})


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["silent", "cut"])
async def test_a_line_that_breaks_after_the_request_leaves_the_result_unknown(
    twilio_says: ToldTwilio, way: str
) -> None:
    getattr(twilio_says, way)("POST", MESSAGES)
    error = await failed(twilio_says, timeout=0.4)
    assert marks(error) == marks(ChannelError(unknown=True))
    assert twilio_says.taken.is_set()
    assert CUSTOMER not in str(error)


async def test_our_own_deadline_ends_what_the_librarys_would_not(twilio_says: ToldTwilio) -> None:
    """twilio-python's asynchronous client has none (its issue 925): without ours this would wait for ever."""
    twilio_says.silent("POST", MESSAGES)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await failed(twilio_says, timeout=0.3)
    assert loop.time() - began < 10


@pytest.mark.parametrize("kind", ["refused", "never answers the handshake"])
async def test_a_line_that_never_came_about_is_tried_again(kind: str) -> None:
    told = ToldTwilio(f"http://{HOST}:{free_port()}")
    if kind == "refused":
        error = await failed(told)
    else:
        server = await asyncio.start_server(lambda _r, w: w.transport.abort(), HOST, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            error = await failed(ToldTwilio(f"https://{HOST}:{port}"), timeout=1)
    assert marks(error) == marks(ChannelError(retry_after=1.0))


async def test_a_limit_is_the_whole_accounts_and_says_how_long(twilio_says: ToldTwilio) -> None:
    twilio_says.json("POST", MESSAGES, {"code": 20429}, 429, {"Retry-After": "17"})
    error = await failed(twilio_says)
    assert (error.retry_after, error.pause, error.broken) == (17.0, True, False)


async def test_the_secrets_and_the_customer_stay_out_of_errors_and_logs(
    twilio_says: ToldTwilio, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    twilio_says.json("POST", MESSAGES, {"code": 21211, "message": f"The number {CUSTOMER} is invalid"}, 400)
    error = await failed(twilio_says, reply(text="my secret illness"))
    told = f"{error!r} {error} {error.__cause__!r} {caplog.text} {make()!r}"
    for secret in (NEW, OLD, CUSTOMER, "illness"):
        assert secret not in told


# --- repeats ----------------------------------------------------------------------------------------------------------


def listed(*records: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(records), "next_page_uri": None, "page_size": 50, "page": 0}


async def test_a_repeat_finds_what_the_first_try_left_with_twilio(twilio_says: ToldTwilio) -> None:
    twilio_says.json("GET", MESSAGES, listed(record("SM9", body="other"), record("SM8")))
    assert await sent(twilio_says, reply(again=True)) == Receipt("SM8")
    [heard] = twilio_says.heard
    assert (heard.method, heard.query["To"], heard.query["From"]) == ("GET", CUSTOMER, OURS)


@pytest.mark.parametrize(
    "other",
    [
        {"body": "您好吗"},
        {"direction": "inbound"},
        {"date_created": format_datetime(datetime.now(UTC) - timedelta(hours=2))},
        {"date_created": None},
    ],
)
async def test_a_repeat_that_finds_nothing_sends(twilio_says: ToldTwilio, other: dict[str, Any]) -> None:
    twilio_says.json("GET", MESSAGES, listed(record("SM8", **other)))
    twilio_says.json("POST", MESSAGES, record("SM9"), 201)
    assert await sent(twilio_says, reply(again=True)) == Receipt("SM9")


async def test_an_earlier_message_with_the_same_words_is_not_taken_for_the_repeated_one(
    twilio_says: ToldTwilio,
) -> None:
    twilio_says.json("POST", MESSAGES, record("SM1"), 201)
    sender = sender_of(make(api_url=twilio_says.url))
    assert await sender.send(reply(key="first")) == Receipt("SM1")
    twilio_says.json("GET", MESSAGES, listed(record("SM1")))
    twilio_says.json("POST", MESSAGES, record("SM2"), 201)
    assert await sender.send(reply(key="second", again=True)) == Receipt("SM2")
    await sender.close()


@pytest.mark.parametrize("way", ["silent", "cut", "html"])
async def test_a_repeat_that_cannot_look_sends_nothing_and_waits(twilio_says: ToldTwilio, way: str) -> None:
    if way == "html":
        twilio_says.body(MESSAGES, b"<html>sign in</html>", "text/html")
    else:
        getattr(twilio_says, way)("GET", MESSAGES)
    error = await failed(twilio_says, reply(again=True), timeout=0.4)
    assert marks(error) == marks(ChannelError(retry_after=1.0))
    assert twilio_says.paths("POST") == []


# --- the probe --------------------------------------------------------------------------------------------------------


async def probed(told: ToldTwilio, **changes: Any) -> tuple[bool, str]:
    made = make(api_url=told.url, **changes)
    assert made.probe is not None
    health = await made.probe.probe()
    return health.ok, health.detail


def account(told: ToldTwilio, status: str = "active", sms_url: str = "http://sluice.test/hooks/sms") -> None:
    told.json("GET", f"{BASE}.json", {"sid": ACCOUNT, "status": status, "friendly_name": "Insurer"})
    numbers = [{"sid": "PN1", "phone_number": OURS, "sms_url": sms_url, "voice_url": None}]
    told.json("GET", f"{BASE}/IncomingPhoneNumbers.json", {"incoming_phone_numbers": numbers, "next_page_uri": None})


async def test_the_probe_says_whose_account_it_is(twilio_says: ToldTwilio) -> None:
    account(twilio_says)
    assert await probed(twilio_says) == (True, f"{ACCOUNT} works, as {OURS}")
    assert await probed(twilio_says, numbers=["10690000", "PINGAN"]) == (True, f"{ACCOUNT} works, as 10690000, PINGAN")


async def test_the_probe_says_what_is_wrong_and_what_to_do(twilio_says: ToldTwilio) -> None:
    ok, words = await probed(twilio_says)
    assert not ok
    assert "does not know our account SID" in words
    twilio_says.json("GET", f"{BASE}.json", {"code": 20003, "message": "Authenticate", "status": 401}, 401)
    ok, words = await probed(twilio_says)
    assert not ok
    assert "refuses our account SID or auth token" in words
    account(twilio_says, "suspended")
    assert await probed(twilio_says) == (False, "the account is suspended: see console.twilio.com")
    account(twilio_says)
    ok, words = await probed(twilio_says, numbers=[OURS, "+12025559999"])
    assert not ok
    assert words.startswith("+12025559999: no number of this account")
    account(twilio_says, sms_url="https://demo.twilio.com/welcome/sms/reply")
    ok, words = await probed(twilio_says)
    assert not ok
    assert "does not call http://sluice.test/hooks/sms" in words
    assert (await probed(twilio_says, messaging_service=SERVICE))[0]
    ok, words = await probed(ToldTwilio(f"http://{HOST}:{free_port()}"))
    assert not ok
    assert "cannot be reached" in words
