"""(e) The same mails in a database of a million tickets, and in one of ten thousand.

A thousand mails are ingested, and all rows that they left are copied by SQL with other ids, addresses and keys. The
million is kept between runs, as long as the schema is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from tests import bench_corpus
from tests.bench_ingest import check
from tests.bench_tools import CACHE, Row, World, disk, fresh_world, one_core

SMALL, LARGE = 10_000, 1_000_000
_RUNS = 3
_AT_ONCE = 50  # copies a statement

#: what of a copied row is not as in the row itself; `k` is the copy's number, {...} the greatest id of a table
_OTHER: dict[str, dict[str, str]] = {
    "customer": {"id": "id + k * {customer}"},
    "address": {
        "id": "id + k * {address}",
        "customer_id": "customer_id + k * {customer}",
        "address": "k || '.' || address",
    },
    "ticket": {
        "id": "id + k * {ticket}",
        "token": "lower(hex(randomblob(16)))",
        "customer_id": "customer_id + k * {customer}",
        "address": "k || '.' || address",
        # most of a large world is over, and ingesting reads no old words: short ones fill the disk in less time
        "state": "iif((id + k) % 20, 'closed', state)",
        "next_alarm_at": "iif((id + k) % 20, NULL, next_alarm_at)",
    },
    "message": {
        "id": "id + k * {message}",
        "external_id": "lower(hex(randomblob(8))) || external_id",
        "key": "k || '.' || key",
        "address": "k || '.' || address",
        "ticket_id": "ticket_id + k * {ticket}",
        "customer_id": "customer_id + k * {customer}",
        "text": "substr(text, 1, 200)",
        "clean": "substr(clean, 1, 200)",
    },
    "raw": {"message_id": "message_id + k * {message}", "body": "substr(body, 1, 400)"},
    "thread": {"key": "lower(hex(randomblob(16)))", "ticket_id": "ticket_id + k * {ticket}"},
    "event": {"id": "id + k * {event}", "ticket_id": "ticket_id + k * {ticket}"},
    "outbox": {
        "id": "id + k * {outbox}",
        "message_id": "message_id + k * {message}",
        "ticket_id": "ticket_id + k * {ticket}",
        "address": "k || '.' || address",
        "state": "'sent'",
    },
}


def grow(path: Path, tickets: int) -> None:
    """Copy the rows of a world of `bench_corpus.MAILS` tickets until it has `tickets`."""
    copies = tickets // bench_corpus.MAILS
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        # Nobody else reads it yet, and a broken build is thrown away.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -1500000"):
            db.execute(f"PRAGMA {pragma}")
        columns = {name: [row[1] for row in db.execute(f"PRAGMA table_info({name})")] for name in _OTHER}
        most = {
            name: db.execute(f"SELECT max(id) FROM {name}").fetchone()[0] for name in _OTHER if "id" in columns[name]
        }
        rows = {name: db.execute(f"SELECT max(rowid) FROM {name}").fetchone()[0] for name in _OTHER}
        db.execute("CREATE TEMP TABLE copy (k INTEGER PRIMARY KEY)")
        for start in range(1, copies, _AT_ONCE):
            db.execute("DELETE FROM copy")
            db.executemany("INSERT INTO copy VALUES (?)", [(k,) for k in range(start, min(start + _AT_ONCE, copies))])
            db.execute("BEGIN")
            for name, other in _OTHER.items():
                chosen = [other[column].format(**most) if column in other else column for column in columns[name]]
                db.execute(
                    f"INSERT INTO {name} ({', '.join(columns[name])}) SELECT {', '.join(chosen)} FROM copy, {name}"
                    f" WHERE {name}.rowid <= {rows[name]} ORDER BY k, {name}.rowid"
                )
            db.execute(
                "INSERT INTO message_search (rowid, terms, ticket_id)"
                f" SELECT s.rowid + k * {most['message']}, substr(terms, 1, 300), ticket_id + k * {most['ticket']}"
                f" FROM copy, message_search AS s WHERE s.rowid <= {most['message']} ORDER BY k, s.rowid"
            )
            db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")


@contextlib.contextmanager
def of_size(tickets: int, *, kept: bool) -> Iterator[World]:
    with fresh_world() as world:
        schema = "".join(sql or "" for (sql,) in world.rows("SELECT sql FROM sqlite_master ORDER BY name"))
        made = bench_corpus.mails("e")
        digest = hashlib.sha256(f"{schema}{_OTHER}".encode() + b"".join(made)).hexdigest()[:12]
        path = (CACHE if kept else world.folder) / f"tickets-{tickets}-{digest}.db"
        if not path.exists():
            for old in CACHE.glob(f"tickets-{tickets}-*"):
                old.unlink()
            world.child("tests.bench_ingest", str(bench_corpus.write_mails(world.folder / "first", made)))
            half = path.with_suffix(".part")
            # The rest of the template is in its WAL until it is closed by a checkpoint.
            with contextlib.closing(sqlite3.connect(world.database)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copyfile(world.database, half)
            grow(half, tickets)
            half.rename(path)
        world.file = path
        world.changes["SLUICE_DATABASE__URL"] = f"sqlite:///{path}"
        yield world


def part_e() -> Iterator[Row]:
    rates: dict[int, list[float]] = {SMALL: [], LARGE: []}
    began = time.perf_counter()
    with of_size(SMALL, kept=False) as small, of_size(LARGE, kept=True) as large:
        yield Row("e", "databases made or found", f"{time.perf_counter() - began:.0f} s")
        # In turn, so that a slow minute of the machine falls on both.
        for run in range(_RUNS + 1):
            for tickets, world in ((SMALL, small), (LARGE, large)):
                folder = world.folder / f"run{run}"
                mails = bench_corpus.mails(f"e {time.time_ns()}")
                bench_corpus.write_mails(folder, mails)
                with one_core():
                    found = world.child("tests.bench_ingest", str(folder))
                check(found["summary"], world)
                if run:  # the first one reads the file into memory
                    rates[tickets].append(len(mails) / found["seconds"])
        for tickets, world in ((SMALL, small), (LARGE, large)):
            size = world.database.stat().st_size / 1e9
            figure = f"{statistics.median(rates[tickets]):,.0f} msg/s"
            yield Row("e", f"ingest with {tickets:,} tickets in the database ({size:.2f} GB)", figure)
            yield Row("e", "- runs", ", ".join(f"{rate:,.0f}" for rate in rates[tickets]))
    ratio = statistics.median(rates[LARGE]) / statistics.median(rates[SMALL])
    yield Row("e", "the rate with many against few", f"{ratio:.2f}", "0.9")
    yield Row("e", "the disk", disk())
