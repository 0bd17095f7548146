"""Samples of a generic webhook: app reviews, each with stars, an author and a text."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from pydantic import SecretStr

from channels import Channel, Surroundings
from channels.settings import FieldMap, WebhookSource
from channels.webhook import channel
from tests.samples import Call, Example, NoLeases, Samples

NAME = "app_reviews"
NEW, OLD = "the new secret", "the old secret"
FIELDS = FieldMap(
    external_id="id",
    sender="author.id",
    sender_name="author.name",
    subject="title",
    text=["title", "body", "answers.0.text"],
    thread="author.id",
    received_at="at",
)


def settings(**changes: Any) -> WebhookSource:
    return WebhookSource(secrets=[SecretStr(NEW), SecretStr(OLD)], records="reviews", fields=FIELDS).model_copy(
        update=changes
    )


def make() -> Channel:
    return channel(NAME, settings(), Surroundings("http://sluice.test", NoLeases()))


def review(number: int, **values: Any) -> dict[str, Any]:
    given = {"id": f"r{number}", "author": {"id": "u-7", "name": "Li"}, "stars": 2, "at": int(time.time() * 1000)}
    return given | values


def body(*reviews: Any) -> bytes:
    return json.dumps({"app": "de.example", "reviews": list(reviews)}, ensure_ascii=False).encode()


def signature(content: bytes, stamp: str, secret: str = NEW) -> str:
    return hmac.new(secret.encode(), stamp.encode() + b"." + content, hashlib.sha256).hexdigest()


def signed(content: bytes, secret: str = NEW, *, age: float = 0) -> Call:
    stamp = str(int(time.time() - age))
    return Call(
        content,
        {"X-Sluice-Timestamp": stamp, "X-Sluice-Signature": f"sha256={signature(content, stamp, secret)}"},
    )


def samples() -> Samples:
    content = body(review(1, body="where is my money"))
    good = signed(content)
    stamp, whole = good.headers["X-Sluice-Timestamp"], good.headers["X-Sluice-Signature"]

    def with_signature(value: str) -> Call:
        return Call(content, {"X-Sluice-Timestamp": stamp, "X-Sluice-Signature": value})

    return Samples(
        make=make,
        examples=[
            Example("zh", signed(body(review(11, title="差评", body="理赔三周没有消息"))), ["差评\n理赔三周没有消息"]),
            Example("en", signed(body(review(12, body="The app crashes"))), ["The app crashes"]),
            Example("emoji", signed(body(review(13, body="😡👨‍👩‍👧 no answer"))), ["😡👨‍👩‍👧 no answer"]),
            Example("empty", signed(body(review(14, body=""))), [""]),
            Example("answers", signed(body(review(15, answers=[{"text": 4}]))), ["4"]),
            Example("batch", signed(body(review(16, body="one"), review(17, body="two"))), ["one", "two"]),
            Example("unknown", signed(body({"kind": "deleted", "id": "r18"})), [], unreadable=1),
        ],
        rotated=signed(content, OLD),
        unsigned={
            "missing": Call(content, {"X-Sluice-Timestamp": stamp}),
            "empty": with_signature(""),
            "wrong": with_signature(f"sha256={'0' * 64}"),
            "truncated": with_signature(whole[:-2]),
            "no prefix": with_signature(whole.removeprefix("sha256=")),
            "not ascii": with_signature("sha256=ü"),
            "other secret": signed(content, "another secret"),
            "other body": Call(content.replace(b"money", b"Money"), good.headers),
            "other time": Call(content, {**good.headers, "X-Sluice-Timestamp": str(int(stamp) + 1)}),
            "no time": Call(content, {"X-Sluice-Signature": whole}),
            "old": signed(content, age=301),
            "from the future": signed(content, age=-302),
        },
        garbage=signed(b"\xff no json"),
        sign=signed,
    )
