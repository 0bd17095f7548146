"""What the phone channel asks Twilio: for recordings, to delete them, and whether the account and its numbers work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from channels import Health
from channels.settings import PhoneSettings
from channels.twilio import Twilio, asked
from domain import Attachment, ChannelError


class _Gone(ChannelError):
    """What is to be deleted is not there."""


class Recordings:
    """Fetches what callers recorded."""

    def __init__(self, settings: PhoneSettings) -> None:
        self._settings = settings

    async def fetch(self, reference: Mapping[str, str]) -> Attachment:
        twilio = Twilio(self._settings)
        try:
            return await twilio.fetch(reference)
        finally:
            await twilio.close()


class DeletedRecordings(Recordings):
    """And deletes them at Twilio once they are stored here."""

    async def clear(self, reference: Mapping[str, str]) -> None:
        """Raises `ChannelError`: it is still there."""
        sid = reference.get("url", "").rpartition("/")[2].removesuffix(".mp3")
        twilio = Twilio(self._settings)
        try:
            with suppress(_Gone):
                await asked(twilio.client.recordings(sid).delete_async(), _gone)
        finally:
            await twilio.close()


def _gone(code: int) -> ChannelError | None:
    return _Gone() if code == 20404 else None


class PhoneProbe:
    """Does the account work, and do our numbers call us?"""

    def __init__(self, name: str, settings: PhoneSettings, public_url: str) -> None:
        self._name = name
        self._settings = settings
        self._address = f"{public_url}/hooks/{name}"

    async def probe(self) -> Health:
        twilio = Twilio(self._settings)
        try:
            wrong = await twilio.standing()
            found = await asked(twilio.client.incoming_phone_numbers.list_async(page_size=1000))
        except ChannelError as error:
            return Health(self._name, ok=False, detail=str(error))
        finally:
            await twilio.close()
        known = {str(each.phone_number): each for each in found}
        faults = [wrong] if wrong else []
        if not self._settings.numbers:
            faults.append("no number: set phone.numbers")
        for number in self._settings.numbers:
            faults += self._faults(number, known.get(number))
        if faults:
            return Health(self._name, ok=False, detail="; ".join(faults))
        return Health(self._name, ok=True, detail=f"{', '.join(self._settings.numbers)} call {self._address}")

    def _faults(self, number: str, known: Any) -> list[str]:
        if known is None:
            return [f"{number} is not a number of the account"]
        faults = []
        for place, called, wanted in (
            ("calls", known.voice_url, self._address),
            ("call status changes", known.status_callback, f"{self._address}/status"),
        ):
            if (called or "").partition("#")[0].rstrip("/") != wanted:
                faults.append(f"{place} of {number} go to {called or 'nowhere'}: set {wanted} at Twilio")
        if not known.voice_fallback_url:
            faults.append(f"{number} has no fallback for when we are down: see docs/channels/phone.md")
        return faults
