"""(hooks) A provider's webhook to its 200, which comes after the commit: each channel at a steady rate, in one process.

The process is `bot.py run` with all of these channels on. Its providers' stand-ins take the receipts meanwhile, in a
process of their own, as is the client, whose requests are signed before the clock starts.

`python -m tests.bench_hooks` is the stand-ins: they say where they are in a line of JSON, channel -> URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from storage.spool import Spool
from tests import meta_server as meta
from tests.bench_api import drained
from tests.bench_corpus import letters
from tests.bench_tools import ROOT, Row, Running, World, disk, fresh_world, one_core, running
from tests.meta_world import VERIFY
from tests.processes import until
from tests.provider_server import ProviderServer, Said
from tests.samples import Call, Samples, instagram, messenger, phone, sms, telegram, webhook, wechat, whatsapp
from tests.server_base import HOST
from tests.telegram_server import TOKEN

RATE, SECONDS = 200.0, 10.0
_WARM = 2.0
#: what samples are signed for
_PUBLIC = "http://sluice.test"
_SAMPLES: Mapping[str, Callable[[], Samples]] = {
    "sms": sms.samples,
    "messenger": messenger.samples,
    "instagram": instagram.samples,
    "whatsapp": whatsapp.samples,
    "wechat": wechat.samples,
    "telegram": telegram.samples,
}


# --- what each provider sends -----------------------------------------------------------------------------------------


def _sms(number: int, text: str) -> Call:
    return sms.signed(sms.incoming(f"SM{number:032x}", text, From=f"+861{number:010}"))


def _phone(number: int, text: str) -> Call:
    form = phone.fields(number, From=f"+861{number:010}", SpeechResult=text, Confidence="0.93")
    return phone.signed(form, rest="words", query="lang=zh&turn=1&miss=0")


def _telegram(number: int, text: str) -> Call:
    person = {"id": number, "first_name": "Li"}
    update = telegram.message(number, text=text, chat=person | {"type": "private"})
    update["message"]["from"] = person | {"is_bot": False}
    return telegram.call(update | {"update_id": number})


def _messenger(number: int, text: str) -> Call:
    return _metas(meta.page(meta.said(text, sender=f"{4_000_000_000_000_000 + number}")))


def _instagram(number: int, text: str) -> Call:
    sender = f"{9_000_000_000_000_000 + number}"
    return _metas(meta.instagram(meta.said(text, sender=sender, to=meta.INSTAGRAM)))


def _whatsapp(number: int, text: str) -> Call:
    sender = f"861{number:010}"
    return _metas(meta.whatsapp(meta.wrote("text", text, sender=sender), contacts=[meta.contact(sender)]))


def _metas(body: bytes) -> Call:
    return Call(body, meta.signed(body))


def _wechat(number: int, text: str) -> Call:
    return wechat.sealed(wechat.xml(FromUserName=f"o{number:027}", Content=text, MsgId=number))


def _app_reviews(number: int, text: str) -> Call:
    review = webhook.review(number, author={"id": f"u-{number}", "name": "Li"}, body=text)
    return webhook.signed(webhook.body(review))


#: in this order: Telegram lets a bot send 28 messages a second, so that its receipts take longest
CALLS: Mapping[str, Callable[[int, str], Call]] = {
    "sms": _sms,
    "phone": _phone,
    "messenger": _messenger,
    "instagram": _instagram,
    "whatsapp": _whatsapp,
    "wechat": _wechat,
    "app_reviews": _app_reviews,
    "telegram": _telegram,
}


def requests(channel: str, count: int, first: int) -> list[bytes]:
    """Signed requests, each with a message of a customer of its own."""
    texts = [each.text.split("\n\n")[1] for each in letters(count, f"{channel}{first}")]
    return [_request(channel, CALLS[channel](first + n, text)) for n, text in enumerate(texts)]


def _request(channel: str, call: Call) -> bytes:
    path = f"/hooks/{channel}" + (f"/{call.rest}" if call.rest else "") + (f"?{call.query}" if call.query else "")
    headers = {"Host": HOST, **call.headers, "Content-Length": str(len(call.body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + call.body


# --- what each provider is asked --------------------------------------------------------------------------------------


async def provide() -> None:
    """Take whatever is sent, until this process ends."""
    urls = {}
    for channel, make in _SAMPLES.items():
        samples = make()
        assert samples.taken is not None
        server = ProviderServer(Said(*samples.taken), samples.beside)
        await server.start()
        urls[channel] = server.url
    print(json.dumps(urls), flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def providers() -> Iterator[dict[str, str]]:
    """channel -> where its provider is."""
    command = [sys.executable, "-m", "tests.bench_hooks"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def settings(urls: Mapping[str, str]) -> dict[str, str]:
    """All of these channels on."""
    twilio = {"ACCOUNT_SID": sms.ACCOUNT, "AUTH_TOKENS__0": sms.NEW, "NUMBERS__0": sms.OURS}
    given: dict[str, dict[str, str]] = {
        "sms": twilio | {"API_URL": urls["sms"], "RECONCILE": "0"},
        "phone": twilio,
        "telegram": {
            "TOKEN": TOKEN,
            "MODE": "webhook",
            "WEBHOOK_SECRETS__0": telegram.NEW,
            "API_URL": urls["telegram"],
        },
        "wechat": {
            "APP_ID": wechat.APP_ID,
            "APP_SECRET": "the-secret-of-the-app",
            "TOKENS__0": wechat.TOKENS[0],
            "AES_KEYS__0": wechat.KEYS[0],
            "API_URL": urls["wechat"],
        },
        "webhooks__app_reviews": {
            "SECRETS__0": webhook.NEW,
            "RECORDS": "reviews",
            "FIELDS": json.dumps(webhook.FIELDS.model_dump()),
        },
    }
    for name, account in (("messenger", meta.PAGE), ("instagram", meta.INSTAGRAM), ("whatsapp", meta.NUMBER)):
        app = {"APP_SECRETS__0": meta.SECRET, "VERIFY_TOKENS__0": VERIFY, "GRAPH_URL": urls[name]}
        given[name] = app | {"ACCOUNTS__0__ID": account, "ACCOUNTS__0__TOKEN": meta.TOKEN}
    world = {"SLUICE_WEB__PUBLIC_URL": _PUBLIC}
    for name, values in given.items():
        world |= {f"SLUICE_{name.upper()}__{key}": value for key, value in {"ENABLED": "true", **values}.items()}
    return world


# --- the measurement --------------------------------------------------------------------------------------------------


def _stored(world: World, channel: str) -> int:
    """What of a channel was stored, once nothing of it waits on the disk: a hook may be too slow for its provider."""
    spool = Spool(world.folder / "spool" / channel)
    until(lambda: not spool.waiting(), "what was put aside is brought in", every=0.05)
    return int(world.ask(f"SELECT count(*) FROM message WHERE direction = 'in' AND channel = '{channel}'"))


def _called(world: World, server: Running, channel: str, rate: float, seconds: float, first: int) -> dict[str, Any]:
    """What the client found."""
    whole = pickle.dumps(requests(channel, int(rate * seconds) + 1, first))
    command = [sys.executable, "-m", "tests.bench_hooks_client", str(server.port), str(rate), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, env=world.environment, input=whole, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _answered(world: World, *, within: float = 60.0) -> None:
    """Wait until the receipts are out, so that they burden no other channel; those of Telegram come last."""
    waiting = "SELECT count(*) FROM outbox WHERE state IN ('queued', 'sending') AND channel <> 'telegram'"
    until(lambda: not world.ask(waiting), "the receipts go out", within, every=0.05)


_HEAD = f"{'sent':>6} {'200s':>6} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'stored':>6}"


def part_hooks(rate: float = RATE, seconds: float = SECONDS) -> Iterator[Row]:
    yield Row("h", f"webhook to 200, after the commit, at {rate:.0f} a second", _HEAD)
    with one_core(), providers() as urls, fresh_world(**settings(urls)) as world, running(world) as server:
        first = 1
        for channel in CALLS:
            _called(world, server, channel, rate, _WARM, first)
            first += int(rate * _WARM) + 1
            drained(world)
            before = _stored(world, channel)
            found = _called(world, server, channel, rate, seconds, first)
            first += int(rate * seconds) + 1
            stored = _stored(world, channel) - before
            drained(world)
            good = found["statuses"].get("200", 0)
            times = " ".join(f"{found[name]:>7.1f}" for name in ("p50_ms", "p99_ms", "max_ms"))
            yield Row("h", f"- {channel}", f"{found['sent']:>6,} {good:>6,} {times} {stored:>6,}")
            if not found["sent"] == good == stored == int(rate * seconds):
                raise RuntimeError(f"{channel}: not every request became one message: {found['statuses']}")
            _answered(world)
        gone = world.ask("SELECT count(*) FROM outbox WHERE state IN ('sent', 'delivered')")
        yield Row("h", "receipts that providers took meanwhile", f"{gone:,}")
    yield Row("h", "the disk", disk())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(provide())
