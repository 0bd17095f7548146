"""What a batch of messages is made of while it becomes tickets: values of `router.intake`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from domain import InState, PartKind, Route, Tags
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
