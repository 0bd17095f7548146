"""Workers in processes of their own follow a promotion and a rollback, made by the commands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from nlu.bundle import MAIN, packed
from nlu.train import train
from settings import Settings
from storage import models
from storage.database import Database
from tests.processes import Deployment, until
from tests.reading import incoming
from tests.test_nlu_support import DATE, QUICK, dev, examples

#: seconds; promised
_FOLLOWED = 10.0


def candidate(database: Database, settings: Settings, folder: Path) -> str:
    """Keep a model of a few examples; its version."""
    made = train(examples()[:: len(examples()) // 600], settings.taxonomy, dev=dev()[:100], date=DATE, settings=QUICK)
    folder.mkdir()
    made.save(folder / MAIN)
    content, version = packed(folder), made.meta.version
    report: dict[str, Any] = {"labels": {"learned": []}, "certificates": {}, "comparison": {}}
    database.submit(
        lambda connection: models.add(connection, version, content, report, datetime.now(UTC), "command")
    ).result()
    return version


def test_busy_workers_follow_a_promotion_and_a_rollback_within_ten_seconds(
    database_url: str, settings: Settings, tmp_path: Path
) -> None:
    world = Deployment(tmp_path / "state", {"SLUICE_DATABASE__URL": database_url})
    world.command("migrate")
    shipped = json.loads(world.command("models", "--json"))[0]["version"]
    database = Database(database_url)
    version = candidate(database, settings, tmp_path / "made")
    bearer = {"Authorization": f"Bearer {world.token('follow', 'channel')}"}
    numbers = count(1)

    with world.process("web") as web, world.process("worker"):

        def said() -> str:
            """The model that tags a new message."""
            body = {"external_id": f"m{next(numbers)}", "sender": "li@example.com", "text": "Where is my money?"}
            answer = httpx.post(f"{web.url}/api/v1/messages", json=body, headers=bearer).raise_for_status()
            message_id = int(answer.json()["message_id"])
            tags = until(lambda: incoming(database, message_id).tags, "its tags")
            return str(tags["model"])

        assert said() == shipped
        world.command("models", "promote", version, "--force")
        until(lambda: said() == version, "the promoted model", _FOLLOWED)
        world.command("models", "rollback")
        until(lambda: said() == shipped, "the shipped model again", _FOLLOWED)
    database.close()
