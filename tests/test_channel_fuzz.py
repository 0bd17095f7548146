"""Webhooks under fire: signed nonsense costs nothing but itself, unsigned sense is refused; never a fault of ours.

`pytest --hypothesis-profile long --timeout 0 tests/test_channel_fuzz.py` tries each webhook 20,000 times.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from channels import Hook, Parsed
from domain import Forbidden, Unreadable
from settings import Settings
from storage import counts, messages, schema
from storage.database import Database
from storage.tables import Message
from tests.api_world import Api, serving
from tests.contract import Property, adapters, cell, samples_of
from tests.reading import rows
from tests.samples import Call, Samples, request_of
from tests.test_channel_contract import channel_of
from tests.worlds import make_world

TABLE = "Fuzzing: requests through each webhook"
_quietly = hypothesis_settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
every_adapter = pytest.mark.parametrize("adapter", adapters())

_words = st.text(max_size=20)
_leaf = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), _words,
    st.sampled_from([10**30, -1, 2**63, 1e308, "\0", "\ud800", "9" * 30, "NaN", " ", "a" * 3000, "0001-01-01T00:00Z"]),
)  # fmt: skip
_json = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=4), max_leaves=12
)
_bytes = st.binary(max_size=200)
#: what cannot stand in a header
_NO_HEADER = dict.fromkeys([*range(32), 127])


# --- bodies -----------------------------------------------------------------------------------------------------------


@st.composite
def bodies(draw: st.DrawFn, seed: bytes) -> bytes:
    """A body as the provider would send it, changed in some places; or no such thing at all."""
    kind = draw(st.sampled_from(["as it is", "places", "places", "places", "bytes", "other"]))
    if kind == "other":
        return draw(st.one_of(_bytes, _json.map(lambda value: json.dumps(value).encode()), _forms, _documents()))
    if kind == "places":
        for _change in range(draw(st.integers(1, 4))):
            seed = draw(_changed(seed))
    elif kind == "bytes":
        seed = draw(_broken(seed))
    return seed


_forms = st.lists(st.tuples(_words, _words), max_size=6).map(
    lambda pairs: urlencode(pairs, errors="surrogatepass").encode()
)


@st.composite
def _broken(draw: st.DrawFn, seed: bytes) -> bytes:
    """Cut off, torn out, or with something in it that does not belong there."""
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, min(len(seed), start + 40)))
    return seed[:start] + draw(_bytes) + seed[end:]


@st.composite
def _documents(draw: st.DrawFn) -> bytes:
    names = st.sampled_from(["xml", "MsgType", "Content", "MsgId", "CreateTime", "Event", "FromUserName", "x"])
    inner = "".join(f"<{name}>{draw(_words)}</{name}>" for name in draw(st.lists(names, max_size=6)))
    return f"<xml>{inner}</xml>".encode("utf-8", "replace")


def _changed(seed: bytes) -> st.SearchStrategy[bytes]:
    """One place of a body is changed, in the form that the body has."""
    with suppress(ValueError, RecursionError):
        value = json.loads(seed)
        if isinstance(value, dict | list) and value:
            return _changed_json(value).map(lambda changed: json.dumps(changed).encode())
    if seed.lstrip().startswith(b"<"):
        return _changed_xml(seed)
    return _changed_form(seed)


@st.composite
def _changed_json(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(_json)
    places = list(value) if isinstance(value, dict) else range(len(value))
    place = draw(st.sampled_from(places))
    copy: Any = value.copy()
    action = draw(st.sampled_from(["into", "into", "into", "out", "more"]))
    if action == "into":
        copy[place] = draw(_changed_json(value[place]))
    elif action == "out":
        del copy[place]
    elif isinstance(copy, dict):
        copy[draw(_words)] = value[place]
    else:
        copy.append(value[place])
    return copy


@st.composite
def _changed_form(draw: st.DrawFn, seed: bytes) -> bytes:
    pairs = parse_qsl(seed.decode("utf-8", "replace"), keep_blank_values=True) or [("", "")]
    place = draw(st.integers(0, len(pairs) - 1))
    name, value = pairs[place]
    pairs[place : place + 1] = draw(
        st.sampled_from([[], [(name, value)] * 2, [(draw(_words), value)], [(name, str(draw(_leaf)))]])
    )
    return urlencode(pairs, errors="replace").encode()


@st.composite
def _changed_xml(draw: st.DrawFn, seed: bytes) -> bytes:
    """The value of one element is another one."""
    parts = seed.decode("utf-8", "replace").split(">")
    place = draw(st.integers(0, len(parts) - 1))
    head, opened, tail = parts[place].partition("<")
    parts[place] = draw(st.sampled_from([str(draw(_leaf)), "", f"<![CDATA[{head}", "<x>" * 50])) + opened + tail
    return ">".join(parts).encode("utf-8", "replace")


# --- the endpoint -----------------------------------------------------------------------------------------------------


class Fire:
    """Requests to one webhook from hypothesis' thread, answered by the test's own loop."""

    def __init__(self, api: Api, hook: Hook, client: httpx.AsyncClient) -> None:
        self.api, self.hook, self._client = api, hook, client
        self._loop = asyncio.get_running_loop()
        self.times = 0

    def call(self, call: Call) -> httpx.Response:
        path = f"/hooks/{self.hook.name}" + (f"/{call.rest}" if call.rest else "") + f"?{call.query}"
        headers = {name.encode(): value.encode("utf-8", "replace") for name, value in call.headers.items()}
        request = self._client.request(call.method, path, content=call.body, headers=headers)
        answer = asyncio.run_coroutine_threadsafe(request, self._loop).result(60)
        self.times += 1
        return answer

    def known(self, parsed: Parsed) -> bool:
        """Each item is stored under its key."""
        with self.api.world.database.reading() as connection:
            return all(
                messages.by_key(connection, item.channel, item.account, messages.tidy(messages.external_id(item)))
                for item in parsed.items
            )

    async def run(self, test: Callable[[], None]) -> int:
        await asyncio.to_thread(test)
        return self.times


@pytest.fixture
async def fire(adapter: str, tmp_path: Path, settings: Settings) -> AsyncIterator[Fire]:
    database = Database(f"sqlite:///{tmp_path / 'sluice.db'}")
    schema.migrate(database)
    channel, hook = channel_of(samples_of(adapter))
    async with (
        serving(make_world(database, settings), hooks=[hook]) as api,
        api.client(raise_app_exceptions=False) as client,
    ):
        yield Fire(api, hook, client)
    if channel.sender is not None:
        await channel.sender.close()
    database.close()


def seeds_of(samples: Samples, hook: Hook) -> list[tuple[bytes, Call]]:
    """What the provider's bodies look like, and what is inside of those that are sealed; with the calls they are of."""
    calls = [example.call for example in samples.examples] + [call for call, _id, _state in samples.statuses]
    found = []
    for call in calls:
        inside = [item.raw for item in hook.parse(request_of(hook.name, call)).items]
        found += [(each, call) for each in [call.body, *inside] if each]
    return found


@every_adapter
async def test_signed_nonsense_is_kept_or_dropped_and_never_a_fault(
    adapter: str, fire: Fire, record_property: Property
) -> None:
    cell(record_property, TABLE, "signed, changed", adapter)
    samples = samples_of(adapter)
    sign = samples.sign
    assert sign is not None, "the samples say how any body is signed"

    @_quietly
    @given(
        st.sampled_from(seeds_of(samples, fire.hook)).flatmap(
            lambda seed: st.tuples(bodies(seed[0]), st.just(seed[1]))
        ),
        st.booleans(),
    )
    def attempt(given: tuple[bytes, Call], there: bool) -> None:
        body, like = given
        try:
            call = samples.sign_at(body, like) if samples.sign_at is not None and there else sign(body)
        except (ValueError, TypeError):  # the provider could not have signed this
            reject()
        request = request_of(fire.hook.name, call)
        fire.hook.verify(request)
        parsed = fire.hook.parse(request)
        assert all(each.external_id and each.channel == fire.hook.name for each in parsed.items)
        assert all(each.reason for each in parsed.items if isinstance(each, Unreadable))
        answer = fire.call(call)
        assert answer.status_code == 200, answer.text
        assert fire.known(parsed)

    times = await fire.run(attempt)
    waiting = rows(fire.api.world.database, Message, state="received")
    for start in range(0, len(waiting), 200):  # also those that wait for the rest of an album
        await fire.api.world.flow.process([each.id for each in waiting[start : start + 200]])
    ledgers = await fire.api.world.database.read(counts.ledgers)
    assert [(each.missing, each.received) for each in ledgers] == [(0, 0)] * len(ledgers)
    cell(record_property, TABLE, "signed, changed", adapter, f"{times:,}")


def needed_by(hook: Hook, call: Call) -> list[str]:
    """The headers and the fields of the query without which a call is refused: the signature, and what is signed."""
    query = dict(parse_qsl(call.query, keep_blank_values=True))
    found = []
    for name in [*call.headers, *query]:
        headers = {each: value for each, value in call.headers.items() if each != name}
        less = urlencode({each: value for each, value in query.items() if each != name})
        try:
            hook.verify(request_of(hook.name, Call(call.body, headers, less, call.rest)))
        except Forbidden:
            found.append(name)
    return found


@every_adapter
async def test_unsigned_sense_stores_nothing(adapter: str, fire: Fire, record_property: Property) -> None:
    cell(record_property, TABLE, "unsigned", adapter)
    samples = samples_of(adapter)
    good = [(each.call, needed) for each in samples.examples if (needed := needed_by(fire.hook, each.call))]
    assert good
    values = st.one_of(_words, st.sampled_from(["", "sha256=", "sha256=" + "0" * 64, "0" * 40, "A" * 27 + "=", "0"]))

    @_quietly
    @given(st.sampled_from(good), st.data())
    def attempt(given: tuple[Call, list[str]], data: st.DataObject) -> None:
        call, needed = given
        query = dict(parse_qsl(call.query, keep_blank_values=True))
        known = {**call.headers, **query}
        for name in data.draw(st.sets(st.sampled_from(needed), min_size=1)):
            right = known[name]
            near = st.sampled_from([right[:-1], right[1:], f"{right}0", right[::-1], right[: len(right) // 2]])
            wrong = data.draw(values | near).translate(_NO_HEADER).strip()
            if wrong == right:
                reject()
            known[name] = wrong
        headers = {name: known[name] for name in call.headers}
        mixed = urlencode({name: known[name] for name in query}, errors="replace")
        body = data.draw(st.sampled_from([call.body, call.body, b"", b"{}"]) | _bytes)
        other = Call(body, headers, mixed, call.rest)
        with pytest.raises(Forbidden):
            fire.hook.verify(request_of(fire.hook.name, other))
        assert fire.call(other).status_code == 403

    times = await fire.run(attempt)
    assert await fire.api.count("message") == 0
    assert await fire.api.count("event") == 0
    cell(record_property, TABLE, "unsigned", adapter, f"{times:,}")
