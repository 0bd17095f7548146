"""The Rasa engine: intents from a Rasa server over HTTP, all else from the embedded tagger, which also stands in.

Rasa's confidence is not calibrated, so that without certificates of its own nothing is routed without a person
(promise P6). Rasa down, slow or strange stops nothing (promise P5): the embedded tagger reads every text anyway.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import httpx
from pybreaker import STATE_OPEN, CircuitBreaker, CircuitBreakerError
from pydantic import BaseModel, Field, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from domain import OUT_OF_SCOPE, Guess, Tags, Taxonomy
from nlu import Tagger, Text
from nlu.certificate import Certificate
from nlu.features import HEAD, SUBJECT, TAIL

_ALTERNATIVES = 3
_TRIES = 2
#: texts in a row without an answer after which Rasa counts as down, and seconds until it is asked again
_FAILURES, _REST = 3, 30.0
#: seconds that so many texts may take together: a worker's batch, well within the time that it may keep one
_PATIENCE, _BATCH = 20.0, 256
#: seconds for which the name of the loaded model, and a look at the server, are believed
_NAMED, _LOOKED = 60.0, 5.0
#: what `check` asks
_PROBE = "hello"
#: Rasa takes a text that begins with a slash for a command: "/praise@0.99" *is* praise, whoever wrote it.
_COMMAND = re.compile(r"^[\s/]+")
_MEANING = {401: "the token is wrong or missing", 404: "no Rasa server, or its API is off", 409: "no model is loaded"}


class _NoAnswer(Exception):
    """Rasa did not say what it should have said. The text says why, and never quotes a customer."""


class _Passing(_NoAnswer):
    """The next try may succeed."""


class Ranked(BaseModel):
    name: str | None
    confidence: float = Field(allow_inf_nan=False)


class Answer(BaseModel):
    """Of POST /model/parse, as far as it is read. Emulated formats and error pages do not have these keys."""

    intent: Ranked
    intent_ranking: list[Ranked] = []


class _Status(BaseModel):
    """Of GET /status."""

    model_file: str
    model_id: str


_Read = TypeVar("_Read", bound=BaseModel)


class RasaServer:
    """A Rasa server, as it is from here: asked politely, left alone while it is down.

    `url`: where it listens. `timeout`: seconds for one answer. `token`: its `--auth-token`. `transport`: for tests.
    Safe in several threads, which take turns: a Rasa server reads one text at a time. Nothing here raises because of
    what a server does.
    """

    def __init__(
        self, url: str, *, timeout: float, token: str = "", transport: httpx.BaseTransport | None = None
    ) -> None:
        self._timeout = timeout
        # A transport of its own, so that customers' words do not go through a proxy that the environment names.
        self._client = httpx.Client(
            base_url=url,
            timeout=timeout,
            params={"token": token} if token else None,
            transport=transport or httpx.HTTPTransport(),
        )
        self._breaker = CircuitBreaker(fail_max=_FAILURES, reset_timeout=_REST, throw_new_error_on_trip=False)
        self._retrying = Retrying(
            stop=stop_after_attempt(_TRIES),
            wait=wait_random(0.05, 0.2),
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        )
        self._looking = threading.Lock()
        self._looked = self._named = float("-inf")
        self._problem = ""
        #: the model that it has loaded, as last heard
        self.model = "rasa:unknown"

    def close(self) -> None:
        self._client.close()

    @property
    def down(self) -> bool:
        """It did not answer several times in a row, and is asked again only after a rest."""
        return bool(self._breaker.current_state == STATE_OPEN)

    @property
    def health(self) -> tuple[bool, str]:
        """(works, in words), as far as it is known: asks nobody."""
        if self._problem:
            return False, f"{self._problem}; the embedded tagger stands in until it answers again"
        return True, self.model

    def check(self) -> tuple[bool, str]:
        """`health`, after a look at the server where none was taken for some seconds."""
        if self._looking.acquire(blocking=False):  # who comes while another one looks gets what is known
            try:
                if time.monotonic() - self._looked > _LOOKED:
                    self._guarded(self._parse, _PROBE)
                    self._looked = time.monotonic()
            finally:
                self._looking.release()
        return self.health

    def parse(self, text: str) -> Answer | None:
        """What it says of a text; None where it is down, or has no good answer to this text."""
        return self._guarded(self._retried, text)

    def rest(self, problem: str) -> None:
        """Count it as down."""
        self._problem = problem
        self._breaker.open()

    def _guarded(self, call: Callable[[str], Answer], text: str) -> Answer | None:
        try:
            answer = self._breaker.call(call, text)
        except CircuitBreakerError:
            return None
        except _NoAnswer as error:
            self._problem = str(error)
            return None
        self._problem = ""
        self._name()
        return answer

    def _retried(self, text: str) -> Answer:
        return self._retrying(self._parse, text)

    def _parse(self, text: str) -> Answer:
        return self._ask(Answer, "POST", "/model/parse", {"text": text})

    def _name(self) -> None:
        """Ask which model is loaded, now and then: the server may have got another one."""
        if time.monotonic() - self._named < _NAMED:
            return
        try:
            status = self._ask(_Status, "GET", "/status")
        except _NoAnswer:
            return  # it has just answered a text: after the next one it is asked again
        self._named = time.monotonic()
        self.model = f"rasa:{status.model_file.removesuffix('.tar.gz')}-{status.model_id[:8]}"

    def _ask(self, kind: type[_Read], method: str, path: str, body: Mapping[str, str] | None = None) -> _Read:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise _Passing(f"no answer within {self._timeout:g} s") from error
        except httpx.HTTPError as error:
            raise _Passing(f"cannot be reached: {type(error).__name__}") from error
        code = response.status_code
        if code >= 500:
            raise _Passing(f"answers {code}")
        if code != httpx.codes.OK:
            raise _NoAnswer(f"answers {code}" + (f": {_MEANING[code]}" if code in _MEANING else ""))
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise _NoAnswer("answers something else than Rasa does") from error


class RasaTagger:
    """`nlu.Tagger` by a Rasa server.

    `fallback`: the embedded tagger. `taxonomy`: an intent of Rasa that is not in it is `out_of_scope`. `certificates`:
    by language, each for the model that it names; what another model said, or the fallback, is then never in scope.
    """

    def __init__(
        self,
        server: RasaServer,
        *,
        fallback: Tagger,
        taxonomy: Taxonomy,
        certificates: Mapping[str, Certificate] | None = None,
    ) -> None:
        self._server = server
        self._fallback = fallback
        self._taxonomy = taxonomy
        self.certificates: Mapping[str, Certificate] = dict(certificates or {})
        self._certified = {each.model for each in self.certificates.values()}

    @property
    def version(self) -> str:
        return self._server.model

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        """One `Tags` for each text, in order. `model` and `engine` say who found the intent."""
        result: list[Tags] = []
        until = 0.0
        for place, (text, own) in enumerate(zip(texts, self._fallback.tag(texts), strict=True)):
            now = time.monotonic()
            if place % _BATCH == 0:
                until = now + _PATIENCE
            elif now > until and not self._server.down:
                self._server.rest(f"too slow: fewer than {_BATCH} texts took {_PATIENCE:.0f} s")
            result.append(self._tags(own, _asked(text)))
        return result

    def _tags(self, own: Tags, asked: str) -> Tags:
        answer = self._server.parse(asked) if asked else None
        if answer is not None:
            return self._certain(self._merged(own, answer))
        why = "nothing to ask" if not asked else "rasa is down" if self._server.down else "rasa did not answer"
        return self._certain(replace(own, model=f"embedded:{own.model} ({why})"))

    def _merged(self, own: Tags, answer: Answer) -> Tags:
        """The intent and its confidence are Rasa's, all else is the embedded tagger's."""
        # The best one stands also where the ranking does not name it.
        ranking = [answer.intent, *(each for each in answer.intent_ranking if each.name != answer.intent.name)]
        shares: dict[str, float] = {}
        for each in ranking:
            intent = self._known(each.name)
            shares[intent] = shares.get(intent, 0.0) + each.confidence
        best = self._known(answer.intent.name)
        department = self._taxonomy.owner(best)
        others = sorted(shares.keys() - {best}, key=lambda intent: (-shares[intent], intent))
        return replace(
            own,
            intent=best,
            department=department,
            confidence=_clamped(sum(s for intent, s in shares.items() if self._taxonomy.owner(intent) == department)),
            alternatives=tuple(Guess(intent, _clamped(shares[intent])) for intent in others[:_ALTERNATIVES]),
            in_scope=own.in_scope and best != OUT_OF_SCOPE,
            model=self._server.model,
            engine="rasa",
        )

    def _known(self, intent: str | None) -> str:
        return intent if intent is not None and intent in self._taxonomy.intents else OUT_OF_SCOPE

    def _certain(self, tags: Tags) -> Tags:
        """A certificate says nothing about another model's confidence."""
        if not self._certified or tags.model in self._certified:
            return tags
        return replace(tags, in_scope=False)


def _asked(text: Text) -> str:
    """The same part of a long text as the embedded tagger reads, the subject first, as in training."""
    body = text.text if len(text.text) <= HEAD + TAIL else f"{text.text[:HEAD]}\n{text.text[-TAIL:]}"
    whole = f"{text.subject[:SUBJECT]}\n{body}" if text.subject else body
    # Bytes that no charset explains come as lone surrogates, which JSON in UTF-8 cannot hold.
    return _COMMAND.sub("", whole.encode("utf-8", "replace").decode("utf-8")).rstrip()


def _clamped(share: float) -> float:
    return min(max(share, 0.0), 1.0)
