"""`ingest`: what it reads of files and folders, how it counts, and what a kill in the middle leaves."""

from __future__ import annotations

import json
import mailbox
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

from tests.processes import BOT, until
from tests.test_commands import Bot, lines


def mail(n: int | str, text: str = "My claim has not been paid yet.", **headers: str) -> bytes:
    made = EmailMessage()
    made["From"] = f"Customer {n} <c{n}@example.com>"
    made["To"] = "service@insurer.example"
    made["Message-ID"] = f"<m{n}@example.com>"
    made["Subject"] = f"My claim {n}"
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    made.set_content(text)
    return made.as_bytes()


def fill(folder: Path) -> None:
    """Nine mails and three lines: each kind of file, a bounce, a broken line, a duplicate, and what is no message."""
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one.eml").write_bytes(mail(1))
    (folder / "deep" / "er" / "TWO.EML").write_bytes(mail(2))
    (folder / "again.eml").write_bytes(mail(1))
    (folder / "answer.eml").write_bytes(mail("a", In_Reply_To="<m1@example.com>").replace(b"ca@", b"c1@"))
    (folder / "away.eml").write_bytes(mail("w", "I am away until Monday.", Auto_Submitted="auto-replied"))
    box = mailbox.mbox(folder / "deep" / "some.mbox")
    box.add(mail(3))
    box.add(mail(4))
    box.close()
    maildir = mailbox.Maildir(folder / "dir")
    maildir.add(mail(5))
    read = mailbox.MaildirMessage(mail(6))
    read.set_subdir("cur")
    maildir.add(read)
    maildir.close()
    (folder / "dir" / "tmp" / "half").write_bytes(mail("half"))
    records = ({"external_id": "l1", "sender": "a", "text": "hello"}, {"external_id": "l2", "sender": "b"})
    (folder / "lines.jsonl").write_text(lines(*records) + "\n" + "no json\n")
    (folder / "notes.txt").write_text("not a message")
    (folder / "link").symlink_to(folder / "deep")


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == ["read", "accepted", "duplicates", "ticketed", "appended", "quarantined", "automatic"]
    assert found["read"] == found["accepted"] + found["duplicates"]
    ends = ("ticketed", "appended", "quarantined", "automatic")
    assert found["accepted"] == sum(found[name] for name in ends)
    return found


def ended(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(each["state"] for each in rows if each["direction"] == "in")


def test_a_folder_of_every_kind(tmp_path: Path) -> None:
    bot, folder = Bot(tmp_path / "state"), tmp_path / "files"
    fill(folder)
    done = bot("ingest", folder)
    counted = {
        "read": 12, "accepted": 11, "duplicates": 1, "ticketed": 7, "appended": 1, "quarantined": 2, "automatic": 1,
    }  # fmt: skip
    assert summary(done) == counted
    said = [line.removeprefix("not read: ") for line in done.stderr.splitlines() if line.startswith("not read: ")]
    assert sorted(said) == sorted(str(folder / name) for name in ("dir/tmp/half", "link", "notes.txt"))
    rows = bot.export("messages")
    assert ended(rows) == {name: counted[name] for name in ("ticketed", "appended", "quarantined", "automatic")}
    order = [each["external_id"] for each in rows if each["direction"] == "in" and each["channel"] == "mail"]
    assert [key.partition("@")[0].strip("<") for key in order[:3]] == ["m1", "ma", "mw"]
    # Twice: the same are all known; a file named alone is one mail, whatever its name; a line's file is lines.
    assert summary(bot("ingest", folder)) == {**dict.fromkeys(counted, 0), "read": 12, "duplicates": 12}
    (tmp_path / "mail").write_bytes(mail(9))
    alone = summary(bot("ingest", tmp_path / "mail", folder / "lines.jsonl", folder / "deep" / "some.mbox"))
    assert alone == {**dict.fromkeys(counted, 0), "read": 6, "accepted": 1, "duplicates": 5, "ticketed": 1}
    assert len(bot.export("tickets")) == 8


def test_nothing_to_read_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = summary(Bot(tmp_path / "state")("ingest", tmp_path / "empty"))
    assert set(found.values()) == {0}


def test_killed_in_the_middle_and_run_again(tmp_path: Path) -> None:
    total = 1500
    bot = Bot(tmp_path / "state")
    bot("migrate")
    file = tmp_path / "many.jsonl"
    file.write_text(lines(*({"external_id": str(n), "sender": f"c{n}", "text": f"claim {n}"} for n in range(total))))
    database = sqlite3.connect(bot.folder / "sluice.db", isolation_level=None)

    def stored(state: str = "%") -> int:
        query = "SELECT count(*) FROM message WHERE direction = 'in' AND state LIKE ?"
        return int(database.execute(query, (state,)).fetchone()[0])

    def more(than: int) -> bool:
        return stored("ticketed") > than

    # Once when the first are stored, once when more are done.
    for _again in range(2):
        before = stored("ticketed")
        process = subprocess.Popen(
            [sys.executable, str(BOT), "ingest", str(file)],
            env={**os.environ, "SLUICE_STATE_DIR": str(bot.folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(partial(more, before), "some tickets")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    left = stored()
    assert 0 < left < total
    database.close()
    found = summary(bot("ingest", file))
    assert (found["read"], found["duplicates"], found["accepted"]) == (total, left, total - left)
    rows = bot.export("messages")
    assert ended(rows) == {"ticketed": total}
    assert len(bot.export("tickets")) == total
    incoming = Counter(each["external_id"] for each in rows if each["direction"] == "in")
    assert incoming == Counter(map(str, range(total)))
    assert len({each["ticket"] for each in rows if each["direction"] == "in"}) == total
