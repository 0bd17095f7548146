"""The database: one writer that commits in groups, readers beside it, both off the event loop.

A write is a function of a connection. All writes that wait share the next transaction, and each is answered only after
its commit: at synchronous FULL one fsync then serves a hundred messages. Two kinds of write exist:

- a *unit* (`write`) runs in a savepoint of its own, so that one person's mistake does not disturb the others;
- a *batch* (`write_batch`) is a function of many items: all items that wait are written by one call, by multi-row
  statements. Only when that fails is it redone item by item, each in a savepoint.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from domain import SettingsError, Unavailable

T = TypeVar("T")
R = TypeVar("R")

_MOST_TOGETHER = 500  # writes in one transaction: bounds both the wait of the first and the work redone on failure
_BUSY_TIMEOUT = 10.0  # seconds that a command waits for another process's transaction
_RETRIED = {"40001", "40P01"}  # PostgreSQL: serialization failure, deadlock
_AT_FAULT = "54"  # PostgreSQL's class of values and statements beyond its limits

log = structlog.get_logger("storage")


@dataclass(slots=True)
class _Job:
    call: Callable[..., Any]
    #: items of a batch call, or None for a unit
    items: list[Any] | None
    #: of a thread, or of the event loop that waits
    done: Future[Any] | asyncio.Future[Any]

    def withdrawn(self) -> bool:
        """Its caller was cancelled. A thread's future cannot be cancelled any more once this was asked."""
        if isinstance(self.done, asyncio.Future):
            return self.done.cancelled()
        return not self.done.set_running_or_notify_cancel()


class Database:
    """A SQLite file or a PostgreSQL server, by URL. `start` before use, `close` after."""

    def __init__(self, url: str, *, readers: int = 4) -> None:
        try:
            self.url = make_url(url)
        except sa.exc.ArgumentError as error:
            raise SettingsError("database.url is not a database URL (sqlite:///file or postgresql://...)") from error
        if self.url.drivername in ("postgresql", "postgres"):
            self.url = self.url.set(drivername="postgresql+psycopg")
        if self.url.drivername not in ("sqlite", "postgresql+psycopg"):
            raise SettingsError(f"database.url names {self.url.drivername!r}; Sluice knows sqlite and postgresql")
        self.is_sqlite = self.url.drivername == "sqlite"
        self._writer = self._engine(write=True, size=1)
        self._reader = self._engine(write=False, size=readers)
        self._pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="read")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def _engine(self, *, write: bool, size: int) -> Engine:
        if not self.is_sqlite:
            return sa.create_engine(
                self.url,
                pool_size=size,
                max_overflow=0 if write else 4,
                pool_pre_ping=True,
                pool_timeout=10,
                connect_args={"connect_timeout": 5, "options": "-c statement_timeout=20000"},
                hide_parameters=True,  # an error's text must not quote customers
                json_serializer=_to_json,
                json_deserializer=orjson.loads,
            )
        if self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            self.url,
            poolclass=sa.pool.QueuePool,
            pool_size=size,
            max_overflow=4,
            connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT, "isolation_level": None},
            hide_parameters=True,
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
        )

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            # The order matters: busy_timeout first, since the change to WAL takes a lock.
            cursor.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT * 1000)}")
            # The change to WAL, once in a file's life, does not wait for a lock by itself.
            for attempt in _patiently():
                with attempt:
                    cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA cache_size = -65536" if write else "PRAGMA cache_size = -8192")
            cursor.execute("PRAGMA temp_store = MEMORY")
            # Fewer, larger checkpoints: 16 MB of log instead of 4.
            cursor.execute("PRAGMA wal_autocheckpoint = 4000")
            cursor.close()

        @sa.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # IMMEDIATE: a transaction that starts by reading could not become a writer while another one writes.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine

    @property
    def migration_engine(self) -> Engine:
        """For `storage.schema` alone: every other write goes through `write`."""
        return self._writer

    # --- life ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish the waiting writes, then close all connections."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()
        self._pool.shutdown(wait=True)
        self._writer.dispose()
        self._reader.dispose()

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
                    self._thread.start()

    # --- reading ------------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reading, for code that is off the event loop already."""
        try:
            with self._reader.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise translated(error) from error

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query in a reader's thread. Raises `Unavailable` when the database does not answer."""

        def run() -> T:
            with self.reading() as connection:
                return query(connection)

        return await self.off_loop(run)

    async def off_loop(self, call: Callable[[], T]) -> T:
        """Run what reads, then works on it, in a reader's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    # --- writing ------------------------------------------------------------------------------------------------------

    def submit(self, unit: Callable[[Connection], T]) -> Future[T]:
        """Queue a unit; its future ends after the commit, or with what the unit raised."""
        done: Future[T] = Future()
        self._put(_Job(unit, None, done))
        return done

    def submit_batch(self, call: Callable[[Connection, Sequence[T]], list[R]], items: Sequence[T]) -> Future[list[Any]]:
        """Queue items of a batch; the future's list has one result or one exception for each item, in order."""
        done: Future[list[Any]] = Future()
        self._put(_Job(call, list(items), done))
        return done

    def _put(self, job: _Job) -> None:
        self._start()
        self._jobs.put(job)

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run a unit; returns after the commit. What it raises is raised here, and nothing of it is kept."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Job(unit, None, done))
        return await done

    async def write_batch(self, call: Callable[[Connection, Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
        """Write items together with all others that wait for the same call. Raises the first item's exception."""
        results = await self.write_each(call, items)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def write_each(self, call: Callable[[Connection, Sequence[T]], list[R]], items: Sequence[T]) -> list[Any]:
        """The same, with each item's exception in its place instead of its result."""
        done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._put(_Job(call, list(items), done))
        return await done

    def _work(self) -> None:
        while True:
            jobs: list[_Job] = []
            job = self._jobs.get()
            last = False
            size = 0
            while True:
                if job is None:
                    last = True
                    break
                # What was withdrawn before it was begun is not begun.
                if not job.withdrawn():
                    jobs.append(job)
                size += 1 if job.items is None else len(job.items)
                if size >= _MOST_TOGETHER:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if jobs:
                self._commit(jobs)
            if last:
                return

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            results = self._together(jobs)
        except Exception as error:
            broken = not _lasting(error)
            if broken:
                results = self._apart(jobs)
            else:
                down = translated(error)
                results = [down if job.items is None else [down] * len(job.items) for job in jobs]
        _answer(zip(jobs, results, strict=True))

    def _together(self, jobs: list[_Job]) -> list[Any]:
        """All jobs in one transaction: batches of one call merged, units each in a savepoint."""
        results: list[Any] = [None] * len(jobs)
        merged: dict[Callable[..., Any], list[int]] = {}
        with self._writer.begin() as connection:
            for index, job in enumerate(jobs):
                if job.items is None:
                    results[index] = _in_savepoint(connection, job.call)
                else:
                    merged.setdefault(job.call, []).append(index)
            for call, indexes in merged.items():
                items = [item for index in indexes for item in jobs[index].items or ()]
                answers = call(connection, items)
                position = 0
                for index in indexes:
                    count = len(jobs[index].items or ())
                    results[index] = answers[position : position + count]
                    position += count
        return results

    def _apart(self, jobs: list[_Job]) -> list[Any]:
        """The same, item by item: what fails fails alone."""
        for _attempt in range(3):
            results: list[Any] = []
            try:
                with self._writer.begin() as connection:
                    for job in jobs:
                        if job.items is None:
                            results.append(_in_savepoint(connection, job.call))
                        else:
                            results.append([_one(connection, job.call, item) for item in job.items])
                return results
            except Exception as error:
                failure = error
                if not _again(error):
                    break
        down = translated(failure)
        return [down if job.items is None else [down] * len(job.items) for job in jobs]


def _patiently() -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        stop=stop_after_delay(_BUSY_TIMEOUT),
        reraise=True,
    )


def _answer(results: Iterable[tuple[_Job, Any]]) -> None:
    """Wake whoever waits. Waiters of one event loop are woken by one call: each costs a system call otherwise."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for job, result in results:
        if isinstance(job.done, asyncio.Future):
            loops.setdefault(job.done.get_loop(), []).append((job.done, result))
        else:
            _end(job.done, result)
    for loop, ended in loops.items():
        # A loop that was closed meanwhile has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_end_all, ended)


def _end_all(ended: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for done, result in ended:
        if not done.done():  # whoever waited may have been cancelled
            _end(done, result)


def _end(done: Future[Any] | asyncio.Future[Any], result: Any) -> None:
    if isinstance(result, BaseException):
        done.set_exception(result)
    else:
        done.set_result(result)


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _in_savepoint(connection: Connection, call: Callable[[Connection], Any]) -> Any:
    """The unit's result, or what it raised; then nothing of it is kept."""
    try:
        with connection.begin_nested():
            return call(connection)
    except DBAPIError as error:
        if _lasting(error) or _again(error):
            raise
        return error
    except Exception as error:
        return error


def _one(connection: Connection, call: Callable[..., Any], item: Any) -> Any:
    def unit(inner: Connection) -> Any:
        return call(inner, [item])[0]

    return _in_savepoint(connection, unit)


def _again(error: Exception) -> bool:
    """The transaction lost against another one and may simply be run again."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRIED


def _lasting(error: Exception) -> bool:
    """The server is away, locked, or its disk is full: to try item by item would only fail as often."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError | sa.exc.TimeoutError) or _again(error):
        return False
    original = getattr(error, "orig", None)
    # Both drivers also call it operational when a statement or a value is at fault.
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR
    return not str(getattr(original, "sqlstate", None) or "").startswith(_AT_FAULT)


def translated(error: Exception) -> Exception:
    """What a caller may hear of it: `Unavailable` for a server that is away, the error itself otherwise."""
    if _lasting(error) or _again(error):
        log.warning("database_unavailable", error=type(error).__name__)
        return Unavailable("The database does not answer. Nothing was stored; try again.")
    return error


def insert_new(connection: Connection, table: Any, *returning: sa.Column[Any]) -> Any:
    """`INSERT ... ON CONFLICT DO NOTHING [RETURNING ...]`, in the words of the connection's dialect."""
    return _insert_new(connection.dialect.name, table, returning)


@lru_cache(maxsize=64)  # to build a statement costs several times what running it does
def _insert_new(dialect: str, table: Any, returning: tuple[sa.Column[Any], ...]) -> Any:
    insert = sqlite_insert if dialect == "sqlite" else postgresql_insert
    # Without the option the row count of an insert is -1 on PostgreSQL, where one asks whether the row was new.
    statement = insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return statement.returning(*returning) if returning else statement
