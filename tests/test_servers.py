"""The servers that other tests rely on start, are empty, and leave nothing behind."""

from __future__ import annotations

import os
import select
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from tests.server_base import ROOT
from tests.servers import Dovecot, MailDrop, Postfix, PostgresServer, RedisServer, Server, free_port, listening


def test_redis_is_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")  # the next user of the fixture must not see it


def test_redis_is_empty_again(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_postgres_database_is_fresh(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
        connection.execute("create table t (x text)")
        assert connection.execute("show server_encoding").fetchone() == ("UTF8",)


def test_postgres_databases_are_dropped(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        plain = url.replace("+psycopg", "")
        still_open = psycopg.connect(plain)
    with pytest.raises(psycopg.OperationalError):
        still_open.execute("select 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(plain)


@pytest.mark.parametrize("kind", [RedisServer, PostgresServer, Dovecot])
def test_stopped_at_the_end(kind: type[Server]) -> None:
    with kind() as server:
        port, folder = server.port, server.dir
        assert listening(port)
    assert not listening(port)
    assert not folder.exists()


@pytest.mark.parametrize("kind", [RedisServer, PostgresServer, Dovecot])
def test_ends_with_its_parent(kind: type[Server]) -> None:
    """Also `kill -9` of the test run leaves no server behind."""
    code = f"import tests.servers as s\nwith s.{kind.__name__}() as x: print(x.process.pid, x.dir, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    with parent.stdin, parent.stdout as out:
        pid, folder = out.readline().decode().split()
        handle = os.pidfd_open(int(pid))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        try:
            signal_when_ended(handle)
        finally:
            os.close(handle)
    subprocess.run(["rm", "-rf", folder], check=True)


def signal_when_ended(handle: int) -> None:
    """Wait until the process of a pidfd has ended; fails after 20 s."""
    ended, _, _ = select.select([handle], [], [], 20)
    assert ended, "the server outlived its parent"


def test_mail_arrives(dovecot: Dovecot, postfix: Postfix | MailDrop) -> None:
    with smtplib.SMTP(postfix.host, postfix.port) as client:
        client.sendmail("a@customer.test", ["drop+tag@insurer.test"], b"Subject: x\r\n\r\nhello\r\n")
    [mail] = dovecot.wait_for_mail("drop@insurer.test")
    assert b"Delivered-To: drop+tag@insurer.test" in mail
    assert b"hello" in mail


@pytest.mark.skipif(not ROOT, reason="Postfix wants root")
def test_postfix_stops(dovecot: Dovecot) -> None:
    with Postfix(dovecot.mail_root) as server:
        port, folder = server.port, server.dir
        assert listening(port)
    assert not listening(port)
    assert not folder.exists()


def test_the_stand_in_for_postfix_delivers_too(dovecot: Dovecot) -> None:
    with MailDrop(dovecot.mail_root, free_port()) as server, smtplib.SMTP(server.host, server.port) as client:
        client.sendmail("a@customer.test", ["standin+tag@insurer.test"], b"Subject: x\r\n\r\nhello\r\n")
    [mail] = dovecot.wait_for_mail("standin@insurer.test")
    assert b"Delivered-To: standin+tag@insurer.test" in mail
