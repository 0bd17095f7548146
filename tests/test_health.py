"""/healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from settings import Settings
from storage import health, schema
from storage.database import Database
from storage.redis_queue import RedisQueue
from tests.api_world import Api, serving
from tests.servers import RedisServer
from tests.worlds import make_world, message


@pytest.fixture
async def api(tmp_path: Path, settings: Settings) -> AsyncIterator[Api]:
    database = Database(f"sqlite:///{tmp_path / 'small.db'}")
    schema.migrate(database)
    async with serving(make_world(database, settings)) as made:
        yield made
    database.close()


async def ready(api: Api) -> tuple[int, dict[str, Any]]:
    async with api.client() as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        answer = await client.get("/readyz")
    assert ("Retry-After" in answer.headers) == (answer.status_code == 503)
    return answer.status_code, answer.json()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def metrics(api: Api) -> Samples:
    """All samples by name and labels, as Prometheus reads them."""
    async with api.client() as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(answer.text))
    assert all(each.documentation for each in families)
    assert all(each.type != "unknown" for each in families)
    rows = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
    ]
    assert len(rows) == len(dict(rows))  # no series twice
    return dict(rows)


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_ready(api: Api) -> None:
    status, said = await ready(api)
    assert (status, said["ready"], said["down"]) == (200, True, [])
    assert said["parts"]["database"] == {"ok": True, "schema": schema.head()}
    assert said["parts"]["queue"] == {"ok": True, "depth": 0}


async def test_redis_down_is_named_and_messages_are_still_taken(tmp_path: Path, settings: Settings) -> None:
    database = Database(f"sqlite:///{tmp_path / 'small.db'}")
    schema.migrate(database)
    with RedisServer() as server:
        queue = RedisQueue(server.url)
        async with serving(make_world(database, settings, queue=queue)) as api:
            assert (await ready(api))[1]["down"] == []
            server.stop()
            status, said = await ready(api)
            assert (status, said["ready"], said["down"]) == (200, True, ["queue"])
            assert value(await metrics(api), "sluice_queue_depth") == -1
            assert (await api.post()).status_code == 202
            server.start()
            assert (await ready(api))[1]["down"] == []
            assert await api.world.flow.sweep_once(timedelta(0)) == 1
            assert (await ready(api))[1]["parts"]["queue"]["depth"] == 1
            assert value(await metrics(api), "sluice_queue_depth") == 1
        await queue.close()
    database.close()


async def test_the_database_down_is_503(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "no.db"
    path.mkdir()
    database = Database(f"sqlite:///{path}")
    async with serving(make_world(database, settings), {}) as api:
        status, said = await ready(api)
        assert (status, said["ready"]) == (503, False)
        assert "database" in said["down"]
        async with api.client() as client:
            assert (await client.get("/metrics")).status_code == 503
        path.rmdir()
        # There again, but empty: what is needed is said.
        status, said = await ready(api)
        assert (status, said["down"]) == (503, ["database"])
        assert "migrate" in said["parts"]["database"]["detail"]
    database.close()


async def test_answers_without_a_way_out_are_said(api: Api) -> None:
    await api.world.come_in(message(), message(channel="mail", account="mail"), message(channel="mail", account="mail"))
    status, said = await ready(api)
    assert (status, said["down"]) == (200, ["outbox:mail"])
    assert said["parts"]["outbox:mail"]["detail"].startswith("2 answers are queued")


async def test_a_mailbox_is_down_when_it_says_so_or_says_nothing(api: Api) -> None:
    now = datetime.now(UTC)
    for name, ok, at in (("good", True, now), ("bad", False, now), ("silent", True, now - health.SILENT)):
        rows = [(name, ok, f"{name} says")]
        await api.world.database.write(partial(health.tell, rows=rows, now=at))
    status, said = await ready(api)
    assert (status, said["down"]) == (200, ["mailbox:bad", "mailbox:silent"])
    assert said["parts"]["mailbox:bad"]["detail"] == "bad says"
    samples = await metrics(api)
    found = {name: value(samples, "sluice_channel_up", channel=name) for name in ("good", "bad", "silent")}
    assert found == {"good": 1, "bad": 0, "silent": 0}


async def test_metrics_of_an_empty_world_parse(api: Api) -> None:
    assert value(await metrics(api), "sluice_queue_depth") == 0


async def test_what_was_accepted_equals_what_ended(api: Api) -> None:
    world = api.world
    await world.come_in(message(), message("#boom"), message(thread="t"), message(thread="t"))
    await world.come_in(message(channel="mail", account="mail"))
    for _again in range(3):  # the third failure is quarantined
        await world.flow.finish()
    await world.flow.receive([message("still on its way")])
    samples = await metrics(api)
    ends = {}
    for channel in ("api", "mail"):
        accepted = value(samples, "sluice_messages_accepted", channel=channel)
        ends[channel] = {
            state: value(samples, "sluice_messages_ended", channel=channel, state=state)
            for state in ("ticketed", "appended", "automatic", "quarantined", "received")
        }
        assert accepted == sum(ends[channel].values())
        assert value(samples, "sluice_messages_missing", channel=channel) == 0
    assert ends["api"] == {"ticketed": 2, "appended": 1, "automatic": 0, "quarantined": 1, "received": 1}
    assert ends["mail"] == {"ticketed": 1, "appended": 0, "automatic": 0, "quarantined": 0, "received": 0}
    assert value(samples, "sluice_tickets_active", department="claims") == 3
    assert value(samples, "sluice_outbox", channel="mail", state="queued") == 1
    assert value(samples, "sluice_outbox", channel="api", state="queued") == 2


async def test_the_lag_counts_every_message_that_ended_with_a_ticket_once(api: Api) -> None:
    await api.world.come_in(*(message(sender=f"c{n}@example.com") for n in range(5)))
    await api.world.come_in(message(channel="mail", account="mail"))
    samples = await metrics(api)
    for channel, n in (("api", 5), ("mail", 1)):
        assert value(samples, "sluice_lag_seconds_count", channel=channel) == n
        assert value(samples, "sluice_lag_seconds_sum", channel=channel) > 0
        buckets = [
            (float(dict(labels)["le"]), count)
            for (name, labels), count in samples.items()
            if name == "sluice_lag_seconds_bucket" and ("channel", channel) in labels
        ]
        counts = [count for _bound, count in sorted(buckets)]
        assert counts == sorted(counts)  # cumulative
        assert counts[-1] == n
        assert max(buckets)[0] == float("inf")


@pytest.mark.parametrize(
    ("address", "headers", "token", "status"),
    [
        ("127.0.0.1", {}, "", 200),
        ("::1", {}, "", 200),
        ("10.0.0.7", {}, "", 403),
        ("not-an-address", {}, "", 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, "", 403),
        ("127.0.0.1", {"X-Forwarded-Proto": "https"}, "", 403),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}, "", 403),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, "", 403),
        ("127.0.0.1", {"Via": "1.1 proxy"}, "", 403),
        ("10.0.0.7", {"Authorization": "Bearer read-me"}, "read-me", 200),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.7", "Authorization": "Bearer read-me"}, "read-me", 200),
        ("10.0.0.7", {"Authorization": "Bearer guess"}, "read-me", 403),
        # No token is set: none opens it.
        ("10.0.0.7", {"Authorization": "Bearer "}, "", 403),
        ("10.0.0.7", {"Authorization": ""}, "", 403),
    ],
)
async def test_metrics_are_for_this_machine_or_with_the_token(
    api: Api, address: str, headers: dict[str, str], token: str, status: int
) -> None:
    api.web.settings = api.web.settings.model_copy(update={"metrics_token": token})
    async with api.client(address=(address, 5000), headers=headers) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == status
    assert ("sluice_queue_depth" in answer.text) == (status == 200)
