"""`train`, `evaluate` and `models`: from people's labels to a model in use, and back, on a small set of texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection

import bot
import bot_models
from nlu.bundle import MAIN, packed
from nlu.commands import train
from nlu.embedded import EmbeddedTagger
from nlu.frozen import LEAST_CONFIRMED
from settings import Settings
from storage import labels, messages, models
from storage.database import Database
from storage.tables import Event
from tests.reading import rows
from tests.test_nlu_frozen import small_data
from tests.worlds import message

Run = Callable[..., Result]


@pytest.fixture
def run(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command over the database and a small folder of examples."""
    monkeypatch.setenv("SLUICE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SLUICE_DATABASE__URL", database.url.render_as_string(hide_password=False))
    monkeypatch.setattr(bot_models, "_DATA", small_data(tmp_path / "data"))

    def call(*words: str | Path, status: int = 0) -> Result:
        result = CliRunner().invoke(bot.main, [str(word) for word in words])
        assert result.exit_code == status, (words, result.output, result.exception)
        return result

    return call


def label(database: Database, count: int) -> None:
    """People say what messages were about."""

    def unit(connection: Connection) -> None:
        stored = messages.store(connection, [message(f"where is my claim money {number}") for number in range(count)])
        for each in stored:
            labels.add(
                connection, message_id=each.message_id, ticket_id=None, person="li", at=datetime.now(UTC),
                intent="claim_status", department="claims", sentiment="neutral", said={},
            )  # fmt: skip

    database.submit(unit).result()


def listed(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("models", "--json").stdout)
    return found


def bad_model(database: Database, settings: Settings, tmp_path: Path) -> str:
    """A candidate that takes claims for problems with the app, and the other way round."""
    folder = small_data(tmp_path / "wrong")
    for file in folder.rglob("*.yml"):
        text = file.read_text().replace("claim_status", "x").replace("app_problem", "claim_status")
        file.write_text(text.replace("intent: x", "intent: app_problem"))
    (tmp_path / "made").mkdir()
    train(folder, settings.taxonomy, tmp_path / "made" / MAIN)
    version = EmbeddedTagger.load(tmp_path / "made" / MAIN).version
    report = {"labels": {"learned": []}, "certificates": {}, "comparison": {"difference": 0.0, "in_use": "x"}}
    content = packed(tmp_path / "made")
    database.submit(
        lambda connection: models.add(connection, version, content, report, datetime.now(UTC), "command")
    ).result()
    return version


def test_from_labels_to_a_model_in_use_and_back(
    run: Run, database: Database, settings: Settings, tmp_path: Path
) -> None:
    label(database, LEAST_CONFIRMED + 5)
    said = run("train").stdout
    assert "people's labels" in said
    assert "90 % interval of the difference" in said
    candidate, shipped = listed(run)
    version = candidate["version"]
    assert (candidate["state"], candidate["in_use"]) == ("candidate", False)
    assert (shipped["state"], shipped["in_use"]) == ("shipped", True)
    assert len(candidate["labels"]["learned"]) <= 5
    assert candidate["labels"]["held_out"] == LEAST_CONFIRMED
    certificate = candidate["certificates"]["en"]
    assert (certificate["kind"], certificate["n"], certificate["model"]) == ("confirmed", LEAST_CONFIRMED, version)
    assert f"confirmed, n {LEAST_CONFIRMED}" in run("models").stdout
    assert "no random draw" in run("models").stdout

    assert "Workers follow" in run("models", "promote", version).stdout
    assert [(each["state"], each["in_use"]) for each in listed(run)] == [("promoted", True), ("shipped", False)]
    assert json.loads(run("evaluate", "--json").stdout)["model"] == version
    assert "in use already" in run("models", "promote", version, status=1).output

    worse = bad_model(database, settings, tmp_path)
    refused = run("models", "promote", worse, status=1)
    assert "is not promoted, it is worse: department accuracy -" in refused.stderr
    assert "people's labels -100.0% (0 instead of 300 of 300 right)" in refused.stderr
    assert json.loads(run("evaluate", "--json").stdout)["model"] == version
    run("models", "promote", worse, "--force")
    assert json.loads(run("evaluate", "--json").stdout)["model"] == worse

    assert version in run("models", "rollback").stdout
    assert json.loads(run("evaluate", "--json").stdout)["model"] == version
    assert "The shipped model" in run("models", "rollback").stdout
    assert json.loads(run("evaluate", "--json").stdout)["model"] == shipped["version"]
    assert "none before it" in run("models", "rollback", status=1).output

    trail = [(row.kind, row.data["model"]) for row in rows(database, Event) if row.kind.startswith("model_")]
    assert trail == [
        ("model_trained", version), ("model_promoted", version), ("model_trained", worse), ("model_promoted", worse),
        ("model_rolled_back", version), ("model_rolled_back", None),
    ]  # fmt: skip
    forced = rows(database, Event, kind="model_promoted")[1].data
    assert forced["before"] == version
    assert any("people's labels" in reason for reason in forced["against"])


def test_what_a_model_has_learned_does_not_measure_it(run: Run, database: Database) -> None:
    """Labels that were learned while there were few are held out once there are enough for a certificate."""
    label(database, 40)
    run("train")
    [first, _] = listed(run)
    learned = len(first["labels"]["learned"])
    run("models", "promote", first["version"])
    label(database, LEAST_CONFIRMED)
    run("train")
    [second, _, _] = listed(run)
    assert second["labels"]["held_out"] >= LEAST_CONFIRMED
    compared = second["comparison"]["parts"]["people's labels"]["n"]
    assert second["labels"]["held_out"] - learned <= compared <= second["labels"]["held_out"]


def test_the_same_labels_give_the_same_model(run: Run, database: Database) -> None:
    label(database, 10)
    run("train")
    [first, _] = listed(run)
    run("train")
    [second, _] = listed(run)
    assert second["version"] == first["version"]
    run("models", "promote", first["version"])
    assert "This model is promoted" in run("train").stdout


def test_an_unknown_model_is_one_clear_line(run: Run) -> None:
    assert "There is no model 'x'" in run("models", "promote", "x", status=1).stderr
    assert "There is no model 'x'" in run("evaluate", "--model", "x", status=1).stderr
    run("models", "promote", status=2)


def test_a_model_that_the_settings_name_is_not_promoted_over(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_NLU__MODEL", str(settings.model_path))
    assert "nlu.model names" in run("models", "promote", "x", status=1).stderr
    assert "nlu.model names" in run("models", "rollback", status=1).stderr
    assert "nlu.model of the settings names it" in run("models").stdout


def test_a_file_may_be_trained_instead(run: Run, tmp_path: Path) -> None:
    run("train", "--output", tmp_path / "own.npz")
    assert EmbeddedTagger.load(tmp_path / "own.npz").version
    assert [each["state"] for each in listed(run)] == ["shipped"]


def test_an_evaluation_is_a_table_json_and_pictures(run: Run, tmp_path: Path) -> None:
    report = json.loads(run("evaluate", "--json").stdout)
    assert report.keys() >= {"model", "languages", "channels", "departments", "note"}
    assert report["departments"]["all"]["n"] == report["languages"]["en"]["n"] == 36
    assert report["departments"]["claims"]["n"] == 12
    table = run("evaluate", "--by", "department").stdout
    assert {"claims", "digital_support", "triage", "all"} <= set(table.splitlines()[1].split())
    run("evaluate", "--pictures", tmp_path / "pictures")
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [each.name for each in pictures] == ["confusion.png", "coverage.png", "reliability.png"]
    first = [each.read_bytes() for each in pictures]
    assert all(each.startswith(b"\x89PNG") for each in first)
    run("evaluate", "--pictures", tmp_path / "pictures")
    assert [each.read_bytes() for each in pictures] == first
