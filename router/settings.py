"""What a deployer may change of the middle. `config.yaml` explains each key."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from domain import Language, Priority, Risk, Sentiment, TicketState

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: Any) -> Any:
    """`5m`, `3d`, `1h 30m`, or a number of seconds -> timedelta. Raises ValueError in words."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    text = str(value)
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise ValueError(f"{text!r} is not a duration; write it as 30s, 5m, 4h or 3d")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _text_list(kind: Any) -> Any:
    return Annotated[list[kind], BeforeValidator(_listed)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Confidence(Strict):
    """Bounds of the calibrated confidence, both optional: at least, and below."""

    at_least: float | None = Field(default=None, ge=0, le=1)
    below: float | None = Field(default=None, ge=0, le=1)


class When(Strict):
    """Conditions of a rule. All that are given must hold; within one, any of the values suffices."""

    intent: _text_list(str) | None = None  # type: ignore[valid-type]
    department: _text_list(str) | None = None  # type: ignore[valid-type]
    sentiment: _text_list(Sentiment) | None = None  # type: ignore[valid-type]
    risk: _text_list(Risk) | None = None  # type: ignore[valid-type]
    channel: _text_list(str) | None = None  # type: ignore[valid-type]
    language: _text_list(Language) | None = None  # type: ignore[valid-type]
    entity: _text_list(str) | None = None  # type: ignore[valid-type]
    customer: _text_list(str) | None = None  # type: ignore[valid-type]
    confidence: Confidence | None = None


class Rule(Strict):
    """One line of the routing table: the first whose conditions hold decides."""

    name: str
    when: When = When()
    department: str | None = None
    priority: Priority | None = None
    tags: list[str] = []
    #: a person looks before the department counts on it
    look_first: bool = False
    #: supervisors are told
    alert: bool = False


class RoutingSettings(Strict):
    rules: list[Rule] = []
    #: confidence from which the bot routes alone; null = what the model's certificate allows, by language
    threshold: float | None = Field(default=None, ge=0, le=1)
    #: a later message of a thread opens a matter of its own only when the model is this sure of another department
    new_matter_confidence: float = Field(default=0.9, ge=0, le=1)

    @model_validator(mode="after")
    def names_differ(self) -> RoutingSettings:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules are named {name!r}; the reason on a ticket names its rule")
        return self


class SlaSettings(Strict):
    """Due times. Plain durations from the moment the message was stored."""

    first_response: Duration = timedelta(minutes=5)
    #: department (or `default`) -> priority -> duration
    resolution: dict[str, dict[Priority, Duration]] = Field(
        default_factory=lambda: {
            "default": {
                Priority.URGENT: timedelta(hours=4),
                Priority.HIGH: timedelta(days=1),
                Priority.NORMAL: timedelta(days=3),
                Priority.LOW: timedelta(days=5),
            }
        }
    )
    #: share of the time after which a promise counts as nearly broken
    warn_at: float = Field(default=0.8, gt=0, lt=1)

    @model_validator(mode="after")
    def default_is_whole(self) -> SlaSettings:
        missing = [each.value for each in Priority if each not in self.resolution.get("default", {})]
        if missing:
            raise ValueError(f"sla.resolution.default lacks {', '.join(missing)}")
        return self


class TicketSettings(Strict):
    #: a resolved ticket closes by itself after this time
    close_after: Duration = timedelta(days=7)


class LimitSettings(Strict):
    """What automatic answers may do (no loops)."""

    automatic_per_address: int = Field(default=5, ge=0)
    automatic_per_thread: int = Field(default=3, ge=0)
    #: automatic mails from one domain within a day after which its addresses get no automatic answer
    automatic_mail_per_domain: int = Field(default=50, ge=1)
    public_domains: list[str] = []
    #: over all addresses, in ten minutes; then the breaker holds all automatic answers back
    breaker: int = Field(default=50_000, ge=1)


class DeliverySettings(Strict):
    #: longest that one `send` may take; after it the result is unknown
    deadline: Duration = timedelta(minutes=2)
    #: how often a message that was refused for now is tried
    tries: int = Field(default=8, ge=1)
    #: first and longest wait between two tries; jittered
    backoff: Duration = timedelta(seconds=5)
    backoff_most: Duration = timedelta(minutes=15)
    #: messages sent at a time, by channel
    together: int = Field(default=16, ge=1)


class RetentionSettings(Strict):
    """How long what is kept; null = for ever."""

    raw: Duration | None = timedelta(days=365)
    automatic: Duration | None = timedelta(days=180)
    #: after the last of a customer's tickets closed, their words and addresses go
    closed: Duration | None = None


class TextSettings(Strict):
    """What the bot says by itself, by language. Holes: {number}, {department}, {link}, {insurer}."""

    insurer: dict[str, str]
    subject: dict[str, str]
    acknowledgement: dict[str, str]
    #: to somebody who speaks of harming themselves; read by the insurer's own experts before use
    care: dict[str, str]
    #: with a code that proves that two addresses are one person's. Holes: {code}, {minutes}, {insurer}
    code: dict[str, str]
    code_subject: dict[str, str]
    #: to who asks how far their ticket is. Holes: {number}, {state}, {department}, {due}, {link}, {insurer}
    status: dict[str, str]
    #: what a ticket's state is called to customers
    states: dict[TicketState, dict[str, str]]
    #: the hole {due} of `status` while a promise can still be kept. Hole: {time}
    due: dict[str, str]
    #: the zone of the times in these texts; "" = this machine's
    timezone: str = ""
    #: the language of answers where the message's own is neither Chinese nor English
    default_language: str = "zh"
