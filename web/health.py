"""/healthz, /readyz and /metrics: for those who operate Sluice."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from channels import Health
from domain import Forbidden, Unavailable
from router.intake_values import LAG_BOUNDS
from storage import counts, outbox, rates, schema, tallies, tickets
from web.context import Web, web_of

routes = APIRouter(tags=["health"])


@routes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@routes.get("/readyz")
async def readyz(request: Request) -> Response:
    """What works and what does not. 503 only where nothing can be accepted: the database is down."""
    web = web_of(request)
    parts: dict[str, dict[str, Any]] = {}
    ready, outdated = True, False
    try:
        parts["database"] = await web.database.read(_database)
        # Tables that the schema does not have yet cannot be asked.
        outdated = not parts["database"]["ok"]
        ready = not outdated
        stuck = await web.database.read(lambda connection: _without_way_out(connection, web)) if ready else {}
        for channel, waiting in stuck.items():
            detail = f"{waiting} answers are queued and the channel has no way out"
            parts[f"outbox:{channel}"] = {"ok": False, "detail": detail}
    except Unavailable as error:
        ready = False
        parts["database"] = {"ok": False, "detail": str(error)}
    try:
        if not outdated:
            parts["queue"] = {"ok": True, "depth": await web.queue.depth()}
    except Unavailable as error:
        parts["queue"] = {"ok": False, "detail": f"{error} Messages are stored; the sweeper rings for them later."}
    if ready:
        for health in await web.all_healths():
            parts[f"mailbox:{health.name}"] = {"ok": health.ok, "detail": health.detail}
    if web.nlu is not None:
        works, detail = await asyncio.to_thread(web.nlu)
        parts["nlu"] = {"ok": works, "detail": detail}
    down = sorted(name for name, part in parts.items() if not part["ok"])
    headers = {} if ready else {"Retry-After": str(Unavailable.retry_after)}
    return JSONResponse({"ready": ready, "down": down, "parts": parts}, 200 if ready else 503, headers)


def _database(connection: Connection) -> dict[str, Any]:
    connection.execute(sa.text("SELECT 1"))
    found = schema.current(connection)
    if found != schema.head():
        return {"ok": False, "detail": f"the schema is {found}, this Sluice needs {schema.head()}: run bot.py migrate"}
    return {"ok": True, "schema": found}


def _without_way_out(connection: Connection, web: Web) -> dict[str, int]:
    ways = set(web.outgoing())
    queued = {channel: n for (channel, state), n in outbox.states(connection).items() if state == "queued"}
    return {channel: n for channel, n in queued.items() if channel not in ways}


# --- metrics ----------------------------------------------------------------------------------------------------------


@routes.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus. Read from the database, so that it tells of all processes and survives a restart."""
    web = web_of(request)
    _may_read(request, web)
    collected = await web.database.read(_collect)
    try:
        depth: int | None = await web.queue.depth()
    except Unavailable:
        depth = None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given([*collected, *_gauges(depth, await web.all_healths()), *await _of_hooks(web)]))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


#: what proxies add
_FORWARDED = ("forwarded", "via", "x-real-ip")


def _may_read(request: Request, web: Web) -> None:
    """This machine, or who holds the token. A proxy on this machine is not this machine."""
    token = web.settings.metrics_token
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and hmac.compare_digest(given.encode(), token.encode()):
        return
    forwarded = any(name in _FORWARDED or name.startswith("x-forwarded-") for name in request.headers)
    host = request.client.host if request.client else ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local or forwarded:
        raise Forbidden("/metrics is for this machine, or needs SLUICE_WEB__METRICS_TOKEN as bearer token.")


class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _gauges(depth: int | None, healths: Sequence[Health]) -> list[Metric]:
    queue = GaugeMetricFamily("sluice_queue_depth", "Rings that wait or are being worked on; -1 = queue down")
    queue.add_metric([], -1 if depth is None else depth)
    up = GaugeMetricFamily(
        "sluice_channel_up", "A source is read, a way out works, an account is good, it is not strangely quiet",
        labels=["channel"],
    )  # fmt: skip
    for health in healths:
        up.add_metric([health.name], float(health.ok))
    return [queue, up]


async def _of_hooks(web: Web) -> list[Metric]:
    """Of this process and this machine alone: the database knows nothing of them."""
    refused = CounterMetricFamily("sluice_hook_refused", "Requests without a valid signature", labels=["channel"])
    spooled = GaugeMetricFamily("sluice_spooled", "Requests on this machine's disk", labels=["channel"])
    if web.hooks is not None:
        waiting = await asyncio.to_thread(web.hooks.spooled)
        for name in web.hooks.known:
            refused.add_metric([name], web.hooks.refused[name])
            spooled.add_metric([name], waiting.get(name, 0))
    return [refused, spooled]


def _of_channels(connection: Connection, ledgers: Sequence[counts.Ledger]) -> list[Metric]:
    now = datetime.now(UTC)
    last_in = GaugeMetricFamily("sluice_channel_last_in_seconds", "When a message last came in", labels=["channel"])
    last_out = GaugeMetricFamily("sluice_channel_last_out_seconds", "When an answer last went out", labels=["channel"])
    for ledger in ledgers:
        if ledger.last_in is not None:
            last_in.add_metric([ledger.channel], ledger.last_in.timestamp())
        if ledger.last_out is not None:
            last_out.add_metric([ledger.channel], ledger.last_out.timestamp())
    errors = GaugeMetricFamily(
        "sluice_channel_error_ratio", "Share of what went out in the last hour that failed", labels=["channel"]
    )
    for channel, result in sorted(rates.results(connection, now).items()):
        errors.add_metric([channel], result.rate)
    waits = GaugeMetricFamily(
        "sluice_channel_oldest_waiting_seconds", "Age of the oldest message accepted but not ticketed",
        labels=["channel"],
    )  # fmt: skip
    for channel, at in sorted(rates.oldest_waiting(connection).items()):
        waits.add_metric([channel], (now - at).total_seconds())
    return [last_in, last_out, errors, waits]


def _collect(connection: Connection) -> list[Metric]:
    accepted = GaugeMetricFamily("sluice_messages_accepted", "Messages that are stored, by channel", labels=["channel"])
    ended = GaugeMetricFamily(
        "sluice_messages_ended", "Messages by their end, received = on the way", labels=["channel", "state"]
    )
    missing = GaugeMetricFamily("sluice_messages_missing", "Accepted and in no state: must be 0", labels=["channel"])
    ledgers = counts.ledgers(connection)
    for ledger in ledgers:
        accepted.add_metric([ledger.channel], ledger.accepted)
        for state in ("ticketed", "appended", "automatic", "quarantined", "received"):
            ended.add_metric([ledger.channel, state], getattr(ledger, state))
        missing.add_metric([ledger.channel], ledger.missing)
    out = GaugeMetricFamily("sluice_outbox", "Outgoing messages by state", labels=["channel", "state"])
    for (channel, state), n in sorted(outbox.states(connection).items()):
        out.add_metric([channel, state], n)
    active = GaugeMetricFamily("sluice_tickets_active", "Tickets not yet resolved", labels=["department"])
    for department, n in sorted(tickets.counts(connection).items()):
        active.add_metric([department], n)
    held = CounterMetricFamily("sluice_answers_held", "Automatic answers held back, by reason", labels=["reason"])
    for name, n in sorted(tallies.starting_with(connection, "held:").items()):
        held.add_metric([name.removeprefix("held:")], n)
    return [accepted, ended, missing, out, active, held, _lag(connection), *_of_channels(connection, ledgers)]


def _lag(connection: Connection) -> Metric:
    histogram = HistogramMetricFamily(
        "sluice_lag_seconds", "From the commit of a message to its end", labels=["channel"]
    )
    buckets: dict[str, dict[str, int]] = {}
    for name, n in tallies.starting_with(connection, "lag:").items():
        _lag_word, channel, bound = name.split(":", 2)
        buckets.setdefault(channel, {})[bound] = n
    sums = tallies.starting_with(connection, "lag_us:")
    for channel, found in sorted(buckets.items()):
        total = 0
        rows = []
        for bound in [*map(str, LAG_BOUNDS), "+Inf"]:
            total += found.get(bound, 0)
            rows.append((bound, float(total)))
        histogram.add_metric([channel], rows, sums.get(f"lag_us:{channel}", 0) / 1e6)
    return histogram
