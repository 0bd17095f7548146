"""Generic webhook: signed JSON with a field mapping of the settings, so that a new source needs no code.

For app reviews, survey tools, comment exports and call-centre exports. There is no way out: such a source takes no
answers, so nothing automatic is queued for it, and who answers is told so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from channels import Answer, Channel, Parsed, Request, Surroundings
from channels.settings import FieldMap, WebhookSource, open_secrets
from domain import Forbidden, Incoming, Message, Unreadable

#: as of the API channel, which takes the same from programs
_LONGEST = {"external_id": 1200, "sender": 512, "thread": 512, "text": 200_000}
#: times outside are a mistake of the source: the time of the delivery counts then
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=1)
#: an epoch above is in milliseconds: as seconds it would lie beyond the year 5000
_MILLISECONDS = 1e11


class _Missing(Exception):
    """The record cannot be a message; why, in words."""


class WebhookHook:
    """`/hooks/<name>` of one source."""

    patience: float | None = None

    def __init__(self, name: str, settings: WebhookSource) -> None:
        self.name = name
        self._settings = settings
        self._keys = [each.encode() for each in open_secrets(settings.secrets)]

    def challenge(self, request: Request) -> Answer:
        raise Forbidden("This address takes signed POST requests only.")

    def verify(self, request: Request) -> None:
        settings = self._settings
        given = request.headers.get(settings.signature_header.lower(), "")
        if not given.startswith(settings.signature_prefix):
            raise Forbidden("The signature is missing.")
        signed = request.body
        if settings.timestamp_header:
            stamp = request.headers.get(settings.timestamp_header.lower(), "")
            signed = stamp.encode() + b"." + signed
        signature = given.removeprefix(settings.signature_prefix).encode()
        # All keys are tried, so that the time taken does not tell which one it was.
        matches = [hmac.compare_digest(signature, self._signature(key, signed)) for key in self._keys]
        if not any(matches):
            raise Forbidden("The signature is wrong.")
        if settings.timestamp_header and not self._is_fresh(stamp, request.received_at):
            raise Forbidden("The signed time is too far off.")

    def _signature(self, key: bytes, signed: bytes) -> bytes:
        digest = hmac.new(key, signed, hashlib.sha256)
        if self._settings.signature_encoding == "base64":
            return base64.b64encode(digest.digest())
        return digest.hexdigest().encode()

    def _is_fresh(self, stamp: str, now: datetime) -> bool:
        """A delivery that somebody recorded is refused later; within the tolerance, its ids are known already."""
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12):
            return False
        return abs(now.timestamp() - int(stamp)) <= self._settings.tolerance

    def parse(self, request: Request) -> Parsed:
        try:
            body = json.loads(request.body)
            records = _records(body, self._settings.records)
            whole = len(records) == 1 and records[0] is body
            items = [self._read(each, request.body if whole else None, request.received_at) for each in records]
        except _Missing as error:
            items = [self._unread(request, str(error))]
        except (ValueError, RecursionError):
            items = [self._unread(request, "The body is no JSON, or nested too deeply.")]
        return Parsed(tuple(items), answer=_answer(items))

    def spooled(self, request: Request) -> Answer | None:
        return None

    def _unread(self, request: Request, reason: str) -> Incoming:
        digest = hashlib.sha256(request.body).hexdigest()
        return self._unreadable(digest, reason, request.body, request.received_at)

    def _unreadable(self, digest: str, reason: str, raw: bytes, now: datetime) -> Unreadable:
        return Unreadable(
            channel=self.name,
            account=self.name,
            external_id=f"sha256:{digest}",
            received_at=now,
            reason=reason,
            raw=raw,
        )

    def _read(self, record: Any, raw: bytes | None, now: datetime) -> Incoming:
        # Written in one way, so that the same record with other spaces or in another batch is the same.
        written = json.dumps(record, sort_keys=True).encode()
        digest = hashlib.sha256(written).hexdigest()
        raw = written if raw is None else raw
        try:
            return self._message(record, digest, raw, now)
        except _Missing as error:
            return self._unreadable(digest, str(error), raw, now)

    def _message(self, record: Any, digest: str, raw: bytes, now: datetime) -> Message:
        if not isinstance(record, Mapping):
            raise _Missing("The record is no JSON object.")
        fields = self._settings.fields
        sender = _text(record, fields.sender).strip()
        if not sender:
            raise _Missing(f"There is no sender at {fields.sender}.")
        made = Message(
            channel=self.name,
            account=self.name,
            external_id=_text(record, fields.external_id).strip() or f"sha256:{digest}",
            sender=sender,
            sender_name=_text(record, fields.sender_name),
            subject=_text(record, fields.subject),
            text=_texts(record, fields),
            thread=_text(record, fields.thread),
            received_at=_time(_at(record, fields.received_at), now),
            answerable=False,
            raw=raw,
            fingerprint=digest,
        )
        for name, most in _LONGEST.items():
            if (found := len(getattr(made, name))) > most:
                raise _Missing(f"The {name} has {found:,} characters; {most:,} at most.")
        return made


def _records(body: Any, path: str) -> Sequence[Any]:
    """The records of a body: one object, a list of them, or either at a path."""
    found = _at(body, path) if path else body
    if isinstance(found, list):
        return found
    if isinstance(found, Mapping):
        return [found]
    raise _Missing(f"There are no records at {path}." if path else "The body is neither an object nor a list.")


def _at(record: Any, path: str) -> Any:
    """What stands at a path of keys and list places, or None. A key that holds dots is found by its whole name."""
    if not path:
        return None
    if isinstance(record, Mapping) and path in record:
        return record[path]
    step, _dot, rest = path.partition(".")
    if isinstance(record, Mapping):
        inner = record.get(step)
    elif isinstance(record, list) and step.isdecimal() and int(step) < len(record):
        inner = record[int(step)]
    else:
        return None
    return _at(inner, rest) if rest else inner


def _text(record: Any, path: str) -> str:
    """The text at a path; "" where there is none. A number or a boolean becomes its text."""
    value = _at(record, path)
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else ""


def _texts(record: Any, fields: FieldMap) -> str:
    """The texts of all paths under one another. An empty one is taken as it is; that none is there is not."""
    paths = [fields.text] if isinstance(fields.text, str) else fields.text
    if not any(isinstance(_at(record, path), str | bool | int | float) for path in paths):
        raise _Missing(f"There is no text at {', '.join(paths)}.")
    return "\n".join(text for path in paths if (text := _text(record, path).strip()))


def _time(value: Any, now: datetime) -> datetime:
    """ISO 8601 with its zone, or seconds or milliseconds since 1970; what is none of these, or absurd, is `now`."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                return now
            moment = moment.astimezone(UTC)
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            seconds = float(value)
            moment = datetime.fromtimestamp(seconds / 1000 if seconds > _MILLISECONDS else seconds, UTC)
        else:
            return now
    except (ValueError, OverflowError, OSError):
        return now
    return moment if _EARLIEST <= moment <= now + _AHEAD else now


def _answer(items: Sequence[Incoming]) -> Answer:
    """What the source's own log may show: how many records came, and how many of them could not be read."""
    unreadable = sum(isinstance(each, Unreadable) for each in items)
    body = json.dumps({"records": len(items), "unreadable": unreadable}).encode()
    return Answer(body, "application/json")


def channel(name: str, settings: WebhookSource, around: Surroundings) -> Channel:
    """A source of `webhooks` in the settings."""
    del around
    return Channel(name=name, hook=WebhookHook(name, settings))
