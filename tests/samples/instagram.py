"""Samples of Instagram: direct messages, stories among them."""

from __future__ import annotations

from functools import partial

from domain import OutState, PartKind
from tests import meta_server as meta
from tests import meta_world as world
from tests.meta_server import happened, instagram, said
from tests.samples import Example, Samples

CDN = "https://lookaside.fbsbx.com/ig_messaging_cdn/?asset_id=17&signature=Aby"
PICTURE = {"type": "image", "payload": {"url": CDN}}
dm = partial(said, sender=meta.IGSID, to=meta.INSTAGRAM)
event = partial(happened, sender=meta.IGSID, to=meta.INSTAGRAM)


def samples() -> Samples:
    english = instagram(dm("where is my money"))
    challenge, bad_challenge = world.challenges()
    seen = instagram(event(read={"mid": "aWdfours-1"}))
    mention = {"type": "story_mention", "payload": {"url": CDN}}
    return Samples(
        make=lambda: world.make("instagram"),
        examples=[
            Example("zh", world.call(instagram(dm("保单什么时候到期？"))), ["保单什么时候到期？"]),
            Example("en", world.call(english), ["where is my money"]),
            Example("emoji", world.call(instagram(dm("👨‍👩‍👧🙂 ok?"))), ["👨‍👩‍👧🙂 ok?"]),
            Example("media", world.call(instagram(dm(attachments=[PICTURE]))), [""], [PartKind.IMAGE]),
            Example("empty", world.call(instagram(dm(attachments=[mention]))), [""], [PartKind.STORY]),
            Example(
                "story reply",
                world.call(instagram(dm("how much?", reply_to={"story": {"url": CDN, "id": "179"}}))),
                ["how much?"],
                [PartKind.STORY],
            ),
            Example("batch", world.call(instagram(dm("one"), dm("two"))), ["one", "two"]),
            Example("unknown", world.call(instagram(dm(is_unsupported=True))), [""], [PartKind.UNKNOWN]),
        ],
        rotated=world.call(english, meta.OLD_SECRET),
        unsigned=world.unsigned(english),
        garbage=world.call(b'{"object":"instagram","entry":'),
        statuses=[(world.call(seen), "aWdfours-1", OutState.DELIVERED)],
        challenge=challenge,
        bad_challenge=bad_challenge,
        too_long="理赔" * 1000,
        sign=world.call,
        errors=[
            *world.common_errors(),
            world.error("window closed", meta.refusal(10, 2534022), permanent=True),
            world.error("account deleted", meta.refusal(100, 2534014), permanent=True),
        ],
        at=world.at("instagram"),
        taken=(200, {}, b'{"recipient_id":"9009009009009009","message_id":"aWdfGlkb"}'),
        reply=world.reply("instagram"),
    )
