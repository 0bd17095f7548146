"""What Messenger, Instagram and WhatsApp have in common when Meta calls: challenge, signature, batches, and reading.

Every notification is `{"object", "entry": [...]}`; each entry brings any number of events, of any age, in any order and
possibly again. Each event stands for itself: one that cannot be read costs none of the others. Meta tries again until
it hears 200 (for hours at least), so nothing is spooled here: while the database is down it hears 503.
Source of the forms: developers.facebook.com/documentation/business-messaging (2026).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from channels import Answer, Parsed, Request
from channels.settings import MetaSettings, Secrets, open_secrets
from domain import (
    Automatic,
    AutomaticKind,
    Forbidden,
    Incoming,
    Message,
    Notice,
    OutState,
    Part,
    PartKind,
    Standing,
    Status,
    Unreadable,
    Withdrawal,
)

Json = Mapping[str, Any]

#: what we put into `metadata` of what we send, so that its echo is known as ours
OWN_MARK = "sluice:"
#: seconds; Meta counts a call as failed after 20 (Messenger Platform, webhooks)
_PATIENCE = 15.0
_MOST_TEXT = 4000
_NOT_STORED = re.compile("[\x00\ud800-\udfff]")
_ID = re.compile(r"[\x21-\x7e]{1,512}")
_ACCOUNT = re.compile(r"[0-9]{1,32}")
#: from here on a number of seconds since 1970 can only be milliseconds
_MILLISECONDS = 100_000_000_000
_FIRST = datetime(2010, 1, 1, tzinfo=UTC)
_CLOCKS_DIFFER = timedelta(minutes=5)


# --- reading what may have any form -----------------------------------------------------------------------------------


def mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Json]:
    """The members of a list, each as a mapping: what is none becomes an empty one, and so something unknown."""
    return [mapping(each) for each in value] if isinstance(value, list) else []


def words(value: Any, most: int | None = None) -> str:
    """A text or number as text that every database takes."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return _NOT_STORED.sub("\ufffd", str(value))[:most]


def ident(value: Any) -> str:
    """An id of Meta's; "" where it is none."""
    found = words(value)
    return found if _ID.fullmatch(found) else ""


def moment(value: Any, otherwise: datetime) -> datetime:
    """Meta's time (seconds or milliseconds since 1970, as number or text); `otherwise` where it cannot be right."""
    try:
        number = int(value)
        found = datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS else number, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return otherwise
    return min(found, otherwise) if _FIRST <= found <= otherwise + _CLOCKS_DIFFER else otherwise


def raw_of(event: Any) -> bytes:
    """One event as JSON, with nothing but ASCII in it. Raises RecursionError where it is nested too deeply."""
    return json.dumps(event, ensure_ascii=True).encode()


def place(latitude: Any, longitude: Any, *names: Any) -> Part:
    """A location: its names and coordinates."""
    found = [words(each, 500) for each in names]
    where = ", ".join(each for each in (words(latitude, 40), words(longitude, 40)) if each)
    return Part(kind=PartKind.LOCATION, text="\n".join(each for each in (*dict.fromkeys(found), where) if each))


def told_part(kind: PartKind, *texts: Any, name: str = "") -> Part:
    """A part that says something and has nothing to fetch."""
    found = dict.fromkeys(words(each, _MOST_TEXT).strip() for each in texts)
    return Part(kind=kind, text="\n".join(each for each in found if each), name=name)


# --- what a notification brought --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """Collects what a notification brings, event by event."""

    channel: str
    received_at: datetime
    items: list[Incoming] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    #: events that are known and say nothing that is kept: a watermark, a change of control
    ignored: int = 0

    def unreadable(self, reason: str, raw: bytes, account: str = "", sender: str = "") -> None:
        self.items.append(
            Unreadable(
                channel=self.channel,
                account=account,
                external_id=hashlib.sha256(raw).hexdigest(),
                received_at=self.received_at,
                reason=reason,
                raw=raw,
                sender=sender,
            )
        )

    def message(
        self,
        event: Json,
        *,
        account: str,
        sender: str,
        external_id: str,
        at: Any,
        text: str = "",
        parts: tuple[Part, ...] = (),
        own: bool = False,
        **more: Any,
    ) -> None:
        """A customer's message, or with `own` what somebody of ours wrote to them elsewhere.

        An event without words and parts keeps its place by a part of unknown kind. One without its own id is named by
        its digest, so that it is stored once however often it comes.
        """
        raw = raw_of(event)
        if not sender:
            self.unreadable("Meta does not say who it is from", raw, account)
            return
        if not text.strip() and not parts:
            parts = (Part(kind=PartKind.UNKNOWN),)
        if own:
            more["automatic"] = Automatic(kind=AutomaticKind.OWN, why="answered in Meta's own inbox or by another app")
        else:
            # Who writes to us takes messages again, whatever Meta said when we last wrote to them.
            self.notices.append(Standing(channel=self.channel, address=sender, at=self.received_at, refused=None))
        self.items.append(
            Message(
                channel=self.channel,
                account=account,
                external_id=external_id or hashlib.sha256(raw).hexdigest(),
                sender=sender,
                received_at=moment(at, self.received_at),
                text=text,
                parts=parts,
                thread=sender,
                recipient=account,
                raw=raw,
                **more,
            )
        )

    def status(self, account: str, provider_id: str, state: OutState, at: Any, reason: str = "") -> None:
        if not provider_id:
            self.ignored += 1
            return
        when = moment(at, self.received_at)
        self.notices.append(
            Status(channel=self.channel, account=account, provider_id=provider_id, state=state, at=when, reason=reason)
        )

    def withdrawal(self, account: str, external_id: str, at: Any) -> None:
        if not external_id:
            self.ignored += 1
            return
        when = moment(at, self.received_at)
        self.notices.append(Withdrawal(channel=self.channel, account=account, external_id=external_id, at=when))

    def parsed(self) -> Parsed:
        # A message of a person who writes twice in one notification lifts their standing once.
        return Parsed(tuple(self.items), tuple(dict.fromkeys(self.notices)), Answer(b"EVENT_RECEIVED"))


# --- the hook ---------------------------------------------------------------------------------------------------------


class MetaHook:
    """The webhook of one of Meta's channels; `read` makes of an entry what it brings."""

    #: what Meta calls the channel's notifications
    object = ""
    patience: float | None = _PATIENCE

    def __init__(self, name: str, settings: MetaSettings) -> None:
        self.name = name
        self._secrets = _as_bytes(settings.app_secrets)
        self._verify_tokens = _as_bytes(settings.verify_tokens)
        self._app_ids = frozenset(settings.app_ids)

    def challenge(self, request: Request) -> Answer:
        """Meta makes sure of the webhook: it shows what we told it, and wants its number back."""
        given = _bytes(request.query.get("hub.verify_token", ""))
        known = [hmac.compare_digest(given, each) for each in self._verify_tokens]
        said = request.query.get("hub.challenge", "")
        if request.query.get("hub.mode") != "subscribe" or not any(known) or not said:
            raise Forbidden
        return Answer(_bytes(said))

    def verify(self, request: Request) -> None:
        """HMAC-SHA256 of the bytes as they came: the same JSON written otherwise has another signature."""
        given = _bytes(request.headers.get("x-hub-signature-256", ""))
        known = [
            hmac.compare_digest(given, b"sha256=" + hmac.new(each, request.body, hashlib.sha256).hexdigest().encode())
            for each in self._secrets
        ]
        if not any(known):
            raise Forbidden

    def parse(self, request: Request) -> Parsed:
        found = Found(self.name, request.received_at)
        try:
            body = mapping(json.loads(request.body))
        except (ValueError, RecursionError):
            found.unreadable("this is no JSON", request.body)
            return found.parsed()
        if body.get("object") != self.object:
            kind = words(body.get("object"), 60)
            found.unreadable(f"a notification for {kind or 'nothing'!r} at the webhook for {self.object}", request.body)
            return found.parsed()
        try:
            for entry in listed(body.get("entry")):
                self.read(entry, found)
        except RecursionError:  # what could just be decoded cannot be encoded again
            found = Found(self.name, request.received_at)
            found.unreadable("this is nested too deeply", request.body)
        if not (found.items or found.notices or found.ignored):
            found.unreadable("a notification without anything in it that is known", request.body)
        return found.parsed()

    def read(self, entry: Json, found: Found) -> None:
        """Add what an entry brings, whatever form it has."""
        raise NotImplementedError

    def spooled(self, _request: Request) -> Answer | None:
        return None

    def unread_field(self, change: Json, account: str, found: Found) -> None:
        """The app was subscribed to something that is not read here: people should see that it comes."""
        name = words(change.get("field"), 60)
        found.unreadable(
            f"a notification about {name or 'nothing'!r}, which is not read here: take it off the webhook's fields",
            raw_of(change),
            account,
        )

    def is_ours(self, app_id: Any, metadata: Any) -> bool:
        """Whether an echo is of what we sent ourselves."""
        return words(metadata).startswith(OWN_MARK) or words(app_id) in self._app_ids


def account_of(value: Any) -> str:
    """The id of a page, account or number of ours; "" where it is none."""
    found = words(value)
    return found if _ACCOUNT.fullmatch(found) else ""


def _bytes(text: str) -> bytes:
    """`compare_digest` takes no other text than ASCII."""
    return text.encode("utf-8", "surrogatepass")


def _as_bytes(secrets: Secrets) -> list[bytes]:
    return [_bytes(each) for each in open_secrets(secrets)]
