"""A folder for what must not be lost while the database is down: one file an entry, on disk before it counts.

For providers that give up within seconds (a call, WeChat): the request is kept here, answered, and brought in later.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


class Spool:
    """Entries of bytes, oldest first. Safe between processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, entry: bytes) -> None:
        """Returns when the entry is on the disk. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020}-{os.getpid()}-{os.urandom(4).hex()}"
        half = self._folder / f".{name}"
        try:
            with half.open("xb") as file:
                file.write(entry)
                file.flush()
                os.fsync(file.fileno())
            half.rename(self._folder / name)
        except OSError:
            half.unlink(missing_ok=True)  # a full disk is not filled further by what does not count
            raise
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def waiting(self) -> list[Path]:
        """The entries, oldest first."""
        try:
            return sorted(each for each in self._folder.iterdir() if not each.name.startswith("."))
        except FileNotFoundError:
            return []

    def done(self, entry: Path) -> None:
        """It is stored; the entry may go."""
        entry.unlink(missing_ok=True)
