"""MMS: pictures are fetched with our password, from Twilio alone, and no more of them than was agreed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from domain import Attachment, ChannelError
from tests.samples import marks
from tests.samples.sms import ACCOUNT, NEW, make
from tests.sms_world import ToldTwilio, told_twilio

PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Messages/MM1/Media/ME1"
TWILIO = f"https://api.twilio.com{PATH}"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
async def told() -> AsyncIterator[ToldTwilio]:
    async with told_twilio() as made:
        yield made


async def fetched(told: ToldTwilio, url: str = TWILIO, **changes: object) -> Attachment:
    channel = make(api_url=told.url, **changes)
    assert channel.fetcher is not None
    assert channel.sender is not None
    try:
        return await channel.fetcher.fetch({"url": url, "account": "+12025550123"})
    finally:
        await channel.sender.close()


async def refused(told: ToldTwilio, url: str = TWILIO, **changes: object) -> ChannelError:
    with pytest.raises(ChannelError) as raised:
        await fetched(told, url, **changes)
    return raised.value


async def test_a_picture_is_fetched_with_our_password(told: ToldTwilio) -> None:
    told.body(PATH, PNG, "image/png; charset=x")
    file = await fetched(told)
    assert (file.name, file.media_type, file.content) == ("ME1.png", "image/png", PNG)
    assert told.heard[0].headers["Authorization"] == aiohttp.encode_basic_auth(ACCOUNT, NEW)


async def test_the_storage_behind_a_redirection_gets_no_password(told: ToldTwilio) -> None:
    told.redirect(PATH, "/storage/1?X-Amz-Signature=a%2Fb")
    disposition = {"Content-Disposition": 'inline; filename="../IMG_1.png"'}
    told.body("/storage/1", PNG, "image/png", headers=disposition)
    assert (await fetched(told)).name == "IMG_1.png"
    first, second = told.heard
    assert "Authorization" in first.headers
    assert "Authorization" not in second.headers
    assert second.query == {"X-Amz-Signature": "a/b"}


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest", "https://evil.example/x", "https://twiliocdn.com.evil.example/", "//evil.example",
     "https://mms.twiliocdn.com:8080/x", "http://mms.twiliocdn.com/x", "file:///etc/passwd", "https://[x", ""],
)  # fmt: skip
async def test_a_redirection_to_elsewhere_is_not_followed(told: ToldTwilio, location: str) -> None:
    told.redirect(PATH, location)
    error = await refused(told)
    assert marks(error) == marks(ChannelError(permanent=True))


@pytest.mark.parametrize(
    "url",
    ["", "x", "https://[x", "https://evil.example" + PATH, "https://twilio.com.evil.example" + PATH,
     "https://api.twilio.com@evil.example" + PATH, "http://api.twilio.com" + PATH, "file://" + PATH,
     "https://api.twilio.com/2010-04-01/Accounts/ACother/Messages/MM1/Media/ME1",
     f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages.json",
     f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/../../Keys/Media/ME1"],
)  # fmt: skip
async def test_our_password_goes_to_our_files_at_twilio_alone(told: ToldTwilio, url: str) -> None:
    error = await refused(told, url)
    assert marks(error) == marks(ChannelError(permanent=True))
    assert told.heard == []


async def test_what_is_too_large_is_not_read_to_its_end(told: ToldTwilio) -> None:
    told.body(PATH, bytes(2000), "image/png")
    assert (await refused(told, media_most=1999)).permanent
    assert len((await fetched(told, media_most=2000)).content) == 2000

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "image/png"})
        await answer.prepare(request)
        while True:
            await answer.write(bytes(10_000))

    told.answers["GET", PATH] = endless
    error = await refused(told, media_most=100_000)
    assert (error.permanent, str(error)) == (True, "The file is larger than 100,000 bytes.")


async def test_a_small_file_that_unpacks_into_a_large_one_is_too_large(told: ToldTwilio) -> None:
    async def packed(_request: web.Request) -> web.StreamResponse:
        answer = web.Response(body=bytes(10_000_000), headers={"Content-Type": "image/png"})
        answer.enable_compression(web.ContentCoding.gzip)
        return answer

    told.answers["GET", PATH] = packed
    assert (await refused(told, media_most=1_000_000)).permanent


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "application/javascript", "application/zip"])
async def test_what_a_phone_does_not_send_is_not_taken(told: ToldTwilio, media_type: str) -> None:
    told.body(PATH, b"<script>", media_type)
    error = await refused(told)
    assert error.permanent
    assert media_type in str(error)


@pytest.mark.parametrize(
    ("status", "permanent"), [(404, False), (429, False), (503, False), (401, False), (410, True), (204, False)]
)
async def test_what_is_not_there_yet_is_asked_for_again(told: ToldTwilio, status: int, permanent: bool) -> None:
    told.json("GET", PATH, {}, status)
    error = await refused(told)
    assert (error.permanent, error.retry_after is None) == (permanent, permanent)


@pytest.mark.parametrize("way", ["cut", "silent"])
async def test_a_line_that_breaks_is_tried_again(told: ToldTwilio, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channels.twilio.FILE_DEADLINE", 0.4)
    getattr(told, way)("GET", PATH)
    assert (await refused(told)).retry_after is not None


async def test_a_ring_of_redirections_ends(told: ToldTwilio) -> None:
    told.redirect(PATH, PATH)
    assert (await refused(told)).permanent
    assert len(told.heard) == 4
