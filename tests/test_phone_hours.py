"""Service hours: what a deployer writes is taken strictly, and means the clock on the wall."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from channels.phone_hours import is_open, parse
from tests.samples.phone import settings

SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")


def opened(lines: list[str], at: str, zone: ZoneInfo = SHANGHAI) -> bool:
    """2026-11-23 is a Monday."""
    return is_open([parse(each) for each in lines], zone, datetime.fromisoformat(at))


@pytest.mark.parametrize(
    ("line", "at", "expected"),
    [
        ("mon-fri 09:00-18:00", "2026-11-23T09:00+08:00", True),
        ("mon-fri 09:00-18:00", "2026-11-23T08:59:59+08:00", False),
        ("mon-fri 09:00-18:00", "2026-11-23T17:59:59+08:00", True),
        ("mon-fri 09:00-18:00", "2026-11-23T18:00+08:00", False),
        ("mon-fri 09:00-18:00", "2026-11-22T12:00+08:00", False),
        ("mon-fri 09:00-18:00", "2026-11-23T01:30+00:00", True),  # half past nine in Shanghai
        ("sat,sun 10:00-14:00", "2026-11-22T10:00+08:00", True),
        ("sat-mon 10:00-14:00", "2026-11-23T11:00+08:00", True),
        ("sat-mon 10:00-14:00", "2026-11-24T11:00+08:00", False),
        ("mon,wed-thu 10:00-14:00", "2026-11-26T11:00+08:00", True),
        ("mon-sun 00:00-24:00", "2026-11-22T23:59:59+08:00", True),
        ("fri 22:00-06:00", "2026-11-27T23:00+08:00", True),
        ("fri 22:00-06:00", "2026-11-28T05:59+08:00", True),
        ("fri 22:00-06:00", "2026-11-28T06:00+08:00", False),
        ("fri 22:00-06:00", "2026-11-27T05:00+08:00", False),  # Thursday was no day of these
        ("sun 22:00-06:00", "2026-11-23T05:00+08:00", True),  # from Sunday into Monday
        ("mon 22:00-00:00", "2026-11-23T23:59+08:00", True),
        ("mon 22:00-00:00", "2026-11-24T00:00+08:00", False),
    ],
)  # fmt: skip
def test_people_take_calls_on_these_days_at_these_times(line: str, at: str, expected: bool) -> None:
    assert opened([line], at) is expected


def test_any_line_suffices_and_none_means_never() -> None:
    lines = ["mon-fri 09:00-12:00", "mon-fri 13:00-18:00"]
    assert [opened(lines, f"2026-11-23T{hour}:30+08:00") for hour in (11, 12, 13)] == [True, False, True]
    assert not opened([], "2026-11-23T11:00+08:00")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-28T08:30+00:00", True),  # Saturday before the clocks go forward: 09:30
        ("2026-03-29T06:59+00:00", False),  # Sunday after: 08:59
        ("2026-03-29T07:00+00:00", True),  # 09:00 comes an hour earlier
        ("2026-10-25T07:30+00:00", False),  # Sunday when they went back: 08:30
        ("2026-10-25T08:00+00:00", True),
    ],
)
def test_nine_is_nine_before_and_after_the_clocks_change(at: str, expected: bool) -> None:
    assert opened(["mon-sun 09:00-18:00"], at, BERLIN) is expected


def test_an_hour_that_comes_twice_counts_twice_and_one_that_never_comes_not_at_all() -> None:
    night = ["sun 02:00-03:00"]
    assert [opened(night, f"2026-10-25T{hour}:30+00:00", BERLIN) for hour in ("00", "01", "02")] == [True, True, False]
    assert not any(opened(night, f"2026-03-29T{hour}:30+00:00", BERLIN) for hour in ("00", "01", "02"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("9-18", "mon-fri 09:00-18:00"),
        ("mon-fri 9:00-18:00", "mon-fri 09:00-18:00"),
        ("Mon-Fri 09:00-18:00", "mon-fri 09:00-18:00"),
        ("mon-fri 09:00 - 18:00", "mon-fri 09:00-18:00"),
        ("mon-fri 09:00-18:00 ", "mon-fri 09:00-18:00"),
        ("mon-fri  09:00-18:00", "mon-fri 09:00-18:00"),
        ("mon-fri ٠٩:00-18:00", "mon-fri 09:00-18:00"),
        ("", "mon-fri 09:00-18:00"),
        ("mon-frei 09:00-18:00", "'frei' is no day"),
        ("mon, 09:00-18:00", "'' is no day"),
        ("mon-wed-fri 09:00-18:00", "'wed-fri' is no day"),
        ("mon-fri 09:60-18:00", "09:60 is no time"),
        ("mon-fri 09:00-24:01", "24:01 is no time"),
        ("mon-fri 09:00-09:00", "end when they begin"),
        ("mon-fri 24:00-09:00", "end when they begin"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_start_in_words(line: str, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(hours=["mon-fri 09:00-18:00", line])
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"timezone": "Asia/Peking"}, "no time zone"),
        ({"timezone": "../etc"}, "no time zone"),
        ({"timezone": ""}, "no time zone"),
        ({"languages": ["zh", "zh"]}, "twice"),
        ({"languages": []}, "at least 1 item"),
        ({"transfer_to": "13800138000"}, "pattern"),
        ({"record_longest": 5}, "10"),
        ({"auth_tokens": []}, "auth token"),
    ],
)
def test_other_settings_that_cannot_work_are_refused_too(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**values)
    assert says in str(refused.value)
