"""The Rasa engine against what a real server answered, and against all that a server can do wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

import nlu.rasa
from domain import OUT_OF_SCOPE, TRIAGE, Language, Risk, Sentiment, Tags
from nlu import Text
from nlu.certificate import Certificate
from nlu.data import Example
from nlu.evaluate import evaluate
from nlu.features import HEAD, SUBJECT, TAIL
from nlu.rasa import RasaServer, RasaTagger
from router.rules import Facts, Rules, decide
from settings import Settings
from tests.rasa_server import ANSWERS
from tests.server_base import HOST, free_port
from tests.worlds import SayingTagger

RECORDED: dict[str, Any] = json.loads(ANSWERS.read_text("utf-8"))
MODEL = "rasa:small-" + RECORDED["status"]["model_id"][:8]
ZH, _, EN, *_ = RECORDED["parse"]
STANDS_IN = "embedded:saying (rasa did not answer)"
DOWN = "embedded:saying (rasa is down)"
GOOD = {"intent": {"name": "file_claim", "confidence": 0.6}, "intent_ranking": []}

Say = Callable[[str], httpx.Response]


def recorded(text: str) -> httpx.Response:
    return httpx.Response(200, json=RECORDED["parse"].get(text, GOOD))


class Script:
    """A server that gives these answers to texts, one after the other, the last one for ever."""

    def __init__(self, *says: Say | httpx.Response) -> None:
        self._says = list(says or [recorded])
        self.status = httpx.Response(200, json=RECORDED["status"])
        self.asked: list[str] = []
        self.paths: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(f"{request.method} {request.url.raw_path.decode()}")
        if request.url.path.endswith("/status"):
            return self.status
        self.asked.append(json.loads(request.content)["text"])
        say = self._says.pop(0) if len(self._says) > 1 else self._says[0]
        return say if isinstance(say, httpx.Response) else say(self.asked[-1])


def refuse(_text: str) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.fixture
def make(settings: Settings) -> Iterator[Callable[..., tuple[RasaTagger, RasaServer]]]:
    """A tagger over a script, or over a URL."""
    made: list[RasaServer] = []

    def tagger(script: Script | str, **options: Any) -> tuple[RasaTagger, RasaServer]:
        if isinstance(script, str):
            server = RasaServer(script, timeout=0.2)
        else:
            server = RasaServer("http://rasa.test/base", timeout=2, transport=httpx.MockTransport(script))
        made.append(server)
        taxonomy = settings.taxonomy
        return RasaTagger(server, fallback=SayingTagger(taxonomy), taxonomy=taxonomy, **options), server

    yield tagger
    for each in made:
        each.close()


Make = Callable[..., tuple[RasaTagger, RasaServer]]


def tag(tagger: RasaTagger, *texts: str) -> list[Tags]:
    return tagger.tag([Text(text) for text in texts])


# --- good answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "intent", "language"), [(ZH, "claim_status", "zh"), (EN, "claim_status", "en")])
def test_intent_and_confidence_are_rasas_all_else_the_embedded_taggers(
    make: Make, settings: Settings, text: str, intent: str, language: str
) -> None:
    script = Script(httpx.Response(200, json=RECORDED["parse"][text]))
    tagger, _server = make(script)
    (tags,) = tag(tagger, f"{text} #praise #negative #legal")
    ranking = {each["name"]: each["confidence"] for each in RECORDED["parse"][text]["intent_ranking"]}
    owned = sum(share for name, share in ranking.items() if settings.taxonomy.owner(name) == "claims")
    assert (tags.intent, tags.department, tags.engine, tags.model) == (intent, "claims", "rasa", MODEL)
    assert ranking[intent] < tags.confidence == pytest.approx(owned)
    assert [guess.intent for guess in tags.alternatives] == sorted(ranking, key=lambda name: -ranking[name])[1:4]
    assert (tags.sentiment, tags.risk, tags.language) == (Sentiment.NEGATIVE, (Risk.LEGAL,), Language(language))
    assert tags.in_scope
    assert tagger.version == MODEL


def test_the_recorded_rankings_are_whole(settings: Settings) -> None:
    """Else a department's confidence would lack those of its intents that the ranking leaves out."""
    known = {*settings.taxonomy.intents, OUT_OF_SCOPE}
    for text, answer in RECORDED["parse"].items():
        if not text.startswith("/"):
            assert {each["name"] for each in answer["intent_ranking"]} == known, text
            assert sum(each["confidence"] for each in answer["intent_ranking"]) == pytest.approx(1)


def test_answers_come_in_the_order_of_the_texts(make: Make) -> None:
    script = Script()
    texts = [text for text in RECORDED["parse"] if not text.startswith("/")]
    found = [tags.intent for tags in tag(make(script)[0], *texts)]
    assert found == [RECORDED["parse"][text]["intent"]["name"] for text in texts]
    assert script.asked == texts
    assert len(set(found)) > 1


@pytest.mark.parametrize("name", ["nlu_fallback", "not_of_the_taxonomy", None, OUT_OF_SCOPE])
def test_an_intent_that_nobody_owns_is_out_of_scope(make: Make, name: str | None) -> None:
    ranking = [{"name": name, "confidence": 0.3}, {"name": "praise", "confidence": 0.25}]
    answer = {"intent": ranking[0], "intent_ranking": ranking}
    (tags,) = tag(make(Script(httpx.Response(200, json=answer)))[0], "#praise")
    assert (tags.intent, tags.department, tags.in_scope) == (OUT_OF_SCOPE, TRIAGE, False)
    assert tags.confidence == pytest.approx(0.3)
    assert [guess.intent for guess in tags.alternatives] == ["praise"]


@pytest.mark.parametrize(("confidence", "clamped"), [(1.7, 1.0), (-0.2, 0.0)])
def test_confidence_is_a_share_whatever_rasa_says(make: Make, confidence: float, clamped: float) -> None:
    answer = {"intent": {"name": "praise", "confidence": confidence}}
    (tags,) = tag(make(Script(httpx.Response(200, json=answer)))[0], "#praise")
    assert (tags.intent, tags.confidence) == ("praise", clamped)


def test_what_the_embedded_tagger_holds_out_of_scope_stays_so(make: Make) -> None:
    (tags,) = tag(make(Script())[0], EN)
    assert tags.intent == "claim_status"
    assert not tags.in_scope


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["/praise@0.99", " \u3000/ //praise@0.99", "\x1f/\u2028/praise@0.99"])
def test_a_customer_cannot_command_rasa(make: Make, text: str) -> None:
    # What Rasa does with such a text, by the record:
    assert RECORDED["parse"]["/praise@0.99"]["intent"] == {"name": "praise", "confidence": 0.99}
    script = Script()
    tag(make(script)[0], text)
    assert script.asked == ["praise@0.99"]
    tagger, _server = make(script)
    tagger.tag([Text("/praise", subject="/praise")])
    assert script.asked[-1] == "praise\n/praise"


@pytest.mark.parametrize("text", ["", "  \n", "///", "\u3000"])
def test_a_text_without_anything_is_not_asked_for(make: Make, text: str) -> None:
    script = Script()
    tagger, server = make(script)
    (tags,) = tag(tagger, text)
    assert tags.model == "embedded:saying (nothing to ask)"
    assert script.paths == []
    assert server.health[0]


def test_a_long_or_strange_text_is_cut_and_cleaned(make: Make) -> None:
    script = Script()
    tagger, _server = make(script)
    long = "a" * HEAD + "b" * 100_000 + "c" * TAIL
    tagger.tag([Text(long, subject="s" * 1000), Text("caf\udce9 \x00")])
    assert script.asked == ["s" * SUBJECT + "\n" + "a" * HEAD + "\n" + "c" * TAIL, "caf? \x00"]


def test_the_token_goes_with_each_request(settings: Settings) -> None:
    script = Script()
    server = RasaServer("http://rasa.test", timeout=2, token="s3", transport=httpx.MockTransport(script))
    assert server.check() == (True, MODEL)
    assert script.paths == ["POST /model/parse?token=s3", "GET /status?token=s3"]
    server.close()


# --- bad answers ------------------------------------------------------------------------------------------------------

HTML = httpx.Response(200, html="<html><body>It works!</body></html>")
#: no try may mend these
STRANGE = {
    "html": HTML,
    "empty": httpx.Response(200, content=b""),
    "list": httpx.Response(200, json=[]),
    "no keys": httpx.Response(200, json={}),
    "no intent": httpx.Response(200, json={"intent": None, "intent_ranking": []}),
    "no confidence": httpx.Response(200, json={"intent": {"name": "praise"}}),
    "nan": httpx.Response(200, content=b'{"intent": {"name": "praise", "confidence": NaN}}'),
    "ranking": httpx.Response(200, json=GOOD | {"intent_ranking": "praise"}),
    "luis": httpx.Response(200, json={"prediction": {"topIntent": "praise"}}),
    "bytes": httpx.Response(200, content=b"\xff\xfe\x00"),
    "moved": httpx.Response(302, headers={"Location": "http://elsewhere.test/"}),
    "token": httpx.Response(401, json={}),
    "conflict": httpx.Response(409, json={}),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_answer_costs_one_text_one_try(make: Make, name: str) -> None:
    script = Script(recorded, STRANGE[name], recorded)
    tagger, server = make(script)
    first, second, third = tag(tagger, "#praise", "#refund_status=0.7", "#praise")
    assert (first.engine, third.engine) == ("rasa", "rasa")
    assert (second.intent, second.confidence, second.engine, second.model) == (
        "refund_status", 0.7, "embedded", STANDS_IN,
    )  # fmt: skip
    assert script.asked == ["#praise", "#refund_status=0.7", "#praise"]
    assert server.health == (True, MODEL)


def test_what_is_wrong_is_said_without_the_customers_words(make: Make) -> None:
    problems = {
        HTML: "something else",
        STRANGE["token"]: "401: the token is wrong",
        STRANGE["conflict"]: "409: no model",
        httpx.Response(500, json=RECORDED["without_text"]): "answers 500",
    }
    for answer, words in problems.items():
        tagger, server = make(Script(answer))
        tag(tagger, "my secret")
        ok, detail = server.health
        assert not ok
        assert words in detail
        assert "secret" not in detail


@pytest.mark.parametrize("bad", [refuse, httpx.Response(500), httpx.Response(503), httpx.Response(502, html="<html>")])
def test_what_passes_is_tried_once_more(make: Make, bad: Say | httpx.Response) -> None:
    script = Script(bad, recorded)
    assert [tags.engine for tags in tag(make(script)[0], "a")] == ["rasa"]
    assert script.asked == ["a", "a"]
    script = Script(bad, bad, recorded)
    assert [tags.model for tags in tag(make(script)[0], "a", "b")] == [STANDS_IN, MODEL]
    assert script.asked == ["a", "a", "b"]


def test_a_server_that_is_not_there(make: Make) -> None:
    tagger, server = make(f"http://{HOST}:{free_port()}")
    assert [tags.model for tags in tag(tagger, "#praise")] == [STANDS_IN]
    assert server.health[1].startswith("cannot be reached: ConnectError")


def test_a_server_that_never_answers(make: Make) -> None:
    with socket.create_server((HOST, 0)) as silent:
        tagger, server = make(f"http://{HOST}:{silent.getsockname()[1]}")
        assert [tags.model for tags in tag(tagger, "#praise")] == [STANDS_IN]
    assert server.health[1].startswith("no answer within 0.2 s")


# --- the breaker ------------------------------------------------------------------------------------------------------


def test_three_texts_in_a_row_without_answer_and_it_is_left_alone(make: Make) -> None:
    script = Script(refuse)
    tagger, server = make(script)
    found = tag(tagger, *["#praise"] * 8)
    assert [tags.model for tags in found] == [STANDS_IN, STANDS_IN, *[DOWN] * 6]
    assert {(tags.intent, tags.engine) for tags in found} == {("praise", "embedded")}
    assert len(script.asked) == 6  # three texts, two tries each
    assert tag(tagger, "#praise")[0].model == DOWN
    assert len(script.asked) == 6
    assert server.down
    assert server.health == (
        False,
        "cannot be reached: ConnectError; the embedded tagger stands in until it answers again",
    )


def test_an_answer_in_between_counts_anew(make: Make) -> None:
    script = Script(HTML, HTML, recorded, HTML, HTML, recorded)
    tagger, server = make(script)
    assert [tags.engine == "rasa" for tags in tag(tagger, *"abcdef")] == [False, False, True, False, False, True]
    assert not server.down


def test_it_comes_back_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlu.rasa, "_REST", 0.0)
    script = Script(*[HTML] * 4, recorded)
    tagger, server = make(script)
    assert [tags.model for tags in tag(tagger, *"abc")] == [STANDS_IN, STANDS_IN, DOWN]
    # After the rest one text is the trial: it fails, and opens the breaker at once. The next trial succeeds.
    assert [tags.model for tags in tag(tagger, "d")] == [DOWN]
    assert not server.health[0]
    assert [tags.model for tags in tag(tagger, "e", "f")] == [MODEL, MODEL]
    assert not server.down
    assert server.health == (True, MODEL)


def test_a_server_that_is_too_slow_for_a_batch_is_down(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlu.rasa, "_PATIENCE", -1.0)
    script = Script()
    tagger, server = make(script)
    assert [tags.model for tags in tag(tagger, *"abc")] == [MODEL, DOWN, DOWN]
    assert script.asked == ["a"]
    assert server.health[1].startswith("too slow")


def test_patience_is_counted_by_batch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many texts come at once, as in `evaluate`."""
    monkeypatch.setattr(nlu.rasa, "_PATIENCE", -1.0)
    monkeypatch.setattr(nlu.rasa, "_BATCH", 1)
    assert {tags.engine for tags in tag(make(Script())[0], *"abc")} == {"rasa"}


# --- health and the model's name --------------------------------------------------------------------------------------


def test_a_look_asks_the_server_itself_but_not_each_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(refuse, recorded)
    _tagger, server = make(script)
    assert server.health == (True, "rasa:unknown")
    assert not server.check()[0]
    assert not server.check()[0]
    assert len(script.asked) == 1  # without a second try: who looks is waiting
    monkeypatch.setattr(nlu.rasa, "_LOOKED", -1.0)
    assert server.check() == (True, MODEL)


def test_a_look_brings_an_idle_server_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlu.rasa, "_REST", 0.0)
    tagger, server = make(Script(HTML, HTML, HTML, recorded))
    tag(tagger, *"abc")
    assert not server.health[0]
    assert server.check() == (True, MODEL)
    assert not server.down


def test_another_model_is_noticed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script()
    tagger, _server = make(script)
    assert [tags.model for tags in tag(tagger, "a", "b")] == [MODEL, MODEL]
    assert script.paths.count("GET /base/status") == 1
    script.status = httpx.Response(200, json={"model_file": "new.tar.gz", "model_id": "0123456789"})
    monkeypatch.setattr(nlu.rasa, "_NAMED", -1.0)
    assert tag(tagger, "a")[0].model == "rasa:new-01234567"
    # A status that cannot be read changes nothing.
    script.status = HTML
    assert tag(tagger, "a")[0].model == "rasa:new-01234567"


# --- nothing is certain without reason (promise P6) -------------------------------------------------------------------


def test_without_certificates_a_person_looks_first(make: Make, settings: Settings) -> None:
    answer = {"intent": {"name": "praise", "confidence": 1.0}}
    tagger, _server = make(Script(httpx.Response(200, json=answer)))
    assert tagger.certificates == {}
    rules = Rules(settings.routing.model_copy(update={"threshold": None}), settings.taxonomy)
    (tags,) = tag(tagger, "#praise")
    assert tags.confidence == 1.0
    assert decide(tags, Facts("", ""), rules).look_first


def test_a_certificate_counts_for_its_model_only(make: Make) -> None:
    certificate = Certificate(
        n=300, accepted=200, threshold=0.8, bound=0.04, delta=0.1, max_misroute=0.05, date="2026-11-22", model=MODEL
    )
    tagger, _server = make(Script(recorded, HTML, recorded), certificates={"en": certificate})
    assert [tags.in_scope for tags in tag(tagger, *["#praise"] * 3)] == [True, False, True]
    other, _server = make(Script(), certificates={"en": replace(certificate, model="rasa:other-01234567")})
    assert [tags.in_scope for tags in tag(other, "#praise")] == [False]


def test_a_report_names_all_who_tagged(make: Make, settings: Settings) -> None:
    examples = [Example(text="#praise", intent="praise")] * 2
    tagger, _server = make(Script(recorded, HTML))
    assert evaluate(tagger, examples, settings.taxonomy).model == f"{STANDS_IN} and {MODEL}"
