"""Somebody who calls, and Twilio between us: it signs, follows our TwiML, and asks everything twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from xml.etree.ElementTree import Element

import httpx
from defusedxml.ElementTree import fromstring

from tests.samples.phone import CUSTOMER, FORM, URL, fields, recording, sid_of, signature


def said(twiml: Element) -> str:
    return " ".join(each.text or "" for each in twiml.iter("Say"))


def verbs(twiml: Element) -> list[str]:
    """What Twilio does, in order."""
    return [each.tag for each in twiml]


class Reached(Protocol):
    """Where Twilio calls us."""

    def client(self, **options: Any) -> httpx.AsyncClient: ...


@dataclass
class Caller:
    """One call. Each step posts to the address that the last answer named."""

    api: Reached
    number: int = 1
    caller: str = CUSTOMER
    base: str = URL
    times: int = 2
    twiml: Element = field(default_factory=lambda: Element("Response"))

    @property
    def sid(self) -> str:
        return sid_of(self.number)

    async def post(self, url: str, form: dict[str, str]) -> httpx.Response:
        """As often as `times`; every time the same answer."""
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signature(url, form)}
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        body = urlencode(form).encode()
        async with self.api.client(raise_app_exceptions=False) as client:
            answers = [await client.post(target, content=body, headers=headers) for _time in range(self.times)]
        assert {(each.status_code, each.content) for each in answers} == {(answers[0].status_code, answers[0].content)}
        return answers[0]

    async def turn(self, url: str, **more: str) -> Element:
        answer = await self.post(url, fields(self.number, From=self.caller, Caller=self.caller, **more))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/xml")
        self.twiml = fromstring(answer.content)
        assert self.twiml.tag == "Response"
        return self.twiml

    async def call(self) -> Element:
        return await self.turn(f"{self.base}/hooks/phone", CallStatus="ringing")

    def _action(self, verb: str) -> str:
        [found] = list(self.twiml.iter(verb))
        assert found.get("method") == "POST"
        return found.attrib["action"]

    async def press(self, key: str) -> Element:
        return await self.turn(self._action("Gather"), Digits=key)

    async def say(self, text: str, confidence: str = "0.93") -> Element:
        return await self.turn(self._action("Gather"), SpeechResult=text, Confidence=confidence)

    async def silence(self) -> Element:
        [gather] = list(self.twiml.iter("Gather"))
        assert gather.get("actionOnEmptyResult") == "true", "silence would end the call"
        return await self.turn(self._action("Gather"), Digits="")

    async def leave(self, number: int = 1, key: str = "hangup") -> Element:
        """Say something after the tone."""
        given = recording(number)
        more = {name: given[name] for name in ("RecordingSid", "RecordingUrl", "RecordingDuration")}
        return await self.turn(self._action("Record"), Digits=key, **more)

    async def dialled(self, status: str, **more: str) -> Element:
        return await self.turn(self._action("Dial"), DialCallStatus=status, **more)

    async def told(self, attribute: str, form: dict[str, str]) -> None:
        """What Twilio tells later, at an address of the last `Record`."""
        [record] = list(self.twiml.iter("Record"))
        answer = await self.post(record.attrib[attribute], form)
        assert answer.status_code == 200, answer.text

    async def end(self, status: str = "completed", seconds: str = "35") -> None:
        more = {"CallStatus": status, "CallDuration": seconds}
        form = fields(self.number, From=self.caller, Caller=self.caller, **more)
        assert (await self.post(f"{self.base}/hooks/phone/status", form)).status_code == 200
