"""What Meta's error codes mean for who sends: once more later, never, or a person must act. In words for an agent.

The codes are those of the Graph API, the Messenger Platform and the WhatsApp Cloud API
(developers.facebook.com/documentation/business-messaging/...: messenger-platform/error-codes and
whatsapp/support/error-codes, 2026).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from channels.meta import mapping, words
from domain import ChannelError

_SOON, _LATER = 30.0, 300.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error means."""

    words: str
    permanent: bool = False
    #: seconds until it is worth another try
    retry_after: float | None = None
    #: nothing else goes out on this account meanwhile
    pause: bool = False
    #: the account's credentials are refused, or Meta has shut it
    broken: bool = False
    refused: str = ""

    def error(self, code: int | None = None, retry_after: float | None = None) -> ChannelError:
        wait = retry_after if self.retry_after is not None and retry_after is not None else self.retry_after
        return ChannelError(
            self.words + (f" (Meta's code {code})" if code is not None else ""),
            permanent=self.permanent,
            retry_after=wait,
            pause=self.pause,
            broken=self.broken,
            refused=self.refused,
        )


def _never(text: str, refused: str = "") -> Verdict:
    return Verdict(text, permanent=True, refused=refused)


def _again(text: str, seconds: float = _SOON) -> Verdict:
    return Verdict(text, retry_after=seconds)


def _wait(text: str, seconds: float = _LATER) -> Verdict:
    return Verdict(text, retry_after=seconds, pause=True)


def _act(text: str) -> Verdict:
    return Verdict(text, broken=True)


_CLOSED = _never("Meta takes no answer here so long after the customer's last message. Use another channel.")
_CANNOT = _never("The customer does not take messages from us here. Use another channel.", "blocked")
_NOBODY = _never("Meta knows nobody here by that address.")
_TOKEN = _act("Meta refuses the access token. Make a new one and set it.")
_PERMISSION = _act("The app may not send for this account: a permission is missing or was taken back.")
_SHUT = _act("Meta has restricted or disabled this account. See the account's quality in Meta's Business Manager.")
_MANY = _wait("Meta's limit of calls is reached.")
_TROUBLE = _again("Meta has a passing fault.")
_TEMPLATE = _never("Meta does not accept the template for answers after 24 hours. An administrator must look at it.")

#: (code, subcode or 0 = any)
_VERDICTS: Mapping[tuple[int, int], Verdict] = {
    (0, 0): _TOKEN,
    (102, 0): _TOKEN,
    (190, 0): _TOKEN,
    (190, 458): _act("The app was removed from this account. Connect it again, and set a new access token."),
    (190, 460): _act("The access token ended because a password was changed. Make a new one and set it."),
    (190, 463): _act("The access token has expired. Make a new one and set it."),
    (190, 467): _act("The access token is not valid any more. Make a new one and set it."),
    (3, 0): _PERMISSION,
    (10, 0): _PERMISSION,
    (131005, 0): _PERMISSION,
    (100, 33): _act("Meta finds no such account, or the token is not for it. Compare the account's id and its token."),
    (133010, 0): _act("The number is not registered with the Cloud API. Register it."),
    (131037, 0): _act("Meta has not approved the number's display name yet."),
    (131042, 0): _act("Meta wants a payment method for this account to be put in order."),
    (131045, 0): _act("The number's certificate is wrong. Register the number again."),
    (368, 0): _SHUT,
    (131031, 0): _SHUT,
    (1, 0): _TROUBLE,
    (2, 0): _TROUBLE,
    (1200, 0): _TROUBLE,
    (131000, 0): _TROUBLE,
    (131016, 0): _TROUBLE,
    (131057, 0): _wait("Meta has taken this account into maintenance."),
    (4, 0): _MANY,
    (17, 0): _MANY,
    (32, 0): _MANY,
    (341, 0): _MANY,
    (613, 0): _MANY,
    (130429, 0): _wait("Meta's limit of messages a second is reached.", _SOON),
    (131048, 0): _wait("Meta holds this number back because customers blocked or reported it.", 3600.0),
    (131056, 0): _again("Too many messages to this customer within a short time.", 6.0),
    (10, 2018065): _CLOSED,
    (10, 2018278): _CLOSED,
    (10, 2534022): _CLOSED,
    (131047, 0): _CLOSED,
    (10, 2018108): _CANNOT,
    (200, 1545041): _CANNOT,
    (551, 0): _never("The customer cannot be reached here at present."),
    (100, 2018001): _NOBODY,
    (100, 2534014): _NOBODY,
    (131026, 0): _never("WhatsApp cannot deliver to this number: no account, an old app, or its terms not accepted."),
    (131021, 0): _never("This number is our own."),
    (131030, 0): _never("The number that we test with may not write to this customer."),
    (130472, 0): _never("WhatsApp did not deliver it: the customer is part of one of Meta's experiments."),
    (130497, 0): _never("This account may not write to customers of that country."),
    (131049, 0): _never("WhatsApp held it back, because this customer gets many messages from businesses."),
    (131051, 0): _never("WhatsApp does not carry this kind of message."),
    (132000, 0): _TEMPLATE,
    (132001, 0): _TEMPLATE,
    (132005, 0): _never("The answer makes the template too long. Shorten it, or use another channel."),
    (132007, 0): _TEMPLATE,
    (132012, 0): _TEMPLATE,
    (132015, 0): _TEMPLATE,
    (132016, 0): _TEMPLATE,
    (132018, 0): _never("The template takes no line breaks, tabs or long runs of blanks. Write it in one line."),
}


def verdict(code: int | None, subcode: int = 0, status: int = 400, *, passing: bool = False) -> Verdict:
    """What an error of Meta's means. `status` is HTTP's; `passing`: Meta itself says that it is."""
    if code is not None:
        known = _VERDICTS.get((code, subcode)) or _VERDICTS.get((code, 0))
        if known is not None:
            return known
        if 200 <= code <= 299:
            return _PERMISSION
        if 80000 <= code <= 80014:
            return _MANY
    if status == 401:
        return _TOKEN
    if status == 429:
        return _MANY
    if status >= 500 or passing:
        return _TROUBLE
    return _never("Meta does not accept this message.")


def number(value: Any) -> int | None:
    """A code, given as number or text."""
    try:
        return int(words(value, 12))
    except ValueError:
        return None


def error_of(answer: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> ChannelError:
    """The error in an answer of the Graph API."""
    error = mapping(answer.get("error"))
    code = number(error.get("code"))
    found = verdict(code, number(error.get("error_subcode")) or 0, status, passing=error.get("is_transient") is True)
    return found.error(code, wait_of(headers))


def failure_of(errors: list[Mapping[str, Any]]) -> str:
    """Why a message failed that Meta had taken first."""
    error = errors[0] if errors else {}
    code = number(error.get("code"))
    known = _VERDICTS.get((code, 0)) if code is not None else None
    text = known.words if known else words(error.get("title") or error.get("message"), 300)
    return (text or "Meta could not deliver it.") + (f" (Meta's code {code})" if code is not None else "")


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds until a limit ends, where Meta says so (Graph API, rate limits): a day at most."""
    try:
        usage = json.loads(headers.get("x-business-use-case-usage", "{}"))
    except (ValueError, RecursionError):
        usage = {}
    minutes = [
        number(mapping(each).get("estimated_time_to_regain_access")) or 0
        for uses in mapping(usage).values()
        if isinstance(uses, list)
        for each in uses
    ]
    seconds = max([60 * most for most in minutes] + [number(headers.get("retry-after", "")) or 0])
    return float(min(seconds, 86400)) if seconds > 0 else None
