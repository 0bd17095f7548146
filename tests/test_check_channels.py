"""`bot.py check` as a deployer sees it who set a channel up wrongly: a line each, what is wrong, and what to do.

Every provider is there, and refuses as it would; what it was given stands in no line.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from domain import SettingsError
from settings import load
from tests import meta_server as meta
from tests.meta_server import GraphServer, Said, refusal
from tests.processes import BOT
from tests.samples import wechat as sealed
from tests.servers import free_port
from tests.sms_world import ToldTwilio, told_twilio
from tests.story_world import set_up
from tests.telegram_server import TOKEN, BotApi, Fault
from tests.twilio_server import TwilioServer
from tests.wechat_server import WechatServer, refused
from tests.wechat_server import page as page_of_a_proxy

PUBLIC = "https://help.example.com"
BOT_ID = TOKEN.partition(":")[0]
CHANNELS = ("sms", "phone", "telegram", "messenger", "instagram", "whatsapp", "wechat", "app_reviews")
ACCOUNTS = {"messenger": meta.PAGE, "instagram": meta.INSTAGRAM, "whatsapp": meta.NUMBER}


@dataclass(frozen=True)
class Checked:
    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> dict[str, str]:
        """What is said of each channel: one line and no more."""
        found = [line.partition(": ") for line in self.stdout.splitlines()]
        named = [
            (head.split()[1], f"{head.split()[0]} {rest}") for head, _, rest in found if head.split()[1] in CHANNELS
        ]
        assert len(named) == len(dict(named)), self.stdout
        return dict(named)


@dataclass
class Deployer:
    """Settings by the environment, as they would stand in a unit file."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def set(self, channel: str, **values: str) -> None:
        prefix = "SLUICE_WEBHOOKS__APP_REVIEWS" if channel == "app_reviews" else f"SLUICE_{channel.upper()}"
        self.settings |= {f"{prefix}__{name}": value for name, value in values.items()}

    @property
    def secrets(self) -> list[str]:
        """Whatever must not be read over somebody's shoulder."""
        kept = ("TOKEN", "TOKENS__0", "SECRET", "SECRETS__0", "AES_KEYS__0")
        return [value for name, value in self.settings.items() if name.endswith(kept) and value]

    async def check(self) -> Checked:
        world = {"SLUICE_STATE_DIR": str(self.folder), "SLUICE_WEB__PORT": "0", "SLUICE_WEB__PUBLIC_URL": PUBLIC}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(BOT), "check"],
            capture_output=True, text=True, env={**os.environ, **world, **self.settings}, check=False, timeout=150,
        )  # fmt: skip
        found = Checked(done.returncode, done.stdout, done.stderr)
        assert [each for each in self.secrets if each in found.stdout + found.stderr] == []
        assert "Traceback" not in found.stderr
        return found

    async def fails(self, *channels: str) -> Mapping[str, str]:
        """Exit status 1, and these channels are what is wrong; what is said of each."""
        found = await self.check()
        lines = found.lines
        assert {name for name, line in lines.items() if line.startswith("FAIL ")} == set(channels), found.stdout
        assert found.status == 1
        assert found.stderr.splitlines()[-1].startswith(f"sluice: {len(channels)} of ")
        return {name: lines[name].removeprefix("FAIL ") for name in channels}


@dataclass
class Providers:
    """Where each channel's provider is."""

    twilio: TwilioServer
    #: the phone's, where a number shall have all that it needs
    voice: ToldTwilio
    bot: BotApi
    graph: GraphServer
    wechat: WechatServer

    async def everything(self, deployer: Deployer) -> None:
        """All channels on, and each as its provider wants it."""
        account = {"ACCOUNT_SID": TwilioServer.account_sid, "AUTH_TOKENS__0": TwilioServer.auth_token}
        number = await self.twilio.number(sms_url=f"{PUBLIC}/hooks/sms")
        deployer.set("sms", ENABLED="true", NUMBERS__0=number, API_URL=self.twilio.url, **account)
        deployer.set("phone", ENABLED="true", NUMBERS__0=number, API_URL=self.voice.url, **account)
        deployer.set("telegram", ENABLED="true", TOKEN=TOKEN, API_URL=self.bot.url)
        for name, page in ACCOUNTS.items():
            app = {"APP_SECRETS__0": f"the-secret-of-the-{name}-app", "VERIFY_TOKENS__0": f"told-Meta-for-{name}"}
            deployer.set(name, ENABLED="true", GRAPH_URL=self.graph.url, ACCOUNTS__0__ID=page, **app)
            deployer.set(name, ACCOUNTS__0__NAME="Main", ACCOUNTS__0__TOKEN=meta.TOKEN)
        deployer.set("wechat", ENABLED="true", API_URL=self.wechat.url, APP_ID=WechatServer.app_id)
        deployer.set("wechat", APP_SECRET=WechatServer.app_secret, TOKENS__0=sealed.TOKENS[0])
        deployer.set("wechat", AES_KEYS__0=sealed.KEYS[0])
        deployer.set("app_reviews", SECRETS__0="the-secret-of-the-reviews", FIELDS="{sender: author, text: body}")
        set_up(self.voice, self.graph, PUBLIC, TwilioServer.account_sid, number)


@pytest.fixture
async def there(twilio: TwilioServer) -> AsyncIterator[Providers]:
    with WechatServer() as wechat:
        async with told_twilio() as voice, BotApi() as bot, GraphServer() as graph:
            yield Providers(twilio, voice, bot, graph, wechat)


@pytest.fixture
async def deployer(there: Providers, tmp_path: Path) -> Deployer:
    """Who set all channels up, and well."""
    made = Deployer(tmp_path / "state")
    await there.everything(made)
    return made


async def test_what_is_set_up_well_is_a_line_each_with_whose_account_it_is(deployer: Deployer) -> None:
    number = deployer.settings["SLUICE_SMS__NUMBERS__0"]
    found = await deployer.check()
    assert found.lines == {
        "sms": f"ok {TwilioServer.account_sid} works, as {number}",
        "phone": f"ok {number} call {PUBLIC}/hooks/phone",
        "telegram": "ok @claims_bot, bot 123456789, by poll",
        "messenger": f"ok Main ({meta.PAGE}): works, Meta calls it Sun Insurance",
        "instagram": f"ok Main ({meta.INSTAGRAM}): works, Meta calls it sun.insurance",
        "whatsapp": f"ok Main ({meta.NUMBER}): works, Meta calls it +1 555 078 3881, Sun Insurance",
        "wechat": f"ok account {WechatServer.app_id}, answers can be sent",
        "app_reviews": "ok on; it has no account to ask about",
    }
    assert (found.status, found.stderr) == (0, "")


async def test_wrong_credentials_are_told_for_each_channel(deployer: Deployer, there: Providers) -> None:
    for channel in ("sms", "phone"):
        deployer.set(channel, AUTH_TOKENS__0="another-token", API_URL=there.twilio.url)
    deployer.set("telegram", TOKEN="123456789:AAFanother-token-that-is-nobodys-at-all")
    for channel in ACCOUNTS:
        deployer.set(channel, ACCOUNTS__0__TOKEN="EAAanother-token")
    deployer.set("wechat", APP_SECRET="another-secret")
    lines = await deployer.fails("sms", "phone", "telegram", *ACCOUNTS, "wechat")
    refused_by_twilio = "Twilio refuses our account SID or auth token. Credentials and account: see console.twilio.com."
    assert lines["sms"] == lines["phone"] == refused_by_twilio
    assert lines["telegram"] == "Telegram refuses the token. Get one from @BotFather and set it."
    for channel, page in ACCOUNTS.items():
        assert lines[channel].startswith(f"Main ({page}): The access token is not valid any more.")
    assert lines["wechat"].startswith("WeChat refuses wechat.app_secret. Compare it with the AppSecret at")


async def test_credentials_that_ended_are_told_for_each_channel(deployer: Deployer, there: Providers) -> None:
    for channel in ("sms", "phone"):
        deployer.set(channel, API_URL=there.twilio.url)
    there.bot.token = f"{BOT_ID}:AAFa-new-one-was-made-and-the-old-one-ended"
    there.graph.next += [refusal(190, subcode, status=401) for subcode in (463, 460, 458)]
    there.wechat.token_script.append(refused(40243, "appsecret is frozen"))
    await there.twilio.account_status("suspended")
    try:
        lines = await deployer.fails("sms", "phone", "telegram", *ACCOUNTS, "wechat")
    finally:
        await there.twilio.account_status("active")
    assert "suspended" in lines["sms"]
    assert "suspended" in lines["phone"]
    assert lines["telegram"] == "Telegram refuses the token. Get one from @BotFather and set it."
    assert "The access token has expired. Make a new one and set it." in lines["messenger"]
    assert "ended because a password was changed" in lines["instagram"]
    assert "The app was removed from this account." in lines["whatsapp"]
    assert lines["wechat"] == "The AppSecret is frozen. Unfreeze it at mp.weixin.qq.com."


async def test_credentials_that_are_missing_where_messages_come_in_without_them(
    deployer: Deployer, there: Providers
) -> None:
    for channel in ACCOUNTS:
        deployer.set(channel, ACCOUNTS__0__TOKEN="")
    deployer.set("wechat", APP_SECRET="")
    lines = await deployer.fails(*ACCOUNTS, "wechat")
    for channel, page in ACCOUNTS.items():
        variable = f"SLUICE_{channel.upper()}__ACCOUNTS__0__TOKEN"
        assert lines[channel] == f"Main ({page}): no access token; give it by {variable}"
    assert "answers wait: wechat.app_secret is missing (SLUICE_WECHAT__APP_SECRET)" in lines["wechat"]
    assert there.graph.asked == []


async def test_a_provider_that_cannot_be_reached_is_told_for_each_channel(deployer: Deployer) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    for channel in ("sms", "phone", "telegram", "wechat"):
        deployer.set(channel, API_URL=closed, TIMEOUT="2")
    for channel in ACCOUNTS:
        deployer.set(channel, GRAPH_URL=closed, TIMEOUT="2")
    lines = await deployer.fails("sms", "phone", "telegram", *ACCOUNTS, "wechat")
    assert [name for name, line in lines.items() if "cannot be reached" not in line] == []


async def test_a_proxys_page_in_place_of_a_provider_is_told_for_each_channel(
    deployer: Deployer, there: Providers
) -> None:
    """A hotel's network, a firewall: HTTP 200 and HTML."""
    page = b"<html>Sign in to the network</html>"
    base = f"/2010-04-01/Accounts/{TwilioServer.account_sid}"
    for path in (f"{base}.json", f"{base}/IncomingPhoneNumbers.json"):
        there.voice.body(path, page, "text/html")
    deployer.set("sms", API_URL=there.voice.url)
    there.bot.fail("getMe", Fault(200, html=page.decode()))
    there.graph.next += [Said(200, page, {"Content-Type": "text/html"})] * 3
    there.wechat.token_script.append(page_of_a_proxy(200))
    lines = await deployer.fails("sms", "phone", "telegram", *ACCOUNTS, "wechat")
    for name in ("sms", "phone"):
        assert lines[name] == "Twilio's answer cannot be read"
    assert lines["telegram"] == "Telegram's answer cannot be read."
    for name in ACCOUNTS:
        assert "Meta gave no sensible answer (HTTP 200)." in lines[name]
    assert lines["wechat"] == "WeChat gives no token (HTTP 200)."


#: what each channel cannot start without -> the words that say so
NEEDED = {
    "sms": ("AUTH_TOKENS__0", "account_sid is needed, and an auth token (by the environment: ..._AUTH_TOKENS__0)"),
    "phone": ("AUTH_TOKENS__0", "account_sid is needed, and an auth token (by the environment: ..._AUTH_TOKENS__0)"),
    "telegram": ("TOKEN", "a bot token is needed (by the environment: SLUICE_TELEGRAM__TOKEN)"),
    "messenger": ("APP_SECRETS__0", "app_secrets and verify_tokens are needed (by the environment)"),
    "instagram": ("VERIFY_TOKENS__0", "app_secrets and verify_tokens are needed (by the environment)"),
    "whatsapp": ("APP_SECRETS__0", "app_secrets and verify_tokens are needed (by the environment)"),
    "wechat": ("TOKENS__0", "app_id is needed, and a token (by the environment: SLUICE_WECHAT__TOKENS__0)"),
    "app_reviews": ("SECRETS__0", "a secret is needed (by the environment: SLUICE_WEBHOOKS__<NAME>__SECRETS__0)"),
}


@pytest.mark.parametrize("channel", CHANNELS)
async def test_what_a_channel_cannot_start_without_is_named(deployer: Deployer, channel: str) -> None:
    name, words = NEEDED[channel]
    deployer.set(channel, **{name: ""})
    with pytest.raises(SettingsError) as caught:
        load(deployer.settings)
    assert words in str(caught.value)
    assert [each for each in deployer.secrets if each in str(caught.value)] == []


async def test_settings_that_cannot_be_read_are_one_line_and_status_2(deployer: Deployer) -> None:
    deployer.set("telegram", TOKEN="")
    found = await deployer.check()
    assert (found.status, found.stdout) == (2, "")
    [line] = found.stderr.splitlines()
    assert line.startswith("sluice: telegram: a bot token is needed")


async def test_an_address_that_no_provider_reaches_is_told_beside_the_account(deployer: Deployer) -> None:
    """Everybody's credentials are good, and nobody could call: only https is called."""
    deployer.settings["SLUICE_WEB__PUBLIC_URL"] = "http://help.example.com"
    found = await deployer.check()
    told = [line for line in found.stdout.splitlines() if "providers call https only" in line]
    hooks = [name for name in CHANNELS if name != "telegram"]  # it is asked
    assert told == [
        f"FAIL  {name}: providers call https only, not http://help.example.com/hooks/{name}: set web.public_url"
        for name in hooks
    ]
    assert found.status == 1
