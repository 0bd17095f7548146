"""api.weixin.qq.com for tests: a real HTTP server on a loopback port, with a token, a send and a file address.

It is strict where WeChat is: a wrong secret, a token that is not the newest, an unknown follower and a text that is too
long get the codes that WeChat gives. Errors that depend on nothing here are put into `script`, one for each call.

    with WechatServer() as wechat:
        settings = WechatSettings(api_url=wechat.url, ...)
        wechat.script.append(refused(45015, "response out of time limit"))
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"
_HTML = b"<html><body>502 Bad Gateway</body></html>"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that did not wait is what some tests are about."""


@dataclass(frozen=True)
class Said:
    """An answer. `hold`: seconds before it goes out; `cut`: the line is cut after so many bytes of the body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json; encoding=utf-8"})
    body: bytes = b""
    hold: threading.Event | None = None
    cut: int | None = None


def said(document: Mapping[str, Any], **values: Any) -> Said:
    return Said(body=json.dumps(document).encode(), **values)


def refused(code: int, words: str = "no") -> Said:
    return said({"errcode": code, "errmsg": f"{words} rid: 6683da8d-5761cfb6-42f636c2"})


def page(status: int = 502) -> Said:
    """What a proxy says in place of WeChat."""
    return Said(status, {"Content-Type": "text/html"}, _HTML)


class WechatServer:
    app_id = "wx5823bf96d3bd56c7"
    app_secret = "the-secret-of-the-app"

    def __init__(self) -> None:
        #: answers of the next sends, before the server answers by itself
        self.script: deque[Said] = deque()
        #: the same for the next requests for a token
        self.token_script: deque[Said] = deque()
        #: who follows the account, and how many answers each may still be given
        self.followers: dict[str, int] = {}
        #: (openid, text) of what was sent
        self.sent: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.files: dict[str, Said] = {}
        self.asked: Counter[str] = Counter()
        self.forced = 0
        self.lasts = 7200
        #: what an open line waits for
        self.release = threading.Event()
        self._number = 1
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._say(server.posted(self.path, self.rfile.read(int(self.headers["Content-Length"]))))

            def do_GET(self) -> None:
                self._say(server.fetched(self.path))

            def _say(self, answer: Said) -> None:
                if answer.hold is not None:
                    answer.hold.wait(30)
                if answer.cut == 0:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
                self.close_connection = answer.cut is not None

            def log_message(self, *_args: Any) -> None:
                """Nothing on stderr."""

        self._server = _Server((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    @property
    def token(self) -> str:
        return f"TOKEN-{self._number}-of-the-account"

    def renew(self) -> None:
        """Another process had a new token made."""
        self._number += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    # --- what it answers ----------------------------------------------------------------------------------------------

    def posted(self, target: str, body: bytes) -> Said:
        path, query = self._called(target)
        with self._lock:
            if path == "/cgi-bin/stable_token":
                return self._give(json.loads(body))
            self.bodies.append(body)
            if path != "/cgi-bin/message/custom/send":
                return refused(40066, "invalid url")
            if self.script:
                return self.script.popleft()
            return self._send(query, json.loads(body))

    def _called(self, target: str) -> tuple[str, dict[str, str]]:
        parts = urlsplit(target)
        self.asked[parts.path] += 1
        return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}

    def _give(self, wanted: Mapping[str, Any]) -> Said:
        if self.token_script:
            return self.token_script.popleft()
        if wanted.get("grant_type") != "client_credential":
            return refused(40002, "invalid grant_type")
        if wanted.get("appid") != self.app_id:
            return refused(40013, "invalid appid")
        if wanted.get("secret") != self.app_secret:
            return refused(40125, "invalid appsecret")
        if wanted.get("force_refresh"):
            self.forced += 1
            self._number += 1
        return said({"access_token": self.token, "expires_in": self.lasts})

    def _send(self, query: Mapping[str, str], message: Mapping[str, Any]) -> Said:
        if query.get("access_token") != self.token:
            return refused(40001, "invalid credential, access_token is invalid or not latest")
        to, text = message["touser"], message["text"]["content"]
        if to not in self.followers:
            return refused(40003, "invalid openid")
        if len(text.encode()) > 2048:
            return refused(45002, "content size out of limit")
        if self.followers[to] == 0:
            return refused(45047, "out of response count limit")
        self.followers[to] -= 1
        self.sent.append((to, text))
        return said({"errcode": 0, "errmsg": "ok"})

    def fetched(self, target: str) -> Said:
        path, query = self._called(target)
        if path.startswith("/video/"):
            return self.files[path.removeprefix("/video/")]
        if query.get("access_token") != self.token:
            return refused(42001, "access_token expired")
        return self.files.get(query.get("media_id", ""), refused(40007, "invalid media_id"))
