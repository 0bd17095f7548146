"""The database: writes that wait share a commit, fail alone, and hear `Unavailable` when the server is away."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from domain import Conflict, SettingsError, Unavailable
from storage import database as database_module
from storage import schema, tallies
from storage.database import Database, insert_new
from storage.tables import Cursor, table
from tests.servers import PostgresServer, ServerError

cursor = table(Cursor)


def add(name: str, value: int = 1) -> Callable[[Connection], str]:
    """A unit that writes one row and says its name."""

    def unit(connection: Connection) -> str:
        connection.execute(sa.insert(cursor).values(name=name, value=value))
        return name

    return unit


def add_all(connection: Connection, names: Sequence[str]) -> list[str]:
    """A batch call: multi-row, fails whole when a name is taken or is no name."""
    if "bad" in names:
        raise ValueError("bad")
    connection.execute(sa.insert(cursor), [{"name": name, "value": len(names)} for name in names])
    return [name.upper() for name in names]


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(sa.select(cursor.c.name).order_by(cursor.c.name)))


@pytest.fixture
def commits(database: Database) -> list[int]:
    """Grows by one with each commit of the writer."""
    counted: list[int] = []
    sa.event.listen(database.migration_engine, "commit", lambda _connection: counted.append(1))
    return counted


class Held:
    """Keeps the writer busy until `let_go`, so that what is submitted meanwhile waits together."""

    def __init__(self, database: Database) -> None:
        self._gate = threading.Event()
        reached = threading.Event()

        def unit(_connection: Connection) -> None:
            reached.set()
            assert self._gate.wait(30)

        self.done = database.submit(unit)
        assert reached.wait(30)

    def let_go(self) -> None:
        self._gate.set()
        self.done.result(30)


def results(futures: Sequence[Future[Any]]) -> list[Any]:
    return [future.exception(30) or future.result(30) for future in futures]


# --- together ---------------------------------------------------------------------------------------------------------


def test_units_that_wait_share_one_commit(database: Database, commits: list[int]) -> None:
    held = Held(database)
    futures = [database.submit(add(f"n{index:02}")) for index in range(20)]
    assert not any(future.done() for future in futures)
    held.let_go()
    assert results(futures) == [f"n{index:02}" for index in range(20)]
    assert len(commits) == 2
    with database.reading() as connection:
        assert len(names(connection)) == 20


def test_one_units_error_leaves_the_others_alone(database: Database, commits: list[int]) -> None:
    def refuses(connection: Connection) -> None:
        add("half")(connection)
        raise Conflict("no")

    held = Held(database)
    futures: list[Future[Any]] = [
        database.submit(add("a")), database.submit(refuses), database.submit(add("a")), database.submit(add("b")),
    ]  # fmt: skip
    held.let_go()
    first, refused, twice, last = results(futures)
    assert (first, last) == ("a", "b")
    assert isinstance(refused, Conflict)
    assert isinstance(twice, sa.exc.IntegrityError)
    assert len(commits) == 2
    with database.reading() as connection:
        assert names(connection) == ["a", "b"]


def test_batches_of_one_call_are_written_by_one_statement(database: Database) -> None:
    held = Held(database)
    futures = [database.submit_batch(add_all, ["a", "b"]), database.submit_batch(add_all, ["c"])]
    held.let_go()
    assert results(futures) == [["A", "B"], ["C"]]
    with database.reading() as connection:
        assert set(connection.scalars(sa.select(cursor.c.value))) == {3}


def test_a_batch_with_a_bad_item_is_redone_item_by_item(database: Database) -> None:
    held = Held(database)
    futures: list[Future[Any]] = [
        database.submit_batch(add_all, ["a", "bad", "b"]), database.submit(add("u")),
        database.submit_batch(add_all, []), database.submit_batch(add_all, ["c", "a"]),
    ]  # fmt: skip
    held.let_go()
    mixed, unit, empty, clash = results(futures)
    assert (mixed[0], mixed[2], unit, empty, clash[0]) == ("A", "B", "u", [], "C")
    assert isinstance(mixed[1], ValueError)
    assert isinstance(clash[1], sa.exc.IntegrityError)
    with database.reading() as connection:
        assert names(connection) == ["a", "b", "c", "u"]


async def test_write_batch_raises_the_first_items_error_and_keeps_the_good_ones(database: Database) -> None:
    with pytest.raises(ValueError, match="bad"):
        await database.write_batch(add_all, ["a", "bad"])
    assert await database.read(names) == ["a"]


async def test_a_write_whose_caller_went_away_disturbs_nobody(database: Database) -> None:
    held = Held(database)
    gone = asyncio.ensure_future(database.write(add("gone")))
    stays = asyncio.ensure_future(database.write(add("stays")))
    await asyncio.sleep(0)  # both are submitted now
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    held.let_go()
    assert await stays == "stays"
    assert await database.write(add("later")) == "later"
    assert await database.read(names) == ["later", "stays"]


async def test_a_caller_who_goes_while_the_write_runs_disturbs_nobody(database: Database) -> None:
    reached, gate = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        reached.set()
        assert gate.wait(30)
        add("slow")(connection)

    gone = asyncio.ensure_future(database.write(slow))
    await asyncio.to_thread(reached.wait, 30)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    gate.set()
    assert await database.write(add("later")) == "later"
    assert await database.read(names) == ["later", "slow"]


def test_closing_finishes_what_waits(database_url: str) -> None:
    database = Database(database_url)
    schema.migrate(database)
    held = Held(database)
    waiting = database.submit(add("waiting"))
    closing = threading.Thread(target=database.close)
    closing.start()
    held.let_go()
    closing.join(30)
    assert waiting.result(0) == "waiting"


def test_two_writers_add_to_one_counter(database: Database, database_url: str) -> None:
    """Each in its own connection: neither loses what the other counted."""
    other = Database(database_url)
    now = datetime.now(UTC)
    try:
        futures = [
            each.submit(lambda connection: tallies.add(connection, {"x": 1}, now))
            for _ in range(25)
            for each in (database, other)
        ]
        assert results(futures) == [None] * 50
    finally:
        other.close()
    with database.reading() as connection:
        assert tallies.read(connection, ["x"], now) == {"x": 50}


# --- away and back ----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that a test may kill."""
    with PostgresServer(durable=True) as server:
        yield server


def start_again(server: PostgresServer) -> None:
    """Backends outlive their killed master for a moment, and until then no other master starts."""
    for attempt in range(20):
        try:
            server.start()
        except ServerError:
            if attempt == 19:
                raise
        else:
            return


async def test_a_dead_postgresql_is_unavailable_and_comes_back_by_itself(own_server: PostgresServer) -> None:
    database = Database(own_server.url)
    try:
        schema.migrate(database)
        await database.write(add("before"))
        own_server.kill()
        with pytest.raises(Unavailable):
            await database.write(add("during"))
        with pytest.raises(Unavailable):
            await database.write_batch(add_all, ["x", "y"])
        with pytest.raises(Unavailable):
            await database.read(names)
        start_again(own_server)
        assert await database.read(names) == ["before"]
        assert await database.write(add("after")) == "after"
        assert await database.read(names) == ["after", "before"]
    finally:
        database.close()


async def test_a_postgresql_that_dies_in_the_middle_of_a_commit_group_keeps_nothing_of_it(
    own_server: PostgresServer,
) -> None:
    database = Database(own_server.url)
    try:
        schema.migrate(database)

        def dies(connection: Connection) -> None:
            add("dies")(connection)
            backend = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            assert backend is not None
            own_server.kill()
            with suppress(ProcessLookupError):
                os.kill(backend, signal.SIGKILL)

        held = Held(database)
        futures: list[Future[Any]] = [
            database.submit(add("first")), database.submit(dies), database.submit_batch(add_all, ["last"]),
        ]  # fmt: skip
        held.let_go()
        first, second, [last] = futures[0].exception(30), futures[1].exception(30), futures[2].result(30)
        assert {type(each) for each in (first, second, last)} == {Unavailable}
        start_again(own_server)
        assert await database.read(names) == []
    finally:
        database.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of another process are waited for only shortly."""
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_locked_sqlite_is_unavailable_for_writers_and_open_for_readers(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'sluice.db'}")
    schema.migrate(database)
    await database.write(add("before"))
    other = sqlite3.connect(tmp_path / "sluice.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await database.write(add("during"))
        with pytest.raises(Unavailable):
            await database.write_batch(add_all, ["x"])
        assert await database.read(names) == ["before"]
        other.execute("COMMIT")
        assert await database.write(add("after")) == "after"
    finally:
        other.close()
        database.close()


async def test_a_fault_of_ours_is_not_called_unavailable(database: Database) -> None:
    """Else the caller would try for ever what can never work."""
    held = Held(database)
    faulty = database.submit(lambda connection: connection.execute(sa.text("SELECT * FROM no_such_table")))
    good = database.submit(add("good"))
    held.let_go()
    assert isinstance(faulty.exception(30), sa.exc.DBAPIError)
    assert good.result(30) == "good"
    with pytest.raises(sa.exc.DBAPIError):
        await database.read(lambda connection: connection.execute(sa.text("SELECT * FROM no_such_table")))


def test_a_url_of_something_else_is_refused() -> None:
    with pytest.raises(SettingsError, match="mysql"):
        Database("mysql://localhost/x")
    with pytest.raises(SettingsError, match="not a database URL"):
        Database("nonsense")


# --- two processes ----------------------------------------------------------------------------------------------------

_WRITE = """
import sys
import sqlalchemy as sa
from storage.database import Database
from storage.tables import Cursor, table

name, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = Database(url)
print("ready", flush=True)
sys.stdin.readline()
for index in range(count):
    unit = sa.insert(table(Cursor)).values(name=f"{name}{index}", value=index)
    database.submit(lambda connection: connection.execute(unit) and None).result()
database.close()
"""


def test_two_processes_write_to_one_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sluice.db'}"
    database = Database(url)
    schema.migrate(database)
    command = [sys.executable, "-W", "error", "-c", _WRITE]
    writers = [
        subprocess.Popen(
            [*command, name, url, "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.communicate(b"go\n", timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    with database.reading() as connection:
        assert len(names(connection)) == 120
    database.close()


def test_insert_new_leaves_what_is_there(database: Database) -> None:
    def unit(connection: Connection) -> Any:
        connection.execute(insert_new(connection, cursor), [{"name": "x", "value": 1}])
        connection.execute(insert_new(connection, cursor), [{"name": "x", "value": 2}, {"name": "y", "value": 2}])
        return connection.scalar(sa.select(sa.func.sum(cursor.c.value)))

    assert database.submit(unit).result(30) == 3
