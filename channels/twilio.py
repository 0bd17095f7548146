"""What SMS and phone share of Twilio: signatures, the account's REST API, and its files, which need a password."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp
from twilio.request_validator import RequestValidator, add_port, get_signature_algorithm, remove_port
from twilio.rest import Client
from yarl import URL

from channels import Answer, Request
from channels.settings import TwilioSettings, open_secrets
from channels.twilio_call import RETRY, Http, after, asked, read
from domain import Attachment, ChannelError, Forbidden

__all__ = ["NOTHING", "Number", "Twilio", "asked", "form", "verify"]

#: an answer that says nothing; what is to be said goes out by REST
NOTHING = Answer(b'<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml; charset=utf-8")

_SIGNATURE = "x-twilio-signature"
_SETTINGS = "x-twilio-webhooks-signature-settings"
_FORM = "application/x-www-form-urlencoded"
_FIELDS = 1000

# --- what Twilio sends us ---------------------------------------------------------------------------------------------


class _Pairs:
    """A form in which a name may stand twice, as the library's validator wants it."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def getlist(self, name: str) -> list[str]:
        return self._values[name]


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """Raises ValueError for more fields than anybody sends."""
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_FIELDS)


def form(body: bytes) -> dict[str, str]:
    """The fields of a request that was verified. NUL, which no database takes, is left out."""
    try:
        return {name: value.replace("\0", "") for name, value in _pairs(body)}
    except ValueError:
        return {}


def verify(request: Request, tokens: Sequence[str]) -> None:
    """Raises `Forbidden` unless one of the tokens signed the request (twilio.com/docs/usage/security).

    A form is signed with its fields, sorted; anything else by the digest of its body, which stands in the signed URL.
    The URL is the public one: what a proxy made of it was never signed.
    """
    given = request.headers.get(_SIGNATURE, "").encode("utf-8", "surrogateescape")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    params: _Pairs | None = None
    if not given:
        raise Forbidden
    if kind == _FORM:
        try:
            params = _Pairs(_pairs(request.body))
        except ValueError:
            raise Forbidden from None
    else:
        digest = hashlib.sha256(request.body).hexdigest().encode()
        if not hmac.compare_digest(request.query.get("bodySHA256", "").lower().encode("utf-8", "replace"), digest):
            raise Forbidden
    algorithm = get_signature_algorithm(request.headers.get(_SETTINGS, ""))
    parsed = urlsplit(request.url)
    urls = (remove_port(parsed), add_port(parsed))  # Twilio signs with the port or without, and does not say which
    try:
        signed = [RequestValidator(each).compute_signature(url, params, algorithm) for each in tokens for url in urls]
    except (ValueError, UnicodeError):  # an algorithm that the library does not know
        raise Forbidden from None
    if not any(hmac.compare_digest(each.encode(), given) for each in signed):
        raise Forbidden


# --- what we ask Twilio -----------------------------------------------------------------------------------------------


class Twilio:
    """An account's REST API and files. The first token is ours; the others only sign what comes in."""

    def __init__(self, settings: TwilioSettings) -> None:
        self.settings = settings
        self.http = Http(settings)
        self._credentials = (settings.account_sid, (open_secrets(settings.auth_tokens) or [""])[0])
        # Of the environment the library would take TWILIO_EDGE and the like, behind the settings' back.
        self.client = Client(*self._credentials, http_client=self.http, environment={"TWILIO": ""})

    async def close(self) -> None:
        await self.http.close()

    # --- files --------------------------------------------------------------------------------------------------------

    async def fetch(self, reference: Mapping[str, str]) -> Attachment:
        """A picture or a recording by its `url`. Raises `ChannelError`.

        The password goes to the settings' host alone, and there to files of our account alone: an address comes out of
        a message. The storage that Twilio points to gets none (it would refuse it, too).
        """
        path = self._path(reference.get("url", ""))
        if path is None:
            raise ChannelError("The file is not Twilio's, or not of our account.", permanent=True)
        headers = {"Authorization": aiohttp.encode_basic_auth(*self._credentials)}
        url = f"{self.settings.api_url}{path}"
        try:
            async with asyncio.timeout(FILE_DEADLINE):
                for _hop in range(_HOPS):
                    async with self.http.open().get(
                        URL(url, encoded=True), headers=headers, allow_redirects=False,
                        trace_request_ctx=SimpleNamespace(handed=False),
                    ) as answer:  # fmt: skip
                        if answer.status not in (301, 302, 303, 307, 308):
                            return await self._taken(answer, path)
                        url, headers = self._onward(url, answer.headers.get("Location", "")), {}
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ChannelError(f"The file cannot be fetched ({type(error).__name__})", retry_after=RETRY) from None
        raise ChannelError("The file is always somewhere else.", permanent=True)

    def _path(self, url: str) -> str | None:
        try:
            parts = urlsplit(url)
            host, own = (parts.hostname or "").lower(), urlsplit(self.settings.api_url)
        except ValueError:
            return None
        named = _FILE.fullmatch(parts.path)
        ours = parts.netloc == own.netloc or (parts.scheme == "https" and _of(host, "twilio.com"))
        return parts.path if ours and named and named["account"] == self.settings.account_sid else None

    def _onward(self, url: str, location: str) -> str:
        """Where a redirection leads: Twilio's storage, or the stand-in's own host. Raises `ChannelError`."""
        try:
            target = urljoin(url, location)
            parts = urlsplit(target)
            host = (parts.hostname or "").lower()
            stored = parts.scheme == "https" and parts.port in (None, 443) and any(_of(host, each) for each in _STORES)
        except ValueError:
            target, stored = "", False
        if stored or (target and urlsplit(target).netloc == urlsplit(self.settings.api_url).netloc):
            return target
        raise ChannelError("The file lies where Twilio keeps none.", permanent=True)

    async def _taken(self, answer: aiohttp.ClientResponse, path: str) -> Attachment:
        if answer.status in (401, 403):
            raise ChannelError("Twilio refuses our account SID or auth token.", retry_after=300.0)
        if answer.status == 410:
            raise ChannelError("The file is gone.", permanent=True)
        if answer.status != 200:  # 404 too: a new file may take a while until it can be had
            raise ChannelError(f"The file cannot be had yet ({answer.status}).", retry_after=after(answer, RETRY))
        media_type = answer.content_type.lower()
        if not _taken_type(media_type):
            raise ChannelError(f"Files of type {media_type[:80]} are not taken.", permanent=True)
        most = self.settings.media_most
        try:
            if (answer.content_length or 0) > most:
                raise ValueError("too large")
            content = await read(answer, most)
        except ValueError:
            raise ChannelError(f"The file is larger than {most:,} bytes.", permanent=True) from None
        return Attachment(name=_name(answer, path, media_type), media_type=media_type, content=content)

    # --- who we are ---------------------------------------------------------------------------------------------------

    async def standing(self) -> str:
        """What is wrong with the account, in words for an operator; "" = it works. Raises `ChannelError`."""
        account = await asked(self.client.api.v2010.accounts(self.settings.account_sid).fetch_async())
        status = str(account.status)
        return "" if status == "active" else f"the account is {status}: see console.twilio.com"

    async def numbers(self) -> Mapping[str, Number]:
        """The account's phone numbers. Raises `ChannelError`."""
        found = await asked(self.client.incoming_phone_numbers.list_async(page_size=1000))
        return {str(each.phone_number): Number(str(each.sms_url or ""), str(each.voice_url or "")) for each in found}


@dataclass(frozen=True, slots=True)
class Number:
    """A phone number of the account, and what it calls; "" = nothing."""

    sms_url: str
    voice_url: str


#: seconds for one file, which is larger than what `settings.timeout` is meant for
FILE_DEADLINE = 45.0
_HOPS = 4
_FILE = re.compile(
    r"/2010-04-01/Accounts/(?P<account>[A-Za-z0-9]{1,64})/(?:Messages/[A-Za-z0-9]{1,64}/Media|Recordings)/"
    r"(?P<sid>[A-Za-z0-9]{1,64})(?:\.(?:mp3|wav))?"
)
#: where Twilio's own redirections lead (its article "Protect Media Access with HTTP Basic Authentication")
_STORES = ("twilio.com", "twiliocdn.com", "amazonaws.com")
#: what a phone sends; nothing that a browser would run
_TYPES = ("application/pdf", "text/vcard", "text/x-vcard", "text/plain", "text/calendar")


def _of(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _taken_type(media_type: str) -> bool:
    if media_type in _TYPES or media_type.startswith("application/vnd."):
        return True
    return media_type.startswith(("image/", "audio/", "video/")) and media_type != "image/svg+xml"


def _name(answer: aiohttp.ClientResponse, path: str, media_type: str) -> str:
    """The name that the storage gives, or the file's own id with the ending of its type."""
    given = answer.content_disposition.filename if answer.content_disposition else None
    plain = re.sub(r"[\x00-\x1f\x7f]", "", (given or "").replace("\\", "/").rpartition("/")[2]).strip(" .")
    if plain:
        return plain[-100:]
    named = _FILE.fullmatch(path)
    return (named["sid"] if named else "file") + (mimetypes.guess_extension(media_type) or "")
