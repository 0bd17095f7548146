"""The desk's fixed things, made once from the settings and handed to every verb and loop of the router."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from channels import Limits
from domain import Language, Priority, Taxonomy, TicketState
from router import sla
from router.rules import Rules
from router.settings import (
    DeliverySettings,
    LimitSettings,
    RetentionSettings,
    SlaSettings,
    TextSettings,
    TicketSettings,
)
from storage.types import AnyRow


class _Ticket(Protocol):
    def get(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Desk:
    taxonomy: Taxonomy
    rules: Rules
    sla: SlaSettings
    tickets: TicketSettings
    limits: LimitSettings
    delivery: DeliverySettings
    retention: RetentionSettings
    texts: TextSettings
    #: base of the links that customers get, without a slash at the end
    public_url: str
    #: right side of our Message-IDs
    mail_domain: str = "sluice.invalid"
    #: addresses of our own: never answered automatically
    own_addresses: Collection[str] = field(default_factory=frozenset)
    #: channels whose answers are fetched, not sent
    pulled: Collection[str] = field(default_factory=frozenset)
    #: what each channel with a way out can carry
    carries: Mapping[str, Limits] = field(default_factory=dict)
    #: channels that only bring messages: their tickets take no answers
    mute: Collection[str] = field(default_factory=frozenset)
    #: what people read as the names of channels that the settings made, by language
    channel_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def close_after(self) -> timedelta:
        return self.tickets.close_after

    def says(self, texts: Mapping[str, str], language: str, **holes: str) -> str:
        """One of the bot's texts in the reader's language."""
        chosen = answer_language(language) or self.texts.default_language
        insurer = self.texts.insurer.get(chosen, "")
        return texts[chosen].format(insurer=insurer, **holes).strip()

    def department_name(self, department: str, language: str) -> str:
        found = self.taxonomy.departments.get(department)
        if found is None:
            return department
        return found.en if (answer_language(language) or self.texts.default_language) == "en" else found.zh

    def progress(self, ticket: _Ticket, language: str, now: datetime) -> dict[str, str]:
        """The holes {state} and {due} of the answer to who asks how far a ticket is."""
        chosen = answer_language(language) or self.texts.default_language
        state = TicketState(ticket.get("state"))
        due = ticket.get("first_due_at") if ticket.get("first_response_at") is None else ticket.get("resolve_due_at")
        said = ""
        if due is not None and due > now and state in (TicketState.NEW, TicketState.OPEN):
            zone = ZoneInfo(self.texts.timezone) if self.texts.timezone else None
            time = f"{due.astimezone(zone):%Y-%m-%d %H:%M}"
            said = self.texts.due.get(chosen, "").format(time=time)
        return {"state": self.texts.states[state].get(chosen, state.value), "due": said}

    def tracking_url(self, token: str) -> str:
        return f"{self.public_url}/t/{token}"

    def message_key(self, channel: str, number: str) -> str:
        """A new outgoing message's key, stable over its retries. For mail it is the Message-ID without brackets."""
        secret = secrets.token_hex(10)
        if channel == "mail":
            return f"sluice.{number.lower()}.{secret}@{self.mail_domain}"
        return f"out.{secret}"


def answer_language(language: str) -> str:
    """The language of the bot's answer to a text: `zh`, `en`, or "" where neither fits."""
    if language in (Language.ZH, Language.ZH_HANT, Language.MIXED):
        return "zh"
    return "en" if language == Language.EN else ""


def promises(row: AnyRow) -> sla.Promises:
    """A ticket's due times as a value."""
    return sla.Promises(
        created_at=row.created_at,
        state=TicketState(row.state),
        first_due_at=row.first_due_at,
        first_response_at=row.first_response_at,
        resolve_due_at=row.resolve_due_at,
        resolved_at=row.resolved_at,
        paused_at=row.paused_at,
        alarms=tuple(row.alarms),
    )


def higher(left: str, right: Priority) -> Priority:
    return max(Priority(left), right, key=lambda each: each.rank)
