"""Whether a channel's account works, and whether it is quieter than it should be at this hour."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from channels import Health
from domain import ChannelError
from router.delivery import Delivery
from router.silence import UNUSUAL, hour_of, silence
from router.watch import Watch
from settings import Settings
from storage import health, rates, tallies
from storage.database import Database
from tests.api_world import serving
from tests.hook_channel import NAME, FakeOut
from tests.worlds import make_world, message

MONDAY = datetime(2026, 11, 16, 12, 30, tzinfo=UTC)


def busy(rate: Mapping[int, float], now: datetime, weeks: int = 4) -> dict[int, int]:
    """Messages by hour for some weeks before `now`: so many a day at each hour of the day, never on Sundays."""
    found = {}
    for back in range(1, weeks * 168 + 1):
        at = now - timedelta(hours=back)
        if at.weekday() != 6:
            found[hour_of(at)] = round(rate.get(at.hour, 0))
    return found


def test_silence_in_a_busy_hour_is_unusual_and_the_same_at_night_is_not() -> None:
    hourly = busy(dict.fromkeys(range(8, 20), 30.0), MONDAY)
    found = silence(hourly, MONDAY - timedelta(minutes=40), MONDAY)
    assert found is not None
    assert found.expected == pytest.approx(20)
    assert found.unusual
    night = MONDAY.replace(hour=3)
    quiet = silence(hourly, night - timedelta(hours=6), night)
    assert quiet is not None
    assert not quiet.unusual


def test_a_sunday_is_known_to_be_quiet() -> None:
    sunday = MONDAY - timedelta(days=1)
    found = silence(busy(dict.fromkeys(range(24), 30.0), sunday), sunday.replace(hour=0, minute=0), sunday)
    assert found is not None
    assert found.expected == 0


@pytest.mark.parametrize(
    ("hourly", "last"),
    [
        ({}, MONDAY - timedelta(hours=5)),
        (busy({12: 90}, MONDAY), None),
        (busy({12: 9000}, MONDAY), MONDAY - timedelta(minutes=9)),
        ({hour_of(MONDAY) - 160: 1000}, MONDAY - timedelta(hours=5)),
    ],
)
def test_nothing_is_said_of_what_is_not_known_or_only_just_silent(
    hourly: dict[int, int], last: datetime | None
) -> None:
    assert silence(hourly, last, MONDAY) is None


def test_the_bound_is_the_chance_that_nothing_comes() -> None:
    least = -math.log(UNUSUAL)
    for rate, unusual in ((least + 1, True), (least - 1, False)):
        found = silence(
            dict.fromkeys(range(hour_of(MONDAY) - 700, hour_of(MONDAY)), 1)
            | {hour_of(MONDAY) - 168 * week - 1: round(rate * 1000) for week in range(1, 5)},
            MONDAY.replace(minute=0) - timedelta(hours=1),
            MONDAY.replace(minute=0),
        )
        assert found is not None
        assert (found.expected / 1000 > least) == unusual


def test_a_channel_that_goes_on_as_usual_never_raises_the_alarm() -> None:
    """Simulated: 60 weeks of Poisson traffic by the hour of the day (by thinning), looked at after one gap in fifty."""
    chance = random.Random(5)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    hourly: dict[int, int] = {}
    last, at, looks = start, start, 0
    while at < start + timedelta(weeks=60):
        at += timedelta(hours=chance.expovariate(20.0))
        if chance.random() > (1.0 if 8 <= at.hour < 20 else 0.05):
            continue
        if chance.random() < 0.02:
            found = silence({hour: n for hour, n in hourly.items() if hour >= hour_of(at) - 840}, last, at)
            looks += found is not None
            assert found is None or not found.unusual
        hourly[hour_of(at)] = hourly.get(hour_of(at), 0) + 1
        last = at
    assert looks > 100


# --- the loop ---------------------------------------------------------------------------------------------------------


@dataclass
class Account:
    said: Health | Exception

    async def probe(self) -> Health:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


async def test_what_came_in_is_counted_by_hour_and_its_end_is_told(database: Database, settings: Settings) -> None:
    world = make_world(database, settings)
    await world.come_in(message("#claim_status one"), message("#claim_status two"))
    now = datetime.now(UTC)
    found = await database.read(rates.arrivals)
    assert sum(found["api"].values()) == 2
    assert set(found["api"]) <= {hour_of(now), hour_of(now) - 1}
    counted = {f"in:{NAME}": 50}
    for back in range(1, 700):
        await database.write(partial(tallies.add, counts=counted, now=now - timedelta(hours=back), width=rates.HOUR))
    watch = Watch(database, {}, now=lambda: now + timedelta(hours=2))
    await watch.look()
    assert watch.healths == {}  # nothing was ever stored of that channel: there is no last message
    await world.come_in(message("#claim_status x", channel=NAME, account="a"))
    await watch.look()
    [told] = watch.healths.values()
    assert told.name == f"{NAME} silence"
    assert not told.ok
    assert told.detail.startswith("no message for 120 minutes, in which 1")
    watch = Watch(database, {}, now=lambda: now + timedelta(minutes=5))
    await watch.look()
    assert watch.healths == {}


async def test_accounts_are_asked_and_a_broken_question_is_no_end_of_the_watch(database: Database) -> None:
    good, bad = Account(Health("x", ok=True, detail="bot @anhe")), Account(RuntimeError("secret"))
    watch = Watch(database, {"telegram": good, "sms": bad})
    await watch.probe()
    assert watch.healths["telegram account"] == Health("telegram account", ok=True, detail="bot @anhe")
    assert watch.healths["sms account"].detail == "the question failed: RuntimeError"
    bad.said = Health("x", ok=True, detail="fine")
    await watch.probe()  # not its turn yet
    assert not watch.healths["sms account"].ok


async def test_what_lasts_only_while_it_is_told_is_not_shown_for_ever(database: Database, settings: Settings) -> None:
    old = datetime.now(UTC) - timedelta(minutes=5)
    rows = [(name, False, "?") for name in ("sms out", "sms out (a)", "telegram silence", "sms account", "inbox")]
    await database.write(partial(health.tell, rows=rows, now=old))
    async with serving(make_world(database, settings)) as api:
        assert [each.name for each in await api.web.all_healths()] == ["inbox"]


async def test_refused_credentials_turn_a_channel_red_and_rest_its_outbox(
    database: Database, settings: Settings
) -> None:
    world = make_world(database, settings)
    out = FakeOut(results=[ChannelError("the token is wrong", broken=True)])
    delivery = Delivery(database, world.desk, {NAME: out})
    await world.come_in(message("#claim_status x", channel=NAME, account="a"))
    assert await delivery.send_due(NAME) == 1
    assert delivery.healths[f"{NAME} out (a)"].detail == "the token is wrong"
    await world.come_in(message("#claim_status y", channel=NAME, account="a", sender="bob"))
    assert await delivery.send_due(NAME) == 0  # the account rests
    await world.come_in(message("#claim_status z", channel=NAME, account="b", sender="eve"))
    assert await delivery.send_due(NAME) == 1  # another does not
    assert [each.account for each in out.taken] == ["b"]
