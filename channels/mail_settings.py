"""Settings of the mail channel. Secrets come from the environment, never from the YAML file."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class _Account(BaseModel):
    """Who we are to a server, and how safely we speak to it."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(min_length=1)
    user: str = ""
    password: SecretStr | None = None
    #: XOAUTH2 access token; in a file that is read at every login, so that another program can renew it
    token: SecretStr | None = None
    token_file: Path | None = None
    #: certificate of an own authority; None = those that the system trusts
    ca_file: Path | None = None
    #: seconds that the server may take for one answer
    timeout: Seconds = 30.0

    @property
    def uses_token(self) -> bool:
        return self.token_file is not None or self.token is not None

    def access_token(self) -> str:
        """Raises OSError when the file cannot be read."""
        if self.token_file is not None:
            return self.token_file.read_text().strip()
        return self.token.get_secret_value() if self.token is not None else ""

    def tls_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)


class MailboxSettings(_Account):
    """One mailbox that is read by IMAP."""

    #: its name in the console and in the database; must not change later
    name: str = ""
    #: the address that it receives mail for, when `user` is none
    address: str = ""
    user: str = Field(min_length=1)
    port: Port = 993
    #: TLS from the first byte; off only for a server on this machine
    tls: bool = True
    folder: str = "INBOX"
    #: set on a mail once it is stored
    keyword: str = Field("$SluiceStored", pattern=r"^[A-Za-z0-9$_.-]+$")
    #: move stored mails to this folder instead
    move_to: str = ""

    @property
    def label(self) -> str:
        return self.name or f"{self.user}/{self.folder}"

    @property
    def recipient(self) -> str:
        return self.address or self.user


class SmtpSettings(_Account):
    """The server that takes our answers."""

    port: Port = 587
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    #: connections that are kept
    connections: Annotated[int, Field(ge=1, le=20)] = 2
    #: return path of people's answers, where bounces go; "" = from_address
    envelope_from: str = ""
    #: automatic answers go out with the return path <>: then their bounces are lost, and some providers refuse it
    automatic_null_sender: bool = False


class MailSettings(BaseModel):
    """The mail channel."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    mailboxes: list[MailboxSettings] = []
    smtp: SmtpSettings | None = None
    from_address: str = ""
    from_name: str = ""
    #: seconds between two looks into a mailbox whose server cannot push
    poll: Seconds = 30.0
    #: seconds between two comparisons of all mails in the mailbox with what is stored
    sweep: Seconds = 300.0
    #: larger mails (bytes) go to quarantine with their header only
    max_size: Annotated[int, Field(ge=1024)] = 25 * 1024 * 1024
    #: domains whose Message-IDs are ours, besides that of from_address
    own_domains: list[str] = []

    @model_validator(mode="after")
    def _fits(self) -> Self:
        labels = [box.label for box in self.mailboxes]
        if twice := {label for label in labels if labels.count(label) > 1}:
            raise ValueError(f"two mailboxes are named {sorted(twice)[0]!r}: give each a `name`")
        if self.smtp is not None and "@" not in self.from_address:
            raise ValueError("smtp needs a `from_address`")
        return self

    @property
    def domains(self) -> tuple[str, ...]:
        """Every domain whose Message-IDs are ours."""
        own = self.from_address.rpartition("@")[2].lower()
        return tuple(dict.fromkeys(d.lower() for d in (own, *self.own_domains) if d))
