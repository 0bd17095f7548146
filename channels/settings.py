"""Settings of the channels with a provider. Secrets come from the environment, never from the YAML file.

Secrets of webhooks are lists: a request may be signed by any of them, so that one is changed without losing a message
(the new one is put first, the old one is taken out when the provider uses the new one).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from channels.phone_hours import parse as service_hours


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("a URL as https://host is needed")
    return url.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Seconds = Annotated[float, Field(gt=0, le=60)]
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{4,14}$")]
Secrets = list[SecretStr]


class Switched(BaseModel):
    """What can be turned on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False


class ChannelSettings(Switched):
    """What all channels have that call their provider."""

    #: seconds for one call of the provider
    timeout: Seconds = 10.0
    #: largest picture, voice or file that is fetched, in bytes
    media_most: Annotated[int, Field(ge=0)] = 20_000_000


def open_secrets(secrets: Secrets) -> list[str]:
    return [each.get_secret_value() for each in secrets if each.get_secret_value()]


class TwilioSettings(ChannelSettings):
    """An account with Twilio: SMS and phone each have their own, which may be the same."""

    account_sid: str = ""
    #: sign what Twilio sends us; the first signs what we send
    auth_tokens: Secrets = []
    #: another host than api.twilio.com: a proxy, or a stand-in for tests
    api_url: HttpUrl = "https://api.twilio.com"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not (self.account_sid and open_secrets(self.auth_tokens)):
            raise ValueError("account_sid is needed, and an auth token (by the environment: ..._AUTH_TOKENS__0)")
        return self


class SmsSettings(TwilioSettings):
    """SMS and MMS by Twilio."""

    #: our numbers; the first is used where a customer wrote to none of them
    numbers: list[Phone | Annotated[str, Field(pattern=r"^[0-9]{3,8}$|^[A-Za-z0-9 ]{3,11}$")]] = []
    #: a messaging service of Twilio's (MG...) that our messages go through; "" = none
    messaging_service: Annotated[str, Field(pattern=r"^(MG[0-9a-f]{32})?$")] = ""
    #: what a number without a country is read in
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "CN"
    #: seconds between two comparisons with what Twilio says it took in for us; 0 = never
    reconcile: Annotated[float, Field(ge=0)] = 3600.0
    #: how far back they look, in seconds
    reconcile_back: Annotated[float, Field(gt=0)] = 3 * 86400.0


class PhoneSettings(TwilioSettings):
    """Calls by Twilio: a voice menu that takes down what the caller wants, and brings people to it."""

    #: our numbers
    numbers: list[Phone] = []
    #: in the order in which they are offered (1, 2); the first is spoken where no key is pressed
    languages: Annotated[list[Literal["zh", "en"]], Field(min_length=1)] = ["zh", "en"]
    #: where a caller is put through to within service hours; "" = never
    transfer_to: Phone | Literal[""] = ""
    #: service hours, as days and times of `timezone`: "mon-fri 09:00-18:00"
    hours: list[str] = ["mon-fri 09:00-18:00"]
    timezone: str = "Asia/Shanghai"
    #: how often a caller who was not understood is asked again
    reprompts: Annotated[int, Field(ge=0, le=5)] = 2
    #: turns after which the call is ended politely
    turns: Annotated[int, Field(ge=1, le=50)] = 12
    #: longest recording, in seconds
    record_longest: Annotated[int, Field(ge=10, le=600)] = 120
    #: recordings are deleted at Twilio once they are here
    delete_recordings: bool = True

    @field_validator("languages")
    @classmethod
    def _once(cls, languages: list[str]) -> list[str]:
        if len(set(languages)) != len(languages):
            raise ValueError("a language stands there twice")
        return languages

    @field_validator("hours")
    @classmethod
    def _hours(cls, hours: list[str]) -> list[str]:
        for line in hours:
            service_hours(line)
        return hours

    @field_validator("timezone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError(f"{name!r} is no time zone; write one as Asia/Shanghai") from None
        return name


class TelegramSettings(ChannelSettings):
    """A Telegram bot."""

    token: SecretStr | None = None
    #: poll: we ask Telegram (no public address needed); webhook: Telegram calls /hooks/telegram
    mode: Literal["poll", "webhook"] = "poll"
    #: sign what Telegram sends us (header X-Telegram-Bot-Api-Secret-Token)
    webhook_secrets: Secrets = []
    #: groups whose messages are taken, by id; all others are not for us
    groups: list[int] = []
    #: another server than api.telegram.org: a local Bot API server, or a stand-in for tests
    api_url: HttpUrl = "https://api.telegram.org"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not (self.token and self.token.get_secret_value()):
            raise ValueError("a bot token is needed (by the environment: SLUICE_TELEGRAM__TOKEN)")
        if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,256}", each) for each in open_secrets(self.webhook_secrets)):
            raise ValueError("webhook_secrets: Telegram takes 1 to 256 characters of A-Z a-z 0-9 _ -")
        if self.enabled and self.mode == "webhook" and not open_secrets(self.webhook_secrets):
            raise ValueError("mode webhook needs a secret (by the environment: SLUICE_TELEGRAM__WEBHOOK_SECRETS__0)")
        return self


class MetaPage(BaseModel):
    """A page, an Instagram account or a WhatsApp number that is ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: its id with Meta (page id, Instagram account id, WhatsApp phone number id)
    id: Annotated[str, Field(pattern=r"^[0-9]{3,32}$")]
    name: str = ""
    token: SecretStr | None = None


class MetaSettings(ChannelSettings):
    """What Messenger, Instagram and WhatsApp have in common: an app with Meta."""

    #: sign what Meta sends us
    app_secrets: Secrets = []
    #: what we told Meta to show when it makes sure of the webhook
    verify_tokens: Secrets = []
    accounts: list[MetaPage] = []
    #: apps with Meta that are ours: what they sent comes back as an echo and is dropped
    app_ids: list[Annotated[str, Field(pattern=r"^[0-9]{3,32}$")]] = []
    graph_url: HttpUrl = "https://graph.facebook.com"
    graph_version: Annotated[str, Field(pattern=r"^v[0-9]+\.[0-9]+$")] = "v25.0"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not (open_secrets(self.app_secrets) and open_secrets(self.verify_tokens)):
            raise ValueError("app_secrets and verify_tokens are needed (by the environment)")
        ids = [each.id for each in self.accounts]
        if len(ids) != len(set(ids)):
            raise ValueError("two accounts have the same id")
        return self


class MessengerSettings(MetaSettings):
    #: people's answers go out for seven days instead of one, marked as written by a person (needs Meta's permission)
    human_agent: bool = False


class InstagramSettings(MessengerSettings):
    pass


class WhatsAppSettings(MetaSettings):
    #: a template that Meta approved, with one hole {{1}} for the answer, used after the 24 hours; "" = none
    template: str = ""
    #: its languages with Meta, by ours
    template_languages: dict[Literal["zh", "en"], str] = {"zh": "zh_CN", "en": "en"}

    @model_validator(mode="after")
    def _spoken(self) -> Self:
        if self.template and not self.template_languages:
            raise ValueError("template_languages must name a language that the template exists in")
        return self


class WechatSettings(ChannelSettings):
    """A WeChat Official Account."""

    app_id: str = ""
    app_secret: SecretStr | None = None
    #: sign what WeChat sends us
    tokens: Secrets = []
    #: EncodingAESKey (43 characters), for the compatible and the safe mode
    aes_keys: Secrets = []
    #: plain: unencrypted is read; safe: only encrypted is taken; compatible: either, where both stand the encrypted
    mode: Literal["plain", "compatible", "safe"] = "safe"
    #: what a tap on a menu button says, by the button's key; other keys that read like words are taken as they are
    menu: dict[str, str] = {}
    api_url: HttpUrl = "https://api.weixin.qq.com"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not (self.app_id and open_secrets(self.tokens)):
            raise ValueError("app_id is needed, and a token (by the environment: SLUICE_WECHAT__TOKENS__0)")
        if self.enabled and self.mode != "plain" and not open_secrets(self.aes_keys):
            raise ValueError("mode compatible and safe need a key (by the environment: SLUICE_WECHAT__AES_KEYS__0)")
        if not all(re.fullmatch(r"[A-Za-z0-9+/]{43}", each) for each in open_secrets(self.aes_keys)):
            raise ValueError("an EncodingAESKey has 43 characters, letters and digits")
        return self


class FieldMap(BaseModel):
    """Where in a record each thing stands, as a path of keys and list places: `review.author.id`, `answers.0.text`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: "" = the source gives none: the digest of the record stands in, as it does where a record has none there
    external_id: str = ""
    sender: Annotated[str, Field(min_length=1)]
    #: one path or several, whose texts are put under one another
    text: (
        Annotated[str, Field(min_length=1)] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    )
    sender_name: str = ""
    subject: str = ""
    thread: str = ""
    received_at: str = ""


class WebhookSource(Switched):
    """A source that posts signed JSON to /hooks/<its name>: app reviews, surveys, comment or call-centre exports."""

    enabled: bool = True
    #: sign what it sends us (HMAC-SHA256)
    secrets: Secrets = []
    #: the header that holds the signature, what stands before it there, and how it is written
    signature_header: Annotated[str, Field(min_length=1)] = "X-Sluice-Signature"
    signature_prefix: str = "sha256="
    signature_encoding: Literal["hex", "base64"] = "hex"
    #: a header with the time (seconds since 1970) that is signed too, as `<time>.<body>`; "" = the body alone
    timestamp_header: str = "X-Sluice-Timestamp"
    #: seconds that the time may be off
    tolerance: Annotated[float, Field(gt=0)] = 300.0
    #: where the list of records stands in the body; "" = the body is one record, or a list of them
    records: str = ""
    fields: FieldMap
    #: what people read as the channel's name
    zh: str = ""
    en: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not open_secrets(self.secrets):
            raise ValueError("a secret is needed (by the environment: SLUICE_WEBHOOKS__<NAME>__SECRETS__0)")
        return self
