"""Meta's channels as the application makes them, with Meta at a URL of a test's choice, and what all three share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from channels import Channel, Hook, Parsed, Surroundings, instagram, messenger, whatsapp
from channels.settings import InstagramSettings, MessengerSettings, WhatsAppSettings
from domain import Message, Notice, Reply, Unreadable
from tests import meta_server as meta
from tests.samples import Call, NoLeases, request_of

VERIFY, OLD_VERIFY = "what we told Meta", "what we told it before"
MAKERS: Mapping[str, tuple[Any, Any, str]] = {
    "messenger": (messenger.channel, MessengerSettings, meta.PAGE),
    "instagram": (instagram.channel, InstagramSettings, meta.INSTAGRAM),
    "whatsapp": (whatsapp.channel, WhatsAppSettings, meta.NUMBER),
}
WHO = {"messenger": meta.PSID, "instagram": meta.IGSID, "whatsapp": meta.WA_ID}


def make(name: str, url: str = "https://graph.test", **changes: Any) -> Channel:
    maker, model, account = MAKERS[name]
    given: dict[str, Any] = {
        "enabled": True,
        "app_secrets": [meta.SECRET, meta.OLD_SECRET],
        "verify_tokens": [VERIFY, OLD_VERIFY],
        "accounts": [{"id": account, "name": "Main", "token": meta.TOKEN}],
        "graph_url": url,
        "timeout": 5,
    }
    made: Channel = maker(name, model(**(given | changes)), Surroundings("http://sluice.test", NoLeases()))
    return made


def hook_of(name: str, **changes: Any) -> Hook:
    hook = make(name, **changes).hook
    assert hook is not None
    return hook


def call(body: bytes, secret: str = meta.SECRET) -> Call:
    return Call(body, meta.signed(body, secret))


def parse(name: str, body: bytes, *, received_at: datetime | None = None, **changes: Any) -> Parsed:
    """What a signed notification brings."""
    hook = hook_of(name, **changes)
    request = request_of(name, call(body), received_at=received_at or datetime.now(UTC))
    hook.verify(request)
    return hook.parse(request)


def messages(parsed: Parsed) -> list[Message]:
    """All that was brought, none of it unreadable."""
    assert not [each for each in parsed.items if isinstance(each, Unreadable)]
    return [each for each in parsed.items if isinstance(each, Message)]


def one(parsed: Parsed) -> Message:
    [found] = messages(parsed)
    return found


def told(parsed: Parsed, kind: type[Notice]) -> list[Any]:
    return [each for each in parsed.notices if isinstance(each, kind)]


def parts(message: Message) -> list[tuple[str, str, Mapping[str, str] | None]]:
    return [(each.kind.value, each.text, each.reference) for each in message.parts]


def reply(name: str, text: str = "您好，已经在办理。", **changes: Any) -> Reply:
    given: dict[str, Any] = {
        "to": WHO[name],
        "text": text,
        "key": "k1",
        "account": MAKERS[name][2],
        "heard_at": datetime.now(UTC),
        "language": "zh",
    }
    return Reply(**(given | changes))


# --- what the contract's samples share --------------------------------------------------------------------------------


def unsigned(body: bytes) -> dict[str, Call]:
    whole = meta.signed(body)["X-Hub-Signature-256"]

    def with_signature(value: str) -> Call:
        return Call(body, {"X-Hub-Signature-256": value})

    return {
        "missing": Call(body),
        "empty": with_signature(""),
        "nothing but the prefix": with_signature("sha256="),
        "wrong": with_signature("sha256=" + "0" * 64),
        "truncated": with_signature(whole[:-2]),
        "without its prefix": with_signature(whole.removeprefix("sha256=")),
        "not ascii": with_signature("sha256=ü"),
        "the older kind": Call(body, {"X-Hub-Signature": whole.replace("sha256", "sha1")}),
        "other secret": call(body, "another secret"),
        "other body": Call(body.replace(b"where", b"Where"), meta.signed(body)),
        "written otherwise": Call(body.replace(b"\\/", b"/") + b" ", meta.signed(body)),
    }


def challenges() -> tuple[tuple[Call, bytes], Call]:
    query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    good = Call(b"", query=query + VERIFY.replace(" ", "+"), method="GET")
    return (good, b"1158201444"), Call(b"", query=query + "guessed", method="GET")


Error = tuple[str, int, Mapping[str, str], bytes, Mapping[str, Any]]


def error(name: str, said: meta.Said, **marks: Any) -> Error:
    return name, said.status, said.headers, said.body, marks


def common_errors() -> list[Error]:
    """What the Graph API says on all three."""
    usage = {"x-app-usage": "{}", "x-business-use-case-usage": '{"1":[{"estimated_time_to_regain_access":3}]}'}
    limit = meta.refusal(4, status=403)
    return [
        error("token expired", meta.refusal(190, 463, status=401), broken=True, pause=True),
        error("token wrong", meta.refusal(190, status=401), broken=True, pause=True),
        error("permission taken back", meta.refusal(10, status=403), broken=True, pause=True),
        error("permission missing", meta.refusal(230, status=403), broken=True, pause=True),
        error("no such account", meta.refusal(100, 33), broken=True, pause=True),
        error("restricted by Meta", meta.refusal(368), broken=True, pause=True),
        error("app's limit", meta.Said(limit.status, limit.body, usage), retry=True, pause=True),
        error("page's limit", meta.refusal(32), retry=True, pause=True),
        error("business limit", meta.refusal(80006), retry=True, pause=True),
        error("too many calls, no JSON", meta.html(429), retry=True, pause=True),
        error("passing fault", meta.refusal(2, status=500), retry=True),
        error("passing by its own word", meta.refusal(4711, is_transient=True), retry=True),
        error("unknown fault", meta.refusal(1, status=500), retry=True),
        error("bad parameter", meta.refusal(100), permanent=True),
        error("unheard-of code", meta.refusal(987654321), permanent=True),
        error("a proxy's page", meta.html(502), unknown=True),
        error("a page that looks like success", meta.html(200), unknown=True),
        error("half an answer", meta.Said(200, b'{"recipient_id":"1","mess'), unknown=True),
        error("no name of the message", meta.Said(200, b'{"recipient_id":"1"}'), unknown=True),
    ]


def at(name: str) -> Callable[[str], Channel]:
    return lambda url: make(name, url)
