"""What callers say of cards and identities is masked before it is stored; what people need stays."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn
from stdnum.cn import ric

from channels.phone_digits import masked
from channels.phone_words import WORDS, in_danger, wants_person

_CHINESE = str.maketrans("0123456789", "零幺二三四五六七八九")
_ENGLISH = dict(
    zip("0123456789", ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], strict=True)
)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("my card is 4111 1111 1111 1111 thanks", "my card is ****1111 thanks"),
        ("4111-1111-1111-1111, 12 26", "****1111, 12 26"),
        ("12 26 4111 1111 1111 1111", "12 26 ****1111"),
        ("卡号四一一一一一一一一一一一一一一一，谢谢", "卡号****1111，谢谢"),
        ("四幺幺幺 幺幺幺幺 幺幺幺幺 幺幺幺幺", "****1111"),
        ("four triple one 1111 1111 one one double one", "****1111"),
        ("Four one one one one one one one one one one one one one one one", "****1111"),
        ("４１１１１１１１１１１１１１１１", "****1111"),
        ("身份证号码是11010519491231002X", "身份证号码是****002X"),
        ("一一零一零五一九四九一二三一零零二叉", "****002X"),
        ("110105 19491231 002x 谢谢", "****002X 谢谢"),
        # Misheard, but the caller says what it is.
        ("我的银行卡号是6222 0212 3456 7890 124", "我的银行卡号是****0124"),
        ("my identity card is 123 45 6789", "my identity card is ****6789"),
        ("my passport number is 123456789", "my passport number is ****6789"),
        ("SSN 123-45-6789", "SSN ****6789"),
        ("A123456(3) and S1234567D", "****4563 and ****567D"),
    ],
)
def test_cards_and_identities_keep_their_last_four_alone(said: str, kept: str) -> None:
    assert masked(said) == kept
    assert masked(kept) == kept


@pytest.mark.parametrize(
    "said",
    [
        "保单号 8800123456789012345",
        "我身份证登记的保单号是 20260011223344",
        "my policy number is 4111 1111 1111 1112",
        "请回电 13800138000",
        "call me at +86 138 0013 8000 please",
        "事故是2026年11月22日10点30分发生的，赔了一万二千三百四十五块",
        "one two three go, at seven or eight or nine",
        "一二三四五六七",
        "S-123456",
        "",
    ],
)
def test_policies_phones_and_dates_stay(said: str) -> None:
    assert masked(said) == said


def written(digits: str, form: int) -> str:
    if form == 0:
        return digits
    if form == 1:
        return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))
    return digits.translate(_CHINESE) if form == 2 else " ".join(_ENGLISH[each] for each in digits)


@given(st.from_regex(r"4[0-9]{14}|62[0-9]{13}", fullmatch=True), st.integers(0, 3), st.sampled_from(["zh", "en", ""]))
def test_every_card_is_masked_however_it_is_said(digits: str, form: int, around: str) -> None:
    card = digits + luhn.calc_check_digit(digits)
    before, after = {"zh": ("我的号码是，", "，谢谢"), "en": ("it is ", " thank you"), "": ("", "")}[around]
    assert masked(f"{before}{written(card, form)}{after}") == f"{before}****{card[-4:]}{after}"


@given(st.dates(), st.from_regex(r"[0-9]{3}", fullmatch=True), st.integers(0, 2))
def test_every_identity_of_the_mainland_is_masked(born: object, order: str, form: int) -> None:
    born_on = f"19{str(born)[2:].replace('-', '')}"
    digits = f"110105{born_on}{order}"
    if not re.fullmatch(r"110105(19\d\d)(0[1-9]|1[0-2])(0[1-9]|1\d|2[0-8])\d{3}", digits):
        return
    whole = digits + ric.calc_check_digit(f"{digits}0")
    assert (
        masked(f"好的 {written(whole.removesuffix('X'), form)}{'X' * whole.endswith('X')}") == f"好的 ****{whole[-4:]}"
    )


@given(
    st.text(
        alphabet=st.sampled_from("0123456789 -.,，。xX叉一二三零双doubletriplenoe*身份证卡号card保单\n"), max_size=200
    )
)
def test_masking_never_fails_and_masks_once(text: str) -> None:
    once = masked(text)
    assert masked(once) == once


def test_a_text_that_is_all_digits_costs_no_time() -> None:
    begun = time.process_time()
    for text in ("1" * 20_000, "12 " * 7_000, "一 " * 10_000, "double " * 4_000, "1111 2222 " * 2_000):
        masked(text)
    assert time.process_time() - begun < 5


# --- who wants a person -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    ["人工", "人工。", "转人工", "我要人工服务", "请转接人工客服，谢谢", "我想找真人", "客服", "救命",
     "有没有人工客服啊", "human", "I want to talk to a person", "can I speak to an agent please", "agent", "operator!",
     "let me speak with someone", "we need an ambulance", "help me, my house is on fire"],
)  # fmt: skip
def test_who_asks_for_a_person_is_understood(said: str) -> None:
    assert wants_person(said)


@pytest.mark.parametrize(
    "said",
    ["我做了人工关节手术，可以报销吗", "人工耳蜗理赔", "人工智能客服太差了", "我的保险代理人骗了我", "理赔到哪一步了",
     "my agent sold me the wrong policy", "the person who hit my car fled", "I want to cancel", "thank you", ""],
)  # fmt: skip
def test_who_speaks_of_something_else_is_not(said: str) -> None:
    assert not wants_person(said)


def test_danger_is_a_reason_of_its_own() -> None:
    assert in_danger("快来人救命啊")
    assert in_danger("Please help me")
    assert not in_danger("人工")


def test_every_language_says_everything() -> None:
    for language, words in WORDS.items():
        texts = [getattr(words, name) for name in words.__slots__]
        assert all(texts), language
        assert [each for each in texts if "{" in each] == [words.choose]
        assert "{key}" in words.choose
