"""The edges: one file a channel. A channel knows the words of `domain` and nothing else of ours.

What a channel is made of, each part optional:

- `parse`: the provider's bytes -> `Message` (or `Unreadable`); pure, never raises for bad input;
- `Source`: a loop that fetches (mail's IMAP). It hands what it found to `receive` and acknowledges only afterwards;
- `Sender`: one outgoing message -> `Receipt`, or a `ChannelError` that says what its caller needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain import Incoming, Receipt, Reply, Stored

#: `router.flow.receive`: returns after the commit, one `Stored` for each message, in order.
Receive = Callable[[Sequence[Incoming]], Awaitable[list[Stored]]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a channel can carry, as data."""

    #: longest text, in characters; None = no limit of its own
    text: int | None = None
    #: messages a second that the provider allows; None = no limit of its own
    rate: float | None = None
    #: seconds that one `send` may take before its result is unknown
    deadline: float = 30.0
    #: messages that it can have on their way at a time; None = no limit of its own
    together: int | None = None
    #: nothing is sent: an answer waits where the other side looks for it, and is there as soon as it is written
    pulled: bool = False


class Sender(Protocol):
    """The way out of a channel."""

    name: str
    limits: Limits

    async def send(self, reply: Reply) -> Receipt:
        """Hand one message to the channel. Raises `ChannelError` (permanent, retry_after or unknown)."""
        ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Health:
    """What a source says of itself; read by /readyz, `check` and the console."""

    name: str
    ok: bool = False
    detail: str = "starting"


class Source(Protocol):
    """A loop that fetches messages from a channel."""

    name: str
    health: Health

    async def run(self, receive: Receive) -> None:
        """Fetch until cancelled. Comes back by itself after every fault of the other side."""
        ...
