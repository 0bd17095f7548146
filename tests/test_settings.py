"""The settings: what a deployer writes is taken, or refused with the key and what to do."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from domain import Priority, SettingsError
from settings import ROOT, Settings, _models, load

SHIPPED = (ROOT / "config.yaml").read_text("utf-8")


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as error:
        load(environment)
    return str(error.value)


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """Write a settings file; the environment that names it."""

    def write(text: str) -> dict[str, str]:
        file = tmp_path / "own.yaml"
        file.write_text(text, "utf-8")
        return {"SLUICE_CONFIG": str(file)}

    return write


# --- the shipped file -------------------------------------------------------------------------------------------------


def test_the_shipped_settings_are_good_and_local() -> None:
    settings = load({})
    assert settings.web.host == "127.0.0.1"
    assert settings.state_dir == ROOT / "var"
    assert settings.database_url == f"sqlite:///{ROOT / 'var' / 'sluice.db'}"
    assert settings.public_url == "http://127.0.0.1:8080"
    assert len(settings.taxonomy.intents) == 29
    assert settings.sla.first_response == timedelta(minutes=5)
    assert settings.tickets.close_after == timedelta(days=7)
    assert not settings.mail.enabled


def names(model: type[BaseModel]) -> set[str]:
    """Every key that a model and the models in it know."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            found |= names(inner)
    return found


def test_every_key_stands_in_the_shipped_file() -> None:
    missing = {name for name in names(Settings) if not re.search(rf"\b{name}\b", SHIPPED)}
    assert missing == set()


def test_what_the_code_holds_by_itself_is_what_the_file_says() -> None:
    """A key that is left out of an own `departments` world, or of a test, means the same."""
    settings = load({})
    for name, field in Settings.model_fields.items():
        if field.is_required() or name in ("routing", "limits", "sla"):
            continue
        assert getattr(settings, name) == field.get_default(call_default_factory=True), name
    assert settings.sla.warn_at == type(settings.sla)().warn_at
    assert settings.sla.resolution["default"] == type(settings.sla)().resolution["default"]


def test_the_texts_have_no_hole_that_nothing_fills() -> None:
    settings = load({})
    holes = {"number": "S-1", "department": "d", "link": "l", "insurer": "i"}
    for texts in (settings.texts.acknowledgement, settings.texts.care, settings.texts.subject):
        assert set(texts) == {"zh", "en"}
        for text in texts.values():
            assert "{" not in text.format(**holes)


# --- unknown keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wbe: {}", "wbe is no setting. Did you mean web?"),
        ("web: {prot: 1}", "web.prot is no setting. Did you mean port?"),
        ("mail: {mailboxes: [{host: h, user: u, fodler: x}]}", "0.fodler is no setting. Did you mean folder?"),
        ("routing: {rules: [{name: a, wen: {}}]}", "routing.rules.0.wen is no setting. Did you mean when?"),
        ("departments: {triage: {zh: a, en: b, fr: c}}", "departments.triage.fr is no setting"),
        ("web: {port: high}", "web.port"),
        ("sla: {first_response: soon}", "'soon' is not a duration"),
        ("departments: {claims: {zh: a, en: b}}", "there must be a department named triage"),
        ("intents: {praise: {department: claim}}", "names 'claim', which is no department. Did you mean claims?"),
        ("- a list", "must hold keys"),
        ("a: [", "is no YAML in line"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_was_meant(own: Any, text: str, words: str) -> None:
    assert words in refused(own(text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in refused({"SLUICE_CONFIG": str(tmp_path / "no.yaml")})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SLUICE_WEB__PROT", "Did you mean SLUICE_WEB__PORT?"),
        ("SLUICE_WBE__PORT", "Did you mean SLUICE_WEB__PORT?"),
        ("SLUICE_WEB__PORT__MORE", "names no setting"),
        ("SLUICE_MAIL__MAILBOXES__X__HOST", "names no setting"),
        ("SLUICE_MAIL__MAILBOXES__5__HOST", "no place in that list"),
        ("SLUICE_NONSENSE_FILE", "names no setting"),
    ],
)
def test_a_variable_that_names_no_setting_is_refused(name: str, words: str) -> None:
    assert words in refused({name: "1"})


# --- the environment --------------------------------------------------------------------------------------------------


def test_the_environment_wins(own: Any, tmp_path: Path) -> None:
    settings = load(
        own("web: {port: 1, host: 0.0.0.0}")
        | {
            "SLUICE_STATE_DIR": str(tmp_path / "x"),
            "SLUICE_WEB__PORT": "9000",
            "SLUICE_WEB__CHAT__ORIGINS": "[https://a.example, https://b.example]",
            "SLUICE_MAIL__FROM_ADDRESS": "us@example.com",
            "SLUICE_MAIL__MAILBOXES__0__HOST": "imap.example.com",
            "SLUICE_MAIL__MAILBOXES__0__USER": "us@example.com",
            "SLUICE_MAIL__MAILBOXES__0__PASSWORD": "[odd, one",
            "SLUICE_MAIL__MAILBOXES__1__HOST": "b.example.com",
            "SLUICE_MAIL__MAILBOXES__1__USER": "b@example.com",
            "SLUICE_MAIL__SMTP__HOST": "smtp.example.com",
            "SLUICE_SLA__RESOLUTION__CLAIMS__URGENT": "1h",
            "SLUICE_RETENTION__RAW": "null",
            "SLUICE_ROUTING__RULES": "[]",
            "SLUICE_DEPARTMENTS__CLAIMS__EN": "Claims desk",
            "PATH": "/bin",
        }
    )
    assert (settings.web.port, settings.web.host) == (9000, "0.0.0.0")
    assert settings.web.chat.origins == ["https://a.example", "https://b.example"]
    assert [box.host for box in settings.mail.mailboxes] == ["imap.example.com", "b.example.com"]
    password = settings.mail.mailboxes[0].password
    assert password is not None
    assert password.get_secret_value() == "[odd, one"
    assert settings.mail.smtp is not None
    assert settings.mail.smtp.port == 587
    assert settings.sla.resolution["claims"][Priority.URGENT] == timedelta(hours=1)
    assert settings.retention.raw is None
    assert settings.routing.rules == []
    assert settings.departments["claims"].en == "Claims desk"
    assert settings.database_url == f"sqlite:///{tmp_path / 'x' / 'sluice.db'}"


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
    settings = load(
        {"SLUICE_WEB__METRICS_TOKEN_FILE": str(tmp_path / "secret"), "SLUICE_DATABASE__URL_FILE": str(tmp_path / "url")}
    )
    assert settings.web.metrics_token == "from a file"
    assert settings.database_url == "postgresql://u:p@h/d"
    assert "cannot be read" in refused({"SLUICE_WEB__SECRET_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("web: {metrics_token: SECRETWORD}", "SLUICE_WEB__METRICS_TOKEN"),
        ("web: {secret: SECRETWORD}", "SLUICE_WEB__SECRET"),
        ("mail: {mailboxes: [{host: h, user: u, password: SECRETWORD}]}", "SLUICE_MAIL__MAILBOXES__0__PASSWORD"),
        ("mail: {smtp: {host: h, token: SECRETWORD}}", "SLUICE_MAIL__SMTP__TOKEN"),
        ("database: {url: 'postgresql://u:SECRETWORD@h/d'}", "SLUICE_DATABASE__URL"),
        ("queue: {url: 'redis://:SECRETWORD@h/0'}", "SLUICE_QUEUE__URL"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(own: Any, text: str, variable: str) -> None:
    words = refused(own(text))
    assert f"{variable} or {variable}_FILE" in words
    assert "SECRETWORD" not in words


def test_a_wrong_value_is_not_repeated() -> None:
    assert "SECRETWORD" not in refused({"SLUICE_WEB__PORT": "SECRETWORD"})


# --- an own file ------------------------------------------------------------------------------------------------------


def test_an_own_file_says_only_what_differs(own: Any, tmp_path: Path) -> None:
    settings = load(own("state_dir: data\nweb: {port: 9000}\nlimits: {public_domains: [x.example]}\n"))
    shipped = load({})
    assert settings.web == shipped.web.model_copy(update={"port": 9000})
    assert settings.limits.public_domains == ["x.example"]
    assert settings.texts == shipped.texts
    assert settings.state_dir == tmp_path / "data"
    empty = load(own(""))
    assert empty.model_copy(update={"state_dir": shipped.state_dir}) == shipped


def test_own_departments_and_intents_replace_the_shipped_ones(own: Any) -> None:
    settings = load(
        own(
            "departments: {triage: {zh: 分拣, en: Triage}, motor: {zh: 车险, en: Motor}}\n"
            "intents: {crash: {department: motor}}\nrouting: {rules: []}\n"
        )
    )
    assert list(settings.departments) == ["triage", "motor"]
    assert settings.taxonomy.owner("crash") == "motor"
    assert settings.taxonomy.owner("claim_status") == "triage"
    assert settings.taxonomy.labels["crash"] == ("crash", "crash")
