"""The console's own files: style, script, icons. Named with the digest of their content, so browsers may keep them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import FileResponse

from domain import NotFound
from web.console_page import STATIC, ConsoleRoute

routes = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FILES = {file.name: file for file in STATIC.iterdir() if file.suffix in _TYPES}


@routes.get("/console/static/{name}")
async def file(name: str) -> FileResponse:
    found = _FILES.get(name)
    if found is None:
        raise NotFound
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return FileResponse(found, media_type=_TYPES[found.suffix], headers=headers)
