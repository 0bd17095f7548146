"""Telegram by asking: stored, committed, and only then moved on; one process of all; and what a faulty line does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from domain import Incoming, Notice, Stored, Unavailable
from settings import Settings
from storage.database import Database
from tests.telegram_server import BotApi, conflict, gateway, refuse, retry_after, unauthorized
from tests.telegram_world import GROUP, QUICK, Bot, telegram, until


@pytest.fixture
async def api() -> AsyncIterator[BotApi]:
    async with BotApi() as made:
        yield made


@pytest.fixture
async def bot(database: Database, settings: Settings, api: BotApi) -> AsyncIterator[Bot]:
    async with telegram(database, settings, api) as made:
        yield made


def health(bot: Bot) -> Any:
    return bot.channel.sources[0].health


async def test_messages_are_stored_and_confirmed_and_a_webhook_is_taken_away_first(bot: Bot, api: BotApi) -> None:
    api.webhook = {"url": "https://elsewhere.test"}
    api.says("#claim_status one")
    api.says("#claim_status two")
    bot.listen()
    await bot.confirmed()
    assert await bot.texts() == ["#claim_status one", "#claim_status two"]
    assert api.calls[0][0] == "deleteWebhook"
    assert api.offsets[:2] == [None, 1002]
    assert health(bot).ok


async def test_killed_between_storing_and_moving_on_the_next_process_gets_the_same_and_nothing_doubles(
    bot: Bot, api: BotApi
) -> None:
    api.says("#claim_status one")
    api.presses("1|person|S-123456|zh")
    stored = asyncio.Event()

    async def take(items: Sequence[Incoming], notices: Sequence[Notice] = ()) -> list[Stored]:
        await bot.arrivals.take(items, notices)
        stored.set()
        return await asyncio.Future()

    bot.listen(take)
    await asyncio.wait_for(stored.wait(), 10)
    await bot.stop()
    assert len(api.waiting) == 2
    assert api.offsets == [None]
    api.says("#claim_status three")
    bot.listen()
    await bot.confirmed()
    assert await bot.texts() == ["#claim_status one", "转人工", "#claim_status three"]


async def test_nothing_moves_on_while_the_database_is_down(bot: Bot, api: BotApi) -> None:
    down, tries = True, 0

    async def take(items: Sequence[Incoming], notices: Sequence[Notice] = ()) -> list[Stored]:
        nonlocal tries
        tries += 1
        if down:
            raise Unavailable
        return await bot.arrivals.take(items, notices)

    api.says("#claim_status one")
    bot.listen(take)
    await until(lambda: tries >= 3, "several tries")
    assert set(api.offsets) == {None}
    assert not health(bot).ok
    assert len(api.waiting) == 1
    down = False
    await bot.confirmed()
    assert await bot.texts() == ["#claim_status one"]
    await until(lambda: health(bot).ok, "all is well again")


async def test_a_random_number_after_a_week_of_silence_is_not_confirmed_unread(bot: Bot, api: BotApi) -> None:
    api.says("#claim_status one")
    bot.listen()
    await bot.confirmed()
    await until(lambda: len(api.offsets) >= 3 and api.offsets[-1] is None, "a question without an offset", 10)
    api.next_update = 5  # lower than what was confirmed
    api.says("#claim_status two")
    await bot.confirmed()
    assert await bot.texts() == ["#claim_status one", "#claim_status two"]


async def test_an_update_that_cannot_be_read_is_parked_and_those_behind_it_come_through(bot: Bot, api: BotApi) -> None:
    api.says("#claim_status one")
    api.happens(message={"chat": "what"})
    api.happens(invented={"new": "kind"})
    api.says("#claim_status two")
    bot.listen()
    await bot.confirmed()
    assert await bot.rows("SELECT text, state FROM message ORDER BY id") == [
        ("#claim_status one", "received"),
        ("", "quarantined"),
        ("", "quarantined"),
        ("#claim_status two", "received"),
    ]


async def test_an_update_that_cannot_be_stored_is_parked(bot: Bot, api: BotApi) -> None:
    async def take(items: Sequence[Incoming], notices: Sequence[Notice] = ()) -> list[Stored]:
        if any("poison" in getattr(each, "text", "") for each in items):
            raise RuntimeError("a fault of ours")
        return await bot.arrivals.take(items, notices)

    for text in ("#claim_status one", "poison", "#claim_status two"):
        api.says(text)
    bot.listen(take)
    await bot.confirmed()
    assert await bot.rows("SELECT text, state FROM message ORDER BY id") == [
        ("#claim_status one", "received"),
        ("", "quarantined"),
        ("#claim_status two", "received"),
    ]


# --- one of all -------------------------------------------------------------------------------------------------------


async def test_one_process_asks_and_another_takes_over_when_it_is_gone(
    database: Database, settings: Settings, api: BotApi
) -> None:
    pace = type(QUICK)(poll=1, lease=1.2, first=0.01, most=0.05, slow=0.05)
    async with (
        telegram(database, settings, api, pace=pace, holder="a") as first,
        telegram(database, settings, api, pace=pace, holder="b") as second,
    ):
        first.listen()
        await until(lambda: health(first).ok, "the first asks")
        second.listen()
        await until(lambda: health(second).elsewhere, "the second waits")
        await asyncio.sleep(1.5)  # longer than the lease, which is renewed
        assert health(second).elsewhere
        assert not health(first).elsewhere
        await first.stop()
        api.says("#claim_status one")
        await second.confirmed()
        assert await second.texts() == ["#claim_status one"]
        assert not health(second).elsewhere


async def test_who_loses_the_lease_stops_asking(database: Database, settings: Settings, api: BotApi) -> None:
    pace = type(QUICK)(poll=1, lease=0.8, first=0.01, most=0.05, slow=0.05)
    async with telegram(database, settings, api, pace=pace) as bot:
        bot.listen()
        await until(lambda: health(bot).ok, "it asks")
        await bot.rows("SELECT 1")
        await database.write(lambda connection: connection.exec_driver_sql("UPDATE lease SET holder = 'other'"))
        await until(lambda: health(bot).elsewhere, "it waits")


# --- faults of the other side -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (unauthorized(), "refuses the token"),
        (refuse(404, "Not Found"), "refuses the token"),
        (conflict(), "Another program"),
        (gateway(), "cannot be read"),
        (refuse(500, "Internal Server Error"), "has a fault"),
        (retry_after(1), "wait 1 s"),
    ],
)
async def test_a_fault_is_told_in_words_and_it_comes_back_by_itself(
    bot: Bot, api: BotApi, fault: Any, words: str
) -> None:
    api.fail("getUpdates", fault)
    bot.listen()
    await until(lambda: words in health(bot).detail, words)
    assert not health(bot).ok
    api.says("#claim_status one")
    await bot.confirmed()
    await until(lambda: health(bot).ok, "all is well again")
    assert await bot.texts() == ["#claim_status one"]


async def test_a_webhook_that_somebody_sets_meanwhile_is_taken_away_again(bot: Bot, api: BotApi) -> None:
    bot.listen()
    await until(lambda: health(bot).ok, "it asks")
    api.webhook = {"url": "https://elsewhere.test"}
    api.says("#claim_status one")
    await bot.confirmed()
    assert [name for name, _ in api.calls].count("deleteWebhook") == 2


async def test_a_server_that_is_away_is_found_again(database: Database, settings: Settings) -> None:
    async with BotApi() as first:
        port = first.port
        async with telegram(database, settings, first) as bot:
            bot.listen()
            await until(lambda: health(bot).ok, "it asks")
            await first.__aexit__(None, None, None)
            await until(lambda: not health(bot).ok, "nobody answers")
            async with BotApi(port=port) as second:
                second.says("#claim_status one")
                await until(lambda: not second.waiting, "it is there again")
            assert await bot.texts() == ["#claim_status one"]


# --- what messages mean on their way through --------------------------------------------------------------------------


async def test_an_album_is_one_message_and_an_edit_a_revision(bot: Bot, api: BotApi) -> None:
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 10, "height": 10}]
    first = api.says(caption="#file_claim my car", photo=photo, media_group_id="g")
    api.says(photo=photo, media_group_id="g")
    bot.listen()
    await bot.confirmed()
    api.says(photo=photo, media_group_id="g")
    edited = first["message"] | {"caption": "#file_claim my red car", "edit_date": first["message"]["date"] + 9}
    api.happens(edited_message=edited)
    await bot.confirmed()
    assert await bot.texts() == ["#file_claim my car", "#file_claim my red car"]
    assert await bot.rows("SELECT message_id, count(*) FROM medium GROUP BY message_id ORDER BY message_id") == [
        (1, 3),
        (2, 1),
    ]


async def test_groups_that_are_not_served_are_nothing_of_ours(bot: Bot, api: BotApi) -> None:
    api.says("#claim_status somebody else's", chat=-100999)
    api.says("#claim_status ours", chat=GROUP)
    bot.listen()
    await bot.confirmed()
    assert await bot.texts() == ["#claim_status ours"]


async def test_who_blocks_or_says_stop_gets_nothing_until_start(bot: Bot, api: BotApi) -> None:
    api.says("#claim_status one")
    api.says("/stop")
    bot.listen()
    await bot.confirmed()
    query = "SELECT suppressed FROM address WHERE channel = 'telegram'"
    assert await bot.rows(query) == [("opted_out",)]
    api.says("/start")
    await bot.confirmed()
    assert await bot.rows(query) == [(None,)]
    member = {"chat": {"id": 7, "type": "private"}, "from": {"id": 7, "is_bot": False, "first_name": "Li"}}
    user = {"id": 123456789, "is_bot": True, "first_name": "Claims"}
    for old, new in (("member", "kicked"), ("kicked", "member")):
        change: dict[str, dict[str, Any]] = {
            "old_chat_member": {"status": old, "user": user},
            "new_chat_member": {"status": new, "user": user},
        }
        change["old_chat_member" if old == "kicked" else "new_chat_member"]["until_date"] = 0
        api.happens(my_chat_member=member | {"date": api.message()["date"]} | change)
        await bot.confirmed()
        assert await bot.rows(query) == [("blocked" if new == "kicked" else None,)]
    assert await bot.texts() == ["#claim_status one"]


async def test_buttons_are_answered_after_the_commit_and_mean_what_they_say(bot: Bot, api: BotApi) -> None:
    api.says("#claim_status one")
    bot.listen()
    await bot.confirmed()
    await bot.world.flow.finish()
    await bot.world.delivery.send_due("telegram")
    [acknowledgement] = api.sent
    rows = acknowledgement["reply_markup"]["inline_keyboard"]
    status, person = (row[0] for row in rows)
    api.presses(person["callback_data"], acknowledgement)
    await bot.confirmed()
    await until(lambda: len(api.answered) == 1, "the button is answered")
    assert await bot.texts() == ["#claim_status one", person["text"]]
    await bot.world.flow.finish()
    assert await bot.rows("SELECT count(*) FROM ticket") == [(1,)]
    api.presses(status["callback_data"], acknowledgement)
    await bot.confirmed()
    await bot.world.flow.finish()
    await bot.world.delivery.send_due("telegram")
    stars = api.sent[-1]["reply_markup"]["inline_keyboard"][-1]
    assert [each["text"] for each in stars] == ["1⭐", "2⭐", "3⭐", "4⭐", "5⭐"]
    api.presses(stars[3]["callback_data"], api.sent[-1])
    api.presses("0|older|bot")
    await bot.confirmed()
    await until(lambda: len(api.answered) == 4, "all buttons are answered")
    assert len(await bot.texts()) == 3
    [(data,)] = await bot.rows("SELECT CAST(data AS TEXT) FROM event WHERE kind = 'rated'")
    assert json.loads(data)["score"] == 4
