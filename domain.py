"""The words of Sluice: frozen values, enums and the error family. Imports nothing of ours.

What moves between the parts is a value from this file; what stays is a table in `storage`.
Every time is an aware UTC `datetime`; naive ones are refused where they enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

OUT_OF_SCOPE = "out_of_scope"
TRIAGE = "triage"


class Sentiment(StrEnum):
    NEGATIVE = "negative"
    NEUTRAL = "neutral"
    POSITIVE = "positive"


class Language(StrEnum):
    ZH = "zh"
    ZH_HANT = "zh-Hant"
    EN = "en"
    MIXED = "mixed"
    OTHER = "other"


class Risk(StrEnum):
    REGULATOR = "regulator"
    LEGAL = "legal"
    MEDIA = "media"
    INJURY = "injury"
    SELF_HARM = "self_harm"


class Priority(StrEnum):
    """Declared from least to most urgent; `rank` is the place in that order."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"

    @property
    def rank(self) -> int:
        return list(Priority).index(self)

    def raised(self) -> Priority:
        """One step more urgent; the top stays the top."""
        return list(Priority)[min(self.rank + 1, len(Priority) - 1)]


class TicketState(StrEnum):
    NEW = "new"
    OPEN = "open"
    PENDING = "pending"  # waits for the customer
    RESOLVED = "resolved"
    CLOSED = "closed"


#: Where a ticket may go from each state. What is not in this table is a `ForbiddenMove`.
MOVES: Mapping[TicketState, frozenset[TicketState]] = {
    TicketState.NEW: frozenset({TicketState.OPEN, TicketState.PENDING, TicketState.RESOLVED}),
    TicketState.OPEN: frozenset({TicketState.PENDING, TicketState.RESOLVED}),
    TicketState.PENDING: frozenset({TicketState.OPEN, TicketState.RESOLVED}),
    TicketState.RESOLVED: frozenset({TicketState.OPEN, TicketState.CLOSED}),
    TicketState.CLOSED: frozenset(),
}


class InState(StrEnum):
    """Of an incoming message. `received` is on its way; the other four are the ends (promise P3)."""

    RECEIVED = "received"
    TICKETED = "ticketed"
    APPENDED = "appended"
    AUTOMATIC = "automatic"
    QUARANTINED = "quarantined"


class OutState(StrEnum):
    """Of an outgoing message: the outbox row's state."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"  # the channel may or may not have it: the line broke at the wrong moment


class Role(StrEnum):
    CHANNEL = "channel"  # tokens only: a program that posts messages
    AGENT = "agent"
    SUPERVISOR = "supervisor"
    ADMIN = "admin"


class AutomaticKind(StrEnum):
    """Mail that no person wrote (RFC 3834, RFC 3464, RFC 5965)."""

    BOUNCE = "bounce"
    REPORT = "report"
    AUTO_REPLY = "auto_reply"
    NO_REPLY = "no_reply"
    OWN = "own"  # what we sent ourselves, come round again


@dataclass(frozen=True, slots=True)
class Department:
    name: str
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """What customers write about, and which department owns it."""

    departments: Mapping[str, Department]
    #: intent -> department
    intents: Mapping[str, str]
    #: intent -> its label in (Chinese, English)
    labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def owner(self, intent: str) -> str:
        """The department that owns an intent; `triage` for `out_of_scope` and for what is not known."""
        return self.intents.get(intent, TRIAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    name: str
    media_type: str
    content: bytes = field(repr=False)
    #: Content-ID of a picture inside the HTML, without angle brackets
    content_id: str = ""


class PartKind(StrEnum):
    """What a message has beside its words."""

    IMAGE = "image"
    AUDIO = "audio"  # a voice message or a recording
    VIDEO = "video"
    FILE = "file"
    STICKER = "sticker"
    LOCATION = "location"
    CONTACT = "contact"
    REACTION = "reaction"
    BUTTON = "button"  # one of ours was pressed
    STORY = "story"  # answered or mentioned
    LINK = "link"
    CALL = "call"  # a phone call began or ended
    UNKNOWN = "unknown"  # the channel has something that we do not know yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A typed part of a message. What it weighs is fetched later, by a worker."""

    kind: PartKind
    #: what can be said of it in words: a place's name and coordinates, a contact's number, an emoji, a button's label
    text: str = ""
    name: str = ""
    media_type: str = ""
    #: what the channel fetches its content with (an id, a URL); None: there is nothing to fetch
    reference: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic:
    """Why a message counts as written by a machine."""

    kind: AutomaticKind
    why: str
    #: keys (Message-IDs) of our own messages that this report or reply is about
    concerns: tuple[str, ...] = ()
    #: a bounce only: the address cannot be reached at all (RFC 3463 class 5)
    permanent: bool = False
    #: a bounce only: the addresses that could not be reached
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a customer said, in the one form that all channels share."""

    channel: str
    #: whose inbox of the channel it came to (a token's name, `mail`, a bot); part of the key of dedupe
    account: str
    external_id: str
    sender: str
    received_at: datetime
    text: str
    sender_name: str = ""
    subject: str = ""
    #: text without quotes and signature, for analysis only; None where it equals `text`
    clean: str | None = None
    #: its own key in a thread (mail: the Message-ID); what answers to it will name
    key: str = ""
    #: keys of earlier messages that it names, nearest last (mail: References, then In-Reply-To)
    thread_keys: tuple[str, ...] = ()
    #: the sender named a thread of ours (API thread, chat session): messages of one thread and sender always join
    thread: str = ""
    #: public number of a ticket named in the subject or in a plus address; believed only of its parties
    ticket_hint: str = ""
    #: where an answer goes, when it is not `sender` (mail: Reply-To)
    reply_to: str = ""
    #: the address of ours that it came to (mail: which mailbox)
    recipient: str = ""
    automatic: Automatic | None = None
    #: False for lists and bulk: a person's words, but no automatic answer
    answerable: bool = True
    attachments: tuple[Attachment, ...] = ()
    #: pictures, voice, places and the like; a message of parts alone says nothing that could be routed yet
    parts: tuple[Part, ...] = ()
    #: external id of an earlier message that this one is the edited form of
    revises: str = ""
    #: it comes in several deliveries (an album): a later one with this key and another `seen_at` is added to the first
    merges: bool = False
    raw: bytes = field(default=b"", repr=False)
    #: digest of the content, so that the same key with other content is noticed; "" = of `raw`
    fingerprint: str = ""
    #: (place, mark) under which the channel showed it, e.g. (mailbox, "uidvalidity:uid"): a second unique key
    seen_at: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        check_aware(self.received_at)

    @property
    def analysed(self) -> str:
        """The text that the tagger reads."""
        return self.text if self.clean is None else self.clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Something that came in and could not be read: kept whole, with its reason, in quarantine."""

    channel: str
    account: str
    external_id: str
    received_at: datetime
    reason: str
    raw: bytes = field(default=b"", repr=False)
    sender: str = ""
    subject: str = ""
    seen_at: tuple[str, str] | None = None


Incoming = Message | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a provider says later of a message of ours. They come in any order and several times."""

    channel: str
    account: str
    #: as in `Receipt.provider_id`
    provider_id: str
    #: sent, delivered or failed
    state: OutState
    at: datetime
    #: why it failed, in words for an agent
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """The customer took an earlier message back: its words and pictures go, that there was one stays."""

    channel: str
    account: str
    external_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether an address may be written to: STOP and START, a bot blocked, an account unfollowed."""

    channel: str
    address: str
    at: datetime
    #: why nothing may be sent there (`opted_out`, `blocked`, `unsubscribed`); None: it may again
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A customer's mark for a ticket, 1 to 5. Believed of a party to the ticket alone."""

    channel: str
    address: str
    ticket_number: str
    score: int
    at: datetime


#: what a channel tells beside messages
Notice = Status | Withdrawal | Standing | Rating


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer of `receive`: the row's id, and whether this call made it."""

    message_id: int
    new: bool
    #: the key was known, with other content: the first stays
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing named in the text; `start` and `end` are code points of the text given."""

    type: str
    value: str
    normal: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Guess:
    intent: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What the NLU says of a text."""

    #: the best of the taxonomy's intents, or `out_of_scope`
    intent: str
    #: calibrated probability that `department` is right
    confidence: float
    #: owner of `intent`
    department: str
    alternatives: tuple[Guess, ...] = ()
    sentiment: Sentiment = Sentiment.NEUTRAL
    sentiment_confidence: float = 0.0
    language: Language = Language.OTHER
    risk: tuple[Risk, ...] = ()
    entities: tuple[Entity, ...] = ()
    #: the raw-decision gate says that nothing of the taxonomy fits
    in_scope: bool = True
    model: str = ""
    engine: str = "embedded"

    def to_json(self) -> dict[str, Any]:
        """As kept with the message: no text of the customer but the entities' values."""
        return {
            "intent": self.intent,
            "confidence": round(self.confidence, 4),
            "department": self.department,
            "alternatives": [{"intent": g.intent, "confidence": round(g.confidence, 4)} for g in self.alternatives],
            "sentiment": self.sentiment.value,
            "sentiment_confidence": round(self.sentiment_confidence, 4),
            "language": self.language.value,
            "risk": [r.value for r in self.risk],
            "entities": [
                {"type": e.type, "value": e.value, "normal": e.normal, "start": e.start, "end": e.end}
                for e in self.entities
            ],
            "in_scope": self.in_scope,
            "model": self.model,
            "engine": self.engine,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a message goes, and why."""

    department: str
    priority: Priority
    #: a person must look before anything else happens
    look_first: bool
    #: name of the rule that fired, or of the built-in step (`model`, `triage.unsure`, ...)
    rule: str
    #: what the reason is made of, for a sentence in the reader's language: confidence, threshold, certificate, risk
    why: Mapping[str, Any]
    tags: tuple[str, ...] = ()
    #: supervisors are told
    alert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One outgoing message, as a channel's `send` gets it."""

    to: str
    text: str
    #: stable over retries: the channel's own idempotency key (mail: the Message-ID without brackets)
    key: str
    account: str = ""
    to_name: str = ""
    subject: str = ""
    #: mail: In-Reply-To and References, nearest last
    thread_keys: tuple[str, ...] = ()
    #: the conversation on the channel (web chat: the session)
    thread: str = ""
    #: acknowledgements and other answers that no person wrote
    automatic: bool = False
    #: what it is for: acknowledgement, status, care, reply
    kind: str = ""
    ticket_number: str = ""
    #: the row that is being sent
    message_id: int = 0
    author: str = ""
    #: of a text that goes out in several messages: which this is, from 0, and how many there are
    part: int = 0
    parts: int = 1
    #: when the customer last wrote from this address, where the channel has a window for answers
    heard_at: datetime | None = None
    #: the customer's language, for words of the channel's own
    language: str = ""
    #: an earlier try under this key may have reached the provider
    again: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """The channel took it. `provider_id` is its own name for the message."""

    provider_id: str = ""
    delivered: bool = False


class Unset:
    """The type of `UNSET`: an argument that was not given, where None is a value."""


UNSET = Unset()


# --- errors -----------------------------------------------------------------------------------------------------------
#
# SluiceError
#   SettingsError        the settings cannot work             exit 2
#   UsageError           a command was used wrongly           exit 2
#   NotFound             404
#   Forbidden            403
#   ForbiddenMove        409   a ticket cannot go there
#   Conflict             409   somebody was faster
#   InvalidInput         422   with the field
#   TooMany              429   with retry_after
#   Unavailable          503   the database or another server is down
#   ChannelError         a channel could not send: permanent, retry after, or unknown


class SluiceError(Exception):
    """Something went wrong."""

    status = 500

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class SettingsError(SluiceError):
    """The settings cannot work."""


class UsageError(SluiceError):
    """The command was used wrongly."""


class NotFound(SluiceError):
    """There is no such thing."""

    status = 404


class Forbidden(SluiceError):
    """This is not yours to do."""

    status = 403


class ForbiddenMove(SluiceError):
    """The ticket cannot go to that state."""

    status = 409


class Conflict(SluiceError):
    """Somebody else was faster. Load it again."""

    status = 409


class InvalidInput(SluiceError):
    """A field is wrong."""

    status = 422

    def __init__(self, field_name: str, message: str) -> None:
        self.field = field_name
        super().__init__(message)


class TooMany(SluiceError):
    """Too many attempts. Wait a little."""

    status = 429

    def __init__(self, retry_after: float, message: str = "") -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Unavailable(SluiceError):
    """A server that is needed does not answer. Nothing was stored; try again."""

    status = 503
    retry_after = 5


class ChannelError(SluiceError):
    """A channel did not take a message.

    Says only what the caller needs: `permanent` (never try again), `retry_after` (seconds), or `unknown`
    (the channel may have it: the line broke after the text was handed over). Two more concern all that would go out
    on this account: `pause` (nothing else before `retry_after`, e.g. a limit on the whole account), and `broken` (the
    credentials are refused: the message waits, the channel shows red, and a person must act).
    `refused`: why the address takes nothing any more (`blocked`, `opted_out`), which is kept with it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        unknown: bool = False,
        pause: bool = False,
        broken: bool = False,
        refused: str = "",
    ) -> None:
        self.permanent = permanent
        self.retry_after = retry_after
        self.unknown = unknown
        self.pause = pause or broken
        self.broken = broken
        self.refused = refused
        super().__init__(message)


def check_aware(moment: datetime) -> None:
    """Refuse naive times. Raises ValueError."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"a time without zone: {moment!r}")


# --- public numbers ---------------------------------------------------------------------------------------------------
#
# A ticket's public number is its row id behind a fixed shuffle: short, without letters that sound alike over a phone,
# not in the order of arrival, and reversible, so no column and no collision. It is a name, not a secret: tracking links
# carry a random token instead, and a number in a subject is believed only of a party to the ticket.

_SHUFFLE = 0.6180339887498949  # golden ratio: a multiplier near it scatters neighbours widest
_PREFIX = "S-"


def _block(index: int) -> tuple[int, int]:
    """Size and multiplier of the block of numbers with `6 + index` digits."""
    size = 9 * 10 ** (5 + index)
    multiplier = int(size * _SHUFFLE) | 1
    while multiplier % 3 == 0 or multiplier % 5 == 0:
        multiplier += 2
    return size, multiplier


def public_number(ticket_id: int) -> str:
    """Row id (1, 2, ...) -> `S-` and six digits, seven after 900,000 tickets, and so on."""
    if ticket_id < 1:
        raise ValueError(f"not a row id: {ticket_id}")
    rest, index = ticket_id - 1, 0
    size, multiplier = _block(index)
    while rest >= size:
        rest, index = rest - size, index + 1
        size, multiplier = _block(index)
    return f"{_PREFIX}{size // 9 + (rest + 1) * multiplier % size}"


def ticket_id_of(number: str) -> int | None:
    """The row id behind a public number, or None where the text is none. `s-123456` and `123456` are read too."""
    digits = number.strip().upper().removeprefix(_PREFIX)
    if not (digits.isascii() and digits.isdigit() and 6 <= len(digits) <= 12) or digits[0] == "0":
        return None
    index = len(digits) - 6
    size, multiplier = _block(index)
    rest = ((int(digits) - size // 9) * pow(multiplier, -1, size) - 1) % size
    return rest + 1 + sum(_block(i)[0] for i in range(index))


def seconds(duration: timedelta) -> int:
    return round(duration.total_seconds())
