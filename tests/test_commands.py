"""Each command as its deployer types it: exit status, what is on stdout, and one clear line on stderr."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.database import Database
from tests.processes import BOT, Deployment, until
from tests.servers import free_port

TICKET = {
    "number", "state", "department", "priority", "intent", "sentiment", "risk", "channel", "customer", "created_at",
    "first_response_due_at", "resolution_due_at",
}  # fmt: skip
MESSAGE = {"channel", "account", "external_id", "direction", "state", "ticket", "at"}
EVENT = {"id", "ticket", "kind", "actor", "at", "data"}
CLASSIFIED = {
    "id", "intent", "confidence", "alternatives", "department", "sentiment", "sentiment_confidence", "language", "risk",
    "entities", "auto_routed",
}  # fmt: skip


@dataclass
class Bot:
    """The commands over one world."""

    folder: Path

    def __call__(
        self, *words: str | Path, given: str | bytes = b"", status: int = 0, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ, "SLUICE_STATE_DIR": str(self.folder), "SLUICE_WEB__PORT": "0",
            **{f"SLUICE_{name}": value for name, value in settings.items()},
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(BOT), *map(str, words)],
            input=given if isinstance(given, bytes) else given.encode(),
            capture_output=True, env=environment, check=False, timeout=120,
        )  # fmt: skip
        found = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
        )
        assert found.returncode == status, (words, found.stdout, found.stderr)
        assert "Traceback" not in found.stderr
        return found

    def fails(self, *words: str | Path, status: int = 1, given: str = "", **settings: str) -> str:
        """The one clear line."""
        said = self(*words, status=status, given=given, **settings).stderr
        assert said.startswith("sluice: ")
        assert len(said.splitlines()) == 1, said
        return said.strip()

    def export(self, what: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("export", what, "--jsonl").stdout.splitlines()]


@pytest.fixture
def bot(tmp_path: Path) -> Bot:
    return Bot(tmp_path / "state")


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records)


def test_a_world_from_its_first_message_to_its_restore(bot: Bot, tmp_path: Path) -> None:
    """`migrate`, `ingest`, `export`, `backup`, `restore` and `erase`, one after the other."""
    assert re.fullmatch(r"The schema went from nothing to (\w+)\.\n", bot("migrate").stdout)
    file = tmp_path / "two.jsonl"
    file.write_text(
        lines(
            {"external_id": "1", "sender": "li@example.com", "text": "我的理赔款什么时候到账？", "subject": "理赔"},
            {"external_id": "2", "sender": "ada@example.com", "text": "I forgot my password and cannot log in."},
        )
    )
    summary = json.loads(bot("ingest", file).stdout.splitlines()[-1])
    assert summary == {
        "read": 2, "accepted": 2, "duplicates": 0, "ticketed": 2, "appended": 0, "quarantined": 0, "automatic": 0,
    }  # fmt: skip
    tickets, messages, events = (bot.export(what) for what in ("tickets", "messages", "events"))
    assert all(set(each) >= TICKET for each in tickets)
    assert [each["customer"] for each in tickets] == ["li@example.com", "ada@example.com"]
    assert all(set(each) >= MESSAGE for each in messages)
    incoming = [each for each in messages if each["direction"] == "in"]
    assert [(each["account"], each["external_id"], each["state"]) for each in incoming] == [
        ("ingest", "1", "ticketed"), ("ingest", "2", "ticketed"),
    ]  # fmt: skip
    assert [each["ticket"] for each in incoming] == [each["number"] for each in tickets]
    outgoing = [each for each in messages if each["direction"] == "out"]
    assert [each["state"] for each in outgoing] == ["queued", "queued"]
    assert all(set(each) == EVENT for each in events)
    assert {each["kind"] for each in events} >= {"opened"}
    for row in [*tickets, *messages, *events]:
        at = row.get("at") or row["created_at"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)

    backup = tmp_path / "world.zip"
    assert bot("backup", backup).stdout == f"{backup}: {backup.stat().st_size} bytes\n"
    restored = Bot(tmp_path / "restored")
    assert restored("restore", backup).stdout.startswith("Restored the world of ")
    assert restored.export("tickets") == tickets
    assert "not empty" in restored.fails("restore", backup)

    erased = json.loads(bot("erase", "li@example.com", "--yes").stdout)
    assert erased
    assert "no customer" in bot.fails("erase", "li@example.com", "--yes")
    with closing(sqlite3.connect(bot.folder / "sluice.db")) as database:
        found = database.execute(
            "SELECT count(*) FROM message WHERE address = 'li@example.com' OR text LIKE '%理赔款%'"
        )
        assert found.fetchone() == (0,)
        kept = [str(row[0]) for row in database.execute("SELECT id FROM event ORDER BY id")]
    assert kept[: len(events)] == [str(each["id"]) for each in events]


def test_tokens_and_people(bot: Bot) -> None:
    said = bot("token", "add", "crm", "--role", "channel").stdout.splitlines()
    assert re.fullmatch(r"[A-Za-z0-9_-]{32,}", said[-1])
    assert "crm" in bot.fails("token", "add", "crm", "--role", "agent")
    assert bot("token", "remove", "crm").stdout == "crm is gone.\n"
    assert "name" in bot.fails("token", "add", " ", "--role", "agent", status=2)
    words = ("user", "add", "mei", "--role", "agent", "--department", "claims")
    assert bot(*words, "--password-stdin", given="a long password\n").stdout == "mei can sign in.\n"
    bot.fails("user", "add", "li", "--role", "admin", "--password-stdin", given="short\n")
    known = bot.fails("user", "add", "li", "--role", "agent", "--department", "clams", status=2)
    assert "claims" in known
    link = bot("user", "add", "zhao", "--role", "supervisor", WEB__PUBLIC_URL="https://help.example").stdout
    assert re.fullmatch(r"https://help\.example/console/link/[A-Za-z0-9_-]{32,}\n", link)
    assert bot("user", "remove", "mei").stdout == "mei can no longer sign in.\n"
    bot.fails("user", "link", "mei")
    kept = b"".join(file.read_bytes() for file in bot.folder.glob("sluice.db*"))
    assert b"a long password" not in kept
    assert said[-1].encode() not in kept


def test_classify_answers_each_line_in_its_place(bot: Bot) -> None:
    text = "请问保单 PA2023001234 的理赔款什么时候到账？我的电话是13800138000"
    given = lines({"id": "a", "text": text, "channel": "mail", "more": 1}, {"id": 2, "text": ""}).encode()
    done = bot(
        "classify", given=given + b'{"id": 3}\n\n\xff\xfe\n[]\n' + lines({"id": "z", "text": "hi"}).encode(), status=1
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["id"] for each in rows] == ["a", 2, None, None, None, "z"]
    assert [set(each) for each in rows[2:5]] == [{"id", "error"}] * 3
    assert len(done.stderr.splitlines()) == 1
    for row in (rows[0], rows[1], rows[5]):
        assert set(row) == CLASSIFIED
        assert 0 <= row["confidence"] <= 1
        assert isinstance(row["auto_routed"], bool)
        assert all(set(each) == {"intent", "confidence"} for each in row["alternatives"])
    assert rows[0]["department"] == "claims"
    for entity in rows[0]["entities"]:
        assert set(entity) == {"type", "value", "normal", "start", "end"}
        assert text[entity["start"] : entity["end"]] == entity["value"]
    assert "phone" in {each["type"] for each in rows[0]["entities"]}
    again = bot("classify", given=lines({"id": "a", "text": text}))
    assert json.loads(again.stdout)["intent"] == rows[0]["intent"]


def test_check_names_what_is_down_and_exits_1(bot: Bot) -> None:
    assert "FAIL" not in bot("check").stdout
    closed = free_port()
    done = bot(
        "check",
        status=1,
        DATABASE__URL=f"postgresql://nobody@127.0.0.1:{closed}/none",
        QUEUE__URL=f"redis://127.0.0.1:{closed}/0",
        MAIL__ENABLED="true",
        MAIL__FROM_ADDRESS="service@insurer.example",
        MAIL__MAILBOXES__0__HOST="127.0.0.1",
        MAIL__MAILBOXES__0__PORT=str(closed),
        MAIL__MAILBOXES__0__USER="service@insurer.example",
        MAIL__MAILBOXES__0__PASSWORD="hidden-words",
        MAIL__SMTP__HOST="127.0.0.1",
        MAIL__SMTP__PORT=str(closed),
    )
    failed = {line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("FAIL")}
    assert failed == {"database", "queue", "mail"}
    assert len([line for line in done.stdout.splitlines() if line.startswith("FAIL  mail ")]) == 2
    assert "hidden-words" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "sluice: 4 of 9 checks failed"


def test_what_is_used_wrongly_exits_2(bot: Bot, tmp_path: Path) -> None:
    assert "SLUICE_WEB__PORT" in bot.fails("check", status=2, WEB__PROT="1")
    own = tmp_path / "own.yaml"
    own.write_text("web: {prot: 1}\n")
    assert "port" in bot.fails("check", status=2, CONFIG=str(own))
    assert str(tmp_path / "none") in bot.fails("ingest", tmp_path / "none", status=2)
    bot("nonsense", status=2)
    assert not bot.folder.exists()


def test_a_world_that_cannot_be_reached_is_one_line(bot: Bot, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no database, and no folder either")
    bot.fails("export", "tickets", STATE_DIR=str(file / "state"))
    bot.fails("token", "add", "x", "--role", "agent", DATABASE__URL=f"sqlite:///{file}")
    bot.fails("migrate", DATABASE__URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none")


def test_run_says_where_it_is_and_prints_a_link_where_nobody_can_sign_in(tmp_path: Path) -> None:
    world = Deployment(tmp_path / "state")
    with world.process() as process:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", process.url)
        until(lambda: f"{process.url}/console/link/" in process.log(), "the link to the first account")
        # The port is taken: one line, and nothing of the first is disturbed.
        taken = process.url.rpartition(":")[2]
        assert taken in Bot(tmp_path / "second").fails("run", WEB__PORT=taken)
        world.user("mei", "admin", "a long password")
    with world.process("web") as process:
        httpx.get(f"{process.url}/healthz").raise_for_status()
        process.stop()
        # All that it had to say.
        assert "/console/link/" not in (process.dir / "output").read_text()


def test_the_demo_has_a_world_of_its_own(bot: Bot, postgres_url: str) -> None:
    """Also where the real one is a server."""
    database = Database(postgres_url)
    bot("demo", "--no-run", DATABASE__URL=postgres_url, QUEUE__URL=f"redis://127.0.0.1:{free_port()}/0")
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").scalar() == 0
    database.close()
    assert not (bot.folder / "sluice.db").exists()
    demo = Bot(bot.folder / "demo")
    tickets = demo.export("tickets")
    assert {each["channel"] for each in tickets} >= {"api", "mail", "chat"}
    assert all("simulated" in each["tags"] for each in tickets)
    bot("demo", "--no-run")
    assert demo.export("tickets") == tickets
    assert not (bot.folder / "sluice.db").exists()
