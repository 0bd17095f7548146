"""Replay: messages from files, and the shipped fake of a channel.

A folder is walked in sorted order: *.eml, *.mbox, *.jsonl and Maildir's cur/ and new/; other files are named and not
read. A file named by itself is one mail unless it ends in .mbox or .jsonl.
"""

from __future__ import annotations

import hashlib
import mailbox
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from channels import Limits, api, mail_parse
from domain import ChannelError, Incoming, Receipt, Reply, Unreadable, UsageError

Kind = Literal["mail", "mbox", "jsonl"]
_KINDS: dict[str, Kind] = {".eml": "mail", ".mbox": "mbox", ".jsonl": "jsonl"}


@dataclass(frozen=True, slots=True)
class Found:
    path: Path
    kind: Kind


def find(paths: Sequence[Path]) -> tuple[list[Found], list[Path]]:
    """(files to read, files left alone). Raises `UsageError` for a path that does not exist."""
    found: list[Found] = []
    ignored: list[Path] = []
    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path, onerror=lambda error: ignored.append(Path(error.filename))):
                folders.sort()
                # Links to folders are not followed, they may lead round in a circle; but nothing is left out silently.
                ignored.extend(link for name in folders if (link := Path(folder, name)).is_symlink())
                _sort_out(Path(folder), sorted(names), found, ignored)
        elif path.exists():
            found.append(Found(path, _KINDS.get(path.suffix.lower(), "mail")))
        else:
            raise UsageError(f"There is no file {path}.")
    return found, ignored


def _sort_out(folder: Path, names: Sequence[str], found: list[Found], ignored: list[Path]) -> None:
    maildir = folder.name in ("cur", "new") and (folder.parent / "cur").is_dir() and (folder.parent / "new").is_dir()
    for name in names:
        path = folder / name
        kind: Kind | None = "mail" if maildir else _KINDS.get(path.suffix.lower())
        if kind is None or not path.is_file():
            ignored.append(path)
        else:
            found.append(Found(path, kind))


def raw_items(found: Found) -> Iterator[tuple[Kind, bytes]]:
    """The messages of one file, unparsed."""
    if found.kind == "mail":
        yield "mail", found.path.read_bytes()
    elif found.kind == "mbox":
        box = mailbox.mbox(found.path, create=False)
        try:
            for key in box.iterkeys():
                yield "mbox", box.get_bytes(key)
        finally:
            box.close()
    else:
        with found.path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield "jsonl", line.rstrip(b"\r\n")


def parse(kind: Kind, raw: bytes, own_domains: Collection[str] = ()) -> Incoming:
    """One message. What cannot be read comes back as `Unreadable`."""
    now = datetime.now(UTC)
    if kind == "jsonl":
        return api.parse_line(raw, "ingest", now)
    return parse_mail(raw, now, own_domains)


def parse_mail(raw: bytes, now: datetime, own_domains: Collection[str] = ()) -> Incoming:
    try:
        return mail_parse.parse(raw, received_at=now, own_domains=own_domains)
    except Exception as error:
        return Unreadable(
            channel="mail",
            account="mail",
            external_id=f"sha256:{hashlib.sha256(raw).hexdigest()}",
            received_at=now,
            reason=f"The mail could not be read ({type(error).__name__}).",
            raw=raw,
        )


@dataclass(slots=True)
class FakeSender:
    """A channel that keeps what it was given; for the demo and for tests.

    `errors` are raised one after the other before anything is taken; a taken reply under a known key is taken as the
    same, as a provider with idempotency keys does.
    """

    name: str = "fake"
    limits: Limits = field(default_factory=Limits)
    errors: list[ChannelError] = field(default_factory=list)
    sent: list[Reply] = field(default_factory=list)

    async def send(self, reply: Reply) -> Receipt:
        if self.errors:
            error = self.errors.pop(0)
            if error.unknown:  # the provider has it, we do not know
                self.sent.append(reply)
            raise error
        self.sent.append(reply)
        return Receipt(provider_id=f"fake-{len(self.sent)}")

    async def close(self) -> None: ...
