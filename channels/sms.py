"""SMS and MMS by Twilio: signed webhooks in, REST out, status callbacks, and a comparison with what Twilio took in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from channels import Channel, Health, Limits, Surroundings
from channels.settings import SmsSettings
from channels.sms_compare import Comparison
from channels.sms_parse import NUMBER, SHORT_CODE, SmsHook, address
from channels.sms_text import OPTED_OUT, known, reason, utf16_units
from channels.twilio import Twilio, asked
from domain import ChannelError, Receipt, Reply

#: Twilio takes 1,600 characters of one message (its error 21617)
_LONGEST = 1600
#: an earlier try is looked for among this many newest messages to the customer, this far back
_LOOK_BACK = timedelta(hours=1)
_LOOK_AT = 50
#: sids of messages that went out from here, so that an older one with the same words is not taken for a later one
_REMEMBERED = 10_000

#: ours is not set up for it: nothing goes out from this number until somebody does something
_SET_UP = {
    21606: "Twilio says that our number is not ours, or takes no text messages: see sms.numbers.",
    21603: "There is no number to send from: see sms.numbers.",
    21212: "Our number is no number: see sms.numbers.",
    21659: "Twilio says that our number is not ours: see sms.numbers.",
    21660: "Our number is of another account with Twilio: see sms.numbers.",
    21661: "Our number takes no text messages: see sms.numbers.",
    21609: "Twilio cannot call us back: see web.public_url.",
    21703: "The messaging service has no number: see sms.messaging_service.",
    21704: "The messaging service has no number: see sms.messaging_service.",
    21712: "The messaging service has no number: see sms.messaging_service.",
}
_QUEUE_FULL = 21611


def special(code: int) -> ChannelError | None:
    """What Twilio's numbers mean for a text message."""
    if code == OPTED_OUT:
        return ChannelError(reason(code), permanent=True, refused="opted_out")
    if code in _SET_UP:
        return ChannelError(_SET_UP[code], broken=True)
    if code == _QUEUE_FULL:
        return ChannelError("Twilio holds too many messages of this number", retry_after=300.0, pause=True)
    return ChannelError(reason(code), permanent=True) if known(code) and code != 30002 else None


class SmsSender:
    """Messages by REST. Twilio knows no idempotency key, so that before a repeat it is asked what it has."""

    def __init__(self, name: str, settings: SmsSettings, around: Surroundings, twilio: Twilio) -> None:
        self.name = name
        # A repeat asks first, and both have the whole time.
        self.limits = Limits(
            text=_LONGEST, measure=utf16_units, parts=3, ordered=True, receipts=True, deadline=2 * settings.timeout + 5
        )
        self._settings = settings
        self._public_url = around.public_url
        self._twilio = twilio
        self._sent: dict[str, None] = {}

    async def send(self, reply: Reply) -> Receipt:
        to = address(reply.to, self._settings.region)
        if not (NUMBER.fullmatch(to) or SHORT_CODE.fullmatch(to)):
            raise ChannelError("The sender is a name and not a number, and takes no answers.", permanent=True)
        ours = self.number_for(reply.account)
        if not ours and not self._settings.messaging_service:
            raise ChannelError("There is no number to send from: see sms.numbers.", broken=True)
        sid = await self._earlier(to, ours, reply.text) if reply.again else None
        if sid is None:
            given: dict[str, Any] = {"from_": ours} if ours else {}
            if self._settings.messaging_service:
                given["messaging_service_sid"] = self._settings.messaging_service
            callback = f"{self._public_url}/hooks/{self.name}/status?account={quote(reply.account, safe='')}"
            made = await asked(
                self._twilio.client.messages.create_async(to=to, body=reply.text, status_callback=callback, **given),
                special,
            )
            sid = made.sid
        if not isinstance(sid, str) or not sid:
            raise ChannelError("Twilio's answer names no message", unknown=True)
        self._sent[sid] = None
        if len(self._sent) > _REMEMBERED:
            del self._sent[next(iter(self._sent))]
        return Receipt(provider_id=sid)

    def number_for(self, account: str) -> str:
        """The number that the customer wrote to, and our first one where that is none of ours any more; "" = none."""
        numbers = [str(each) for each in self._settings.numbers]
        if not numbers or account in numbers or ":" in account:
            return account
        return numbers[0]

    async def _earlier(self, to: str, ours: str, text: str) -> str | None:
        """The message that an earlier try left with Twilio after all. Raises `ChannelError`: nothing was sent now."""
        given = {"from_": ours} if ours and not self._settings.messaging_service else {}
        try:
            found = await asked(self._twilio.client.messages.list_async(to=to, limit=_LOOK_AT, **given))
        except ChannelError as error:
            if error.unknown:
                raise ChannelError(str(error), retry_after=30.0) from None
            raise
        since = datetime.now(UTC) - _LOOK_BACK
        for each in found:
            made = each.date_created
            recent = isinstance(made, datetime) and made >= since
            if recent and each.sid not in self._sent and each.direction != "inbound" and each.body == text:
                return str(each.sid)
        return None

    async def close(self) -> None:
        await self._twilio.close()


class SmsProbe:
    """Asks Twilio for our account and our numbers, and whether they call us."""

    def __init__(self, name: str, settings: SmsSettings, around: Surroundings) -> None:
        self._name = name
        self._settings = settings
        self._hook = f"{around.public_url}/hooks/{name}"

    async def probe(self) -> Health:
        twilio = Twilio(self._settings)
        try:
            wrong = await twilio.standing() or await self._numbers(twilio)
        except ChannelError as error:
            wrong = str(error)
        finally:
            await twilio.close()
        ours = ", ".join(map(str, self._settings.numbers)) or "the number that was written to"
        return Health(self._name, ok=not wrong, detail=wrong or f"{self._settings.account_sid} works, as {ours}")

    async def _numbers(self, twilio: Twilio) -> str:
        """Short codes and names are not among an account's numbers, so that nothing is said of them."""
        asked_for = [str(each) for each in self._settings.numbers if str(each).startswith("+")]
        if not asked_for:
            return ""
        found = await twilio.numbers()
        if missing := [each for each in asked_for if each not in found]:
            return f"{', '.join(missing)}: no number of this account. Buy it, or correct sms.numbers"
        if self._settings.messaging_service:  # its own address may stand for those of its numbers
            return ""
        astray = [each for each in asked_for if found[each].sms_url.partition("?")[0] != self._hook]
        return f"{', '.join(astray)} does not call {self._hook}: set it as the number's webhook" if astray else ""


def channel(name: str, settings: SmsSettings, around: Surroundings) -> Channel:
    twilio = Twilio(settings)
    hook = SmsHook(name, settings)
    compared = (Comparison(name, settings, around.leases, twilio, hook),) if settings.reconcile else ()
    return Channel(
        name,
        sender=SmsSender(name, settings, around, twilio),
        hook=hook,
        sources=compared,
        fetcher=twilio,
        probe=SmsProbe(name, settings, around),
    )
