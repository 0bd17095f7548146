"""The edges: one file a channel. A channel knows the words of `domain` and nothing else of ours.

What a channel is made of, each part optional:

- `parse`: the provider's bytes -> `Message` (or `Unreadable`); pure, never raises for bad input;
- `Hook`: what a provider calls: verify the signature, then `parse`. The endpoint, the store and the answer are ours;
- `Source`: a loop that fetches (mail's IMAP). It hands what it found to `receive` and acknowledges only afterwards;
- `Sender`: one outgoing message -> `Receipt`, or a `ChannelError` that says what its caller needs;
- `Fetcher`: what a `Part` refers to -> its content, for a worker.

`Channel` holds the parts of one that is turned on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from domain import Attachment, Incoming, Notice, Receipt, Reply, Stored

#: `router.flow.receive`: returns after the commit, one `Stored` for each message, in order.
Receive = Callable[[Sequence[Incoming]], Awaitable[list[Stored]]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a channel can carry, as data."""

    #: longest text of one message, in the provider's own unit; None = no limit of its own
    text: int | None = None
    #: a text's length in that unit, and the unit's name
    measure: Callable[[str], int] = len
    unit: str = "characters"
    #: messages that a longer text may be cut into
    parts: int = 1
    #: how long after the customer's last message a person's answer may go out; None = always
    window: timedelta | None = None
    #: the same for automatic answers
    automatic_window: timedelta | None = None
    #: answers to one address go out one after another, in order
    ordered: bool = False
    #: the provider tells later what became of a message (`domain.Status`)
    receipts: bool = False
    #: messages a second that the provider allows; None = no limit of its own
    rate: float | None = None
    #: seconds that one `send` may take before its result is unknown
    deadline: float = 30.0
    #: messages that it can have on their way at a time; None = no limit of its own
    together: int | None = None
    #: nothing is sent: an answer waits where the other side looks for it, and is there as soon as it is written
    pulled: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request of a provider, as it came: what is signed must not be taken apart first."""

    method: str
    #: as the provider called it: our public base, the path and the query, undecoded
    url: str
    #: what follows `/hooks/<channel>/`
    rest: str
    #: decoded; of a name that stands twice the last
    query: Mapping[str, str]
    #: by lower-case names
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider hears."""

    body: bytes = b""
    media_type: str = "text/plain; charset=utf-8"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a request brought. `answer` goes out after all of it is stored."""

    items: tuple[Incoming, ...] = ()
    notices: tuple[Notice, ...] = ()
    answer: Answer = Answer()
    #: the body as it may lie on a disk, where the request's own holds what must not be kept
    keep: bytes | None = field(default=None, repr=False)


class Hook(Protocol):
    """A provider's webhook at `/hooks/<name>`. Pure: nothing here waits, stores or sends."""

    name: str
    #: seconds that storing may take before `spooled` is asked; None = as long as it takes
    patience: float | None

    def challenge(self, request: Request) -> Answer:
        """The answer to a GET, by which a provider makes sure of us. Raises `Forbidden`."""
        ...

    def verify(self, request: Request) -> None:
        """Raises `Forbidden` unless the request is signed by one of the secrets, compared in constant time."""
        ...

    def parse(self, request: Request) -> Parsed:
        """What a verified request brought. Never raises: what cannot be read is an `Unreadable`."""
        ...

    def spooled(self, request: Request) -> Answer | None:
        """The answer when the database is down and the request was written to this machine's disk instead.

        None: nothing is written and the provider hears 503, for providers that try again for long enough.
        """
        ...


class Fetcher(Protocol):
    """Fetches what a part refers to."""

    async def fetch(self, reference: Mapping[str, str]) -> Attachment:
        """Raises `ChannelError`: permanent (gone, too large, a type that is not taken) or retry_after."""
        ...


@runtime_checkable
class Clears(Fetcher, Protocol):
    """A fetcher that removes at the provider what is here: asked only after our copy is committed."""

    async def clear(self, reference: Mapping[str, str]) -> None:
        """That it is gone already is well. Raises `ChannelError`: it is still there."""
        ...


class Leases(Protocol):
    """What only one process of all may do at a time."""

    async def hold(self, name: str, seconds: float) -> bool:
        """Take or renew the lease. False: another process has it. Raises `Unavailable`."""
        ...


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
    #: another process does the work, and tells how it goes
    elsewhere: bool = False


class Probe(Protocol):
    """Asks a provider whether our credentials work. One call, bounded in time."""

    async def probe(self) -> Health:
        """`ok` and words for an operator: whose account it is, or what is wrong and what to do. Never raises."""
        ...


class Take(Protocol):
    """`router.arrivals.take`: as `Receive`, with what a provider tells beside messages."""

    async def __call__(self, items: Sequence[Incoming], notices: Sequence[Notice] = ()) -> list[Stored]: ...


class Source(Protocol):
    """A loop that fetches messages from a channel."""

    name: str
    health: Health

    async def run(self, receive: Take) -> None:
        """Fetch until cancelled. Comes back by itself after every fault of the other side."""
        ...


@dataclass(frozen=True, slots=True)
class Channel:
    """The parts of a channel that is turned on."""

    name: str
    sender: Sender | None = None
    hook: Hook | None = None
    sources: tuple[Source, ...] = ()
    fetcher: Fetcher | None = None
    probe: Probe | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a channel may use of the application."""

    #: base of our public addresses, without a slash at the end
    public_url: str
    leases: Leases


def pieces(text: str, limits: Limits) -> list[str]:
    """A text as the messages that the channel can carry, cut at a paragraph, a line, a sentence or a word.

    Nothing is lost but white space at the cuts. More than `limits.parts` pieces are returned as they are: the caller
    refuses them.
    """
    most = limits.text
    if most is None or limits.measure(text) <= most:
        return [text]
    found: list[str] = []
    rest = text
    while rest and limits.measure(rest) > most:
        cut = _cut(rest, _longest(rest, limits.measure, most))
        found.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [each for each in [*found, rest] if each]


def _longest(text: str, measure: Callable[[str], int], most: int) -> int:
    """How many code points of the text fit, by bisection: `measure` grows with the text."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[:middle]) <= most:
            low = middle
        else:
            high = middle - 1
    return low


#: where a text may be cut, best first
_CUTS = ("\n\n", "\n", "。", "！", "？", ". ", "! ", "? ", "；", "，", ", ", " ")
#: what must not begin a message: it belongs to the character before it
_JOINERS = "\u200d\ufe0e\ufe0f\u20e3"


def _cut(text: str, most: int) -> int:
    """The best place to cut at or before `most`, in the second half of what fits where there is one."""
    for mark in _CUTS:
        # A blank at the cut goes anyway, so that it may stand beyond what fits.
        found = text.rfind(mark, most // 2, most + len(mark) - len(mark.rstrip()))
        if found >= 0:
            return found + len(mark)
    cut = most
    while cut > 1 and (text[cut] in _JOINERS or text[cut - 1] == "\u200d" or unicodedata.combining(text[cut])):
        cut -= 1
    return cut


def too_long(text: str, limits: Limits) -> str:
    """Why the channel cannot carry a text, in words for who wrote it; "" = it can."""
    found = len(pieces(text, limits))
    if found <= limits.parts:
        return ""
    most = f"{limits.text:,} {limits.unit}" + (f" in each of {limits.parts} messages" if limits.parts > 1 else "")
    return f"This channel carries {most} at most; this has {limits.measure(text):,}."
