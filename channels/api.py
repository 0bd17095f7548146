"""The API channel: programs post messages, and read the answers with the ticket.

The same line is what `ingest` reads from .jsonl files. Its way out is the ticket itself: an answer counts as sent when
it stands where the program reads it (`GET /api/v1/tickets/{number}`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from channels import Limits
from domain import InvalidInput, Message, Receipt, Reply, Unreadable

CHANNEL = "api"
_LONGEST = {"external_id": 512, "sender": 512, "text": 200_000, "subject": 998, "thread": 512, "sender_name": 200}
_REQUIRED = ("external_id", "sender", "text")


def parse(record: Any, account: str, raw: bytes, now: datetime) -> Message:
    """One posted message. Raises `InvalidInput` with the field that is wrong."""
    if not isinstance(record, Mapping):
        raise InvalidInput("", "A message is a JSON object.")
    texts = {name: _text(record, name) for name in _LONGEST}
    received_at = now
    if (given := record.get("received_at")) is not None:
        received_at = _time(given)
    return Message(
        channel=CHANNEL,
        account=account,
        external_id=texts["external_id"],
        sender=texts["sender"].strip(),
        sender_name=texts["sender_name"],
        text=texts["text"],
        subject=texts["subject"],
        thread=texts["thread"],
        received_at=received_at,
        raw=raw,
        fingerprint=_digest(texts),
    )


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None and name not in _REQUIRED:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and name in ("external_id", "sender", "thread"):
        value = str(value)
    if not isinstance(value, str):
        raise InvalidInput(name, f"{name} is missing." if value is None else f"{name} must be text.")
    if name in _REQUIRED and not value.strip():
        raise InvalidInput(name, f"{name} is empty.")
    if len(value) > _LONGEST[name]:
        raise InvalidInput(name, f"{name} has {len(value)} characters; {_LONGEST[name]} at most.")
    return value


def _time(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise InvalidInput("received_at", "received_at has no zone; add Z or +08:00.")
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput("received_at", "not an ISO 8601 time, such as 2026-11-22T14:05:00Z") from error


def _digest(texts: Mapping[str, str]) -> str:
    """Of the content alone, so that the same message written with other spaces is the same."""
    joined = json.dumps([texts[name] for name in sorted(texts)], ensure_ascii=True)
    return hashlib.sha256(joined.encode()).hexdigest()


def parse_line(line: bytes, account: str, now: datetime) -> Message | Unreadable:
    """One line of a .jsonl file; what is wrong with it goes to quarantine with its reason."""
    try:
        return parse(json.loads(line), account, line, now)
    except InvalidInput as error:
        reason = str(error)
    except (ValueError, RecursionError):
        reason = "The line is no JSON."
    return Unreadable(
        channel=CHANNEL,
        account=account,
        external_id=f"sha256:{hashlib.sha256(line).hexdigest()}",
        received_at=now,
        reason=reason,
        raw=line,
    )


class ApiSender:
    """Answers wait on the ticket for the program that posted."""

    name = CHANNEL
    limits = Limits(pulled=True)

    async def send(self, reply: Reply) -> Receipt:
        return Receipt(provider_id=str(reply.message_id))

    async def close(self) -> None: ...
