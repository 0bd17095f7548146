"""Parsing of mails, the large ones in a process of their own.

A thread would do for the work but not for the loop: single calls over 20 MB hold the interpreter for a tenth of a
second and more. And what a monstrous mail does to memory ends with the process that read it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from channels.mail_parse import parse as parse_here
from domain import Message

#: bytes from which a process of its own is worth its start
LARGE = 2 * 1024 * 1024
_DEADLINE = 120.0
_ROOT = Path(__file__).resolve().parent.parent


def parse(
    raw: bytes,
    *,
    received_at: datetime,
    recipient: str = "",
    own_domains: Collection[str] = (),
    seen_at: tuple[str, str] | None = None,
) -> Message:
    """A mail as it came -> `Message`. Blocks: call it in a thread. Raises where the parser fails."""
    options: dict[str, Any] = {
        "received_at": received_at,
        "recipient": recipient,
        "own_domains": tuple(own_domains),
        "seen_at": seen_at,
    }
    if len(raw) < LARGE:
        return parse_here(raw, **options)
    command = [sys.executable, "-m", "channels.mail_apart"]
    work = pickle.dumps((raw, options))
    done = subprocess.run(command, input=work, capture_output=True, timeout=_DEADLINE, cwd=_ROOT, check=True)
    message: Message = pickle.loads(done.stdout)
    return replace(message, raw=raw)


def main() -> None:
    """The child: one mail from stdin, its message to stdout."""
    raw, options = pickle.load(sys.stdin.buffer)
    pickle.dump(replace(parse_here(raw, **options), raw=b""), sys.stdout.buffer)


if __name__ == "__main__":
    main()
