"""/hooks/<channel>: the address that a provider is given."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from channels import Request
from domain import NotFound
from web.api_access import body_of
from web.context import web_of


async def called(http: HttpRequest) -> Response:
    web = web_of(http)
    if web.hooks is None:
        raise NotFound("There are no channels here that are called.")
    path, query = http.scope["path"], http.scope["query_string"].decode("latin-1")
    raw_path = http.scope.get("raw_path")
    asked = raw_path.decode("latin-1") if raw_path else path
    request = Request(
        method=http.method,
        url=f"{web.desk.public_url}{asked}" + (f"?{query}" if query else ""),
        rest=http.path_params.get("rest", ""),
        query=dict(http.query_params),
        headers={name.lower(): value for name, value in http.headers.items()},
        body=await body_of(http) if http.method == "POST" else b"",
        received_at=datetime.now(UTC),
    )
    answer = await web.hooks.called(http.path_params["channel"], request)
    return Response(answer.body, answer.status, media_type=answer.media_type)


routes = [
    Route("/hooks/{channel}", called, methods=["GET", "POST"]),
    Route("/hooks/{channel}/{rest:path}", called, methods=["GET", "POST"]),
]
