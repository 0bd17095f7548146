"""What a batch of messages is made of while it becomes tickets: values of `router.intake`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from domain import InState, PartKind, Route, Tags, TicketState
from router.answers import Answer
from storage import search, tickets
from storage.types import AnyRow


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stored message with what was found out about it outside of the transaction."""

    row: AnyRow
    tags: Tags | None
    route: Route | None


@dataclass(frozen=True, slots=True)
class Outcome:
    message_id: int
    state: InState | None  # None: another worker had it
    ticket_id: int | None = None
    channel: str = ""
    lag: float = 0.0


@dataclass(slots=True)
class Target:
    """A ticket in the making, or an existing one with its changes."""

    row: AnyRow | None
    values: dict[str, Any]
    id: int = 0
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    #: the ticket whose thread it goes on from
    linked: Target | None = None

    def get(self, name: str) -> Any:
        return self.values[name] if name in self.values else getattr(self.row, name)

    def change(self, **values: Any) -> None:
        self.values.update(values)


@dataclass(slots=True)
class Item:
    prepared: Prepared
    keys: list[str]
    state: InState = InState.AUTOMATIC
    target: Target | None = None
    ticket_id: int | None = None
    customer_id: int | None = None
    answer: Answer | None = None
    #: the customer asks how far their matter is
    asks: bool = False


def new_ticket(
    row: AnyRow,
    customer_id: int,
    tags: Tags,
    route: Route,
    due: tuple[datetime | None, datetime | None],
    now: datetime,
) -> dict[str, Any]:
    """The columns of the ticket that a message opens. `due`: of the first response, of the resolution."""
    return {
        "token": secrets.token_urlsafe(24),
        "version": 1,
        "state": TicketState.NEW.value,
        "department": route.department,
        "priority": route.priority.value,
        "owner_id": None,
        "customer_id": customer_id,
        "channel": row.channel,
        "account": row.account,
        "address": (row.extra or {}).get("reply_to") or row.address,
        "subject": row.subject[:500],
        "snippet": snippet(row),
        "language": tags.language.value,
        "intent": tags.intent,
        "sentiment": tags.sentiment.value,
        "risk": [flag.value for flag in tags.risk],
        "tags": list(route.tags),
        "route": {"rule": route.rule, **route.why},
        "look_first": route.look_first,
        "alarm": "alert" if route.alert else "",
        "linked_id": None,
        "created_at": row.stored_at,
        "updated_at": now,
        "waiting_since": row.stored_at,
        "first_due_at": due[0],
        "first_response_at": None,
        "resolve_due_at": due[1],
        "resolved_at": None,
        "closed_at": None,
        "paused_at": None,
        "alarms": [],
        "next_alarm_at": None,
        "answered_last": False,
    }


#: seconds
LAG_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300)


def lags(items: Sequence[Item], now: datetime) -> dict[str, int]:
    """The histogram of the time from receipt to the end, as counters: `lag:<channel>:<bound>`."""
    counts: dict[str, int] = {}
    for item in items:
        lag = (now - item.prepared.row.stored_at).total_seconds()
        channel = item.prepared.row.channel
        bound = next((str(each) for each in LAG_BOUNDS if lag <= each), "+Inf")
        for name, more in ((f"lag:{channel}:{bound}", 1), (f"lag_us:{channel}", int(lag * 1e6))):
            counts[name] = counts.get(name, 0) + more
    return counts


def lookup_keys(row: AnyRow) -> list[str]:
    """Digests of the thread keys that a message can be found by, nearest first."""
    extra = row.extra or {}
    named = []
    if row.thread:
        named.append(f"={row.account}\0{row.thread}")
    if row.key:
        named.append(row.key)
    named.extend(reversed(extra.get("keys", [])))
    return [tickets.thread_key(row.channel, row.address, key) for key in dict.fromkeys(named)]


class View:
    """A target seen as a ticket's row."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return self._target.get(name)


def said(row: AnyRow) -> str:
    """What the customer said, quotes cut."""
    text: str = row.clean if row.clean is not None else row.text
    return text


def snippet(row: AnyRow) -> str:
    """The first words of it, on one line."""
    return " ".join(said(row)[:600].split())[:200]


def search_terms(row: AnyRow) -> str:
    return search.terms(f"{row.subject} {row.name} {row.address} {row.text}")


def says_nothing(row: AnyRow) -> bool:
    """Parts without a word: nothing that could be routed."""
    return bool((row.extra or {}).get("parts")) and not row.text.strip() and not row.subject.strip()


def reacts(row: AnyRow) -> bool:
    """A thumb up and nothing else: it asks for nothing."""
    parts = (row.extra or {}).get("parts", [])
    return says_nothing(row) and all(each.get("kind") == PartKind.REACTION for each in parts)


_PREFIXES = ("re", "fw", "fwd", "aw", "sv", "回复", "答复", "转发", "回覆", "轉寄")


def bare_subject(subject: str) -> str:
    """Without reply and forward prefixes and without our own [number]."""
    text = subject.strip().lower()
    while True:
        head, colon, rest = text.replace("：", ":").partition(":")
        if colon and head.strip() in _PREFIXES:
            text = rest.strip()
            continue
        if text.startswith("[s-") and "]" in text:
            text = text.partition("]")[2].strip()
            continue
        return text
