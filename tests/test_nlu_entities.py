"""Things named in a text, with their places in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import SettingsError
from nlu.entities import Patterns, find


def found(text: str) -> list[tuple[str, str, str]]:
    return [(entity.type, entity.value, entity.normal) for entity in find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("工单S-123456怎么样了", [("ticket_number", "S-123456", "S-123456")]),
        ("re s-1234567?", [("ticket_number", "s-1234567", "S-1234567")]),
        ("US-123456 and S-12345", []),
        ("保单号:P2026001234567", [("policy_number", "P2026001234567", "P2026001234567")]),
        ("policy number AB-12345678.", [("policy_number", "AB-12345678", "AB-12345678")]),
        ("my policy is good", []),
        ("claim no. CLM-1234567", [("claim_number", "CLM-1234567", "CLM-1234567")]),
        ("报案号是90012026112200", [("claim_number", "90012026112200", "90012026112200")]),
        ("打13800138000", [("phone", "13800138000", "+8613800138000")]),
        ("138-0013-8000", [("phone", "138-0013-8000", "+8613800138000")]),
        ("13800138000", [("phone", "13800138000", "+8613800138000")]),
        ("+86 138 0013 8000", [("phone", "+86 138 0013 8000", "+8613800138000")]),
        ("call 0044 20 7946 0958", [("phone", "0044 20 7946 0958", "+442079460958")]),
        ("138001380001", []),
        ("a.b+c@mail.example.co.uk!", [("email", "a.b+c@mail.example.co.uk", "a.b+c@mail.example.co.uk")]),
        ("邮箱Li@QQ.com,谢谢", [("email", "Li@QQ.com", "li@qq.com")]),
        ("退我3万元", [("amount", "3万元", "30000 CNY")]),
        ("¥1,200.50", [("amount", "¥1,200.50", "1200.5 CNY")]),
        ("¥ 3 or $20, USD 1,234 and 50 dollars", [
            ("amount", "¥ 3", "3 CNY"), ("amount", "$20", "20 USD"), ("amount", "USD 1,234", "1234 USD"),
            ("amount", "50 dollars", "50 USD"),
        ]),
        ("扣了1.5万元,又扣200块", [("amount", "1.5万元", "15000 CNY"), ("amount", "200块", "200 CNY")]),
        ("开了3万公里", []),
        ("2026-11-22", [("date", "2026-11-22", "2026-11-22")]),
        ("2026年2月3日", [("date", "2026年2月3日", "2026-02-03")]),
        ("11月22日出险", [("date", "11月22日", "--11-22")]),
        ("on 22 Nov 2026 and November 5th, 2026", [
            ("date", "22 Nov 2026", "2026-11-22"), ("date", "November 5th, 2026", "2026-11-05"),
        ]),
        ("1st of May", [("date", "1st of May", "--05-01")]),
        ("25/12/2026 or 5/6/2026", [("date", "25/12/2026", "2026-12-25"), ("date", "5/6/2026", "")]),
        ("2026-13-40 and 2026年2月30日", []),
        ("车牌京A12345", [("plate", "京A12345", "京A12345")]),
        ("粤b·d12345", [("plate", "粤b·d12345", "粤BD12345")]),
        ("nothing here", []),
        ("", []),
    ],
)  # fmt: skip
def test_entities(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert found(text) == expected


def test_spans_are_code_points_of_the_text_as_given() -> None:
    text = "😀😀 保单号:P2026001234567,电话13800138000,𠮷 ¥30"
    entities = find(text)
    assert [entity.type for entity in entities] == ["policy_number", "phone", "amount"]
    for entity in entities:
        assert text[entity.start : entity.end] == entity.value


def test_own_patterns() -> None:
    patterns = Patterns.of(policy_numbers=[r"\bZX\d{4}\b", r"Vertrag (\d+)"])
    assert [(e.type, e.value) for e in find("ZX1234, Vertrag 99, P2026001234567", patterns)] == [
        ("policy_number", "ZX1234"),
        ("policy_number", "99"),
    ]


def test_a_broken_pattern_is_named() -> None:
    with pytest.raises(SettingsError, match=r"\(\["):
        Patterns.of(claim_numbers=["(["])


@given(st.text(alphabet=st.sampled_from("0123456789+-.,/ 年月日号¥$万元S@abNov13京A·") | st.characters(), max_size=200))
def test_no_text_breaks_it_and_spans_hold(text: str) -> None:
    last = 0
    for entity in find(text):
        assert text[entity.start : entity.end] == entity.value != ""
        assert entity.start >= last
        last = entity.end
