"""Due times and alarms: pure, with `now` as an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from domain import Priority, TicketState
from router import sla
from router.settings import SlaSettings, parse_duration

T0 = datetime(2026, 11, 22, 23, 58, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WEEK = 7 * DAY
SLA = SlaSettings.model_validate(
    {
        "first_response": "10m",
        "resolution": {
            "default": {"urgent": "4h", "high": "1d", "normal": "3d", "low": "5d"}, "claims": {"urgent": "2h"}
        },
    }
)  # fmt: skip


def promises(**values: Any) -> sla.Promises:
    given: dict[str, Any] = {
        "created_at": T0, "state": TicketState.NEW, "first_due_at": T0 + 10 * MINUTE, "first_response_at": None,
        "resolve_due_at": T0 + 10 * HOUR, "resolved_at": None, "paused_at": None, "alarms": (),
    }  # fmt: skip
    return sla.Promises(**(given | values))


@pytest.mark.parametrize(
    ("department", "priority", "time"),
    [
        ("claims", Priority.URGENT, 2 * HOUR),
        ("claims", Priority.NORMAL, 3 * DAY),  # claims says nothing of it: the default's
        ("billing", Priority.URGENT, 4 * HOUR),
        ("billing", Priority.LOW, 5 * DAY),
        ("unheard of", Priority.HIGH, DAY),
    ],
)
def test_due_times_follow_department_and_priority(department: str, priority: Priority, time: timedelta) -> None:
    assert sla.due_times(T0, department, priority, SLA) == (T0 + 10 * MINUTE, T0 + time)


ANSWERED = {"first_response_at": T0 + MINUTE}


@pytest.mark.parametrize(
    ("name", "values", "after", "due", "following"),
    [
        ("fresh", {}, 0 * MINUTE, [], 8 * MINUTE),
        ("just before the warning", {}, 8 * MINUTE - timedelta(microseconds=1), [], 8 * MINUTE),
        ("the warning", {}, 8 * MINUTE, ["first.warned"], 8 * MINUTE),
        ("warned", {"alarms": ["first.warned"]}, 9 * MINUTE, [], 10 * MINUTE),
        ("late", {"alarms": ["first.warned"]}, 10 * MINUTE, ["first.breached"], 10 * MINUTE),
        ("late at once", {}, HOUR, ["first.warned", "first.breached"], 8 * MINUTE),
        ("breached without a warning", {"alarms": ["first.breached"]}, HOUR, [], 8 * HOUR),
        ("answered", ANSWERED, HOUR, [], 8 * HOUR),
        ("answered late", {"first_response_at": T0 + HOUR}, HOUR, [], 8 * HOUR),
        ("resolution warned", ANSWERED, 8 * HOUR, ["resolve.warned"], 8 * HOUR),
        ("resolution late", ANSWERED | {"alarms": ["resolve.warned"]}, 10 * HOUR, ["resolve.breached"], 10 * HOUR),
        ("nothing left", ANSWERED | {"alarms": ["resolve.breached"]}, 99 * DAY, [], None),
        ("all at once", {}, 10 * HOUR,
         ["first.warned", "first.breached", "resolve.warned", "resolve.breached"], 8 * MINUTE),
        ("waits, unanswered", {"paused_at": T0, "state": TicketState.PENDING}, DAY,
         ["first.warned", "first.breached"], 8 * MINUTE),
        ("waits, answered", ANSWERED | {"paused_at": T0, "state": TicketState.PENDING}, DAY, [], None),
        ("no promise", {"first_due_at": None, "resolve_due_at": None}, 99 * DAY, [], None),
        ("resolved", {"state": TicketState.RESOLVED, "resolved_at": T0}, WEEK - MINUTE, [], WEEK),
        ("resolved for long", {"state": TicketState.RESOLVED, "resolved_at": T0}, WEEK, [sla.CLOSE], WEEK),
        ("closed", {"state": TicketState.CLOSED, "resolved_at": T0}, 99 * DAY, [], None),
    ],
)  # fmt: skip
def test_alarms(
    name: str, values: dict[str, Any], after: timedelta, due: list[str], following: timedelta | None
) -> None:
    given = promises(**values)
    assert sla.alarms(given, T0 + after, SLA, WEEK) == due, name
    assert sla.next_alarm(given, SLA, WEEK) == (None if following is None else T0 + following), name


def test_a_clock_that_writes_what_is_due_comes_to_an_end() -> None:
    """Writing the alarms of `next_alarm` always leads to a later one, and at last to none."""
    written: list[str] = []
    for _ in range(4):
        given = promises(alarms=written)
        moment = sla.next_alarm(given, SLA, WEEK)
        assert moment is not None
        written += sla.alarms(given, moment, SLA, WEEK)
    assert sla.next_alarm(promises(alarms=written), SLA, WEEK) is None
    assert written == ["first.warned", "first.breached", "resolve.warned", "resolve.breached"]


@pytest.mark.parametrize(
    ("text", "duration"),
    [("30s", 30 * timedelta(seconds=1)), ("5m", 5 * MINUTE), ("1h 30m", 1.5 * HOUR), ("1.5h", 1.5 * HOUR), ("7d", WEEK),
     ("250ms", timedelta(milliseconds=250)), (90, 1.5 * MINUTE), (WEEK, WEEK)],
)  # fmt: skip
def test_durations_are_written_as_people_write_them(text: object, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "5", "five minutes", "5m later", "-5m", "5y", True])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_the_default_must_know_every_priority() -> None:
    with pytest.raises(ValidationError, match=r"sla\.resolution\.default lacks low, normal"):
        SlaSettings.model_validate({"resolution": {"default": {"urgent": "1h", "high": "1h"}}})
