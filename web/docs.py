"""/api/docs: the API described, from its own OpenAPI document. No script and no other host, unlike the usual pages."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape

from web import api
from web.paths import TEMPLATES

routes = APIRouter()
_pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=select_autoescape())


def _document() -> dict[str, Any]:
    return get_openapi(title="Sluice", version="1", routes=api.routes.routes)


@routes.get("/api/openapi.json")
async def openapi() -> JSONResponse:
    return JSONResponse(_document())


@routes.get("/api/docs")
async def docs(request: Request) -> HTMLResponse:
    document = _document()
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "says": operation.get("description") or operation.get("summary", ""),
            "parameters": [
                each for each in operation.get("parameters", []) if each["in"] in ("query", "path", "header")
            ],
            "body": _fields(document, operation.get("requestBody")),
        }
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    page = _pages.get_template("api_docs.html")
    return HTMLResponse(page.render(operations=operations, base=str(request.base_url).rstrip("/")))


def _fields(document: dict[str, Any], body: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Name, type and necessity of a body's fields."""
    if body is None:
        return []
    schema = body["content"]["application/json"]["schema"]
    for option in [schema, *schema.get("anyOf", [])]:
        if "$ref" in option:
            schema = document["components"]["schemas"][option["$ref"].rpartition("/")[2]]
            break
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "type": " or ".join(each.get("type", "") for each in field.get("anyOf", [field])),
            "required": name in required,
            "says": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]
