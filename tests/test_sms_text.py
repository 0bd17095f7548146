"""What a text message costs, which words are orders, and why one did not arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.sms_text import Keyword, Segments, keyword, known, reason, segments, utf16_units


@pytest.mark.parametrize(
    ("text", "count", "encoding", "units"),
    [
        ("", 0, "GSM-7", 0),
        ("a" * 160, 1, "GSM-7", 160),
        ("a" * 161, 2, "GSM-7", 161),
        ("a" * 306, 2, "GSM-7", 306),
        ("a" * 307, 3, "GSM-7", 307),
        ("é@£Δ\n", 1, "GSM-7", 5),
        ("€" * 80, 1, "GSM-7", 160),
        ("€" * 81, 2, "GSM-7", 162),
        ("^{}\\[~]|€\f", 1, "GSM-7", 20),
        # 153 is odd, so that an escaped character never ends a segment with its escape
        ("€" * 152, 2, "GSM-7", 304),
        ("€" * 153, 3, "GSM-7", 306),
        ("a" * 159 + "’", 3, "UCS-2", 160),
        ("赔" * 70, 1, "UCS-2", 70),
        ("赔" * 71, 2, "UCS-2", 71),
        ("赔" * 134, 2, "UCS-2", 134),
        ("赔" * 135, 3, "UCS-2", 135),
        ("🙂" * 35, 1, "UCS-2", 70),
        ("🙂" * 36, 2, "UCS-2", 72),
        # 67 is odd, so that half an emoji never ends a segment
        ("🙂" * 66, 2, "UCS-2", 132),
        ("🙂" * 67, 3, "UCS-2", 134),
        ("ç", 1, "UCS-2", 1),  # GSM has the capital only
    ],
)
def test_segments_are_counted_as_the_network_does(text: str, count: int, encoding: str, units: int) -> None:
    assert segments(text) == Segments(count, encoding, units)


@given(st.text(max_size=400), st.characters())
def test_a_longer_text_is_never_cheaper(text: str, more: str) -> None:
    one, two = segments(text), segments(text + more)
    assert two.count >= one.count
    assert (one.count == 0) is (text == "")
    alone, joined = (160, 153) if one.encoding == "GSM-7" else (70, 67)
    assert one.count <= 1 or one.count * joined >= one.units > alone


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_utf16_units_are_those_of_the_codec(text: str) -> None:
    assert utf16_units(text) == len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("STOP", Keyword.STOP), (" stop. ", Keyword.STOP), ("Unsubscribe", Keyword.STOP), ("opt  out", Keyword.STOP),
        ("退订", Keyword.STOP), ("退订。", Keyword.STOP), ("“停止”", Keyword.STOP), ("TD", Keyword.STOP),
        ("ＴＤ", Keyword.STOP), ("t", Keyword.STOP), ("退訂！", Keyword.STOP), ("取消订阅", Keyword.STOP),
        ("START", Keyword.START), ("yes", Keyword.START), ("恢复", Keyword.START), ("开始", Keyword.START),
        ("HELP", Keyword.HELP), ("info", Keyword.HELP), ("帮助", Keyword.HELP),
        ("stop please", None), ("please cancel my policy", None), ("我要退订短信和保单", None), ("停止理赔了吗", None),
        ("", None), ("???", None), ("stop" * 20, None), ("求助", None),
    ],
)  # fmt: skip
def test_only_the_whole_message_is_an_order(text: str, word: Keyword | None) -> None:
    assert keyword(text) is word


@pytest.mark.parametrize(
    ("text", "said", "word"),
    [
        ("basta", "STOP", Keyword.STOP),
        ("stop", "HELP", Keyword.HELP),
        ("stop", "NEWS", None),
        ("yes", "START", Keyword.START),
    ],
)
def test_what_twilio_says_of_it_wins(text: str, said: str, word: Keyword | None) -> None:
    assert keyword(text, said) is word


def test_a_failure_has_words_and_a_number_that_is_new_is_named() -> None:
    assert "STOP" in reason(21610)
    assert "landline" in reason(30006)
    assert reason(39999) == "The message did not arrive (Twilio's error 39999)."
    assert reason(None)
    assert known(30003)
    assert not known(39999)
