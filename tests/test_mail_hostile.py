"""Mail made to hurt, mail by chance, and other people's odd mail: one costs one message, never the process."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import mail_text
from channels.mail_parse import full_text
from tests.mail_samples import HTML, PLAIN, check, mail, multipart, read

_CORPORA = Path(__file__).parents[2] / "shared" / "data" / "mail"


def test_too_many_parts() -> None:
    message = read(multipart(f"{PLAIN}first", *["Content-Type: image/png\n\nx"] * 2_000))
    assert message.text.startswith("first")
    assert len(message.attachments) < 500
    assert "Too many parts" in message.text


@pytest.mark.parametrize("depth", [50, 500, 5_000])
def test_nesting_without_end(depth: int) -> None:
    opened = "".join(f'Content-Type: multipart/mixed; boundary="b{n}"\n\n--b{n}\n' for n in range(depth))
    message = read(f"From: a@b.example\nSubject: deep\n{opened}{PLAIN}bottom\n")
    assert (message.sender, message.subject) == ("a@b.example", "deep")
    assert "kept" in message.text


def test_mails_in_mails_without_end() -> None:
    message = read("From: a@b.example\nSubject: deep\n" + "Content-Type: message/rfc822\n\n" * 3_000 + "x\n")
    assert (message.sender, message.subject) == ("a@b.example", "deep")


def test_html_nested_without_end_gives_its_text() -> None:
    assert "bottom" in read(f"From: a@b.example\n{HTML}{'<div>' * 20_000}bottom").text


@pytest.mark.parametrize(
    "line", ["x" * 5_000_000, "> " * 2_500_000, "a@b.c<" * 900_000, "\n" * 2_000_000, "On 1 2024:\n" * 400_000]
)
def test_bodies_of_megabytes(line: str) -> None:
    message = mail("From: a@b.example\nSubject: big", line)
    assert message.subject == "big"
    assert len(message.text) <= 210_000


def test_text_of_html_of_megabytes() -> None:
    html = "<table><tr><td style='padding-left:99999em'>cell</td></tr></table>" * 60_000
    assert "cell" in read(f"From: a@b.example\n{HTML}{html}").text


def test_large_attachments_come_out_byte_for_byte() -> None:
    content = random.Random(7).randbytes(3_000_000)
    for encoding, data in (("base64", base64.encodebytes(content)), ("8bit", b"x\xe4\n" * 700_000 + b"end")):
        head = f"Content-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: {encoding}\n\n".encode()
        whole = multipart(f"{PLAIN}see file", head + data)
        expected = content if encoding == "base64" else data
        assert [a.content for a in read(whole).attachments] == [expected]
        inner = read(multipart(b"Content-Type: message/rfc822\n\n" + whole, boundary="outer")).attachments[0].content
        assert read(inner).attachments[0].content == expected


def test_headers_of_megabytes() -> None:
    for filler in ("A: b\n" * 400_000, "Subject: s\n" + " x\n" * 700_000):
        message = read(f"From: a@b.example\n{filler}\nHello\n")
        assert message.sender == "a@b.example"
        assert message.text.startswith("Hello")
        assert "kept" in message.text


@given(st.binary(max_size=3_000))
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_survived(raw: bytes) -> None:
    check(read(raw))
    full_text(raw)


_SEEDS = (
    multipart(
        f"{PLAIN}您好\n> 引用\n", f"{HTML}<p style='display:none'>x</p><blockquote>y</blockquote>", kind="alternative"
    ),
    multipart(
        PLAIN,
        "Content-Type: message/delivery-status\n\nA: b\n\nFinal-Recipient: rfc822;a@b.example\nStatus: 5.1.1\n",
        kind="report",
    ),
    multipart(
        "Content-Type: message/rfc822\n\nFrom: x\nMessage-ID: <k@x>\n\nin",
        "Content-Disposition: attachment; filename*0*=utf-8''%E4\n\nx",
    ),
    (
        "From: 张三 <z@x.example>\nSubject: =?gb2312?B?wO3F4g==?=\nReferences: <a@x> <b@x>\n"
        "Content-Type: text/plain; charset=gbk\n\n理赔"
    ).encode("gbk"),
)


@given(st.sampled_from(_SEEDS), st.integers(0, 2**32), st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_mutated_mails_are_survived(raw: bytes, seed: int, changes: int) -> None:
    rng = random.Random(seed)
    data = bytearray(raw)
    for _ in range(changes):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = rng.choice(
                    [b"\n", b"\r", b"\x00", b"=?", b"?=", b"<", b'"', b";", b"--bb", b"\xff\xfe", b"%", b"*"]
                )
            case _:
                data[at:at] = data[rng.randrange(len(data)) :][:60]
        if not data:
            data += b"x"
    check(read(bytes(data)))
    full_text(bytes(data))


@given(
    st.binary(max_size=200),
    st.sampled_from(
        [
            "",
            "utf-8",
            "gb2312",
            "utf-7",
            "utf-16",
            "hz",
            "iso-2022-jp",
            "idna",
            "punycode",
            "base64",
            "undefined",
            "x\x00",
        ]
    ),
)
@settings(deadline=None)
def test_any_bytes_under_any_label_become_text(data: bytes, label: str) -> None:
    mail_text.decode_bytes(data, label).encode("utf-8", "surrogatepass")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
@settings(deadline=None)
def test_any_html_is_survived(html: str) -> None:
    check(read(f"From: a@b.example\n{HTML}<b>{html}</b>"))


# --- third-party mail -------------------------------------------------------------------------------------------------


def test_third_party_mails() -> None:
    if not _CORPORA.is_dir():
        pytest.skip("the shared mail corpora are not beside this repository")
    paths = sorted(
        path
        for pattern in ("mailgun__talon/**/*", "mikel__mail/**/*", "discourse__email_reply_trimmer/test/emails/*")
        for path in _CORPORA.glob(pattern)
        if path.is_file()
    )
    assert len(paths) > 180
    for path in paths:
        raw = path.read_bytes()
        message = read(raw)
        check(message)
        full_text(raw)
        if b"text/plain" in raw and path.name not in _WITHOUT_TEXT:
            assert message.text.strip(), path.name


#: the only text part is an attachment
_WITHOUT_TEXT = frozenset({"japanese_attachment_long_name.eml"})
