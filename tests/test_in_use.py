"""The model in use: a promotion is followed by running workers, and nothing that goes wrong with it stops them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection

import app
import checks
from domain import Language, SettingsError, Tags
from nlu import Text
from nlu.bundle import MAIN, packed
from nlu.certificate import Certificate
from nlu.train import train
from router import in_use
from router.in_use import LOOK_EVERY, FollowingTagger
from settings import Settings
from storage import models, schema
from storage.database import Database
from tests.reading import incoming
from tests.test_nlu_support import DATE, QUICK, dev, examples
from tests.worlds import message


def certificate(threshold: float, model: str) -> Certificate:
    return Certificate(
        n=400, accepted=300, threshold=threshold, bound=0.04, delta=0.1, max_misroute=0.05, date=DATE, model=model,
        kind="confirmed",
    )  # fmt: skip


@dataclass
class Named:
    """A tagger that says its name."""

    version: str
    certificates: dict[str, Certificate] = field(default_factory=dict)

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        return [Tags(intent="praise", confidence=0.9, department="sales", model=self.version) for _ in texts]


def named(path: Path | None) -> Named:
    """What a stored model's file says is its name; `broken` cannot be loaded."""
    name = path.read_text() if path else "shipped"
    if name == "broken":
        raise SettingsError("not a model of this program")
    return Named(name, {"en": certificate(0.5 if path else 0.9, name)})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text looks for a promotion."""
    monkeypatch.setattr(in_use, "LOOK_EVERY", 0.0)


def bundle(tmp_path: Path, content: bytes) -> bytes:
    folder = tmp_path / "bundle"
    folder.mkdir(exist_ok=True)
    (folder / MAIN).write_bytes(content)
    return packed(folder)


def promote(database: Database, version: str, content: bytes) -> None:
    now = datetime.now(UTC)

    def unit(connection: Connection) -> None:
        models.add(connection, version, content, {}, now, "command")
        models.promote(connection, version, now, "command", instead_of=models.in_use(connection))

    database.submit(unit).result()


def roll_back(database: Database) -> None:
    database.submit(lambda connection: models.roll_back(connection, datetime.now(UTC), "command")).result()


def said_by(tagger: FollowingTagger) -> str:
    return tagger.tag([Text("x")])[0].model


@pytest.mark.usefixtures("at_once")
def test_a_promotion_and_a_rollback_are_followed(database: Database, tmp_path: Path) -> None:
    tagger = FollowingTagger(database, named)
    assert said_by(tagger) == "shipped"
    promote(database, "a", bundle(tmp_path, b"a"))
    assert said_by(tagger) == "a"
    promote(database, "b", bundle(tmp_path, b"b"))
    assert said_by(tagger) == "b"
    assert FollowingTagger(database, named).version == "b", "a process that starts later begins with it"
    roll_back(database)
    assert said_by(tagger) == "a"
    roll_back(database)
    assert said_by(tagger) == "shipped"


@pytest.mark.usefixtures("at_once")
def test_a_message_is_held_to_the_certificate_of_what_tagged_it(database: Database, tmp_path: Path) -> None:
    tagger = FollowingTagger(database, named)
    said_by(tagger)
    promote(database, "a", bundle(tmp_path, b"a"))
    said_by(tagger)
    assert tagger.certificates["en"].threshold == 0.5
    assert tagger.certificates_of("shipped")["en"].threshold == 0.9
    assert tagger.certificates_of("never seen")["en"].threshold == 0.5


def test_a_look_is_one_small_read_every_five_seconds(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice that is promised, so that a busy worker has time to take over a model."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asked: list[str | None] = []
    real = models.in_use

    def asking(connection: Connection) -> str | None:
        asked.append(real(connection))
        return asked[-1]

    monkeypatch.setattr(models, "in_use", asking)
    tagger = FollowingTagger(database, named)
    for _ in range(3):
        said_by(tagger)
    assert len(asked) == 1
    promote(database, "a", bundle(tmp_path, b"a"))
    asked.clear()  # the promotion itself asks too
    now[0] += LOOK_EVERY - 0.1
    assert said_by(tagger) == "shipped"
    assert asked == []
    now[0] += 0.2
    assert said_by(tagger) == "a"
    assert len(asked) == 1
    assert LOOK_EVERY <= 5.0


@pytest.mark.usefixtures("at_once")
def test_a_model_that_cannot_be_loaded_leaves_the_one_before(database: Database, tmp_path: Path) -> None:
    loads = []

    def load(path: Path | None) -> Named:
        loads.append(path)
        return named(path)

    tagger = FollowingTagger(database, load)
    promote(database, "a", bundle(tmp_path, b"a"))
    assert said_by(tagger) == "a"
    promote(database, "b", bundle(tmp_path, b"broken"))
    assert [said_by(tagger) for _ in range(3)] == ["a"] * 3
    assert "not a model" in tagger.problem
    assert len(loads) == 2, "it is not fetched again and again"
    promote(database, "c", b"no bundle at all")
    assert said_by(tagger) == "a"
    promote(database, "d", bundle(tmp_path, b"d"))
    assert said_by(tagger) == "d"
    assert tagger.problem == ""


@pytest.mark.usefixtures("at_once")
def test_without_a_database_the_tagger_goes_on(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    tagger = FollowingTagger(database, named)
    assert said_by(tagger) == "shipped", "there is not even a schema"
    schema.migrate(database)
    promote(database, "a", bundle(tmp_path, b"a"))
    assert said_by(tagger) == "a"
    with database.migration_engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE model RENAME TO away")
    assert said_by(tagger) == "a"
    database.close()


@pytest.mark.usefixtures("at_once")
def test_while_a_model_is_loaded_others_are_tagged_by_the_one_before(database: Database, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(path: Path | None) -> Named:
        if path:
            begun.set()
            assert go_on.wait(20)
        return named(path)

    tagger = FollowingTagger(database, slowly)
    assert said_by(tagger) == "shipped"
    promote(database, "a", bundle(tmp_path, b"a"))
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(said_by(tagger)))
    thread.start()
    assert begun.wait(20)
    assert said_by(tagger) == "shipped"
    go_on.set()
    thread.join(20)
    assert found == ["a"]


# --- with the application's parts -------------------------------------------------------------------------------------


def small_model(tmp_path: Path, settings: Settings) -> tuple[str, bytes]:
    """(version, bundle) of a real model, with a threshold for English that any message passes."""
    made = train(examples()[:: len(examples()) // 300], settings.taxonomy, dev=dev()[:100], date=DATE, settings=QUICK)
    made = made.with_certificates({"en": certificate(0.0, made.meta.version)})
    folder = tmp_path / "small"
    folder.mkdir()
    made.save(folder / MAIN)
    return made.meta.version, packed(folder)


@pytest.mark.usefixtures("at_once")
async def test_a_running_worker_takes_the_promoted_model_and_its_threshold(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    routing = settings.routing.model_copy(update={"threshold": None})
    where = settings.database.model_copy(update={"url": database.url.render_as_string(hide_password=False)})
    settings = settings.model_copy(update={"database": where, "routing": routing})
    version, content = small_model(tmp_path, settings)
    built = app.build(settings, roles=("worker",), serving=False)
    shipped = built.tagger.version

    async def tagged_by() -> tuple[str, float | None]:
        [stored] = await built.flow.receive([message("Where is the money of my claim?")])
        await built.flow.process([stored.message_id])
        tags = incoming(database, stored.message_id).tags
        return tags["model"], built.desk.rules.threshold(Language.EN, tags["model"]).confidence

    try:
        before = await tagged_by()
        assert before[0] == shipped != version
        assert before[1] != 0.0
        promote(database, version, content)
        assert await tagged_by() == (version, 0.0)
        roll_back(database)
        assert await tagged_by() == before
    finally:
        await built.close()


def test_a_model_that_the_settings_name_stays_whatever_is_promoted(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    promote(database, "a", bundle(tmp_path, b"broken"))
    pinned = settings.nlu.model_copy(update={"model": str(settings.model_path)})
    own = settings.model_copy(update={"nlu": pinned})
    assert app.LazyTagger(own, database).version == app.LazyTagger(settings).version


async def test_check_tells_of_a_promoted_model_that_cannot_be_loaded(settings: Settings, tmp_path: Path) -> None:
    database = Database(settings.database_url)
    schema.migrate(database)
    promote(database, "a", bundle(tmp_path, b"broken"))
    database.close()
    [line] = [line for line in await checks.check(settings) if line.name == "model"]
    assert not line.ok
    assert "promoted model a cannot be loaded" in line.detail
    assert "models rollback" in line.detail
