"""Samples of WhatsApp's Cloud API."""

from __future__ import annotations

from typing import Any

from domain import OutState, PartKind
from tests import meta_server as meta
from tests import meta_world as world
from tests.meta_server import contact, status, whatsapp, wrote
from tests.samples import Example, Samples

PICTURE = {"mime_type": "image/jpeg", "sha256": "ianjM4k=", "id": "1003383421387256"}
FAILED = {"errors": [{"code": 131026, "title": "Message undeliverable", "error_data": {"details": "..."}}]}


def samples() -> Samples:
    english = whatsapp(wrote("text", "where is my money"))
    hidden = whatsapp(wrote("text", "who am I", sender=meta.USER_ID), contacts=[contact(meta.USER_ID, "@li")])
    unsupported = wrote("unsupported", {"type": "poll"}, errors=[{"code": 131051, "title": "Message type unknown"}])
    challenge, bad_challenge = world.challenges()

    def told(state: str, **more: Any) -> bytes:
        return whatsapp(statuses=[status("wamid.ours", state, **more)])

    return Samples(
        make=lambda: world.make("whatsapp"),
        examples=[
            Example("zh", world.call(whatsapp(wrote("text", "我要报案，车被撞了"))), ["我要报案，车被撞了"]),
            Example("en", world.call(english), ["where is my money"]),
            Example("emoji", world.call(whatsapp(wrote("text", "👨‍👩‍👧🙂 ok?"))), ["👨‍👩‍👧🙂 ok?"]),
            Example(
                "media",
                world.call(whatsapp(wrote("image", PICTURE | {"caption": "our roof"}))),
                ["our roof"],
                [PartKind.IMAGE],
            ),
            Example("empty", world.call(whatsapp(wrote("image", PICTURE))), [""], [PartKind.IMAGE]),
            Example("hidden number", world.call(hidden), ["who am I"]),
            Example("batch", world.call(whatsapp(wrote("text", "one"), wrote("text", "two"))), ["one", "two"]),
            Example("unknown", world.call(whatsapp(unsupported)), [""], [PartKind.UNKNOWN]),
        ],
        rotated=world.call(english, meta.OLD_SECRET),
        unsigned=world.unsigned(english),
        garbage=world.call(b"[1, 2"),
        statuses=[
            (world.call(told("sent")), "wamid.ours", OutState.SENT),
            (world.call(told("delivered")), "wamid.ours", OutState.DELIVERED),
            (world.call(told("read")), "wamid.ours", OutState.DELIVERED),
            (world.call(told("failed", **FAILED)), "wamid.ours", OutState.FAILED),
        ],
        challenge=challenge,
        bad_challenge=bad_challenge,
        too_long="理赔" * 12000,
        sign=world.call,
        errors=[
            *world.common_errors(),
            world.error("window closed", meta.refusal(131047), permanent=True),
            world.error("undeliverable", meta.refusal(131026), permanent=True),
            world.error("pair's limit", meta.refusal(131056), retry=True),
            world.error("throughput", meta.refusal(130429, status=429), retry=True, pause=True),
            world.error("spam limit", meta.refusal(131048), retry=True, pause=True),
            world.error("number's limit", meta.refusal(80007), retry=True, pause=True),
            world.error("something went wrong", meta.refusal(131000, status=500), retry=True),
            world.error("service unavailable", meta.refusal(131016, status=500), retry=True),
            world.error("payment", meta.refusal(131042), broken=True, pause=True),
            world.error("account locked", meta.refusal(131031), broken=True, pause=True),
            world.error("template paused", meta.refusal(132015), permanent=True),
        ],
        at=world.at("whatsapp"),
        taken=(200, {}, b'{"messaging_product":"whatsapp","messages":[{"id":"wamid.HBgL"}]}'),
        reply=world.reply("whatsapp"),
    )
