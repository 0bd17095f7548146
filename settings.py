"""The settings: `config.yaml`, what the environment says, and clear words where either is wrong.

Each part declares its own model beside its code; this file puts them together, reads, overlays and checks.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from channels.mail_settings import MailSettings
from channels.settings import (
    InstagramSettings,
    MessengerSettings,
    PhoneSettings,
    SmsSettings,
    TelegramSettings,
    WebhookSource,
    WechatSettings,
    WhatsAppSettings,
)
from domain import TRIAGE, Department, Language, SettingsError, Taxonomy
from nlu.entities_numbers import PHONE_REGIONS
from router.settings import (
    DeliverySettings,
    Duration,
    LimitSettings,
    RetentionSettings,
    RoutingSettings,
    SlaSettings,
    Strict,
    TextSettings,
    TicketSettings,
)
from web.settings import WebSettings

ROOT = Path(__file__).parent
_SHIPPED = ROOT / "config.yaml"
_PREFIX = "SLUICE_"
#: variables that are no settings: which file to read, and what the Makefile hears
_OTHERS = {"SLUICE_CONFIG", "SLUICE_RASA_PYTHON", "SLUICE_RASA_PORT"}
#: given whole: an insurer who lists departments means these and no others
_WHOLE = {"departments", "intents"}
_SECRETS = {
    "password", "token", "metrics_token", "secret", "auth_tokens", "webhook_secrets", "app_secrets", "verify_tokens",
    "app_secret", "tokens", "aes_keys", "secrets",
}  # fmt: skip
#: names of channels that a webhook's name may not be
_CHANNELS = {
    "api", "chat", "ingest", "instagram", "mail", "messenger", "phone", "replay", "sms", "telegram", "wechat",
    "whatsapp",
}  # fmt: skip


class DatabaseSettings(Strict):
    url: str = ""


class QueueSettings(Strict):
    url: str = ""
    deadline: Duration = timedelta(seconds=60)
    stream_maxlen: int = Field(default=100_000, ge=100)


class LogSettings(Strict):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class RasaSettings(Strict):
    url: str = "http://127.0.0.1:5005"
    #: longest that one answer may take
    timeout: Duration = timedelta(seconds=2)
    token: str = ""

    @field_validator("url")
    @classmethod
    def url_is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a URL as http://host:port is needed")
        return url

    @field_validator("timeout")
    @classmethod
    def timeout_is_short(cls, timeout: timedelta) -> timedelta:
        if not timedelta(0) < timeout <= timedelta(seconds=10):
            raise ValueError("more than 0 and at most 10 s: a worker waits for it")
        return timeout


class NluSettings(Strict):
    engine: Literal["embedded", "rasa"] = "embedded"
    rasa: RasaSettings = RasaSettings()
    model: str = ""
    policy_numbers: list[str] = []
    claim_numbers: list[str] = []
    encoder: str = ""
    encoder_languages: list[Language] = [Language.EN]
    phone_regions: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]] = list(PHONE_REGIONS)


class DepartmentSettings(Strict):
    zh: str
    en: str


class IntentSettings(Strict):
    department: str
    zh: str = ""
    en: str = ""


class Settings(Strict):
    """All of `config.yaml`."""

    state_dir: Path
    database: DatabaseSettings = DatabaseSettings()
    queue: QueueSettings = QueueSettings()
    log: LogSettings = LogSettings()
    web: WebSettings = WebSettings()
    mail: MailSettings = MailSettings()
    sms: SmsSettings = SmsSettings()
    phone: PhoneSettings = PhoneSettings()
    telegram: TelegramSettings = TelegramSettings()
    messenger: MessengerSettings = MessengerSettings()
    instagram: InstagramSettings = InstagramSettings()
    whatsapp: WhatsAppSettings = WhatsAppSettings()
    wechat: WechatSettings = WechatSettings()
    webhooks: dict[str, WebhookSource] = {}
    nlu: NluSettings = NluSettings()
    routing: RoutingSettings = RoutingSettings()
    sla: SlaSettings = SlaSettings()
    tickets: TicketSettings = TicketSettings()
    limits: LimitSettings = LimitSettings()
    delivery: DeliverySettings = DeliverySettings()
    retention: RetentionSettings = RetentionSettings()
    texts: TextSettings
    departments: dict[str, DepartmentSettings]
    intents: dict[str, IntentSettings]

    @field_validator("departments")
    @classmethod
    def triage_exists(cls, departments: dict[str, DepartmentSettings]) -> dict[str, DepartmentSettings]:
        if TRIAGE not in departments:
            raise ValueError(f"there must be a department named {TRIAGE}: it gets what the bot is not sure of")
        return departments

    @field_validator("webhooks")
    @classmethod
    def webhooks_are_named(cls, webhooks: dict[str, WebhookSource]) -> dict[str, WebhookSource]:
        for name in webhooks:
            if name in _CHANNELS:
                raise ValueError(f"{name!r} is the name of a channel; call the webhook otherwise")
            if not re.fullmatch(r"[a-z][a-z0-9_]{1,31}", name):
                raise ValueError(f"{name!r}: a webhook's name is 2 to 32 of a-z, 0-9 and _, as it stands in its URL")
        return webhooks

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.state_dir / 'sluice.db'}"

    @property
    def model_path(self) -> Path:
        return Path(self.nlu.model) if self.nlu.model else ROOT / "nlu" / "model" / "default.npz"

    @property
    def encoders(self) -> Path:
        """Where fetched sentence encoders lie, each in a folder of its own."""
        return self.state_dir / "encoders"

    @property
    def public_url(self) -> str:
        return (self.web.public_url or f"http://{self.web.host}:{self.web.port}").rstrip("/")

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy(
            departments={name: Department(name, each.zh, each.en) for name, each in self.departments.items()},
            intents={name: each.department for name, each in self.intents.items()},
            labels={name: (each.zh or name, each.en or name) for name, each in self.intents.items()},
        )


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. Raises `SettingsError` with the key, what is wrong with it, and what to do."""
    environment = os.environ if environment is None else environment
    values = _read(_SHIPPED)
    folder = ROOT
    if named := environment.get("SLUICE_CONFIG"):
        own = _read(Path(named))
        folder = Path(named).resolve().parent
        _refuse_secrets(own, "")
        values = _merged(values, own)
    else:
        _refuse_secrets(values, "")
    if not Path(str(values["state_dir"])).is_absolute():
        values["state_dir"] = str(folder / str(values["state_dir"]))
    _overlay(values, environment)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_in_words(error)) from error
    for name, intent in settings.intents.items():
        if intent.department not in settings.departments:
            raise SettingsError(
                f"intents.{name}.department names {intent.department!r}, which is no department"
                f"{_nearest(intent.department, settings.departments)}"
            )
    state_dir = settings.state_dir if settings.state_dir.is_absolute() else Path.cwd() / settings.state_dir
    return settings.model_copy(update={"state_dir": state_dir})


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        raise SettingsError(f"The settings file {path} is no YAML{line}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"The settings file {path} must hold keys with values.")
    return values


def _merged(base: Mapping[str, Any], own: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not (top and key in _WHOLE):
            merged[key] = _merged(old, value, top=False)
        else:
            merged[key] = value
    return merged


def _refuse_secrets(values: Any, path: str) -> None:
    """A settings file is copied, mailed and committed: no secret may stand in it."""
    if isinstance(values, dict):
        for key, value in values.items():
            here = f"{path}.{key}" if path else str(key)
            if key in _SECRETS and value:
                raise SettingsError(f"{here} is a secret: give it as {_variable(here)} or {_variable(here)}_FILE")
            if key == "url" and isinstance(value, str) and _has_password(value):
                raise SettingsError(f"{here} holds a password: give it as {_variable(here)} or {_variable(here)}_FILE")
            _refuse_secrets(value, here)
    elif isinstance(values, list):
        for index, value in enumerate(values):
            _refuse_secrets(value, f"{path}.{index}")


def _has_password(url: str) -> bool:
    try:
        return bool(make_url(url).password)
    except (ArgumentError, ValueError):
        return False


def _variable(path: str) -> str:
    return _PREFIX + path.upper().replace(".", "__")


# --- the environment --------------------------------------------------------------------------------------------------


def _overlay(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name in sorted(environment):
        if not name.startswith(_PREFIX) or name in _OTHERS:
            continue
        path = name[len(_PREFIX) :].lower().split("__")
        text = environment[name]
        if not _known(Settings, path) and path[-1].endswith("_file"):
            short = [*path[:-1], path[-1].removesuffix("_file")]
            if _known(Settings, short):
                path, text = short, _secret_file(name, text)
        if not _known(Settings, path):
            raise SettingsError(
                f"The environment variable {name} names no setting{_nearest(name, sorted(_variables(Settings)))}"
            )
        _put(values, path, _value(text), name)


def _secret_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name} names a file that cannot be read: {path}") from error


def _value(text: str) -> Any:
    """Lists and maps as YAML; everything else stays text, which the models turn into what they need."""
    if text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return None if text == "null" else text


def _put(values: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    here: Any = values
    for index, key in enumerate(path):
        last = index == len(path) - 1
        if isinstance(here, list):
            if not key.isdigit() or int(key) > len(here):
                raise SettingsError(f"{name}: {key} is no place in that list; it has {len(here)} entries")
            if int(key) == len(here):
                here.append({})
            if last:
                here[int(key)] = value
            else:
                here = here[int(key)]
        elif last:
            here[key] = value
        else:
            following = here.get(key)
            if not isinstance(following, dict | list):
                following = [] if path[index + 1].isdigit() else {}
                here[key] = following
            here = following


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _known(model: type[BaseModel], path: list[str]) -> bool:
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    if len(path) == 1:
        return True
    inner = _models(field.annotation)
    origin = str(field.annotation)
    rest = path[1:]
    if "dict[" in origin:  # a map whose keys are the deployer's own, such as departments
        return True
    if "list[" in origin:
        if not rest[0].isdigit():
            return False
        rest = rest[1:]
        if not rest:
            return True
    return any(_known(each, rest) for each in inner)


def _variables(model: type[BaseModel], prefix: str = _PREFIX) -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name.upper())
        for inner in _models(field.annotation):
            middle = "0__" if "list[" in str(field.annotation) else ""
            found.extend(_variables(inner, f"{prefix}{name.upper()}__{middle}"))
    return found


# --- words ------------------------------------------------------------------------------------------------------------


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f". Did you mean {close[0]}?" if close else ""


def _in_words(error: ValidationError) -> str:
    lines = []
    for each in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        path = [str(part) for part in each["loc"]]
        where = ".".join(path)
        if each["type"] == "extra_forbidden":
            lines.append(f"{where} is no setting{_nearest(path[-1], _siblings(Settings, path))}")
        else:
            lines.append(f"{where}: {each['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def _siblings(model: type[BaseModel], path: list[str]) -> list[str]:
    """The known names beside an unknown one."""
    if len(path) == 1:
        return list(model.model_fields)
    field = model.model_fields.get(path[0])
    if field is None:
        return []
    rest = path[1:]
    if ("list[" in str(field.annotation) or "dict[" in str(field.annotation)) and len(rest) > 1:
        rest = rest[1:]
    return [name for inner in _models(field.annotation) for name in _siblings(inner, rest)]
