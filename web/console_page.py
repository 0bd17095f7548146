"""How console pages are made: templates by language, the headers that every page bears, errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from domain import (
    Conflict,
    Forbidden,
    ForbiddenMove,
    InvalidInput,
    NotFound,
    SluiceError,
    TooMany,
    Unavailable,
    public_number,
)
from web import console_labels as labels
from web import console_views
from web.auth import BadToken, SignedOut, Visit, sign_in_path
from web.console_static import static
from web.paths import TEMPLATES
from web.words import N_, Words, negotiated, text_tag

SAID = "sluice_said"
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "HX-Request, Cookie, Accept-Language",
}


#: sentences that the script needs
_SCRIPT = {
    "m": N_("%(n)sm"),
    "h": N_("%(n)sh"),
    "d": N_("%(n)sd"),
    "now": N_("just now"),
    "ago": N_("%(time)s ago"),
    "over": N_("over %(time)s"),
    "live": N_("live"),
    "stale": N_("as of %(time)s, reconnecting"),
    "new": N_("New tickets: %(n)s"),
    "failed": N_("That did not work. What you wrote is still here. Try again."),
    "offline": N_("No connection. What you wrote is kept here; sending waits for you."),
    "out": N_("You are signed out. What you wrote is still here."),
    "sign_in": N_("Sign in again"),
    "changed": N_("This ticket was changed."),
    "reload": N_("Load again"),
    "kept": N_("Draft kept in this tab"),
    "new_message": N_("A new message arrived."),
}


@cache
def environment(words: Words) -> Environment:
    """The templates of one language."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    env.install_gettext_callables(  # type: ignore[attr-defined]
        words.catalog.ugettext, words.catalog.ungettext, newstyle=True
    )
    env.globals |= {
        "words": words,
        "labels": labels,
        "views": console_views,
        "static": static,
        "icon": _icon,
        "text_tag": text_tag,
        "public_number": public_number,
        "script_words": {name: words.gettext(text) for name, text in _SCRIPT.items()},
    }

    @pass_context
    def name_of(context: Context, name: object, table: Mapping[str, str]) -> str:
        visit = context.get("visit")
        if table is labels.CHANNELS and visit is not None and (own := visit.web.desk.channel_names.get(str(name))):
            return str(own[words.language])
        return labels.label(words, table, str(name))

    env.filters["name_of"] = name_of
    env.filters["n"] = words.number
    env.filters["iso"] = lambda at: at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return env


def _icon(name: str) -> Markup:
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>').format(static("icons.svg"), name)


def is_fragment(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


def page(
    request: Request, template: str, *, visit: Visit | None = None, status: int = 200, **context: Any
) -> HTMLResponse:
    """A page or fragment in the reader's language."""
    words = visit.words if visit is not None else negotiated(request)
    said = ""
    if visit is not None and not is_fragment(request):
        said = labels.DONE.get(request.cookies.get(SAID, ""), "")
    body = environment(words).get_template(template).render(
        request=request,
        visit=visit,
        place="",
        now=datetime.now(UTC),
        flash=words.gettext(said),
        **context,
    )  # fmt: skip
    response = HTMLResponse(body, status_code=status, headers=HEADERS)
    if said:
        response.delete_cookie(SAID, path="/console")
    return response


def done(path: str, said: str = "") -> Response:
    """On to a page after a form; what was done is said there once."""
    response = RedirectResponse(path, status_code=303, headers=HEADERS)
    if said:
        response.set_cookie(SAID, said, max_age=20, path="/console", httponly=True, samesite="lax")
    return response


# --- errors -----------------------------------------------------------------------------------------------------------

_SENTENCES: list[tuple[type[SluiceError], str, str]] = [
    (BadToken, N_("This form is too old"), N_("Nothing was changed. Load the page again and repeat the step.")),
    (Forbidden, N_("Not for your role"), N_("Ask a supervisor if you need it.")),
    (NotFound, N_("There is nothing here"), N_("The address may be incomplete, or it is gone.")),
    (
        ForbiddenMove,
        N_("The ticket cannot go there now"),
        N_("Somebody may have changed it meanwhile. Load the ticket again."),
    ),
    (Conflict, N_("Somebody was faster"), N_("Nothing of yours was changed. Load the page again and look.")),
    (InvalidInput, N_("Something is missing"), N_("Nothing was changed. Look at the field and send again.")),
    (TooMany, N_("Too many attempts"), N_("Wait a minute, then try again.")),
    (Unavailable, N_("The desk is back soon"), N_("The database does not answer. Nothing was stored; try again.")),
]
_OTHER = (N_("Something went wrong"), N_("It was our fault, and it is logged. Try again."))
FIELDS = {
    "text": N_("Write something first."),
    "department": N_("Choose a department."),
    "reason": N_("Say why, so that nobody need guess."),
    "user": N_("There is nobody of that name."),
    "code": N_("64 characters at most."),
    "intent": N_("Choose what the message is about."),
    "sentiment": N_("Choose the mood."),
    "password": N_("10 characters at least."),
    "name": N_("1 to 64 letters, digits, dots or hyphens."),
    "old": N_("The present password is wrong."),
}


def error_page(request: Request, error: SluiceError, headers: Mapping[str, str] | None = None) -> Response:
    """An error in its reader's words: what happened, what is safe, what to do."""
    visit = getattr(request.state, "visit", None)
    words = visit.words if visit is not None else negotiated(request)
    title, text = next(((t, s) for kind, t, s in _SENTENCES if isinstance(error, kind)), _OTHER)
    if isinstance(error, InvalidInput):
        text = FIELDS.get(error.field, text)
    template = "_error.html" if is_fragment(request) else "error.html"
    response = page(
        request, template, visit=visit, status=error.status, title=words.gettext(title), text=words.gettext(text)
    )
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        response.headers["Retry-After"] = str(int(wait + 0.999))
    response.headers.update(headers or {})
    return response


class ConsoleRoute(APIRoute):
    """A route whose errors are pages; who is signed out is led to the sign-in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except SignedOut as error:
                if is_fragment(request) or request.headers.get("accept") == "text/event-stream":
                    response = error_page(request, error)
                    response.headers["X-Sign-In"] = sign_in_path(request)
                    return response
                return RedirectResponse(sign_in_path(request), status_code=303, headers=HEADERS)
            except RequestValidationError:
                return error_page(request, NotFound())
            except HTTPException as error:
                return error_page(request, InvalidInput("", error.detail))
            except SluiceError as error:
                return error_page(request, error)

        return handle
