"""Samples of Messenger: a page's notifications, and what the Send API answers."""

from __future__ import annotations

from domain import OutState, PartKind
from tests import meta_server as meta
from tests import meta_world as world
from tests.meta_server import happened, page, said
from tests.samples import Example, Samples

PICTURE = {"type": "image", "payload": {"url": "https://scontent.xx.fbcdn.net/v/t1/1.jpg?oh=00_Af"}}


def samples() -> Samples:
    english = page(said("where is my money"))
    challenge, bad_challenge = world.challenges()
    delivered = page(happened(delivery={"mids": ["m_ours-1"], "watermark": 1458668856253}))
    return Samples(
        make=lambda: world.make("messenger"),
        examples=[
            Example("zh", world.call(page(said("我的理赔三周没有消息"))), ["我的理赔三周没有消息"]),
            Example("en", world.call(english), ["where is my money"]),
            Example("emoji", world.call(page(said("😡👨‍👩‍👧 no answer"))), ["😡👨‍👩‍👧 no answer"]),
            Example("media", world.call(page(said("our roof", attachments=[PICTURE]))), ["our roof"], [PartKind.IMAGE]),
            Example("empty", world.call(page(said(attachments=[PICTURE, PICTURE]))), [""], [PartKind.IMAGE] * 2),
            Example(
                "postback",
                world.call(page(happened(postback={"title": "Talk to us", "payload": "TALK", "mid": meta.mid()}))),
                ["Talk to us"],
                [PartKind.BUTTON],
            ),
            Example("batch", world.call(page(said("one"), said("two"))), ["one", "two"]),
            Example("unknown", world.call(page(happened(hologram={"depth": 3}))), [""], [PartKind.UNKNOWN]),
        ],
        rotated=world.call(english, meta.OLD_SECRET),
        unsigned=world.unsigned(english),
        garbage=world.call(b"\xff no json"),
        statuses=[(world.call(delivered), "m_ours-1", OutState.DELIVERED)],
        challenge=challenge,
        bad_challenge=bad_challenge,
        too_long="理赔" * 6000,
        sign=world.call,
        errors=[
            *world.common_errors(),
            world.error("window closed", meta.refusal(10, 2018278), permanent=True),
            world.error("window closed, older", meta.refusal(10, 2018065, status=403), permanent=True),
            world.error("blocked", meta.refusal(10, 2018108), permanent=True, refused="blocked"),
            world.error("turned off", meta.refusal(200, 1545041, status=403), permanent=True, refused="blocked"),
            world.error("cannot be reached", meta.refusal(551), permanent=True),
            world.error("nobody", meta.refusal(100, 2018001), permanent=True),
            world.error("passing fault in sending", meta.refusal(1200), retry=True),
        ],
        at=world.at("messenger"),
        taken=(200, {}, b'{"recipient_id":"4004004004004004","message_id":"m_AG5Hz2U"}'),
        reply=world.reply("messenger"),
    )
