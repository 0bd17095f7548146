"""What a deployer may change of the web. `config.yaml` explains each key."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from router.settings import Duration, Strict


class ChatSettings(Strict):
    enabled: bool = True
    #: origins (https://www.example.com) that may embed the widget; our own origin always may
    origins: list[Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$")]] = []
    #: a visitor's token is renewed within this time, and dies after it
    token_lasts: Duration = timedelta(days=30)
    #: longest text of a visitor, in characters
    longest: int = Field(default=4000, ge=1)
    #: biggest upload, in bytes
    upload_most: int = Field(default=10_000_000, ge=0)
    #: messages a minute of one visitor
    per_minute: int = Field(default=30, ge=1)


class WebSettings(Strict):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    #: what customers see: base of tracking links; "" = http://host:port
    public_url: str = ""
    #: proxies whose X-Forwarded-For and X-Forwarded-Proto are believed
    trusted_proxies: list[str] = []
    session_lasts: Duration = timedelta(hours=12)
    #: sign-in attempts a minute, by name and by address
    sign_ins_per_minute: int = Field(default=10, ge=1)
    #: programs that may read /metrics from elsewhere than this machine; secret, by environment only
    metrics_token: str = ""
    #: signs visitors' tokens; secret, by environment only; "" = made once in the state folder
    secret: str = ""
    #: largest body of an API call, in bytes
    body_most: int = Field(default=1_000_000, ge=1000)
    chat: ChatSettings = ChatSettings()
