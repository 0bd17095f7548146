"""Things named in a text, with their places in it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import iban, luhn
from stdnum.cn import ric

from domain import Language, SettingsError
from nlu.entities import Patterns, find
from nlu.entities_numbers import masked, masked_text


def found(text: str, language: Language = Language.OTHER) -> list[tuple[str, str, str]]:
    return [(entity.type, entity.value, entity.normal) for entity in find(text, language=language)]


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


# --- personal numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language", "value", "normal"),
    [
        ("座机010-12345678转801", Language.ZH, "010-12345678", "+861012345678"),
        ("家里(021)62345678", Language.ZH, "(021)62345678", "+862162345678"),
        ("電話 02-2712-3456", Language.ZH_HANT, "02-2712-3456", "+886227123456"),
        ("手機0912-345-678", Language.ZH_HANT, "0912-345-678", "+886912345678"),
        ("電話 9123 4567", Language.ZH_HANT, "9123 4567", "+85291234567"),
        ("please call 91234567", Language.EN, "91234567", "+85291234567"),
        ("on 07911 123456 after six", Language.EN, "07911 123456", "+447911123456"),
        ("on (212) 555-0123 or so", Language.EN, "(212) 555-0123", "+12125550123"),
        ("on 212-555-0123 or so", Language.EN, "212-555-0123", "+12125550123"),
        ("mine is 0412 345 678", Language.EN, "0412 345 678", "+61412345678"),
        ("+44 (0)20 7946 0958 2026", Language.EN, "+44 (0)20 7946 0958", "+442079460958"),
        ("我在英国的号码07911 123456", Language.ZH, "07911 123456", "+447911123456"),
        ("＋86 138 0013 8000", Language.ZH, "＋86 138 0013 8000", "+8613800138000"),
    ],
)
def test_phones_are_written_as_dialled_from_abroad(text: str, language: Language, value: str, normal: str) -> None:
    assert found(text, language) == [("phone", value, normal)]


@pytest.mark.parametrize(
    "text",
    [
        "order 91234567", "+999 12345678", "12000138000", "+86 1234", "cancelled 61234567 last year", "3.0207946095",
        "100-200-3000", "00123456789", "the code 0123456789",
    ],
)  # fmt: skip
def test_what_no_country_dials_is_no_phone(text: str) -> None:
    assert found(text, Language.EN) == []


def test_the_order_of_the_regions_decides_whose_number_it_is() -> None:
    text = "Tel. 020 7946 0958"
    for regions, normal in ((("CN", "GB"), "+862079460958"), (("GB", "CN"), "+442079460958")):
        [entity] = find(text, Patterns.of(phone_regions=regions), Language.EN)
        assert entity.normal == normal
    assert find(text, Patterns.of(phone_regions=["US"]), Language.EN) == ()


def test_a_region_without_phones_is_named() -> None:
    with pytest.raises(SettingsError, match="XX"):
        Patterns.of(phone_regions=["CN", "XX"])


@pytest.mark.parametrize(
    ("text", "kind", "value", "normal"),
    [
        ("身份证11010519491231002X，", "identity_number", "11010519491231002X", "11010519491231002X"),
        ("身份证110105 19491231 002x", "identity_number", "110105 19491231 002x", "11010519491231002X"),
        ("证件１１０１０５１９４９１２３１００２Ｘ", "identity_number", "１１０１０５１９４９１２３１００２Ｘ",
         "11010519491231002X"),
        ("我是A123456(3)", "identity_number", "A123456(3)", "A1234563"),
        ("AB987654（3）", "identity_number", "AB987654（3）", "AB9876543"),
        ("HKID: A1234563", "identity_number", "A1234563", "A1234563"),
        ("身分證字號A123456789", "identity_number", "A123456789", "A123456789"),
        ("居留證 A800000014", "identity_number", "A800000014", "A800000014"),
        ("NRIC s1234567d", "identity_number", "s1234567d", "S1234567D"),
        ("my FIN is M1234567K", "identity_number", "M1234567K", "M1234567K"),
        ("it is AB 12 34 56 C.", "identity_number", "AB 12 34 56 C", "AB123456C"),
        ("NI number AB123456C", "identity_number", "AB123456C", "AB123456C"),
        ("my 536-90-4399", "identity_number", "536-90-4399", "536904399"),
        ("social security no 536904399", "identity_number", "536904399", "536904399"),
        ("4111 1111 1111 1111 123, 12/26", "bank_number", "4111 1111 1111 1111", "4111111111111111"),
        ("卡号6222021234567890128", "bank_number", "6222021234567890128", "6222021234567890128"),
        ("amex 3782-822463-10005", "bank_number", "3782-822463-10005", "378282246310005"),
        ("IBAN GB82 WEST 1234 5698 7654 32 is mine", "bank_number", "GB82 WEST 1234 5698 7654 32",
         "GB82WEST12345698765432"),
        ("to de89370400440532013000", "bank_number", "de89370400440532013000", "DE89370400440532013000"),
        ("to MT84 MALT 0110 0001 2345 MTLC AST0 01S", "bank_number", "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
         "MT84MALT011000012345MTLCAST001S"),
    ],
)  # fmt: skip
def test_identity_and_bank_numbers(text: str, kind: str, value: str, normal: str) -> None:
    assert found(text) == [(kind, value, normal)]


@pytest.mark.parametrize(
    "text",
    [
        "110105194913310021", "ref A123456789", "ref AB123456C", "NI number QQ123456C", "BG 12 34 56 C", "536904399",
        "666-00-0000", "078-05-1120", "id A1234564", "S1234567A", "GB82 WEST 1234 5698 7654 33", "6011000990139425",
        "7911111111111111", "X4111111111111111",
    ],
)  # fmt: skip
def test_numbers_that_prove_nothing_are_left_alone(text: str) -> None:
    assert found(text) == []


def test_a_policy_number_is_one_whatever_its_check_digit_says() -> None:
    assert [kind for kind, _value, _normal in found("保单号 11010519491231002X")] == ["policy_number"]


_DAYS = st.dates().map(lambda day: f"{day:%m%d}")
_IDENTITY = st.builds(
    lambda place, year, day, order: (number := f"{place}{year}{day}{order:03}") + ric.calc_check_digit(f"{number}0"),
    st.integers(110000, 659999), st.integers(1930, 2020), _DAYS.filter(lambda day: day != "0229"), st.integers(0, 999),
)  # fmt: skip
_CARD = st.builds(
    lambda issuer, rest: (number := f"{issuer}{rest:011}") + luhn.calc_check_digit(number),
    st.sampled_from(["4026", "5212", "6222", "3530"]), st.integers(0, 10**11 - 1),
)  # fmt: skip
_ACCOUNT = st.integers(0, 10**14 - 1).map(
    lambda rest: f"GB{iban.calc_check_digits(f'GB00WEST{rest:014}')}WEST{rest:014}"
)
_KNOWN = st.sampled_from(
    ["A123456(3)", "AB987654(3)", "E364912(5)", "G123456(A)", "S1234567D", "T1234567J", "F1234567N", "M1234567K"]
)


@given(st.one_of(_IDENTITY, _CARD, _ACCOUNT, _KNOWN), st.data())
def test_a_number_with_one_digit_changed_is_refused(number: str, data: st.DataObject) -> None:
    [(kind, value, _)] = found(number)
    assert value == number
    place = data.draw(st.sampled_from([i for i, each in enumerate(number) if each.isdecimal()]))
    digit = data.draw(st.sampled_from([each for each in "0123456789" if each != number[place]]))
    wrong = f"{number[:place]}{digit}{number[place + 1 :]}"
    # Another kind may be right by chance: cards begin with 62, and so do the identity numbers of Gansu.
    assert not any(kind == other_kind and value == wrong for other_kind, value, _ in found(wrong))


def test_a_taiwanese_number_with_another_check_digit_is_refused() -> None:
    # Its even weights let some other changes pass, so only the last digit is certain.
    assert [digit for digit in "0123456789" if found(f"身分證 A12345678{digit}")] == ["9"]


_PIECES = st.sampled_from(
    ["138", "0013", "8000", "+86", "00", " ", "-", "(", ")", "4111", "1111", "GB82", "WEST", "11010519491231002X", "X",
     "A123456", "(3)", "tel", "SSN", "id ", "电话", "\u00a0", "１２３", "٣٤٥", "536-90-4399", "020 ", "2026-11-22", "¥"]
)  # fmt: skip


@given(st.lists(_PIECES | st.characters(), max_size=60).map("".join), st.sampled_from(Language))
def test_no_mixture_of_numbers_breaks_it(text: str, language: Language) -> None:
    last = 0
    for entity in find(text, language=language):
        assert text[entity.start : entity.end] == entity.value != ""
        assert entity.start >= last
        last = entity.end
    assert isinstance(masked_text(text), str)


@pytest.mark.parametrize(
    "piece",
    ["1", "1 ", "13800138000 ", "0-", "+1", "(0", "4111111111111112 ", "GB82 WEST 1234 5698 7654 33 ", "ab12 ",
     "110105194912310021,", "call 11234567,", "0123-456-7890,", "+99912345678,", "ab 12 34 56 e ", "保单号1",
     "\U0001d7d8"],
)  # fmt: skip
def test_a_megabyte_costs_no_more_than_its_beginning(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    find(text)
    before = time.process_time()
    find(text)
    assert time.process_time() - before < 0.5


def test_texts_without_such_numbers_never_load_the_libraries() -> None:
    code = """
import sys
from nlu.entities import find
find("退我3万元, 2026-11-22, policy number AB-12345678, a@example.com, 京A12345")
print([name for name in ("phonenumbers", "stdnum") if name in sys.modules])
find("13800138000 4111111111111111")
print([name for name in ("phonenumbers", "stdnum") if name in sys.modules])
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['phonenumbers', 'stdnum']"]


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("+86 138 0013 8000", "****8000"), ("11010519491231002X", "****002X"), ("A123456(3)", "****4563"),
        ("1234", "****"), ("", "****"),
    ],
)  # fmt: skip
def test_a_mask_leaves_the_last_four(value: str, shown: str) -> None:
    assert masked(value) == shown


def test_a_masked_text_keeps_everything_else() -> None:
    text = "To number +8613800138000 is not valid (error 21211, ticket S-123456, 4111 1111 1111 1111)"
    assert masked_text(text) == "To number ****8000 is not valid (error 21211, ticket S-123456, ****1111)"
    many = ", ".join(f"1380013{each:04}" for each in range(120))
    assert "1380013" not in masked_text(many)


@pytest.mark.parametrize("form", ["json", "console"])
def test_logs_mask_what_an_error_quotes(form: str) -> None:
    code = """
import logging, sys, structlog, settings, app
given = settings.load({"SLUICE_LOG__FORMAT": sys.argv[1], "SLUICE_LOG__LEVEL": "debug"})
app.configure_logging(given, sys.stderr)
log = structlog.get_logger("test")
try:
    raise ValueError("to +8613800138000 with 11010519491231002X")
except ValueError as error:
    log.exception("send_failed", error=str(error))
    logging.getLogger("library").warning("refused %s", error, exc_info=error)
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, form], cwd=root, capture_output=True, text=True, check=True)
    assert done.stderr.count("ValueError") >= 2
    assert done.stderr.count("****8000") >= 4
    assert "13800138000" not in done.stderr
    assert "11010519491231002X" not in done.stderr
