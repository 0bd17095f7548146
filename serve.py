"""Running: the roles of one process, their loops and the web server, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI

from app import App, settle_memory
from channels import Health, Source
from domain import SettingsError, SluiceError, Unavailable
from router.flow import pause
from settings import Settings
from storage import health
from web.app import create_app
from web.console_live import live_of
from web.context import Web
from web.hook_calls import Hooks
from web.settings import WebSettings

log = structlog.get_logger("app")

_TELL_EVERY = 10.0
#: a loop that knows no `stop` and is cancelled
_SOURCE = "source"


def web_of(app: App) -> Web:
    """What the routes use."""
    settings = app.settings
    hooks = {each.name: each.hook for each in app.channels if each.hook is not None}
    return Web(
        settings=settings.web,
        database=app.database,
        queue=app.queue,
        flow=app.flow,
        desk=app.desk,
        verbs=app.verbs,
        hooks=Hooks(hooks, app.arrivals, settings.state_dir / "spool"),
        secret=signing_secret(settings),
        outgoing=lambda: app.delivery.channels,
        nudge=app.delivery.nudge,
        nlu=app.tagger.rasa.check if app.tagger.rasa is not None else None,
    )


def signing_secret(settings: Settings) -> str:
    """What signs visitors' tokens: given, or made once and kept for this world."""
    if settings.web.secret:
        return settings.web.secret
    path = settings.state_dir / "secret"
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text().strip()


# --- running ----------------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    application: FastAPI

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the application's, which has more to stop than the server."""
        yield


async def run(
    app: App, listener: socket.socket | None, *, started: Callable[[str], Awaitable[None]] | None = None
) -> None:
    """Run the roles until SIGTERM or SIGINT. `started` hears the URL once the server accepts connections.

    `listener`: what `bound` gave, for a process with the role `web`.
    """
    settle_memory()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loops: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    if "worker" in app.roles:
        loops += [
            ("work", lambda: app.flow.work(stop)),
            ("sweep", lambda: app.flow.sweep(stop)),
            ("delivery", lambda: app.delivery.run(stop)),
            ("told", lambda: _tell_health(app, lambda: [*app.delivery.healths.values()], stop)),
        ]
        if any(each.fetcher for each in app.channels):
            loops.append(("media", lambda: app.media.run(stop)))
    if "clock" in app.roles:
        loops += [
            ("clock", lambda: app.clock.run(stop)),
            ("watch", lambda: app.watch.run(stop)),
            ("watched", lambda: _tell_health(app, lambda: [*app.watch.healths.values()], stop)),
        ]
        if app.publisher is not None:
            publisher = app.publisher
            loops.append(("publish", lambda: publisher.run(stop)))
    if "listen" in app.roles:
        sources: list[Source] = [source for each in app.channels for source in each.sources]
        healths = [source.health for source in sources]
        if app.mail is not None:
            mail = app.mail
            healths += mail.mailboxes
            loops.append((_SOURCE, lambda: mail.run(app.flow.receive)))
        loops += [(_SOURCE, partial(source.run, app.arrivals.take)) for source in sources]
        if healths:
            loops.append(("health", lambda: _tell_health(app, lambda: healths, stop)))
    # An acknowledgement that was just queued need not wait for delivery's next look.
    app.flow.listeners.append(lambda outcomes: app.delivery.nudge({each.channel for each in outcomes}))
    web = web_of(app)
    server = _serve(app, web) if listener is not None else None
    if server is not None and web.hooks is not None and web.hooks.known:
        hooks = web.hooks
        loops.append(("spool", lambda: hooks.replay(stop)))
    tasks = [asyncio.create_task(_kept_up(name, make, stop), name=name) for name, make in loops]
    try:
        if server is not None and listener is not None:
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="web")
            await _until_started(server, serving)
            if started is not None:
                await started(_address(server))
            await asyncio.wait([serving, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
            await _say_goodbye(server)
            server.should_exit = True
            await serving
        else:
            await stop.wait()
    finally:
        stop.set()
        _done, late = await asyncio.wait(tasks, timeout=10) if tasks else (set(), set())
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await app.close()


async def _tell_health(app: App, healths: Callable[[], Sequence[Health]], stop: asyncio.Event) -> None:
    """Let every web process know how the sources and ways out are, which only this process runs."""
    while not stop.is_set():
        rows = [(each.name, each.ok, each.detail) for each in healths() if not each.elsewhere]
        with contextlib.suppress(Unavailable):
            await app.database.write(partial(health.tell, rows=rows, now=datetime.now(UTC)))
        await pause(stop, _TELL_EVERY)


def _serve(app: App, web: Web) -> _Server:
    application = create_app(web)
    settings = app.settings.web
    if settings.chat.enabled:
        app.chat_bell.listener = application.state.chat.hub.nudge
    server = _Server(
        uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            loop="none",
            http="httptools",
            ws="websockets-sansio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies or None,
            timeout_graceful_shutdown=5,
            ws_max_size=256 * 1024,
        )
    )
    server.application = application
    return server


def bound(settings: WebSettings) -> socket.socket:
    """The socket to listen on. Raises `SluiceError`; uvicorn would end the process instead."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise SluiceError(f"Cannot listen on {where}: {error.strerror}. Is another Sluice running there?") from error
    return listener


async def _say_goodbye(server: _Server) -> None:
    """Open streams and sockets would hold the server: they are told to come back."""
    live_of(server.application).close()
    if hasattr(server.application.state, "chat"):
        await server.application.state.chat.hub.drain()


async def _until_started(server: _Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            serving.result()
            raise SettingsError("The web server could not start. Is its port taken?")
        await asyncio.sleep(0.01)


def _address(server: _Server) -> str:
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _kept_up(name: str, make: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """A loop that fails is started again: one part's fault stops nothing else (promise P5)."""
    wait = 0.5
    while not stop.is_set():
        task = asyncio.ensure_future(make())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set() and not task.done():
            # Loops that know `stop` end by themselves; a source that does not is cancelled.
            _done, late = await asyncio.wait([task], timeout=5 if name != _SOURCE else 0.1)
            if late:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return
        stopping.cancel()
        error = task.exception()
        if error is None:
            return
        log.error("part_failed", part=name, error=type(error).__name__, exc_info=error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), wait)
        wait = min(wait * 2, 30)
