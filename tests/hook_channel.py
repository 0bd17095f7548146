"""A channel with a provider, reduced to what every one of them has: signed JSON in, a fake way out, files to fetch."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from channels import Answer, Limits, Parsed, Request
from domain import (
    Attachment,
    ChannelError,
    Forbidden,
    Message,
    OutState,
    Part,
    PartKind,
    Receipt,
    Reply,
    Role,
    Standing,
    Status,
    Unreadable,
    Withdrawal,
)
from router.tickets import Actor
from tests.worlds import World
from tests.worlds import message as incoming

SECRET = b"a secret"
NAME = "fake"


def signed(body: bytes) -> dict[str, str]:
    return {"x-signature": hmac.new(SECRET, body, hashlib.sha256).hexdigest()}


def delivery(*events: Mapping[str, Any]) -> bytes:
    return json.dumps(list(events), ensure_ascii=True).encode()


@dataclass
class FakeHook:
    """Events: {"id", "from", "text", "files", "album", "mark"}, {"status", "id"}, {"stop": address}, {"gone": id}."""

    name: str = NAME
    patience: float | None = None
    #: the answer when nothing could be stored but it was kept
    kept: Answer | None = None

    def challenge(self, request: Request) -> Answer:
        if request.query.get("token") != "hello":
            raise Forbidden
        return Answer(request.query.get("challenge", "").encode())

    def verify(self, request: Request) -> None:
        given = request.headers.get("x-signature", "").encode()
        if not hmac.compare_digest(given, signed(request.body)["x-signature"].encode()):
            raise Forbidden

    def parse(self, request: Request) -> Parsed:
        now = request.received_at
        try:
            events = json.loads(request.body)
        except ValueError:
            digest = hashlib.sha256(request.body).hexdigest()
            return Parsed((Unreadable(channel=NAME, account="a", external_id=digest, received_at=now,
                                      reason="no JSON", raw=request.body),))  # fmt: skip
        items = tuple(message(each, now) for each in events if "from" in each)
        notices: list[Status | Standing | Withdrawal] = []
        for each in events:
            if "status" in each:
                state = OutState(each["status"])
                notices.append(Status(channel=NAME, account="a", provider_id=each["id"], state=state, at=now,
                                      reason=each.get("reason", "")))  # fmt: skip
            if "stop" in each:
                notices.append(Standing(channel=NAME, address=each["stop"], at=now, refused=each.get("why")))
            if "gone" in each:
                notices.append(Withdrawal(channel=NAME, account="a", external_id=each["gone"], at=now))
        return Parsed(items, tuple(notices), Answer(b"ok"))

    def spooled(self, _request: Request) -> Answer | None:
        return self.kept


def message(event: Mapping[str, Any], now: datetime) -> Message:
    files = [Part(kind=PartKind.IMAGE, name=name, reference={"id": name}) for name in event.get("files", [])]
    if "reaction" in event:
        files.append(Part(kind=PartKind.REACTION, text=event["reaction"]))
    return Message(
        channel=NAME,
        account="a",
        external_id=event["id"],
        sender=event["from"],
        received_at=datetime.fromisoformat(event["at"]) if "at" in event else now,
        text=event.get("text", ""),
        thread=event["from"],
        parts=tuple(files),
        revises=event.get("revises", ""),
        merges=bool(event.get("album")),
        seen_at=("chat", event["mark"]) if "mark" in event else None,
        raw=json.dumps(event).encode(),
    )


@dataclass
class FakeFetcher:
    """Gives what it was told to: content, or an error."""

    files: dict[str, bytes | ChannelError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def fetch(self, reference: Mapping[str, str]) -> Attachment:
        self.asked.append(reference["id"])
        found = self.files[reference["id"]]
        if isinstance(found, ChannelError):
            raise found
        return Attachment(name=reference["id"], media_type="image/png", content=found)


@dataclass
class FakeOut:
    """A provider that numbers what it takes. `results` are what the next calls give, before it takes all."""

    limits: Limits = field(default_factory=lambda: Limits(receipts=True, ordered=True))
    name: str = NAME
    results: list[ChannelError] = field(default_factory=list)
    taken: list[Reply] = field(default_factory=list)

    async def send(self, reply: Reply) -> Receipt:
        if self.results:
            raise self.results.pop(0)
        self.taken.append(reply)
        return Receipt(provider_id=f"p{len(self.taken)}")

    async def close(self) -> None:
        pass


def now() -> datetime:
    return datetime.now(UTC)


# --- over a small world -----------------------------------------------------------------------------------------------

AGENT = Actor("person:li", Role.AGENT)


def line(text: str = "#claim_status where", sender: str = "ann", **values: Any) -> Message:
    """A customer's line on this channel, as it lies in the store."""
    given: dict[str, Any] = {"channel": NAME, "account": "a", "sender": sender, "thread": sender}
    return incoming(text, **(given | values))


async def rows(world: World, query: str) -> list[Any]:
    return await world.database.read(lambda connection: [tuple(row) for row in connection.execute(sa.text(query))])
