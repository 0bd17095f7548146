"""Samples of Telegram in webhook mode: updates as the Bot API posts them."""

from __future__ import annotations

import json
import time
from typing import Any

from channels import Channel, Surroundings
from channels.settings import TelegramSettings
from channels.telegram import channel
from domain import PartKind, Reply
from tests.samples import Call, Example, NoLeases, Samples
from tests.telegram_server import TOKEN

JSON = {"Content-Type": "application/json"}
HEADER = "X-Telegram-Bot-Api-Secret-Token"
NEW, OLD = "the_new_secret", "the-old-secret"
_LI = {"id": 7001, "is_bot": False, "first_name": "Li", "language_code": "zh-hans"}
_FILE = {"file_id": "F", "file_unique_id": "U", "file_size": 12}


def settings(**changes: Any) -> TelegramSettings:
    known: dict[str, Any] = {"enabled": True, "token": TOKEN, "mode": "webhook", "webhook_secrets": [NEW, OLD]}
    return TelegramSettings(**(known | changes))


def make(**changes: Any) -> Channel:
    return channel("telegram", settings(**changes), Surroundings("http://sluice.test", NoLeases()))


def refusal(status: int, description: str, **parameters: Any) -> bytes:
    """What the Bot API says instead of a result."""
    said = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    return json.dumps(said).encode()


def message(number: int, **values: Any) -> dict[str, Any]:
    chat = {"id": 7001, "type": "private", "first_name": "Li"}
    made = {"message_id": number, "date": int(time.time()), "chat": chat, "from": _LI} | values
    return {"update_id": 1000 + number, "message": made}


def signed(content: bytes, secret: str = NEW) -> Call:
    return Call(content, {HEADER: secret, "Content-Type": "application/json"})


def call(update: Any, secret: str = NEW) -> Call:
    return signed(json.dumps(update, ensure_ascii=False).encode(), secret)


def samples() -> Samples:
    update = message(1, text="where is my claim")
    body = json.dumps(update).encode()
    photo = [_FILE | {"width": 9, "height": 9}]
    press = {"id": "q1", "from": _LI, "chat_instance": "1", "data": "1|person|S-123456|zh"}
    return Samples(
        make=make,
        examples=[
            Example("zh", call(message(11, text="理赔三周没有消息")), ["理赔三周没有消息"]),
            Example("en", call(message(12, text="The app crashes")), ["The app crashes"]),
            Example("emoji", call(message(13, text="😡👨‍👩‍👧 no answer")), ["😡👨‍👩‍👧 no answer"]),
            Example(
                "media", call(message(14, photo=photo, caption="看看这张照片")), ["看看这张照片"], [PartKind.IMAGE]
            ),
            Example("empty", call(message(15, voice=_FILE | {"duration": 3})), [""], [PartKind.AUDIO]),
            Example("unknown", call(message(16, hologram={"new": True})), [""], [PartKind.UNKNOWN]),
            Example("button", call({"update_id": 17, "callback_query": press}), ["转人工"], [PartKind.BUTTON]),
            Example("new kind", call({"update_id": 18, "telepathy": {}}), [], unreadable=1),
        ],
        rotated=call(update, OLD),
        unsigned={
            "missing": Call(body),
            "empty": signed(body, ""),
            "wrong": signed(body, "another_secret"),
            "truncated": signed(body, NEW[:-1]),
            "longer": signed(body, f"{NEW}x"),
            "other case": signed(body, NEW.upper()),
            "not ascii": signed(body, "ü"),
            "both": signed(body, f"{NEW},{OLD}"),
        },
        garbage=signed(b"\xff no json"),
        too_long="长" * 4096 * 10 + "!",
        sign=signed,
        errors=[
            ("blocked", 403, JSON, refusal(403, "Forbidden: bot was blocked by the user"),
             {"permanent": True, "refused": "blocked"}),
            ("no chat", 400, JSON, refusal(400, "Bad Request: chat not found"), {"permanent": True}),
            ("too fast", 429, JSON, refusal(429, "Too Many Requests: retry after 3", retry_after=3), {"retry": True}),
            ("token refused", 401, JSON, refusal(401, "Unauthorized"), {"broken": True, "pause": True}),
            ("fault", 500, JSON, refusal(500, "Internal Server Error"), {"unknown": True}),
            ("a proxy's page", 200, {"Content-Type": "text/html"}, b"<html>no</html>", {"unknown": True}),
            ("half an answer", 200, JSON, b'{"ok":', {"unknown": True}),
        ],
        at=lambda url: make(api_url=url, timeout=2),
        taken=(200, JSON, json.dumps({"ok": True, "result": message(77, text="ok")["message"]}).encode()),
        reply=Reply(to="7001", text="您好", key="k1", account=TOKEN.partition(":")[0], thread="7001"),
    )  # fmt: skip
