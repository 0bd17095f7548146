"""The voice menu as TwiML: what Twilio says, hears, records and dials. Pure.

Where a call stands rides in the query of the addresses that Twilio calls next, and Twilio signs them: any process can
answer any turn, and the same request always gets the same answer. Nothing that a caller said is ever said back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from twilio.twiml.voice_response import VoiceResponse

from channels.phone_hours import is_open, parse
from channels.phone_words import WORDS, Spoken
from channels.settings import PhoneSettings

#: seconds of silence before a caller is asked again, and after which a sentence is over. A number, not `auto`: that is
#: refused together with some recognisers (Twilio's warning 13335)
_SILENCE, _SENTENCE_OVER = 6, 3
_KEY_WAIT = 5
_RING = 25
#: the longest talk with a person, in seconds
_TALK = 2 * 3600
#: Twilio transcribes recordings in English, and of no more than two minutes
_TRANSCRIBED = 120


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a call stands."""

    language: str
    #: counts what was asked so far, from 0
    number: int = 0
    #: how often in a row nothing was heard
    misses: int = 0
    #: the caller has told what it is about
    told: bool = False
    #: the caller's number is hidden
    anonymous: bool = False
    #: caller and number called, sealed, for what Twilio tells without them
    who: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str], languages: list[str], *, anonymous: bool, who: str) -> Turn:
        """What the query says; what it does not say, or wrongly, is as at the beginning."""
        language = query.get("lang", "")
        return cls(
            language=language if language in languages else languages[0],
            number=_count(query.get("turn", "")),
            misses=_count(query.get("miss", "")),
            told=query.get("told") == "1",
            anonymous=anonymous,
            who=who,
        )

    def query(self) -> str:
        given = {"lang": self.language, "turn": str(self.number), "miss": str(self.misses)}
        return urlencode(given | ({"told": "1"} if self.told else {}))


def _count(given: str) -> int:
    return int(given) if given.isascii() and given.isdigit() and len(given) <= 3 else 0


class Voice:
    """What is answered to each turn."""

    def __init__(self, settings: PhoneSettings, address: str) -> None:
        """`address`: where Twilio reaches the channel, e.g. https://host/hooks/phone."""
        self._settings = settings
        self._address = address
        self._languages: list[str] = list(settings.languages)
        self._hours = [parse(each) for each in settings.hours]
        self._zone = ZoneInfo(settings.timezone)

    def greet(self, turn: Turn) -> str:
        """The first words: who we are, and which language."""
        if len(self._languages) == 1:
            return self.ask(turn, "hello")
        response = VoiceResponse()
        menu = response.gather(
            input="dtmf", num_digits=1, timeout=_KEY_WAIT, action_on_empty_result=True, method="POST",
            action=self._url("language", _next(turn)),
        )  # fmt: skip
        for place, language in enumerate(self._languages, 1):
            words = WORDS[language]
            _say(menu, words, words.hello, words.choose.format(key=place))
        _say(menu, WORDS[turn.language], WORDS[turn.language].person_key)
        return str(response)

    def language_of(self, key: str, turn: Turn) -> str:
        """The language that was chosen by key; without one, the first."""
        if key.isascii() and key.isdigit() and 1 <= int(key) <= len(self._languages):
            return self._languages[int(key) - 1]
        return turn.language

    def ask(self, turn: Turn, *before: str) -> str:
        """Ask what it is about. `before`: what is said first, by the names of `Spoken`."""
        if self._is_over(turn):
            return self.goodbye(turn)
        words = WORDS[turn.language]
        said = [getattr(words, each) for each in before]
        if not turn.told:
            if not turn.misses:
                said += [words.consent, words.person_key]
            said.append(words.ask)
            if turn.anonymous:
                said.append(words.ask_number)
        response = VoiceResponse()
        heard = response.gather(
            input="speech dtmf", num_digits=1, language=words.heard_as, timeout=_SILENCE, method="POST",
            speech_timeout=_SENTENCE_OVER, profanity_filter=False, action_on_empty_result=True,
            action=self._url("words", _next(turn)),
        )  # fmt: skip
        _say(heard, words, *said)
        return str(response)

    def person(self, turn: Turn, now: datetime, *, our_number: str, danger: bool = False) -> str:
        """Put the caller through, or take a message where nobody takes calls now.

        However many turns there were: it is the last one, unless nobody answers, and the recording then counts them.
        """
        words = WORDS[turn.language]
        if not (self._settings.transfer_to and is_open(self._hours, self._zone, now)):
            return self.record(turn, "closed", *(["danger"] if danger else []))
        response = VoiceResponse()
        _say(response, words, words.connecting)
        # The colleague sees who calls; where that is hidden, our own number, since nobody may dial with none.
        shown: dict[str, Any] = {"caller_id": our_number} if turn.anonymous and our_number else {}
        dial = response.dial(
            timeout=_RING, time_limit=_TALK, answer_on_bridge=True, method="POST",
            action=self._url("dialled", _next(turn)), **shown,
        )  # fmt: skip
        dial.number(self._settings.transfer_to)
        return str(response)

    def record(self, turn: Turn, *before: str) -> str:
        """Take a message after the tone. It says before that it is recorded."""
        if self._is_over(turn):
            return self.goodbye(turn)
        words = WORDS[turn.language]
        response = VoiceResponse()
        said = [getattr(words, each) for each in before] + [words.record]
        _say(response, words, *said, *([words.ask_number] if turn.anonymous and not turn.told else []))
        late = urlencode({"who": turn.who})
        longest = self._settings.record_longest
        transcript: dict[str, Any] = {}
        if turn.language == "en" and longest <= _TRANSCRIBED:
            transcript = {"transcribe": True, "transcribe_callback": f"{self._address}/transcript?{late}"}
        response.record(
            max_length=longest, timeout=_SILENCE, finish_on_key="#0", play_beep=True, method="POST",
            action=self._url("recorded", _next(turn)),
            recording_status_callback=f"{self._address}/recording?{late}",
            recording_status_callback_method="POST", recording_status_callback_event="completed absent",
            **transcript,
        )  # fmt: skip
        # Silence is no recording, for which Twilio goes on here instead of calling `recorded`.
        self._end(response, turn, words.nothing_heard)
        return str(response)

    def goodbye(self, turn: Turn) -> str:
        response = VoiceResponse()
        self._end(response, turn)
        return str(response)

    def hang_up(self) -> str:
        """After a talk with a person there is nothing more to say."""
        response = VoiceResponse()
        response.hangup()
        return str(response)

    def _end(self, response: VoiceResponse, turn: Turn, *before: str) -> None:
        words = WORDS[turn.language]
        _say(response, words, *before, words.goodbye_anonymous if turn.anonymous else words.goodbye)
        response.hangup()

    def _is_over(self, turn: Turn) -> bool:
        return turn.number >= self._settings.turns

    def _url(self, step: str, turn: Turn) -> str:
        return f"{self._address}/{step}?{turn.query()}"


def trouble() -> str:
    """What a caller hears when nothing works, in all languages. deploy/twilio/fallback.xml is the same."""
    response = VoiceResponse()
    for words in WORDS.values():
        _say(response, words, words.trouble)
    response.hangup()
    return str(response)


def _next(turn: Turn) -> Turn:
    return replace(turn, number=turn.number + 1)


def _say(verb: Any, words: Spoken, *said: str) -> None:
    verb.say(" ".join(said), voice=words.voice, language=words.spoken_as)
