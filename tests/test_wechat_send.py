"""WeChat out: the customer-service message, the one access token, customers' files, and what each refusal means.

Over real HTTP with a server on a loopback port that is strict where WeChat is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from channels import Channel, pieces, too_long
from channels.settings import WechatSettings
from channels.wechat_api import WechatSender
from domain import Attachment, ChannelError, Reply
from tests.samples import marks
from tests.samples.wechat import OPENID, make, samples
from tests.server_base import free_port
from tests.wechat_server import Said, WechatServer, page, refused, said

SECRETS = (WechatServer.app_secret, "TOKEN-")


@pytest.fixture
def wechat() -> Iterator[WechatServer]:
    with WechatServer() as server:
        server.followers[OPENID] = 20
        yield server


@pytest.fixture
async def build(wechat: WechatServer) -> AsyncIterator[Callable[..., Channel]]:
    """Makes channels of that server, with other settings where asked for."""
    made: list[Channel] = []

    def one(**changes: Any) -> Channel:
        made.append(make(**({"api_url": wechat.url, "app_id": wechat.app_id} | changes)))
        return made[-1]

    yield one
    for each in made:
        if each.sender is not None:
            await each.sender.close()


@pytest.fixture
def channel(build: Callable[..., Channel]) -> Channel:
    return build()


async def send(channel: Channel, text: str = "您好", to: str = OPENID) -> None:
    assert channel.sender is not None
    await channel.sender.send(Reply(to=to, text=text, key="k1"))


async def failure(channel: Channel, text: str = "您好", to: str = OPENID) -> ChannelError:
    with pytest.raises(ChannelError) as error:
        await send(channel, text, to)
    # The token stands in each URL: nothing that is chained to the error may hold one.
    assert error.value.__cause__ is None
    assert not any(secret in str(error.value) for secret in SECRETS)
    return error.value


async def fetch(channel: Channel, media_id: str = "m1") -> Attachment:
    assert channel.fetcher is not None
    return await channel.fetcher.fetch({"media_id": media_id, "account": "gh_1"})


# --- sending ----------------------------------------------------------------------------------------------------------


async def test_an_answer_goes_out_as_it_is_read(channel: Channel, wechat: WechatServer) -> None:
    text = '理赔已到账😡 "quoted" ]]> <b>\nline'
    await send(channel, text)
    assert wechat.sent == [(OPENID, text)]
    [body] = wechat.bodies
    assert b"\\u" not in body
    assert "理赔已到账😡".encode() in body
    assert json.loads(body)["msgtype"] == "text"


async def test_a_long_answer_is_cut_by_bytes_and_all_of_it_fits(channel: Channel, wechat: WechatServer) -> None:
    assert channel.sender is not None
    limits = channel.sender.limits
    text = "理赔进度说明。" * 300
    for piece in pieces(text, limits):
        await send(channel, piece)
    assert [len(piece.encode()) <= 2048 for _to, piece in wechat.sent] == [True] * len(wechat.sent)
    assert "".join(piece for _to, piece in wechat.sent) == text
    assert len(wechat.sent) == 4
    assert too_long(text, limits) == ""
    assert "2,048 bytes in each of 4 messages" in too_long(text * 2, limits)
    assert limits.measure("理") == 3


async def test_the_window_is_48_hours_for_people_and_for_us() -> None:
    assert WechatSender.limits.window == WechatSender.limits.automatic_window == timedelta(hours=48)
    assert WechatSender.limits.ordered


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        (-1, {"retry": True}, "busy"),
        (40003, {"permanent": True}, "follower"),
        (40164, {"broken": True, "pause": True}, "whitelist"),
        (43004, {"permanent": True, "refused": "unsubscribed"}, "no longer follows"),
        (43019, {"permanent": True}, "blacklist"),
        (45002, {"permanent": True}, "longer"),
        (45009, {"retry": True, "pause": True}, "used up"),
        (45011, {"retry": True, "pause": True}, "a minute"),
        (45015, {"permanent": True}, "48 hours"),
        (45047, {"permanent": True}, "until the customer writes again"),
        (48001, {"broken": True, "pause": True}, "verified"),
        (48002, {"permanent": True, "refused": "blocked"}, "takes no messages"),
        (50002, {"broken": True, "pause": True}, "limited"),
        (99999, {"permanent": True}, "99999"),
    ],
)
async def test_a_refusal_says_what_to_do(
    channel: Channel, wechat: WechatServer, code: int, expected: dict[str, Any], words: str
) -> None:
    wechat.script.append(refused(code))
    error = await failure(channel)
    assert marks(error) == marks(ChannelError()) | expected
    assert words in str(error)
    assert wechat.asked["/cgi-bin/message/custom/send"] == 1


@pytest.mark.parametrize("case", samples().errors, ids=lambda case: case[0])
async def test_the_samples_of_errors_are_so(channel: Channel, wechat: WechatServer, case: Any) -> None:
    _name, status, headers, body, expected = case
    wechat.script.extend([Said(status, headers, body)] * 2)
    assert marks(await failure(channel)) == marks(ChannelError()) | expected


async def test_the_sixth_answer_waits_for_the_customer(channel: Channel, wechat: WechatServer) -> None:
    wechat.followers[OPENID] = 5
    for _ in range(5):
        await send(channel)
    assert (await failure(channel)).permanent
    assert (await failure(channel, to="o-stranger")).permanent


async def test_a_line_that_breaks_after_the_text_was_handed_over_leaves_it_unknown(
    build: Callable[..., Channel], wechat: WechatServer
) -> None:
    channel = build(timeout=0.3)
    held = threading.Event()
    wechat.script.extend([said({"errcode": 0}, cut=0), said({"errcode": 0}, cut=5), said({"errcode": 0}, hold=held)])
    for _ in range(3):
        assert marks(await failure(channel)) == marks(ChannelError(unknown=True))
    held.set()


@pytest.mark.parametrize("answer", [{}, {"error": "sign in"}, {"errcode": None}, {"errcode": "0"}])
async def test_what_is_no_yes_of_wechat_is_no_yes(
    channel: Channel, wechat: WechatServer, answer: dict[str, object]
) -> None:
    wechat.script.append(said(answer))
    assert marks(await failure(channel)) == marks(ChannelError(unknown=True))


async def test_what_was_never_handed_over_is_tried_again(build: Callable[..., Channel], wechat: WechatServer) -> None:
    gone = build(api_url=f"http://127.0.0.1:{free_port()}", timeout=1)
    assert marks(await failure(gone)) == marks(ChannelError(retry_after=1))
    slow = build(timeout=0.3)
    held = threading.Event()
    wechat.token_script.extend([page(), page(504), said({"access_token": 5}), said({}, hold=held)])
    for _ in range(4):
        assert marks(await failure(slow)) == marks(ChannelError(retry_after=1))
    held.set()
    assert wechat.bodies == []


# --- the token --------------------------------------------------------------------------------------------------------


async def test_many_answers_at_once_ask_for_one_token(channel: Channel, wechat: WechatServer) -> None:
    await asyncio.gather(*(send(channel) for _ in range(19)))
    await send(channel)
    assert len(wechat.sent) == 20
    assert wechat.asked["/cgi-bin/stable_token"] == 1
    assert wechat.forced == 0


async def test_a_token_near_its_end_is_asked_for_again(channel: Channel, wechat: WechatServer) -> None:
    wechat.lasts = 299
    await send(channel)
    await send(channel)
    assert wechat.asked["/cgi-bin/stable_token"] == 2
    assert wechat.forced == 0


@pytest.mark.parametrize("code", [40001, 40014, 42001])
async def test_a_refused_token_is_made_anew_once_and_the_answer_goes_out_once(
    channel: Channel, wechat: WechatServer, code: int
) -> None:
    await send(channel)
    wechat.script.append(refused(code))
    await send(channel, "again")
    assert wechat.forced == 1
    assert wechat.sent == [(OPENID, "您好"), (OPENID, "again")]


async def test_the_token_that_another_process_had_made_is_used_and_not_ended(
    channel: Channel, wechat: WechatServer
) -> None:
    await send(channel)
    wechat.renew()
    await asyncio.gather(*(send(channel) for _ in range(5)))
    assert len(wechat.sent) == 6
    assert wechat.forced == 0


async def test_a_token_that_is_refused_for_ever_stops_the_account_and_spares_the_quota(
    channel: Channel, wechat: WechatServer
) -> None:
    for _ in range(3):
        wechat.script.extend([refused(40001), refused(40001)])
        error = await failure(channel)
        assert marks(error) == marks(ChannelError(broken=True))
    assert wechat.forced == 1


async def test_whoever_waits_for_a_token_gets_one_after_the_first_gave_up(
    channel: Channel, wechat: WechatServer
) -> None:
    held = threading.Event()
    wechat.token_script.append(said({"access_token": "never", "expires_in": 7200}, hold=held))
    first = asyncio.create_task(send(channel))
    while not wechat.asked["/cgi-bin/stable_token"]:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(send(channel))
    first.cancel()
    held.set()
    await second
    assert len(wechat.sent) == 1


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"app_id": "wx-wrong"}, "wechat.app_id"), ({"app_secret": "wrong"}, "wechat.app_secret"),
     ({"app_secret": None}, "SLUICE_WECHAT__APP_SECRET"), ({"app_secret": ""}, "SLUICE_WECHAT__APP_SECRET"),
     ({"api_url": f"http://127.0.0.1:{free_port()}"}, "cannot be reached")],
)  # fmt: skip
async def test_check_says_what_is_wrong(build: Callable[..., Channel], changes: dict[str, Any], words: str) -> None:
    made = build(**changes)
    assert made.probe is not None
    health = await made.probe.probe()
    assert (health.name, health.ok) == ("wechat", False)
    assert words in health.detail
    assert not any(secret in health.detail for secret in SECRETS)


async def test_check_names_the_address_that_is_not_on_the_whitelist(channel: Channel, wechat: WechatServer) -> None:
    wechat.token_script.append(refused(40164, "invalid ip 182.150.41.147 ipv6 ::ffff:182.150.41.147, not in whitelist"))
    assert channel.probe is not None
    health = await channel.probe.probe()
    assert "Add the address 182.150.41.147 to the IP whitelist" in health.detail
    assert (await channel.probe.probe()).ok


async def test_without_a_secret_messages_come_in_and_nothing_goes_out(build: Callable[..., Channel]) -> None:
    made = build(app_secret=None)
    assert made.hook is not None
    assert (made.sender, made.fetcher) == (None, None)


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_picture_is_fetched_with_its_type_and_name(channel: Channel, wechat: WechatServer) -> None:
    headers = {"Content-Type": "image/jpeg", "Content-disposition": 'attachment; filename="../../m1.jpg"'}
    wechat.files["m1"] = Said(200, headers, b"\xff\xd8picture")
    found = await fetch(channel)
    assert (found.name, found.media_type, found.content) == ("m1.jpg", "image/jpeg", b"\xff\xd8picture")


async def test_a_video_that_lies_elsewhere_at_wechat_is_followed_without_the_token(
    channel: Channel, wechat: WechatServer
) -> None:
    wechat.files["m1"] = said({"video_url": f"{wechat.url}/video/v1"})
    wechat.files["v1"] = Said(200, {"Content-Type": "video/mp4"}, b"moving")
    assert (await fetch(channel)).content == b"moving"


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "https://a.qq.com.example/x", "file:///etc/passwd", "http://[", 5]
)
async def test_a_video_that_lies_anywhere_else_is_not_asked_for(
    channel: Channel, wechat: WechatServer, url: object
) -> None:
    wechat.files["m1"] = said({"video_url": url})
    with pytest.raises(ChannelError, match="not its own") as error:
        await fetch(channel)
    assert error.value.permanent


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (refused(40007), {"permanent": True}, "three days"),
        (refused(-1), {"retry": True}, "busy"),
        (refused(45009), {"retry": True, "pause": True}, "used up"),
        (Said(200, {"Content-Type": "text/plain"}, b'{"errcode":40007,"errmsg":"invalid"}'), {"permanent": True}, ""),
        (page(), {"retry": True}, "502"),
        (said({}), {"retry": True}, "no file"),
        (Said(200, {"Content-Type": "image/png"}, b"x" * 10_000, cut=10), {"retry": True}, "did not come"),
        (Said(200, {"Content-Type": "image/png"}, b"x" * 1_000_001), {"permanent": True}, "1,000,000 bytes"),
    ],
)
async def test_a_file_that_does_not_come_says_why(
    build: Callable[..., Channel], wechat: WechatServer, answer: Said, expected: dict[str, Any], words: str
) -> None:
    channel = build(media_most=1_000_000)
    wechat.files["m1"] = answer
    with pytest.raises(ChannelError) as error:
        await fetch(channel)
    assert marks(error.value) == marks(ChannelError()) | expected
    assert words in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS)


async def test_a_stale_token_is_made_anew_for_files_too(channel: Channel, wechat: WechatServer) -> None:
    wechat.files["m1"] = Said(200, {"Content-Type": "audio/amr"}, b"#!AMR")
    await send(channel)
    wechat.renew()
    assert (await fetch(channel)).content == b"#!AMR"
    assert wechat.forced == 0


# --- secrets ----------------------------------------------------------------------------------------------------------


async def test_no_log_line_and_no_repr_holds_a_secret(
    channel: Channel, wechat: WechatServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await send(channel)
    wechat.script.append(said({"errcode": 0}, cut=0))
    await failure(channel)
    with pytest.raises(ChannelError):
        await fetch(channel)
    shown = caplog.text + repr(channel) + repr(channel.sender) + repr(channel.fetcher)
    assert not any(secret in shown for secret in SECRETS)
    assert WechatServer.app_secret not in repr(WechatSettings(app_secret=WechatServer.app_secret))  # type: ignore[arg-type]
