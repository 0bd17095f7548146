"""A WeChat Official Account: /hooks/<name> takes its messages, the customer-service API carries the answers.

WeChat waits five seconds, tries three times, and shows the customer a fault when nobody answers. So every request is
answered `success` within two seconds: by the commit, or by a copy on this machine's disk while the database is down.
`success` says nothing to the customer: there is never a passive reply beside the customer-service message.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from channels import Answer, Channel, Parsed, Request, Surroundings
from channels.settings import WechatSettings, open_secrets
from channels.wechat_api import WechatApi, WechatFetcher, WechatProbe, WechatSender
from channels.wechat_crypto import Sealed, is_signed, key_of, opened
from channels.wechat_read import NoMessage, fields_of, read
from domain import Forbidden, Unreadable

#: anything but this or an empty body shows the customer "the service is not available"
SUCCESS = Answer(b"success")
#: seconds that a signed time may be off: a request that somebody recorded is refused later. WeChat's own tries come
#: within half a minute, and their MsgId is known already
_TOLERANCE = 600


class WechatHook:
    """`/hooks/<name>`. Plain: the body is as it is. Safe: only what is sealed counts. Compatible: what is sealed counts
    where there is such a part, as while an account changes from one to the other."""

    patience: float | None = 1.5

    def __init__(self, name: str, settings: WechatSettings) -> None:
        self.name = name
        self._settings = settings
        self._tokens = open_secrets(settings.tokens)
        self._keys = [key_of(each) for each in open_secrets(settings.aes_keys)]

    def challenge(self, request: Request) -> Answer:
        """The GET by which WeChat makes sure of us when the address is entered at mp.weixin.qq.com."""
        self._check(request, "signature")
        return Answer(request.query.get("echostr", "").encode("utf-8", "replace"))

    def verify(self, request: Request) -> None:
        sealed = self._sealed(request.body)
        if sealed:
            self._check(request, "msg_signature", sealed)
        elif self._settings.mode == "safe":
            raise Forbidden("Only encrypted messages are taken here.")
        else:
            self._check(request, "signature")

    def _sealed(self, body: bytes) -> str:
        """The sealed part; "" = there is none, or it does not count."""
        if self._settings.mode == "plain":
            return ""
        try:
            return fields_of(body).get("Encrypt", "")
        except NoMessage:
            return ""

    def _check(self, request: Request, name: str, *more: str) -> None:
        query = request.query
        stamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
        if not is_signed(query.get(name, ""), self._tokens, stamp, nonce, *more):
            raise Forbidden(f"The {name} is missing or wrong.")
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 11):
            raise Forbidden("The signed time is none.")
        if abs(request.received_at.timestamp() - int(stamp)) > _TOLERANCE:
            raise Forbidden("The signed time is too far off.")

    def parse(self, request: Request) -> Parsed:
        content = request.body
        try:
            if sealed := self._sealed(content):
                content = opened(sealed, self._keys, self._settings.app_id)
            parsed = read(self.name, content, request.received_at, self._settings.menu)
        except (NoMessage, Sealed) as error:
            parsed = Parsed((self._unreadable(content, request, str(error)),))
        return replace(parsed, answer=SUCCESS)

    def _unreadable(self, content: bytes, request: Request, reason: str) -> Unreadable:
        return Unreadable(
            channel=self.name,
            account=self._settings.app_id,
            external_id=f"sha256:{hashlib.sha256(content).hexdigest()}",
            received_at=request.received_at,
            reason=reason,
            raw=content,
        )

    def spooled(self, request: Request) -> Answer | None:
        return SUCCESS


def channel(name: str, settings: WechatSettings, around: Surroundings) -> Channel:
    """Without an app secret messages come in, and answers wait: nothing can be sent or fetched."""
    hook = WechatHook(name, settings)
    if settings.app_secret is None or not settings.app_secret.get_secret_value():
        return Channel(name, hook=hook, probe=WechatProbe(name, None))
    api = WechatApi(settings, settings.app_secret)
    return Channel(
        name,
        sender=WechatSender(name, api, settings.timeout),
        hook=hook,
        fetcher=WechatFetcher(api, settings.media_most),
        probe=WechatProbe(name, api),
    )
