"""Mail out: one `Reply` -> one mail on a kept connection, with a precise answer about what became of it.

Until the server has said 354 it has nothing of the mail, so every fault before that is harmless. Once the text is on
its way, a broken line leaves open whether it arrived: that, and nothing else, is `unknown`.
"""

from __future__ import annotations

import asyncio
import email.utils
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from typing import NoReturn

import aiosmtplib

from channels import Health, Limits
from channels.mail_settings import MailSettings, SmtpSettings
from domain import ChannelError, Receipt, Reply, SettingsError

#: kept connections that were idle longer are not trusted: servers and routers forget them silently
_TRUSTED_IDLE = 45.0
#: what a server may take to swallow a whole mail, as a multiple of `timeout`
_SWALLOW = 2.0
_AFTER_FAULT, _AFTER_LOGIN = 30.0, 300.0
_THREAD_KEYS = 20
_REPLY_MARK = re.compile(r"^(?:\s*(?:re|aw|sv|回复|答复|回覆|答覆)\s*(?:\[\d+\])?\s*[:：])+\s*", re.I)
_LOCAL = re.compile(r"[^\s<>(),;:\\\"\[\]@\x00-\x1f\x7f\ud800-\udfff]{1,128}")
_DOMAIN = re.compile(r"[^\s<>(),;:\\\"@\x00-\x1f\x7f\ud800-\udfff]{1,255}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def message_key(ticket_number: str, domain: str) -> str:
    """A new Message-ID, without its brackets."""
    return f"sluice.{ticket_number}.{secrets.token_hex(12)}@{domain}"


def subject_of(subject: str, ticket_number: str) -> str:
    """`Re: ...  [S-123456]`, each mark once."""
    bare = _REPLY_MARK.sub("", _clean(subject))
    tag = f"[{ticket_number}]" if ticket_number else ""
    bare = " ".join(bare.replace(tag, " ").split()) if tag else bare
    return " ".join(part for part in ("Re:", bare, tag) if part)


@dataclass(frozen=True, slots=True)
class Envelope:
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    #: an address is not ASCII: only a server with SMTPUTF8 can take it
    international: bool


def compose(reply: Reply, settings: MailSettings, now: datetime) -> Envelope:
    """The mail of a reply. Raises ChannelError (permanent) where no mail can be made of it."""
    recipients = [address for _, address in email.utils.getaddresses([reply.to]) if address]
    try:
        to = [_recipient(address, reply.to_name if len(recipients) == 1 else "") for address in recipients]
        sender = Address(_name(settings.from_name), addr_spec=settings.from_address)
    except (ValueError, IndexError, HeaderParseError) as error:
        raise ChannelError("this is no mail address", permanent=True) from error
    if not to or _CONTROL.search(reply.to):
        raise ChannelError("there is no mail address", permanent=True)
    spelled = tuple(address.addr_spec for address in to)
    international = not all(address.isascii() for address in spelled)
    mail = EmailMessage(policy=SMTPUTF8 if international else SMTP)
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = subject_of(reply.subject, reply.ticket_number)
    mail["Date"] = email.utils.format_datetime(now)
    mail["X-Sluice"] = "1"
    if reply.automatic:
        mail["Auto-Submitted"] = "auto-replied"
        mail["X-Auto-Response-Suppress"] = "All"
        mail["Precedence"] = "bulk"
    text = reply.text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    text = text.encode("utf-8", "replace").decode()
    short = all(len(line) < 900 for line in text.split("\n"))
    mail.set_content(text, cte="7bit" if text.isascii() and short else "base64")
    smtp = settings.smtp or SmtpSettings(host="unset")
    null = reply.automatic and smtp.automatic_null_sender
    return_path = "" if null else smtp.envelope_from or settings.from_address
    return Envelope(return_path, spelled, _thread_headers(reply) + mail.as_bytes(), international)


def _thread_headers(reply: Reply) -> bytes:
    """Written by hand: the standard library encodes ids that are longer than a line, and then no client knows them."""
    keys = [key for key in map(_key, reply.thread_keys) if key][-_THREAD_KEYS:]
    lines = [f"Message-ID: <{reply.key}>"]
    if keys:
        lines += [f"In-Reply-To: <{keys[-1]}>", "References: " + "\r\n ".join(f"<{key}>" for key in keys)]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _key(key: str) -> str:
    key = key.strip().removeprefix("<").removesuffix(">")
    return key if re.fullmatch(r"[\x21-\x3b\x3d\x3f-\x7e]{1,900}", key) else ""


def _clean(text: str) -> str:
    """One line that every header can carry."""
    return " ".join(_CONTROL.sub(" ", text.encode("utf-8", "replace").decode()).split())


def _name(name: str) -> str:
    return _clean(name)[:100]


def _recipient(address: str, name: str) -> Address:
    """Raises ValueError. Domains are spelled as in the DNS."""
    local, _, domain = address.rpartition("@")
    if not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise ValueError("no mail address")
    return Address(_name(name), username=local, domain=domain if domain.isascii() else domain.encode("idna").decode())


class _Line:
    """A connection that is kept, or none yet."""

    def __init__(self, settings: SmtpSettings) -> None:
        self.settings = settings
        self.client: aiosmtplib.SMTP | None = None
        self.used_at = 0.0

    async def ready(self) -> tuple[aiosmtplib.SMTP, bool]:
        """A connection that is logged in, and whether it is an old one."""
        now = asyncio.get_running_loop().time()
        if self.client is not None and self.client.is_connected and now - self.used_at < _TRUSTED_IDLE:
            return self.client, True
        self.drop()
        self.client = await self._connect()
        return self.client, False

    async def _connect(self) -> aiosmtplib.SMTP:
        s = self.settings
        token: Callable[[], str] | None = s.access_token if s.uses_token else None

        async def generate() -> str:
            return await asyncio.to_thread(token) if token else ""

        client = aiosmtplib.SMTP(
            hostname=s.host,
            port=s.port,
            username=s.user or None,
            password=s.password.get_secret_value() if s.password and not token else None,
            oauth_token_generator=generate if token else None,
            timeout=s.timeout,
            use_tls=s.tls == "implicit",
            start_tls=s.tls == "starttls",
            tls_context=await asyncio.to_thread(s.tls_context) if s.tls != "none" else None,
        )
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                try:
                    await client.ehlo()
                except aiosmtplib.SMTPHeloError:
                    await client.helo()
        except BaseException:
            client.close()
            raise
        return client

    def drop(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    async def quit(self) -> None:
        if self.client is not None and self.client.is_connected:
            with suppress(aiosmtplib.SMTPException, OSError):
                await self.client.quit(timeout=2)
        self.drop()


def _too_late() -> ChannelError:
    """The caller's own deadline came before the mail was handed over. It alone would mean: result unknown."""
    return ChannelError("the server was too slow to take the mail", retry_after=_AFTER_FAULT)


class MailSender:
    """Sends replies by SMTP. All recipients of a reply get it, or none does."""

    name = "mail"

    def __init__(self, settings: MailSettings) -> None:
        if settings.smtp is None:
            raise SettingsError("mail has no smtp settings")
        self._settings, self._smtp = settings, settings.smtp
        # No more than there are connections: a mail that waits for one is not on its way yet.
        self.limits = Limits(deadline=settings.smtp.timeout * (1 + _SWALLOW) + 10, together=settings.smtp.connections)
        self._lines: asyncio.LifoQueue[_Line] = asyncio.LifoQueue()
        for _ in range(settings.smtp.connections):
            self._lines.put_nowait(_Line(settings.smtp))

    async def send(self, reply: Reply) -> Receipt:
        envelope = compose(reply, self._settings, datetime.now(UTC))
        try:
            line = await self._lines.get()
        except asyncio.CancelledError:
            raise _too_late() from None
        try:
            return await self._send(line, envelope)
        except BaseException:
            if line.client is not None and not line.client.is_connected:
                line.drop()
            raise
        finally:
            line.used_at = asyncio.get_running_loop().time()
            self._lines.put_nowait(line)

    async def _send(self, line: _Line, envelope: Envelope) -> Receipt:
        client = await self._prepare(line, envelope)
        assert client.protocol is not None
        try:  # from here on the server may have the mail
            client.protocol.write(_on_the_wire(envelope.content))
        except (aiosmtplib.SMTPException, OSError) as error:
            line.drop()
            raise ChannelError(
                "the connection broke before the mail was handed over", retry_after=_AFTER_FAULT
            ) from error
        try:
            answer = await client.protocol.read_response(timeout=self._smtp.timeout * _SWALLOW)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            line.drop()
            raise ChannelError("the connection broke after the mail was handed over", unknown=True) from error
        except BaseException:
            line.drop()
            raise
        if answer.code != 250:
            await self._refuse(line, answer.code, answer.message)
        return Receipt(provider_id=answer.message[:200])

    async def _prepare(self, line: _Line, envelope: Envelope) -> aiosmtplib.SMTP:
        """Everything up to the 354. A kept connection that the server has closed meanwhile is replaced once."""
        try:
            async with asyncio.timeout(self._smtp.timeout):
                client, kept = await line.ready()
                try:
                    await self._address(line, client, envelope)
                except (aiosmtplib.SMTPServerDisconnected, ConnectionError):
                    if not kept:
                        raise
                    line.drop()
                    client, _ = await line.ready()
                    await self._address(line, client, envelope)
                return client
        except aiosmtplib.SMTPAuthenticationError as error:
            line.drop()
            raise ChannelError(f"login refused ({error.code})", retry_after=_AFTER_LOGIN) from error
        except aiosmtplib.SMTPResponseException as error:
            line.drop()
            raise ChannelError(_said(error.code, error.message), retry_after=_AFTER_FAULT) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            line.drop()
            reason = str(error) or type(error).__name__
            raise ChannelError(f"the server cannot be used: {reason}", retry_after=_AFTER_FAULT) from error
        except asyncio.CancelledError:
            line.drop()
            raise _too_late() from None
        except ChannelError:
            raise
        except BaseException:
            line.drop()
            raise

    async def _address(self, line: _Line, client: aiosmtplib.SMTP, envelope: Envelope) -> None:
        options = []
        if client.supports_extension("size"):
            options.append(f"SIZE={len(envelope.content)}")
        if envelope.international:
            if not client.supports_extension("smtputf8"):
                raise ChannelError("the server cannot reach an address with such letters", permanent=True)
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        encoding = "utf-8" if envelope.international else "ascii"
        try:
            await client.mail(envelope.sender, options=options, encoding=encoding)
            for recipient in envelope.recipients:  # one refused: nobody gets it, so nothing is half done
                await client.rcpt(recipient, encoding=encoding)
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPRecipientRefused) as error:
            await self._refuse(line, error.code, error.message)
        answer = await client.execute_command(b"DATA")
        if answer.code != 354:
            await self._refuse(line, answer.code, answer.message)

    async def _refuse(self, line: _Line, code: int, message: str) -> NoReturn:
        """An answer is an answer: the mail was not taken. The connection is kept where the server keeps it."""
        try:
            assert line.client is not None
            await line.client.rset(timeout=5)
        except (aiosmtplib.SMTPException, OSError):
            line.drop()
        permanent = 500 <= code < 600
        raise ChannelError(_said(code, message), permanent=permanent, retry_after=None if permanent else _AFTER_FAULT)

    async def check(self) -> Health:
        """Connect and log in, and say in one line what works."""
        s = self._smtp
        health, line = Health(f"{s.host}:{s.port}"), _Line(s)
        try:
            await line.ready()
            health.ok, health.detail = True, f"connects ({s.tls}), {'login works' if s.user else 'no login'}"
        except aiosmtplib.SMTPAuthenticationError as error:
            health.detail = f"login refused: {_said(error.code, error.message)}; check user and password or token"
        except (aiosmtplib.SMTPException, OSError) as error:
            health.detail = str(error) or type(error).__name__
        finally:
            await line.quit()
        return health

    async def close(self) -> None:
        """Take leave of the server; mails on their way are waited for."""
        lines = [await self._lines.get() for _ in range(self._smtp.connections)]
        for line in lines:
            await line.quit()
            self._lines.put_nowait(line)


def _on_the_wire(content: bytes) -> bytes:
    """CRLF is there by policy; a line that begins with a dot gets a second one."""
    return re.sub(rb"(?m)^\.", b"..", content) + b".\r\n"


def _said(code: int, message: str) -> str:
    return f"{code} {_CONTROL.sub(' ', message)[:300]}"
