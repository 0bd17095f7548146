"""Static files under addresses that change with their content, so that browsers may keep them for a year."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from urllib.parse import parse_qs

from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from web.paths import STATIC


def static(name: str) -> str:
    """The address of a static file."""
    return f"/static/{name}?v={_digest(name)}"


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


class KeptFiles(StaticFiles):
    """What is asked for by its content's address never changes.

    A digest that is not of this file gets no such promise: while two versions of Sluice serve side by side, a browser
    would keep the old file under the new one's address.
    """

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("v")
        if asked and asked[0] == _digest(self.get_path(scope)):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
