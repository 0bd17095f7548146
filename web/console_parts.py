"""A message's typed parts for people: what it is, its words, and its content once a worker has fetched it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import Connection
from starlette.responses import Response

from domain import Forbidden, NotFound
from storage import messages, tickets
from storage.types import AnyRow
from web.auth import Visit, signed_in
from web.console_page import HEADERS, ConsoleRoute

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

#: what a browser may show inside the page, by its first bytes, whatever a provider called it
_SHOWN = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"OggS", 0, "audio/ogg"),
    (b"ID3", 0, "audio/mpeg"),
    (b"\xff\xfb", 0, "audio/mpeg"),
    (b"WAVE", 8, "audio/wav"),
    (b"ftyp", 4, "video/mp4"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One part. `media`: "" where there is nothing to fetch, else waiting, fetched or failed."""

    kind: str
    text: str
    name: str
    media: str = ""
    attachment_id: int | None = None
    reason: str = ""
    #: image, audio, video: shown in the page; "" = offered as a download
    inside: str = ""


def shown(row: AnyRow, media: Sequence[AnyRow], files: Sequence[AnyRow]) -> list[Shown]:
    """A message's parts. `media`: its rows of what is fetched; `files`: its attachments."""
    by_part = {each.part: each for each in media}
    types = {each.id: str(each.media_type) for each in files}
    return [_shown(part, by_part.get(place), types) for place, part in enumerate((row.extra or {}).get("parts", []))]


def _shown(part: Mapping[str, Any], medium: AnyRow | None, types: Mapping[int, str]) -> Shown:
    kind, text, name = str(part.get("kind", "")), str(part.get("text", "")), str(part.get("name", ""))
    if medium is None:
        return Shown(kind, text, name)
    inside = types.get(medium.attachment_id or 0, "").partition("/")[0]
    # What is here may still have to be removed at its provider.
    state = "fetched" if medium.attachment_id else medium.state
    return Shown(
        kind, text, name, state, medium.attachment_id, medium.reason,
        inside if inside in ("image", "audio", "video") else "",
    )  # fmt: skip


def media_type(content: bytes) -> str:
    """What the content is, by itself; "" where a browser must not open it here."""
    return next((kind for mark, place, kind in _SHOWN if content[place : place + len(mark)] == mark), "")


@routes.get("/console/a/{attachment_id}/view")
async def view(attachment_id: int, visit: Annotated[Visit, Depends(signed_in)]) -> Response:
    """A picture, voice or video inside the page. Anything else is not served here."""

    def query(connection: Connection) -> tuple[AnyRow, str | None]:
        row = messages.attachment_of(connection, attachment_id)
        ticket_id = messages.get(connection, row.message_id).ticket_id
        return row, tickets.get(connection, ticket_id).department if ticket_id else None

    row, department = await visit.web.database.read(query)
    if not (visit.leads if department is None else visit.actor.may_see(department)):
        raise Forbidden
    content = bytes(row.content)
    found = media_type(content)
    if not found:
        raise NotFound("This is no picture, voice or video; download it instead.")
    sealed = "default-src 'none'; sandbox"
    return Response(content, media_type=found, headers={**HEADERS, "Content-Security-Policy": sealed})
