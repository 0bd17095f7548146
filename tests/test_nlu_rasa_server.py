"""The Rasa engine against a real Rasa server, trained here. Only `make test-rasa` runs this."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from domain import Tags
from nlu import Text
from nlu.commands import trained_on
from nlu.rasa import RasaServer as Client
from nlu.rasa import RasaTagger
from settings import Settings
from tests.rasa_server import ANSWERS, DATA, RASA, TEXTS, RasaServer, answers
from tests.worlds import SayingTagger

pytestmark = [pytest.mark.rasa, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server() -> Iterator[RasaServer]:
    with RasaServer() as made:
        yield made


@pytest.fixture
def client(server: RasaServer) -> Iterator[Client]:
    made = Client(server.url, timeout=10)
    yield made
    made.close()


@pytest.fixture
def tagger(client: Client, settings: Settings) -> RasaTagger:
    return RasaTagger(client, fallback=SayingTagger(settings.taxonomy), taxonomy=settings.taxonomy)


def tag(tagger: RasaTagger, *texts: str) -> list[Tags]:
    return tagger.tag([Text(text) for text in texts])


def shape(value: Any) -> Any:
    """Keys and kinds, without what a model says."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_it_answers_as_recorded(server: RasaServer) -> None:
    recorded = json.loads(ANSWERS.read_text("utf-8"))
    found = answers(server.url)
    assert found["version"] == recorded["version"]
    assert shape(found) == shape(recorded)
    assert found["parse"]["/praise@0.99"] == recorded["parse"]["/praise@0.99"]


def test_a_small_model_knows_both_languages(tagger: RasaTagger) -> None:
    found = tag(tagger, *TEXTS[:4])
    assert [tags.intent for tags in found] == ["claim_status", "invoice_request", "claim_status", "policy_cancel"]
    assert {tags.engine for tags in found} == {"rasa"}
    assert all(tags.model.startswith("rasa:small-") for tags in found)
    assert all(0 < tags.confidence <= 1 for tags in found)


@pytest.mark.parametrize("text", ["/praise@0.99", " \u3000//praise", "\x1f/praise"])
def test_a_customer_cannot_command_it(tagger: RasaTagger, text: str) -> None:
    (tags,) = tag(tagger, text)
    assert tags.engine == "rasa"
    assert tags.confidence < 0.99


@pytest.mark.parametrize("text", ["caf\udce9", "\x00", "😀", "a" * 100_000])
def test_strange_texts_get_an_answer(tagger: RasaTagger, text: str) -> None:
    assert tag(tagger, text)[0].engine == "rasa"


def test_it_goes_and_comes_back(server: RasaServer, tagger: RasaTagger, client: Client) -> None:
    assert client.check()[0]
    server.kill()
    found = tag(tagger, *["#praise"] * 4)
    assert [tags.intent for tags in found] == ["praise"] * 4
    assert found[-1].model == "embedded:saying (rasa is down)"
    assert not client.health[0]
    server.start()
    again = Client(server.url, timeout=10)
    assert again.check()[0]
    again.close()


def test_rasa_reads_the_data_as_we_do() -> None:
    """Each example with its metadata: as many of each intent, and none as a part of another."""
    code = (
        "import json, sys, collections\n"
        "from rasa.shared.nlu.training_data.loading import load_data\n"
        "count = collections.Counter()\n"
        "for folder in sys.argv[1:]:\n"
        "    count.update(example.get('intent') for example in load_data(folder).intent_examples)\n"
        "print(json.dumps(count))\n"
    )
    folders = [str(DATA / part) for part in ("zh", "en", "mixed")]
    python = RASA.with_name("python")
    done = subprocess.run([str(python), "-c", code, *folders], check=True, capture_output=True, text=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs == Counter(example.intent for example in trained_on(DATA))
