"""Dovecot, Postfix and the stand-in for Postfix, with their configuration. Use them through `tests.servers`."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from tests.server_base import GID, HOST, UID, USER, Server, ServerError, find, free_port

DOVECOT_CONF = """\
base_dir = {run}
state_dir = {run}
log_path = {dir}/output
protocols = imap
listen = {host}
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
first_valid_gid = 1
mail_uid = {uid}
mail_gid = {gid}
mail_location = maildir:{dir}/mail/%Ld/%Ln
mail_plugins = acl
mail_max_userip_connections = 100
plugin {{
  acl = vfile
}}
ssl = yes
ssl_cert = <{dir}/cert.pem
ssl_key = <{dir}/key.pem
ssl_dh =
disable_plaintext_auth = no
auth_mechanisms = plain login xoauth2
auth_verbose = yes
auth_failure_delay = 0
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {dir}/oauth2.conf
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={dir}/mail/%Ld/%Ln
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
"""

DOVECOT_OAUTH2 = """\
tokeninfo_url = http://127.0.0.1:{port}/?access_token=
username_attribute = user
"""

POSTFIX_MAIN = """\
compatibility_level = 3.6
config_directory = {config}
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = {programs}
maillog_file = /dev/stdout
myhostname = mail.test
mydestination =
local_recipient_maps =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtputf8_enable = no
biff = no
recipient_delimiter = +
message_size_limit = 60000000
virtual_mailbox_domains = regexp:{config}/all
virtual_mailbox_maps = regexp:{config}/all
virtual_transport = deliver
deliver_destination_recipient_limit = 1
smtpd_tls_security_level = may
smtpd_tls_cert_file = {config}/cert.pem
smtpd_tls_key_file = {config}/key.pem
"""

POSTFIX_MASTER = """\
{host}:{port} inet n - n - - smtpd
pickup    unix  n - n 60   1 pickup
cleanup   unix  n - n -    0 cleanup
qmgr      unix  n - n 300  1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -    - trivial-rewrite
bounce    unix  - - n -    0 bounce
defer     unix  - - n -    0 bounce
trace     unix  - - n -    0 bounce
verify    unix  - - n -    1 verify
proxymap  unix  - - n -    - proxymap
smtp      unix  - - n -    - smtp
error     unix  - - n -    - error
retry     unix  - - n -    - error
deliver   unix  - n n -    - pipe
  flags=DORhu user={user} argv=/bin/sh {config}/deliver ${{user}} ${{domain}}
anvil     unix  - - n -    1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""

# virtual(8) wants each mailbox by name; here every address has one
POSTFIX_DELIVER = """\
case "$1" in nosuch*) echo "no such user"; exit 67 ;; esac
inbox={mail_root}/$2/$1
name=$(date +%s.%N).$$
mkdir -p "$inbox/tmp" "$inbox/new" "$inbox/cur" && cat > "$inbox/tmp/$name" && mv "$inbox/tmp/$name" "$inbox/new/$name"
"""


def make_certificate(folder: Path, openssl: str) -> None:
    """cert.pem and key.pem for 127.0.0.1, signed by itself."""
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3", "-subj", "/CN=mail.test",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip


class _Tokens(BaseHTTPRequestHandler):
    """Knows tokens of the form `good-<user>`."""

    def do_GET(self) -> None:
        token = parse_qs(urlsplit(self.path).query).get("access_token", [""])[0]
        good = token.startswith("good-")
        body = json.dumps({"user": token.removeprefix("good-")} if good else {"error": "invalid_token"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class TokenServer:
    """Where Dovecot asks what an access token is worth."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Drop:
    def __init__(self, mail_root: Path) -> None:
        self.mail_root = mail_root

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]) -> str:
        if address.startswith("nosuch"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        for address in envelope.rcpt_tos:
            local, _, domain = address.lower().partition("@")
            inbox = self.mail_root / domain / local.partition("+")[0]
            for folder in ("tmp", "new", "cur"):
                (inbox / folder).mkdir(parents=True, exist_ok=True)
            name = uuid.uuid4().hex
            head = (
                f"Return-Path: <{envelope.mail_from or ''}>\r\nX-Original-To: {address}\r\nDelivered-To: {address}\r\n"
            )
            (inbox / "tmp" / name).write_bytes(head.encode() + content)
            (inbox / "tmp" / name).rename(inbox / "new" / name)
        return "250 2.0.0 OK"


class MailDrop:
    """Takes mail by SMTP and writes it to Maildirs, where Postfix must not be started. Does not bounce."""

    def __init__(self, mail_root: Path, port: int) -> None:
        self.mail_root, self.host, self.port = mail_root, "127.0.0.1", port
        self._controller = Controller(_Drop(mail_root), hostname=self.host, port=port, data_size_limit=60_000_000)

    @property
    def url(self) -> str:
        return f"smtp://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()


class Dovecot(Server):
    """IMAP for any user `name@domain` with the password `secret`; `port` is plain, `tls_port` has TLS.

    With XOAUTH2 the token `good-<user>` is taken. The mailboxes are Maildirs that tests and Postfix write into.
    """

    name = "dovecot"
    password = "secret"

    def __init__(self) -> None:
        super().__init__()
        self.tls_port = 0
        self._tokens = TokenServer()

    @property
    def url(self) -> str:
        return f"imap://{self.host}:{self.port}"

    @property
    def mail_root(self) -> Path:
        return self.dir / "mail"

    @property
    def certificate(self) -> Path:
        return self.dir / "cert.pem"

    def maildir(self, address: str) -> Path:
        """The Maildir (INBOX) of an address, without its plus part."""
        local, _, domain = address.lower().partition("@")
        return self.mail_root / domain / local.partition("+")[0]

    def deliver(self, address: str, *mails: bytes) -> None:
        """Drop mails into the INBOX of an address, as a local delivery agent does."""
        inbox = self.maildir(address)
        for folder in (inbox.parent, inbox, inbox / "tmp", inbox / "new", inbox / "cur"):
            folder.mkdir(exist_ok=True)
            os.chown(folder, UID, GID)
        for mail in mails:
            name = f"{time.time_ns()}.{uuid.uuid4().hex}"
            (inbox / "tmp" / name).write_bytes(mail)
            os.chown(inbox / "tmp" / name, UID, GID)
            (inbox / "tmp" / name).rename(inbox / "new" / name)

    def mails(self, address: str) -> list[bytes]:
        """What is in the INBOX of an address, in the order of arrival."""
        inbox = self.maildir(address)
        found = [path for folder in ("new", "cur") if (inbox / folder).exists() for path in (inbox / folder).iterdir()]
        return [path.read_bytes() for path in sorted(found, key=lambda path: path.name)]

    def wait_for_mail(self, address: str, count: int = 1, seconds: float = 30.0) -> list[bytes]:
        """The same, once it has `count` mails."""
        until = time.monotonic() + seconds
        while len(mails := self.mails(address)) < count:
            if time.monotonic() > until:
                raise ServerError(f"{len(mails)} of {count} mails came to {address}")
            time.sleep(0.02)
        return mails

    def prepare(self) -> None:
        self.tls_port = free_port()
        self.mail_root.mkdir(exist_ok=True)
        if not self.certificate.exists():
            make_certificate(self.dir, find("openssl"))
        conf = DOVECOT_CONF.format(
            dir=self.dir, host=HOST, port=self.port, tls_port=self.tls_port, user=USER, uid=UID, gid=GID,
            group=grp.getgrgid(GID).gr_name, password=self.password, run=self.dir / "run",
        )  # fmt: skip
        (self.dir / "dovecot.conf").write_text(conf)
        (self.dir / "oauth2.conf").write_text(DOVECOT_OAUTH2.format(port=self._tokens.port))

    def close(self) -> None:
        super().close()
        self._tokens.close()

    def command(self) -> list[str]:
        return [find(self.name), "-F", "-c", str(self.dir / "dovecot.conf")]


class Postfix(Server):
    """SMTP without password that delivers every address into Dovecot's Maildirs; `nosuch...@` bounces. Root only."""

    name = "postfix"
    unprivileged = False

    def __init__(self, mail_root: Path) -> None:
        super().__init__()
        self.mail_root = mail_root

    @property
    def url(self) -> str:
        return f"smtp://{self.host}:{self.port}"

    @property
    def programs(self) -> Path:
        ask = [find("postconf"), "-d", "-h", "daemon_directory"]
        return Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())

    def prepare(self) -> None:
        config, queue, data = (self.dir / name for name in ("etc", "queue", "data"))
        for folder in (config, queue, data):
            folder.mkdir(exist_ok=True)
        owner = pwd.getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        if not (config / "cert.pem").exists():
            make_certificate(config, find("openssl"))
        (config / "main.cf").write_text(POSTFIX_MAIN.format(dir=self.dir, config=config, programs=self.programs))
        (config / "master.cf").write_text(POSTFIX_MASTER.format(host=HOST, port=self.port, config=config, user=USER))
        (config / "all").write_text("/./ OK\n")
        (config / "deliver").write_text(POSTFIX_DELIVER.format(mail_root=self.mail_root))
        check = subprocess.run([find(self.name), "-c", str(config), "check"], check=False, capture_output=True)
        if check.returncode:
            raise ServerError(f"postfix check: {check.stderr.decode()}")

    def command(self) -> list[str]:
        """The master itself: what `postfix start` starts is no child of ours, so would outlive us."""
        return [str(self.programs / "master"), "-s", "-c", str(self.dir / "etc")]
