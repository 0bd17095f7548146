"""The words: public numbers, naive times, errors."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import domain


@given(st.integers(1, 9 * 10**9))
def test_a_public_number_leads_back_to_its_row(ticket_id: int) -> None:
    number = domain.public_number(ticket_id)
    assert domain.ticket_id_of(number) == ticket_id
    assert domain.ticket_id_of(f" {number.lower()} ") == ticket_id


def test_the_shuffle_never_changes() -> None:
    pairs = {1: "S-656231", 2: "S-312462", 3: "S-868693", 900_000: "S-100000", 900_001: "S-6562307"}
    assert {ticket_id: domain.public_number(ticket_id) for ticket_id in pairs} == pairs


def test_the_first_900000_numbers_have_six_digits_and_differ() -> None:
    numbers = {domain.public_number(ticket_id) for ticket_id in range(1, 900_001)}
    assert len(numbers) == 900_000
    assert {len(number) for number in numbers} == {8}
    assert domain.public_number(900_001) not in numbers


def test_neighbours_are_far_apart() -> None:
    first, second = (int(domain.public_number(each)[2:]) for each in (1, 2))
    assert abs(first - second) > 10_000


@pytest.mark.parametrize("text", ["", "S-", "S-12345", "S-012345", "x", "S-１２３４５６", "S-1234567890123", "-656231"])
def test_what_is_no_number_leads_nowhere(text: str) -> None:
    assert domain.ticket_id_of(text) is None


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without zone"):
        domain.check_aware(datetime(2026, 1, 1))  # noqa: DTZ001


def test_an_error_says_what_its_docstring_says() -> None:
    assert str(domain.Conflict()) == "Somebody else was faster. Load it again."
    assert domain.ChannelError("x", permanent=True).permanent
