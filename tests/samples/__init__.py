"""What the contract test needs to know of a channel: its own requests, well signed and badly, and what becomes of them.

Each module here is named like its channel and has one function, `samples() -> Samples`. The contract test sends what it
gives to the real endpoint over a real database, and asks the real parser and sender about the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from channels import Channel, Request
from domain import ChannelError, OutState, PartKind, Reply


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request of the provider: what the test posts to /hooks/<channel>/<rest>."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    #: undecoded, without the question mark
    query: str = ""
    rest: str = ""
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Example:
    """A well-signed call with what it must bring."""

    name: str  # zh, en, emoji, media, empty, unknown, batch, ...
    call: Call
    texts: Sequence[str]
    kinds: Sequence[PartKind] = ()
    #: records that are kept as unreadable, each with its reason
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Samples:
    """`public_url` of the application under test is http://sluice.test."""

    #: the channel as the application would make it, with two secrets where it takes a list
    make: Callable[[], Channel]
    #: at least zh, en, emoji, media, empty (media or nothing, without words), unknown
    examples: Sequence[Example]
    #: the same content signed by the second (older) secret
    rotated: Call
    #: calls that must get 403 and store nothing: missing, empty, wrong, truncated, other body, and where the provider
    #: signs a time also an old one
    unsigned: Mapping[str, Call]
    #: signed by us but no form that the provider could mean: kept as unreadable, answered 200
    garbage: Call
    #: a status of a message of ours -> (provider id, state); None where the provider tells none
    statuses: Sequence[tuple[Call, str, OutState]] = ()
    #: GETs by which the provider makes sure of us: (call, the answer's body), and one that must get 403
    challenge: tuple[Call, bytes] | None = None
    bad_challenge: Call | None = None
    #: what the endpoint answers while the database is down: 503, or 200 where the request is kept on disk
    when_down: int = 503
    #: text that the channel cannot carry at all
    too_long: str = ""
    #: signs any body as the provider would: for fuzzing
    sign: Callable[[bytes], Call] | None = None
    #: the same where the address is signed too: a body at the address of an example
    sign_at: Callable[[bytes, Call], Call] | None = None
    #: provider's answer (status, headers, body) to a sending -> what `send` must raise, by its marks
    errors: Sequence[tuple[str, int, Mapping[str, str], bytes, Mapping[str, Any]]] = ()
    #: the channel with its provider at a base URL (a server that answers as told); None where nothing is sent
    at: Callable[[str], Channel] | None = None
    #: what the provider says when it took a message: status, headers, body
    taken: tuple[int, Mapping[str, str], bytes] | None = None
    #: what its other addresses answer, by the start of their paths; or how that is made of the sendings it took
    beside: Mapping[str, bytes | Callable[[list[bytes]], bytes]] = field(default_factory=dict)
    #: a reply that the channel would send
    reply: Reply | None = None


class NoLeases:
    """Nobody else is there."""

    async def hold(self, name: str, seconds: float) -> bool:
        del name, seconds
        return True


def request_of(channel: str, call: Call, **changes: Any) -> Request:
    """The call as the hook gets it."""
    path = f"/hooks/{channel}" + (f"/{call.rest}" if call.rest else "")
    given: dict[str, Any] = {
        "method": call.method,
        "url": f"http://sluice.test{path}" + (f"?{call.query}" if call.query else ""),
        "rest": call.rest,
        "query": dict(parse_qsl(call.query, keep_blank_values=True)),
        "headers": {name.lower(): value for name, value in call.headers.items()},
        "body": call.body,
        "received_at": datetime.now(UTC),
    }
    return Request(**(given | changes))


def marks(error: ChannelError) -> dict[str, Any]:
    """What a sender's error says, for comparing."""
    return {
        "permanent": error.permanent,
        "retry": error.retry_after is not None,
        "unknown": error.unknown,
        "pause": error.pause,
        "broken": error.broken,
        "refused": error.refused,
    }
