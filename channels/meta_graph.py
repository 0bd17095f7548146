"""Meta's Graph API: sending, fetching what parts refer to, and asking whether a token works.

The token goes in the `Authorization` header, and to Meta's hosts alone: addresses end up in logs. No exception of the
HTTP library is quoted, because it may name the address.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from channels import Health, Limits
from channels.meta import mapping, words
from channels.meta_errors import error_of, number
from channels.settings import MetaPage, MetaSettings
from domain import Attachment, ChannelError, Receipt, Reply

# It writes every address that it calls, and those of pictures let anybody fetch them.
logging.getLogger("httpx").setLevel(logging.WARNING)

DAY = timedelta(hours=24)
_MOST_ANSWER = 1_000_000
_REDIRECTS = 3
_SOON = 30.0
_HOSTS = ("fbcdn.net", "fbsbx.com", "cdninstagram.com", "facebook.com", "whatsapp.net")


def utf16(text: str) -> int:
    """A text's length as Meta's own programs count it at most: an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def unheard(reply: Reply, window: timedelta = DAY) -> bool:
    """The customer wrote longer ago than `window`, or never."""
    return reply.heard_at is None or datetime.now(UTC) - reply.heard_at > window


class Graph:
    """One HTTP client for all that a channel asks of Meta."""

    def __init__(self, settings: MetaSettings, pages: Mapping[str, MetaPage]) -> None:
        self.settings = settings
        self.pages = pages
        self.client = httpx.AsyncClient(timeout=settings.timeout, follow_redirects=False)
        parts = urlsplit(settings.graph_url)
        self._own = (parts.scheme, parts.netloc)

    def url(self, path: str) -> str:
        return f"{self.settings.graph_url}/{self.settings.graph_version}/{path}"

    def is_metas(self, url: str) -> bool:
        """Whether something is fetched from there at all: Meta over https, or where the Graph API was set to be."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            return False
        if (parts.scheme, parts.netloc) == self._own:
            return True
        return parts.scheme == "https" and any(host == each or host.endswith(f".{each}") for each in _HOSTS)

    def token(self, account: str) -> str:
        """Raises `ChannelError` (broken) where the settings have none."""
        page = self.pages.get(account)
        if page is None or page.token is None or not page.token.get_secret_value():
            raise ChannelError(f"No access token is set for the account {account or 'of this answer'}.", broken=True)
        return page.token.get_secret_value()

    async def get(self, account: str, path: str, **query: str) -> dict[str, Any]:
        """Raises `ChannelError`."""
        headers = {"Authorization": f"Bearer {self.token(account)}"}
        try:
            async with asyncio.timeout(self.settings.timeout):
                answer = await self.client.get(self.url(path), params=query, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            raise ChannelError("Meta cannot be reached.", retry_after=_SOON) from None
        found = _json(answer)
        if found is None:
            raise ChannelError(f"Meta gave no sensible answer (HTTP {answer.status_code}).", retry_after=_SOON)
        if "error" in found or answer.status_code >= 400:
            raise error_of(found, answer.status_code, answer.headers)
        return found

    async def post(self, account: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send, once. Raises `ChannelError`, `unknown` as soon as Meta may have the message."""
        headers = {"Authorization": f"Bearer {self.token(account)}", "Content-Type": "application/json"}
        content = json.dumps(body, ensure_ascii=True).encode()
        handed_over = False

        async def watch(event: str, _info: Mapping[str, Any]) -> None:
            nonlocal handed_over
            handed_over = handed_over or event.endswith("send_request_body.started")

        try:
            async with asyncio.timeout(self.settings.timeout):
                answer = await self.client.post(
                    self.url(path), content=content, headers=headers, extensions={"trace": watch}
                )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            if handed_over:
                raise ChannelError("Meta did not answer after it was given the message.", unknown=True) from None
            raise ChannelError("Meta cannot be reached.", retry_after=_SOON) from None
        found = _json(answer)
        if found is None and answer.status_code in (401, 429):
            found = {}
        if found is None:
            raise ChannelError(f"Meta gave no sensible answer (HTTP {answer.status_code}).", unknown=True)
        if "error" in found or answer.status_code >= 400:
            raise error_of(found, answer.status_code, answer.headers)
        return found

    async def close(self) -> None:
        await self.client.aclose()


def _json(answer: httpx.Response) -> dict[str, Any] | None:
    """None where it is no JSON object: a proxy's page, or a broken answer."""
    try:
        found = json.loads(answer.content) if len(answer.content) <= _MOST_ANSWER else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class MetaSender:
    """The way out of one of Meta's channels."""

    def __init__(self, name: str, graph: Graph, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.graph = graph

    def account(self, reply: Reply) -> str:
        """Which of our accounts the answer goes out from: the one that the customer wrote to."""
        return reply.account or next(iter(self.graph.pages), "")

    async def send(self, reply: Reply) -> Receipt:
        account = self.account(reply)
        found = await self.graph.post(account, self.path(account), self.body(reply))
        provider_id = self.provider_id(found)
        if not provider_id:
            raise ChannelError("Meta did not say what it made of the message.", unknown=True)
        return Receipt(provider_id=provider_id)

    def path(self, account: str) -> str:
        return f"{account}/messages"

    def body(self, reply: Reply) -> dict[str, Any]:
        """What is posted. Raises `ChannelError` (permanent) where nothing can be made of the reply."""
        raise NotImplementedError

    def provider_id(self, answer: Mapping[str, Any]) -> str:
        return words(answer.get("message_id"), 512)

    async def close(self) -> None:
        await self.graph.close()


class MetaFetcher:
    """Fetches a file by its address, or by the id that WhatsApp gives instead."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._most = graph.settings.media_most

    async def fetch(self, reference: Mapping[str, str]) -> Attachment:
        if not (media_id := reference.get("id", "")):
            return await self._file(reference.get("url", ""), reference)
        account = reference.get("account", "")
        try:
            known = await self._graph.get(account, media_id, phone_number_id=account)
            headers = {"Authorization": f"Bearer {self._graph.token(account)}"}
        except ChannelError as error:
            if not error.broken:
                raise
            # A person puts the token in order; the file stays with Meta for a week.
            raise ChannelError(str(error), retry_after=900.0) from None
        if (number(known.get("file_size")) or 0) > self._most:
            raise self._too_large()
        media_type = {"media_type": words(known.get("mime_type"), 128)} if known.get("mime_type") else {}
        return await self._file(words(known.get("url")), {**reference, **media_type}, headers)

    async def _file(
        self, url: str, reference: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Attachment:
        for _ in range(_REDIRECTS + 1):
            if not self._graph.is_metas(url):
                raise ChannelError("It lies with somebody else than Meta and is not fetched.", permanent=True)
            try:
                async with self._graph.client.stream("GET", url, headers=headers) as answer:
                    if not answer.is_redirect:
                        return await self._content(answer, reference)
                    url, headers = _elsewhere(url, answer.headers["location"]), None
            except (httpx.HTTPError, httpx.InvalidURL):
                raise ChannelError("Meta cannot be reached.", retry_after=_SOON) from None
        raise ChannelError("Meta sends us from one place to the next.", retry_after=_SOON)

    async def _content(self, answer: httpx.Response, reference: Mapping[str, str]) -> Attachment:
        status = answer.status_code
        if status == 429 or status >= 500:
            raise ChannelError(f"Meta has a passing fault (HTTP {status}).", retry_after=_SOON)
        if status == 401 and "id" in reference:  # its address lasts five minutes: the next try asks for a new one
            raise ChannelError("Meta did not give the file.", retry_after=_SOON)
        if status >= 300:
            raise ChannelError(f"It is not with Meta any more (HTTP {status}).", permanent=True)
        content = bytearray()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > self._most:
                raise self._too_large()
        said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        media_type = (reference.get("media_type") or said).partition(";")[0].strip() or "application/octet-stream"
        name = reference.get("name") or _name(urlsplit(str(answer.url)).path, media_type)
        return Attachment(name=name, media_type=media_type, content=bytes(content))

    def _too_large(self) -> ChannelError:
        return ChannelError(f"It is larger than {self._most:,} bytes.", permanent=True)


def _elsewhere(url: str, location: str) -> str:
    """Where an answer sends us; "" where that is no address."""
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _name(path: str, media_type: str) -> str:
    """A name for a file that has none: the last step of its address, or its kind."""
    last = path.rpartition("/")[2]
    if "." in last and len(last) <= 100:
        return last
    return media_type.partition("/")[0] + (mimetypes.guess_extension(media_type) or "")


class MetaProbe:
    """Asks for each account's name with its token."""

    def __init__(self, name: str, graph: Graph, fields: str) -> None:
        self._name = name
        self._graph = graph
        self._fields = fields

    async def probe(self) -> Health:
        pages = list(self._graph.pages.values())
        if not pages:
            return Health(self._name, ok=False, detail="no account is set (accounts), so that nobody can be answered")
        found = await asyncio.gather(*(self._ask(number, page) for number, page in enumerate(pages)))
        return Health(self._name, ok=all(ok for ok, _said in found), detail="; ".join(said for _ok, said in found))

    async def _ask(self, place: int, page: MetaPage) -> tuple[bool, str]:
        label = f"{page.name} ({page.id})" if page.name else page.id
        if page.token is None or not page.token.get_secret_value():
            variable = f"SLUICE_{self._name.upper()}__ACCOUNTS__{place}__TOKEN"
            return False, f"{label}: no access token; give it by {variable}"
        try:
            known = await self._graph.get(page.id, page.id, fields=self._fields)
        except ChannelError as error:
            return False, f"{label}: {error}"
        names = (words(known.get(each), 100) for each in self._fields.split(","))
        return True, f"{label}: works, Meta calls it {', '.join(each for each in names if each) or 'nothing'}"


def pages_of(settings: MetaSettings) -> dict[str, MetaPage]:
    return {each.id: each for each in settings.accounts}


def said_by(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The members of a list in an answer."""
    found = answer.get(name)
    return [mapping(each) for each in found] if isinstance(found, list) else []
