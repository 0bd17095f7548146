"""Mail in, against a real Dovecot: nothing is lost, nothing comes twice, whatever breaks in between."""

from __future__ import annotations

import asyncio
import base64
import re
import smtplib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from channels import mail as mail_module
from channels import mail_apart, mail_parse
from channels.imap import CHUNK, ConnectionLost, ImapConnection, Refused, folder_name
from channels.mail import MailSource
from channels.mail_settings import MailboxSettings, MailSettings
from domain import Message, Unreadable
from tests.mail_servers import MailDrop
from tests.mail_world import World, box, client, flags, mail, marked, running, settings_for, subjects, until
from tests.servers import Dovecot, Postfix


async def test_what_is_there_and_what_is_pushed(dovecot: Dovecot) -> None:
    user = "push@insurer.test"
    dovecot.deliver(user, mail(1), mail(2))
    world = World()
    async with running(world, settings_for(box(dovecot, user))) as source:
        first = await world.take(2)
        assert sorted(subjects(first)) == ["mail 1", "mail 2"]
        await until(lambda: source.health.ok)
        dovecot.deliver(user, mail(3))
        third = await world.next()
        await until(lambda: marked(dovecot, user, 3))
    assert isinstance(third, Message)
    assert third.raw == mail(3)
    assert third.recipient == user
    assert third.seen_at is not None
    assert third.seen_at[0] == f"{user}/INBOX"
    assert re.fullmatch(r"\d+:3", third.seen_at[1])
    assert abs((datetime.now(UTC) - third.received_at).total_seconds()) < 3600
    assert not any("\\Seen" in line for line in flags(dovecot, user))


async def test_through_postfix(dovecot: Dovecot, postfix: Postfix | MailDrop) -> None:
    world = World()
    async with running(world, settings_for(box(dovecot, "front@insurer.test"))):
        await asyncio.to_thread(_submit, postfix.port, "front+s-123456@insurer.test", mail("via smtp"))
        found = await world.next()
    assert found.subject == "mail via smtp"
    assert b"Delivered-To: front+s-123456@insurer.test" in found.raw


def _submit(port: int, to: str, raw: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        smtp.sendmail("ada@customer.test", [to], raw)


@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
async def test_crash_around_the_commit_loses_nothing(dovecot: Dovecot, moment: str) -> None:
    """`kill -9` before the commit brings the same mail again; after it, the mail is only marked."""
    user = f"crash-{moment.replace('_', '-')}@insurer.test"
    dovecot.deliver(user, mail("crash"))
    world = World()
    reached = asyncio.Event()

    async def stop_here() -> None:
        reached.set()
        await asyncio.Event().wait()

    setattr(world, moment, stop_here)
    async with running(world, settings_for(box(dovecot, user))):
        await reached.wait()
    assert marked(dovecot, user, 0)
    assert len(world.items) == (moment == "after_commit")
    setattr(world, moment, None)
    async with running(world, settings_for(box(dovecot, user))):
        await until(lambda: marked(dovecot, user, 1))
    assert subjects(world.items) == ["mail crash"]


async def test_storage_down_is_waited_for(dovecot: Dovecot) -> None:
    user = "storage@insurer.test"
    dovecot.deliver(user, mail(1))
    world = World()
    fails = iter([True, True, False])

    async def down() -> None:
        if next(fails):
            raise RuntimeError("the database is down")

    world.before_commit = down
    async with running(world, settings_for(box(dovecot, user))):
        await world.next()
    assert len(world.items) == 1


async def test_uidvalidity_change_brings_new_keys(dovecot: Dovecot) -> None:
    user = "validity@insurer.test"
    with client(dovecot, user, None) as other:
        other.create("Feedback")
        other.append("Feedback", "", "", mail(1))
    world = World()
    async with running(world, settings_for(box(dovecot, user, folder="Feedback"), sweep=0.3)):
        before = await world.next()
        with client(dovecot, user, None) as other:
            other.delete("Feedback")
            other.create("Feedback")
            other.append("Feedback", "", "", mail(1))
        after = await world.next()
    assert before.seen_at
    assert after.seen_at
    assert before.seen_at[1].partition(":")[2] == after.seen_at[1].partition(":")[2] == "1"
    assert before.seen_at != after.seen_at
    assert before.external_id == after.external_id  # so that the storage knows it again


async def test_keyword_refused_then_the_memory_decides(dovecot: Dovecot) -> None:
    user = "noflags@insurer.test"
    dovecot.deliver(user, mail(1))
    acl = dovecot.maildir(user) / "dovecot-acl"
    acl.write_text("owner lrsp\n")
    acl.chmod(0o644)
    world = World()
    async with running(world, settings_for(box(dovecot, user), sweep=0.2)) as source:
        await world.next()
        dovecot.deliver(user, mail(2))
        await world.next()
        await until(lambda: source.health.ok)
    async with running(world, settings_for(box(dovecot, user))) as source:
        dovecot.deliver(user, mail(3))
        await world.next()
    assert sorted(subjects(world.items)) == ["mail 1", "mail 2", "mail 3"]
    assert not any("$" in line for line in flags(dovecot, user))
    [health] = await MailSource(settings_for(box(dovecot, user)), world).check()
    assert "keywords are not kept" in health.detail


async def test_mark_taken_away_is_set_again(dovecot: Dovecot) -> None:
    user = "again@insurer.test"
    dovecot.deliver(user, mail(1))
    world = World()
    async with running(world, settings_for(box(dovecot, user), sweep=0.3)):
        await until(lambda: marked(dovecot, user, 1))
        with client(dovecot, user) as other:
            other.store("1", "-FLAGS", "($SluiceStored)")
            assert marked(dovecot, user, 0)
        await until(lambda: marked(dovecot, user, 1))
    assert len(world.items) == 1


async def test_move_into_a_folder_that_is_not_there_yet(dovecot: Dovecot) -> None:
    user = "move@insurer.test"
    dovecot.deliver(user, mail(1), mail(2))
    world = World()
    async with running(world, settings_for(box(dovecot, user, move_to="已入库 & done"))):
        await world.take(2)
        await until(lambda: len(flags(dovecot, user)) == 0)
        dovecot.deliver(user, mail(3))
        await world.next()
        await until(lambda: len(flags(dovecot, user)) == 0)
    assert len(flags(dovecot, user, folder_name("已入库 & done"))) == 3


async def test_a_thousand_mails_in_chunks(dovecot: Dovecot) -> None:
    user = "many@insurer.test"
    dovecot.deliver(user, *(mail(number) for number in range(1000)))
    world = World()
    async with running(world, settings_for(box(dovecot, user))):
        await world.take(1000)
        await until(lambda: marked(dovecot, user, 1000))
    assert {item.subject for item in world.items} == {f"mail {number}" for number in range(1000)}
    assert max(world.batches) <= CHUNK


async def test_chunks_keep_within_the_byte_budget(dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch) -> None:
    user = "budget@insurer.test"
    monkeypatch.setattr(mail_module, "_BUDGET", 50_000)
    dovecot.deliver(user, *(mail(number, size=20_000) for number in range(5)), mail(5, size=80_000))
    world = World()
    async with running(world, settings_for(box(dovecot, user))):
        await world.take(6)
    assert sorted(world.batches, reverse=True) == [2, 2, 1, 1]


async def test_too_large_is_shown_with_its_header(dovecot: Dovecot) -> None:
    user = "large@insurer.test"
    dovecot.deliver(user, mail("small"), mail("large", size=300_000), mail("last"))
    world = World()
    async with running(world, settings_for(box(dovecot, user), max_size=200_000)):
        found = {item.subject: item for item in await world.take(3)}
        await until(lambda: marked(dovecot, user, 3))
    large = found["mail large"]
    assert isinstance(large, Unreadable)
    assert large.reason.startswith("too large: 0.3 MB")
    assert large.sender == "ada@customer.test"
    assert b"Message-ID: <large@customer.test>" in large.raw
    assert b"xxx" not in large.raw
    assert isinstance(found["mail last"], Message)


async def test_a_mail_that_breaks_the_parser_costs_one_mail(dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch) -> None:
    user = "poison@insurer.test"
    real = mail_parse.parse

    def parse(raw: bytes, **options: Any) -> Message:
        if b"poison" in raw:
            raise RecursionError
        return real(raw, **options)

    monkeypatch.setattr(mail_module, "parse", parse)
    dovecot.deliver(user, mail(1), mail("poison"), mail(2))
    world = World()
    async with running(world, settings_for(box(dovecot, user))):
        items = await world.take(3)
    [poison] = [item for item in items if isinstance(item, Unreadable)]
    assert poison.raw == mail("poison")
    assert "RecursionError" in poison.reason


@pytest.mark.parametrize("fault", ["refused", "broken"])
async def test_a_mail_that_breaks_its_fetch_is_given_up(
    dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    user = f"fetch-{fault}@insurer.test"
    with client(dovecot, user) as other:
        for number in (1, 2, 3):
            other.append("INBOX", "", "", mail(number))
    real = ImapConnection.bodies

    async def bodies(self: ImapConnection, uids: Sequence[int], total: int) -> list[Any]:
        if 2 in uids:
            if fault == "refused":
                raise Refused("fetch: NO corrupted")
            self.abort()
            raise ConnectionLost("fetch: the connection broke")
        return await real(self, uids, total)

    monkeypatch.setattr(ImapConnection, "bodies", bodies)
    world = World()
    async with running(world, settings_for(box(dovecot, user), sweep=0.05)):
        items = {item.subject: item for item in await world.take(3)}
        await until(lambda: marked(dovecot, user, 3))
    assert isinstance(items["mail 1"], Message)
    assert isinstance(items["mail 3"], Message)
    assert isinstance(items["mail 2"], Unreadable)
    assert "does not hand it over" in items["mail 2"].reason


async def test_server_killed_in_idle_and_back() -> None:
    user = "killed@insurer.test"
    with Dovecot() as dovecot:
        world = World()
        async with running(world, settings_for(box(dovecot, user))) as source:
            dovecot.deliver(user, mail(1))
            await world.next()
            await until(lambda: source.health.ok)
            dovecot.kill()
            await until(lambda: not source.health.ok)
            assert source.mailboxes[0].detail
            dovecot.deliver(user, mail(2))
            dovecot.start()
            await world.next()
            await until(lambda: source.health.ok)
            dovecot.deliver(user, mail(3))
            await world.next()
    assert sorted(subjects(world.items)) == ["mail 1", "mail 2", "mail 3"]


async def test_one_bad_mailbox_does_not_stop_the_others(dovecot: Dovecot) -> None:
    good, bad = "good@insurer.test", "bad@insurer.test"
    world = World()
    settings = settings_for(box(dovecot, bad, password="wrong"), box(dovecot, good), box(dovecot, good, folder="None"))
    async with running(world, settings) as source:
        dovecot.deliver(good, mail(1))
        await world.next()
        wrong, fine, missing = source.mailboxes
        await until(lambda: "login refused" in wrong.detail and fine.ok and "folder 'None'" in missing.detail)
        assert "check its user and password" in wrong.detail
        assert not source.health.ok
        assert bad in source.health.detail


async def test_refused_logins_are_retried_slowly(dovecot: Dovecot) -> None:
    source = MailSource(settings_for(box(dovecot, "slow@insurer.test", password="wrong")), World())
    task = asyncio.create_task(source.run(World().receive))
    await until(lambda: "login refused" in source.health.detail)
    before = dovecot.log().count("slow@insurer.test")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 1)
    assert dovecot.log().count("slow@insurer.test") == before


# --- access tokens ----------------------------------------------------------------------------------------------------


async def test_xoauth2(dovecot: Dovecot, tmp_path: Path) -> None:
    """An expired token is said at once, and a fresh one in the file is used without a restart."""
    user = "token@insurer.test"
    token = tmp_path / "token"
    token.write_text("expired\n")
    dovecot.deliver(user, mail(1))
    world = World()
    settings = settings_for(box(dovecot, user, password=None, token_file=token))
    async with running(world, settings) as source:
        await until(lambda: "login refused" in source.health.detail)
        assert "renew its access token" in source.health.detail
        assert "401" in source.health.detail or "AUTHENTICATIONFAILED" in source.health.detail
        token.write_text(f"good-{user}\n")
        assert (await world.next()).subject == "mail 1"


# --- settings and check -----------------------------------------------------------------------------------------------


async def test_check_says_what_works(dovecot: Dovecot) -> None:
    user = "check@insurer.test"
    dovecot.deliver(user, mail(1))
    boxes = [
        box(dovecot, user),
        box(dovecot, user, port=dovecot.tls_port, tls=True, ca_file=dovecot.certificate, name="tls", move_to="Done"),
        box(dovecot, user, port=dovecot.tls_port, tls=True, name="untrusted"),
        box(dovecot, user, port=1, name="nobody there"),
        box(dovecot, user, port=dovecot.tls_port, name="plain on tls", timeout=0.5),
    ]
    plain, tls, untrusted, nobody, mismatch = await MailSource(settings_for(*boxes), World()).check()
    assert plain.ok
    assert "1 mails, push, stored mails get a keyword" in plain.detail
    assert tls.ok
    assert "moved to Done" in tls.detail
    assert "certificate" in untrusted.detail.lower()
    assert "refused" in nobody.detail.lower() or "connect" in nobody.detail.lower()
    assert not mismatch.ok


def test_settings_are_strict() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        MailSettings.model_validate({"mailboxs": []})
    one = {"host": "h", "user": "u"}
    with pytest.raises(ValueError, match="two mailboxes are named 'u/INBOX'"):
        MailSettings.model_validate({"mailboxes": [one, one]})
    with pytest.raises(ValueError, match="from_address"):
        MailSettings.model_validate({"smtp": {"host": "h"}})
    secret = MailboxSettings.model_validate({**one, "password": "hidden"})
    assert "hidden" not in repr(secret)


# --- size and the loop ------------------------------------------------------------------------------------------------


async def test_a_20_mb_mail_comes_whole(dovecot: Dovecot) -> None:
    user = "big@insurer.test"
    content = base64.encodebytes(b"0123456789abcdef" * 65536 * 14)  # 20 MB on the line
    head = (
        b"From: ada@customer.test\r\nSubject: big\r\nMIME-Version: 1.0\r\nContent-Type: application/pdf\r\n"
        b'Content-Disposition: attachment; filename="x.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    )
    dovecot.deliver(user, head + content.replace(b"\n", b"\r\n"))
    world = World()
    async with running(world, settings_for(box(dovecot, user))):
        found = await world.next()
    assert found.raw == head + content.replace(b"\n", b"\r\n")
    assert isinstance(found, Message)
    [attachment] = found.attachments
    assert attachment.content == b"0123456789abcdef" * 65536 * 14


async def test_a_large_mail_that_breaks_its_process_costs_one_mail(
    dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = "monster@insurer.test"
    monkeypatch.setattr(mail_apart, "LARGE", 50_000)
    monkeypatch.setattr(mail_apart, "_DEADLINE", 0.0001)
    dovecot.deliver(user, mail(1), mail("monster", size=100_000))
    world = World()
    async with running(world, settings_for(box(dovecot, user))):
        items = {item.subject: item for item in await world.take(2)}
    assert isinstance(items["mail 1"], Message)
    [monster] = [item for item in items.values() if isinstance(item, Unreadable)]
    assert "TimeoutExpired" in monster.reason
    assert monster.raw == mail("monster", size=100_000)
