"""Search: two Han characters, phrases, the head of a word, a number, a sender."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from domain import public_number
from settings import Settings
from storage import search
from storage.database import Database
from storage.tickets import listed
from tests.worlds import World, make_world, message


def found(database: Database, q: str) -> list[int]:
    with database.reading() as connection:
        return sorted(row.id for row in listed(connection, q=q))


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    made = make_world(database, settings)
    await made.come_in(
        message("我的理赔款还没有到账，保单号 PA-20231234", sender="li@example.com", sender_name="李雷"),
        message("请问怎么退保？", sender="han@qq.com", subject="退保申请"),
        message("Where is my refund for the Café visit? It's overdue.", sender="o'brien@example.org"),
        message("理 赔 款 apart, 赔款 and 理赔 in the wrong order", sender="13800138000"),
    )
    return made


@pytest.mark.parametrize(
    ("q", "tickets"),
    [
        ("理赔", [1, 4]),
        ("退保", [2]),
        ("理赔款", [1]),
        ("赔款还没有", [1]),
        ("款理", []),
        ("理赔 到账", [1]),
        ("理赔 退保", []),
        ("refund", [3]),
        ("REFUND", [3]),
        ("refu", [3]),
        ("fund", []),
        ("overdue refu", [3]),
        ("PA-2023", [1]),
        ("pa 20231234", [1]),
        ("li@example.com", [1]),
        ("o'brien", [3]),
        ("13800138000", [4]),
        ("李雷", [1]),
        ("退保申请", [2]),
        ("ｒｅｆｕｎｄ", [3]),
        ("", [1, 2, 3, 4]),
        ("   ", []),
        ("？！", []),
        ("nothing", []),
        ('"', []),
        ("refund OR 退保", []),
        ("refund*", [3]),
        ("ref:*", [3]),
        ("'; DROP TABLE ticket", []),
    ],
)
async def test_a_query_finds(world: World, q: str, tickets: list[int]) -> None:
    assert found(world.database, q) == tickets


async def test_a_public_number_finds_its_ticket(world: World) -> None:
    number = public_number(2)
    for typed in (number, number.lower(), number.removeprefix("S-"), f" {number} "):
        assert found(world.database, typed) == [2]


async def test_what_answers_to_a_ticket_is_found_on_it(world: World) -> None:
    await world.come_in(message("#claim_status first", thread="t"), message("车险", thread="t"))
    assert found(world.database, "车险") == [5]


async def test_a_query_without_end_is_no_fault(world: World) -> None:
    assert found(world.database, "a" * 5000) == []
    assert found(world.database, "理赔" * 3000) == []
    assert found(world.database, " ".join(f"w{number}" for number in range(3000))) == []


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(q=st.text(st.characters(codec="utf-8"), max_size=30))
@example("a' | b & !c <-> d:*")
@example('NEAR("a" "b") AND {x}: ^y')
@example("\0")
@example("1e5 3.14 -7 0x1F a@b http://c.d/e?f=g")
@example("𠀀 ﷺ ß İ ǆ")
def test_no_query_is_a_fault(database: Database, q: str) -> None:
    found(database, q)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(word=st.text(st.characters(codec="utf-8", categories=("L", "Nd")), min_size=2, max_size=12))
@example("1e5")
@example("00123")
@example("ß")
@example("İstanbul")
@example("理赔款")
def test_a_text_is_found_by_itself(database: Database, word: str) -> None:
    def unit(connection: object) -> None:
        search.remove(connection, [1])  # type: ignore[arg-type]
        search.add(connection, [{"message_id": 1, "ticket_id": 1, "terms": search.terms(f"x {word} y")}])  # type: ignore[arg-type]

    database.submit(unit).result(30)
    with database.reading() as connection:
        matching = search.matching(connection, word)
        assert matching is not None
        assert [row.ticket_id for row in connection.execute(matching)] == [1]


def test_terms_are_bigrams_and_words() -> None:
    assert search.terms("理赔款 Claim-42, 保 Ａ１") == "claim 42 a1 理赔 赔款 保"
    assert search.terms("") == ""
