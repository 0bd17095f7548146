"""The way out to Telegram, its files, and the question whether it works: what each answer of the Bot API means."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest

from channels import Channel, Fetcher, Sender, pieces
from domain import ChannelError, Reply, SettingsError
from settings import load
from tests.samples import marks
from tests.telegram_server import (
    BOT,
    ME,
    TOKEN,
    BotApi,
    Fault,
    bad,
    blocked,
    gateway,
    migrated,
    refuse,
    retry_after,
    unauthorized,
)
from tests.telegram_world import GROUP, make

CHAT = 7


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as made:
        made.chats |= {CHAT, 8, 9, GROUP, -555}
        yield made


@pytest.fixture
async def channel(api: BotApi) -> AsyncIterator[Channel]:
    made = make(api.url, timeout=1.0)
    yield made
    assert made.sender is not None
    await made.sender.close()


@pytest.fixture
def sender(channel: Channel) -> Sender:
    assert channel.sender is not None
    return channel.sender


@pytest.fixture
def fetcher(channel: Channel) -> Fetcher:
    assert channel.fetcher is not None
    return channel.fetcher


def reply(text: str = "hello", **values: Any) -> Reply:
    return Reply(**({"to": str(CHAT), "text": text, "key": "k", "thread": str(CHAT)} | values))


async def refused(sender: Sender, given: Reply | None = None) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        await sender.send(given or reply())
    silent(caught.value)
    return caught.value


def silent(error: BaseException) -> None:
    """The token stands in every URL: it must be nowhere in what a log would write of an error."""
    whole = "".join(traceback.format_exception(error)) + repr(error)
    seen: BaseException | None = error
    while seen is not None:
        whole += str(seen) + repr(seen) + repr(vars(seen))
        seen = seen.__cause__ or seen.__context__
    assert TOKEN not in whole
    assert TOKEN.partition(":")[2] not in whole


# --- sending ----------------------------------------------------------------------------------------------------------


async def test_a_persons_answer_is_plain_text_without_buttons_or_preview(api: BotApi, sender: Sender) -> None:
    text = "<b>您好</b> & _welcome_ 🙂 https://sluice.test/t/abc"
    receipt = await sender.send(reply(text, ticket_number="S-123456"))
    [sent] = api.sent
    assert (sent["text"], receipt.provider_id) == (text, f"{CHAT}:{sent['message_id']}")
    [(_, given)] = api.calls
    assert given.keys() == {"chat_id", "text", "link_preview_options"}
    assert json.loads(given["link_preview_options"]) == {"is_disabled": True}


@pytest.mark.parametrize(("language", "label"), [("zh", "转人工"), ("zh-Hant", "转人工"), ("en", "Talk to a person")])
async def test_an_automatic_answer_has_buttons_in_the_customers_language(
    api: BotApi, sender: Sender, language: str, label: str
) -> None:
    whole = reply(automatic=True, kind="acknowledgement", ticket_number="S-123456", language=language, parts=2)
    await sender.send(whole)
    assert "reply_markup" not in api.sent[0]
    await sender.send(reply(automatic=True, ticket_number="S-123456", language=language, part=1, parts=2))
    rows = api.sent[1]["reply_markup"]["inline_keyboard"]
    assert [row[0]["text"] for row in rows][1] == label


@pytest.mark.parametrize("text", ["a" * 4096, "🙂" * 4000 + "。" + "长" * 9000, "word " * 3000])
async def test_a_long_text_goes_out_in_pieces_that_telegram_takes(api: BotApi, sender: Sender, text: str) -> None:
    for piece in pieces(text, sender.limits):
        await sender.send(reply(piece))
    assert "".join("".join(each["text"].split()) for each in api.sent) == "".join(text.split())


@pytest.mark.parametrize(
    ("to", "thread", "chat", "topic"),
    [
        ("7", "7", 7, None),
        ("7", "7/31", 7, "31"),
        ("7", "", 7, None),
        ("7", f"{GROUP}/31", GROUP, "31"),
        ("7", "8", 7, None),  # a number of another channel's thread may be a stranger's chat
        ("7", "-555", 7, None),
        ("7", "+8613800000000|+86", 7, None),
    ],
)
async def test_an_answer_goes_where_the_customer_wrote_and_to_no_strangers_chat(
    api: BotApi, sender: Sender, to: str, thread: str, chat: int, topic: str | None
) -> None:
    await sender.send(reply(to=to, thread=thread))
    [(_, given)] = api.calls
    assert (given["chat_id"], given.get("message_thread_id")) == (str(chat), topic)


async def test_what_is_no_chat_is_refused_without_a_call(api: BotApi, sender: Sender) -> None:
    error = await refused(sender, reply(to="li@example.com", thread=""))
    assert error.permanent
    assert api.calls == []


MAPPED: list[tuple[Fault, dict[str, Any], str]] = [
    (blocked(), {"permanent": True, "refused": "blocked"}, "blocked the bot"),
    (refuse(403, "Forbidden: user is deactivated"), {"permanent": True, "refused": "blocked"}, "no longer exists"),
    (refuse(403, "Forbidden: bot can't initiate conversation with a user"), {"permanent": True}, "write first"),
    (refuse(403, "Forbidden: bot was kicked from the group chat"), {"permanent": True}, "may not write"),
    (bad(), {"permanent": True}, "does not know this chat"),
    (bad("Bad Request: message is too long"), {"permanent": True}, "shorter"),
    (bad(f"Bad Request: strange https://x/bot{TOKEN}/y"), {"permanent": True}, "did not take it"),
    (refuse(413, "Request Entity Too Large"), {"permanent": True}, "too large"),
    (retry_after(7), {"retry": True}, "7 s"),
    (unauthorized(), {"broken": True, "pause": True}, "@BotFather"),
    (refuse(404, "Not Found"), {"broken": True, "pause": True}, "@BotFather"),
    (refuse(500, "Internal Server Error: restart"), {"retry": True}, "restarts"),
    (refuse(502, "Bad Gateway"), {"unknown": True}, "has a fault"),
    (gateway(), {"unknown": True}, "cannot be read"),
    (refuse(409, "Conflict: x"), {"retry": True}, "Another program"),
    (Fault(200, {"ok": True, "result": "sent"}), {"unknown": True}, "what became of"),
    (Fault(200, {"ok": True, "result": {"message_id": "x"}}), {"unknown": True}, "what became of"),
    (Fault(200, ["?"]), {"unknown": True}, "cannot be read"),
    (Fault(420, {"ok": False}), {"retry": True}, "no reason given"),
    (Fault(500, {"ok": False}), {"unknown": True}, "failed"),
    (Fault(drop=True, done=True), {"unknown": True}, "line"),
    (Fault(200, {}, wait=3.0, done=True), {"unknown": True}, "in time"),
]


@pytest.mark.parametrize(("fault", "expected", "words"), MAPPED)
async def test_what_each_refusal_means(
    api: BotApi, sender: Sender, fault: Fault, expected: dict[str, Any], words: str
) -> None:
    api.fail("sendMessage", fault)
    error = await refused(sender)
    nothing = {"permanent": False, "retry": False, "unknown": False, "pause": False, "broken": False, "refused": ""}
    assert marks(error) == nothing | expected
    assert words in str(error)


async def test_an_answer_in_a_form_that_is_not_known_yet_still_says_that_it_was_sent(
    api: BotApi, sender: Sender
) -> None:
    api.fail("sendMessage", Fault(200, {"ok": True, "result": {"message_id": 77, "date": "next week"}}))
    assert (await sender.send(reply())).provider_id == f"{CHAT}:77"


async def test_nobody_there_is_tried_again(api: BotApi, sender: Sender) -> None:
    await api.__aexit__(None, None, None)
    error = await refused(sender)
    assert marks(error)["retry"]
    assert not error.unknown


async def test_a_group_that_moved_is_found_at_its_new_place(api: BotApi, sender: Sender) -> None:
    api.fail("sendMessage", migrated(GROUP - 1))
    api.chats.add(GROUP - 1)
    await sender.send(reply(thread=str(GROUP)))
    assert [each["chat"]["id"] for each in api.sent] == [GROUP - 1]


async def test_a_chat_that_was_too_fast_rests_alone_and_two_mean_the_whole_bot(api: BotApi, sender: Sender) -> None:
    api.fail("sendMessage", retry_after(30))
    first = await refused(sender)
    assert (first.retry_after, first.pause) == (30.0, False)
    again = await refused(sender)
    assert again.retry_after is not None
    assert 20 < again.retry_after <= 30
    await sender.send(reply(to="8", thread="8"))
    assert len(api.calls) == 2  # the resting chat cost no call
    api.fail("sendMessage", retry_after(5))
    second = await refused(sender, reply(to="9", thread="9"))
    assert (second.retry_after, second.pause) == (5.0, True)


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_file_is_fetched(api: BotApi, fetcher: Fetcher) -> None:
    api.files["F"] = b"\x89PNG" * 100_000
    got = await fetcher.fetch({"file_id": "F", "name": "car.png", "media_type": "image/png", "account": BOT})
    assert (got.name, got.media_type, got.content) == ("car.png", "image/png", b"\x89PNG" * 100_000)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("gone", {}), ("told", {"size": "35000000"}), ("large", {}), ("untold", {})],
)
async def test_a_file_that_cannot_be_had_is_given_up_in_words(
    api: BotApi, fetcher: Fetcher, name: str, reference: dict[str, str]
) -> None:
    api.files["large"] = bytes(21 * 1024 * 1024)
    api.files["untold"] = bytes(20_500_000)  # Telegram gives it, and it is more than we take
    with pytest.raises(ChannelError) as caught:
        await fetcher.fetch({"file_id": name} | reference)
    assert caught.value.permanent
    assert "20 MB" in str(caught.value) or name == "gone"
    assert name != "told" or api.calls == []


@pytest.mark.parametrize(
    "fault", [Fault(404, html="gone"), Fault(500, html="?"), Fault(drop=True), Fault(401, html="no")]
)
async def test_a_download_that_fails_is_tried_again_and_never_names_the_token(
    api: BotApi, fetcher: Fetcher, fault: Fault
) -> None:
    api.files["F"] = b"x"
    api.fail("file", *[fault] * (2 if fault.drop else 1))  # a broken line is tried once more by the library
    with pytest.raises(ChannelError) as caught:
        await fetcher.fetch({"file_id": "F"})
    assert not caught.value.permanent
    silent(caught.value)
    assert (await fetcher.fetch({"file_id": "F"})).content == b"x"


# --- the probe, and the settings --------------------------------------------------------------------------------------


async def test_the_probe_says_whose_bot_it_is(api: BotApi, channel: Channel) -> None:
    assert channel.probe is not None
    health = await channel.probe.probe()
    assert health.ok
    assert "@claims_bot" in health.detail
    assert "/setprivacy" in health.detail
    api.me = {key: value for key, value in ME.items() if key != "is_bot"}  # what the library's type would refuse
    assert (await channel.probe.probe()).ok


@pytest.mark.parametrize(
    ("fault", "words"),
    [(unauthorized(), "@BotFather"), (gateway(), "cannot be read"), (Fault(body={"ok": True, "result": 1}), "api_url")],
)
async def test_the_probe_says_what_is_wrong(api: BotApi, channel: Channel, fault: Fault, words: str) -> None:
    api.fail("getMe", fault)
    assert channel.probe is not None
    health = await channel.probe.probe()
    assert not health.ok
    assert words in health.detail


@pytest.mark.parametrize("token", ["not a token", "98765:", "zzz", "98765:a b"])
def test_what_is_no_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make("http://127.0.0.1:1", token=token)
    assert token not in "".join(traceback.format_exception(caught.value))


def test_settings_that_cannot_work_are_refused_without_showing_the_token() -> None:
    given = {"SLUICE_TELEGRAM__ENABLED": "true", "SLUICE_TELEGRAM__TOKEN": TOKEN, "SLUICE_TELEGRAM__MODE": "webhook"}
    for more in ({}, {"SLUICE_TELEGRAM__WEBHOOK_SECRETS__0": "with a space"}):
        with pytest.raises(SettingsError) as caught:
            load(given | more)
        assert "telegram" in str(caught.value)
        silent(caught.value)
        assert "with a space" not in str(caught.value)
