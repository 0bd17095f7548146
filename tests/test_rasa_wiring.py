"""The settings choose the engine; /readyz and `check` name its server when it is down."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import app
import checks
from domain import SettingsError
from nlu import Text
from nlu.rasa import RasaTagger
from serve import web_of
from settings import load
from storage import schema
from storage.database import Database
from tests.api_world import serving
from tests.rasa_server import ANSWERS
from tests.server_base import HOST, free_port
from tests.worlds import make_world

RECORDED = json.loads(ANSWERS.read_text("utf-8"))


class _Playback(BaseHTTPRequestHandler):
    """What the real server answered, over real HTTP."""

    protocol_version = "HTTP/1.1"

    def _say(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._say(RECORDED["status"])

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        self._say(RECORDED["parse"].get(text, next(iter(RECORDED["parse"].values()))))

    def log_message(self, format: str, *args: object) -> None:
        """Not on the terminal."""


@pytest.fixture
def playback() -> Iterator[str]:
    """URL of the playback."""
    with ThreadingHTTPServer((HOST, 0), _Playback) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"SLUICE_STATE_DIR": str(tmp_path / "state"), "SLUICE_NLU__ENGINE": "rasa"}


def test_by_default_there_is_no_rasa() -> None:
    assert app.LazyTagger(load({})).rasa is None


def test_the_engine_is_the_settings_one(environment: dict[str, str], playback: str) -> None:
    tagger = app.LazyTagger(load(environment | {"SLUICE_NLU__RASA__URL": playback}))
    try:
        assert isinstance(tagger.loaded, RasaTagger)
        first, second = tagger.tag([Text("where is my claim? it has been two weeks"), Text("hello")])
        assert (first.intent, first.engine, first.language) == ("claim_status", "rasa", "en")
        assert second.model == tagger.version == "rasa:small-" + RECORDED["status"]["model_id"][:8]
        assert tagger.certificates == {}
    finally:
        tagger.close()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SLUICE_NLU__ENGINE", "diet", "nlu.engine"),
        ("SLUICE_NLU__RASA__URL", "rasa.example.com:5005", "http://host:port"),
        ("SLUICE_NLU__RASA__TIMEOUT", "1m", "at most 10 s"),
        ("SLUICE_NLU__RASA__TIMEOUT", "0s", "more than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load({name: value})


def test_the_token_is_no_thing_for_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("nlu: {rasa: {token: abc}}")
    with pytest.raises(SettingsError, match="SLUICE_NLU__RASA__TOKEN"):
        load({"SLUICE_CONFIG": str(file)})
    assert load({"SLUICE_NLU__RASA__TOKEN": "abc"}).nlu.rasa.token == "abc"


async def test_readyz_names_the_server_that_is_down(tmp_path: Path, environment: dict[str, str], playback: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'small.db'}")
    schema.migrate(database)
    for url, down in ((playback, []), (f"http://{HOST}:{free_port()}", ["nlu"])):
        settings = load(environment | {"SLUICE_NLU__RASA__URL": url})
        built = app.build(settings, roles=("web",))
        async with serving(make_world(database, settings), {}) as api:
            api.web.nlu = web_of(built).nlu
            async with api.client() as client:
                answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["down"]) == (200, down)
        assert ("the embedded tagger stands in" in answer.json()["parts"]["nlu"]["detail"]) == bool(down)
        await built.close()
    database.close()


async def test_check_has_a_line_for_it(environment: dict[str, str], playback: str) -> None:
    for url, ok in ((playback, True), (f"http://{HOST}:{free_port()}", False)):
        lines = await checks.check(load(environment | {"SLUICE_NLU__RASA__URL": url}))
        (line,) = (each for each in lines if each.name == "nlu")
        assert line.ok == ok
        assert url in line.detail
        assert ok or "make rasa" in line.detail
    assert not [
        each
        for each in await checks.check(load({**environment, "SLUICE_NLU__ENGINE": "embedded"}))
        if each.name == "nlu"
    ]
