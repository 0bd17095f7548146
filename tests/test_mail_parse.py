"""Bytes of a mail -> `Message`: odd headers, charsets, HTML, attachments, and mail made to hurt."""

from __future__ import annotations

import base64
import random
import struct
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import domain
from channels import mail_text
from channels.mail_body import safe_name
from channels.mail_parse import MAX_KEYS, NO_SENDER, content_digest, full_text, parse

NOW = datetime(2024, 3, 5, 2, 22, tzinfo=UTC)
TEXT = "您好，我的车险理赔進度怎么样了？保单号是PA2024。"
_CORPORA = Path(__file__).parents[2] / "shared" / "data" / "mail"


def read(raw: bytes | str, **settings: object) -> domain.Message:
    return parse(raw.encode() if isinstance(raw, str) else raw, received_at=NOW, **settings)  # type: ignore[arg-type]


def mail(headers: str, body: str = "Hello") -> domain.Message:
    return read(f"{headers}\n\n{body}\n")


def multipart(*parts: str | bytes, kind: str = "mixed") -> bytes:
    out = [
        f'From: a@b.example\nSubject: s\nMIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary="bb"\n'.encode()
    ]
    out += [b"--bb\n" + (part.encode() if isinstance(part, str) else part) for part in parts]
    return b"\n".join([*out, b"--bb--\n"])


# --- the usual --------------------------------------------------------------------------------------------------------


def test_a_usual_mail() -> None:
    written = EmailMessage()
    written["From"] = "张三 <Zhang@Example.com>"
    written["To"] = "support@insurer.example"
    written["Subject"] = "理赔"
    written["Message-ID"] = "<one@example.com>"
    written["References"] = "<first@insurer.example> <second@insurer.example>"
    written["In-Reply-To"] = "<second@insurer.example>"
    written.set_content(f"{TEXT}\n\n> 您好\n")
    raw = written.as_bytes()
    message = read(raw, account="mail", recipient="support@insurer.example", seen_at=("INBOX", "7:1"))
    assert (message.channel, message.account, message.recipient) == ("mail", "mail", "support@insurer.example")
    assert (message.sender, message.sender_name) == ("zhang@example.com", "张三")
    assert message.subject == "理赔"
    assert message.text == f"{TEXT}\n\n> 您好"
    assert message.clean == TEXT
    assert message.key == "one@example.com"
    assert message.thread_keys == ("first@insurer.example", "second@insurer.example")
    assert message.external_id == f"one@example.com:{content_digest(raw)}"
    assert message.fingerprint == content_digest(raw)
    assert message.received_at == NOW
    assert message.raw == raw
    assert message.seen_at == ("INBOX", "7:1")
    assert message.answerable
    assert message.automatic is None


def test_clean_is_none_where_nothing_was_stripped() -> None:
    assert mail("From: a@b.example", TEXT).clean is None


def test_text_stays_where_nothing_but_a_quote_is_there() -> None:
    message = mail("From: a@b.example", "> Hello")
    assert (message.text, message.clean) == ("> Hello", None)


# --- digest -----------------------------------------------------------------------------------------------------------


def test_the_digest_is_of_what_the_sender_wrote() -> None:
    written = "From: a@b.example\nSubject: s\n\nHello\n"
    way = (
        "Return-Path: <a@b.example>\nDelivered-To: x@insurer.example\nReceived: from a\n\tby b;\n Tue\n"
        "DKIM-Signature: v=1;\n b=x\nARC-Seal: i=1\nAuthentication-Results: mx; spf=pass\nX-Spam-Score: 1\n"
        "X-Spam-Flag: NO\nX-Sluice-Seen: 1\nStatus: RO\n"
    )
    digest = content_digest(written.encode())
    assert content_digest((way + written).encode()) == digest
    assert content_digest((way + written).replace("\n", "\r\n").encode()) == digest
    assert content_digest(b"From a@b.example Tue Mar  5 10:22:11 2024\n" + written.encode() + b"\n\n") == digest
    assert content_digest(written.replace("Hello", "Hallo").encode()) != digest
    assert content_digest(written.replace("Subject: s", "Subject: t").encode()) != digest
    assert content_digest((written + "\nReceived: in the body\n").encode()) != digest


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "address", "name"),
    [
        ("From: zhang@example.com", "zhang@example.com", ""),
        ("From: <Zhang@Example.COM>", "zhang@example.com", ""),
        ('From: "Zhang, San" <zhang@example.com>', "zhang@example.com", "Zhang, San"),
        ("From: zhang@example.com (Zhang San)", "zhang@example.com", ""),
        ('From: "boss@bank.example" <zhang@example.com>', "zhang@example.com", "boss@bank.example"),
        ("From: =?gb2312?B?1cXI/Q==?= <zhang@example.com>", "zhang@example.com", "张三"),
        ("From: =?gb2312?B?1cXI/Q==?= zhang@example.com", "zhang@example.com", "张三"),
        (
            "From: =?utf-8?B?5byg5LiJPHhAeS5leGFtcGxlPg==?= <zhang@example.com>",
            "zhang@example.com",
            "张三<x@y.example>",
        ),
        ("From: A <broken>, B <zhang@example.com>", "zhang@example.com", ""),
        ("From: Team: A <zhang@example.com>, B <b@example.com>;", "zhang@example.com", "Team: A"),
        ("From: A\nFrom: B <zhang@example.com>", "zhang@example.com", "A"),
        ("From: =?utf-8?Q?a=0D=0ABcc:_x?= <zhang@example.com>", "zhang@example.com", "a Bcc: x"),
        ("From:\nSender: zhang@example.com", "zhang@example.com", ""),
        ("Return-Path: <zhang@example.com>", "zhang@example.com", ""),
        ('From: "" (Mail Delivery System)', NO_SENDER, ""),
        ("From: nobody at all", NO_SENDER, "nobody at all"),
        ("Subject: none", NO_SENDER, ""),
        ("From: jörg@mächine.example", "jörg@mächine.example", ""),
        ("From: a@b..example", NO_SENDER, ""),
    ],
)
def test_senders(header: str, address: str, name: str) -> None:
    message = mail(header)
    assert message.sender == address
    assert name in message.sender_name


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Reply-To: Other <Other@example.com>", "other@example.com"),
        ("Reply-To: zhang@example.com", ""),
        ('Reply-To: <"">', ""),
        ("Reply-To: support@insurer.example", ""),
        ("Reply-To: support+s-123456@insurer.example", ""),
    ],
)
def test_reply_to(header: str, expected: str) -> None:
    raw = f"From: zhang@example.com\n{header}\n\nHello\n"
    assert read(raw, recipient="support@insurer.example").reply_to == expected


def test_thread_keys_are_bounded_and_the_nearest_is_last() -> None:
    names = [f"k{n}@example.com" for n in range(300)]
    references = " ".join(f"<{name}>" for name in names)
    keys = mail(f"From: a@b.example\nReferences: {references}\nIn-Reply-To: <near@example.com>").thread_keys
    assert len(keys) == MAX_KEYS
    assert keys[0] == names[0]
    assert keys[-2:] == (names[-1], "near@example.com")


@pytest.mark.parametrize(
    ("headers", "keys"),
    [
        ("References: <a@x> <b@x>\nIn-Reply-To: <a@x>", ("b@x", "a@x")),
        ("References: <a@x>,<b@x>", ("a@x", "b@x")),
        ("References: <a@x> broken> <b@x>", ("a@x", "b@x")),
        ("References: a@x b@x", ("a@x", "b@x")),
        ("In-Reply-To: ", ()),
        ("In-Reply-To: your message of Tuesday", ()),
        ("In-Reply-To: <a\n @x>", ("a@x",)),
        ("Message-ID: <me@x>\nReferences: <me@x> <a@x>", ("a@x",)),
    ],
)
def test_thread_keys(headers: str, keys: tuple[str, ...]) -> None:
    assert mail(f"From: a@b.example\n{headers}").thread_keys == keys


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Message-ID: <a@x>", "a@x"),
        ("Message-Id: a@x", "a@x"),
        ("Message-ID: <>", ""),
        ("Message-ID:\n <a@x>", "a@x"),
        ("X: y", ""),
    ],
)
def test_keys(header: str, key: str) -> None:
    message = mail(f"From: a@b.example\n{header}")
    assert message.key == key
    assert message.external_id == f"{key}:{message.fingerprint}"


def test_ticket_hints() -> None:
    number = domain.public_number(42)
    plus = number.lower()
    assert mail(f"Subject: Re: [{number}] claim").ticket_hint == number
    assert (
        mail(f"Subject: =?utf-8?B?{base64.b64encode(f'回复：【{number}】理赔'.encode()).decode()}?=").ticket_hint
        == number
    )
    assert mail(f"To: support+{plus}@insurer.example").ticket_hint == number
    assert mail(f"Delivered-To: support+{plus}@insurer.example\nTo: x@y.example").ticket_hint == number
    assert read("From: a@b.example\n\nx", recipient=f"support+{plus}@insurer.example").ticket_hint == number
    assert mail("Subject: [S-12345]").ticket_hint == ""
    assert mail(f"Subject: about {number} I want to say").ticket_hint == ""


def test_broken_header_lines_hide_nothing() -> None:
    message = mail("From: a@b.example\nX-Y: z\nthis is no header\nSubject : kept\nMessage-ID: <k@x>", "Hello")
    assert (message.sender, message.subject, message.key, message.text) == ("a@b.example", "kept", "k@x", "Hello")


def test_no_headers_at_all() -> None:
    message = read("Just some words\nand more of them.\n")
    assert message.sender == NO_SENDER
    assert "Just some words" in message.text


def test_ten_thousand_recipients() -> None:
    to = ",\n ".join(f"Person {n} <p{n}@example.com>" for n in range(10_000))
    assert mail(f"From: a@b.example\nTo: {to}\nSubject: s").subject == "s"


# --- charsets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("gb2312", "gbk"),
        ("gb2312", "gb18030"),
        ("GBK", "gbk"),
        ("x-gbk", "gbk"),
        ("gb18030", "gb18030"),
        ("cp936", "gbk"),
        ("utf-8", "utf-8"),
        ("utf8mb4", "utf-8"),
        ("utf-8", "gbk"),
        ("gb2312", "utf-8"),
        ("big5", "utf-8"),
        ("iso-8859-1", "utf-8"),
        ("us-ascii", "utf-8"),
        ("unknown-8bit", "utf-8"),
        ("unknown-8bit", "gb18030"),
        ("no-such-charset", "gb18030"),
        ("zlib", "utf-8"),
        ("", "utf-8"),
        ("", "gb18030"),
    ],
)
@pytest.mark.parametrize("encoding", ["8bit", "base64"])
def test_bodies_of_any_charset(label: str, codec: str, encoding: str) -> None:
    data = TEXT.encode(codec)
    data = base64.encodebytes(data) if encoding == "base64" else data
    charset = f'; charset="{label}"' if label else ""
    raw = (
        f"From: a@b.example\nContent-Type: text/plain{charset}\nContent-Transfer-Encoding: {encoding}\n\n".encode()
        + data
    )
    assert read(raw).text == TEXT


def test_traditional_chinese() -> None:
    text = "您好，我的理賠進度如何？謝謝。"
    for label, codec in product(("big5", "Big5-HKSCS"), ("big5", "utf-8")):
        raw = f"From: a@b.example\nContent-Type: text/plain; charset={label}\n\n".encode() + text.encode(codec)
        assert read(raw).text == text


def test_other_charsets() -> None:
    for label, codec, text in (
        ("iso-2022-jp", "iso-2022-jp", "すみません。"),
        ("iso-8859-1", "cp1252", "Müller – “café”"),
        ("", "cp1252", "Das ist für Jörg"),
        ("utf-7", "utf-7", "你好"),
        ("hz-gb-2312", "hz", "你好"),
        ("utf-16", "utf-16", "你好 hello"),
    ):
        raw = f"From: a@b.example\nContent-Type: text/plain; charset={label or 'us-ascii'}\n".encode()
        raw += b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(text.encode(codec))
        assert read(raw).text == text, label


@pytest.mark.parametrize(("label", "codec"), [("utf-8", "utf-8"), ("", "utf-8"), ("gb2312", "gb18030"), ("gbk", "gbk")])
def test_a_cut_character_does_not_turn_the_rest(label: str, codec: str) -> None:
    data = TEXT.encode(codec)[:-1]
    assert mail_text.decode_bytes(data, label).startswith(TEXT[:-1])


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_raw_eight_bit_headers(codec: str) -> None:
    raw = (
        b"From: " + "张三丰".encode(codec) + b" <zhang@example.com>\nSubject: " + "理赔进度".encode(codec) + b"\n\nx\n"
    )
    message = read(raw)
    assert (message.sender, message.sender_name, message.subject) == ("zhang@example.com", "张三丰", "理赔进度")


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "big5"])
def test_encoded_words_split_inside_a_character(codec: str) -> None:
    text = "關於理賠進度的問題" if codec == "big5" else "关于理赔进度的问题"
    data = text.encode(codec)
    for cut in range(1, len(data)):
        words = [base64.b64encode(piece).decode() for piece in (data[:cut], data[cut:])]
        assert mail("Subject: " + "\n ".join(f"=?{codec}?B?{word}?=" for word in words)).subject == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("=?utf-8?Q?a_b=20c?=", "a b c"),
        ("=?utf-8?Q?a b?=", "a b"),
        ("=?utf-8?B?5L2g5aW9?= and =?utf-8?B?5L2g5aW9?=", "你好 and 你好"),
        ("Re: =?utf-8?B?5L2g5aW9?=x", "Re: 你好x"),
        ("=?utf-8?B?5L2g?= =?gbk?B?usM=?=", "你好"),
        ("=?utf-8*zh?B?5L2g5aW9?=", "你好"),
        ("=?gb2312?B?xOO6ww?=", "你好"),
        ("=?NONE?B?VEVTVA=?=", "TEST"),
        ("=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
        ("=?utf-8?B??=", ""),
        ("=?utf-8?B?!!!!?=", ""),
        ("a\u0000b\u202ec", "abc"),
    ],
)
def test_encoded_words(raw: str, text: str) -> None:
    assert mail_text.decode_header(raw) == text


# --- bodies -----------------------------------------------------------------------------------------------------------

HTML = "Content-Type: text/html; charset=utf-8\n\n"
PLAIN = "Content-Type: text/plain; charset=utf-8\n\n"


def test_the_plain_part_is_preferred() -> None:
    raw = multipart(f"{HTML}<p>as HTML</p>", f"{PLAIN}as text", kind="alternative")
    assert read(raw).text == "as text"
    assert full_text(raw).html == "<p>as HTML</p>"


@pytest.mark.parametrize(
    "plain", ["", "  \n", "Your e-mail client does not support HTML messages.", "您的邮件客户端不支持 HTML"]
)
def test_an_empty_plain_part_gives_way(plain: str) -> None:
    assert read(multipart(f"{PLAIN}{plain}", f"{HTML}<p>as HTML</p>", kind="alternative")).text == "as HTML"


def test_html_under_the_label_of_plain_text() -> None:
    assert read(f"From: a@b.example\n{PLAIN}<html><body><p>Hello</p></body></html>").text == "Hello"


def test_html_tells_its_charset_itself() -> None:
    html = f'<html><head><meta charset="gbk"></head><body>{TEXT}</body></html>'
    assert read(b"From: a@b.example\nContent-Type: text/html\n\n" + html.encode("gbk")).text == TEXT


@pytest.mark.parametrize(
    "hidden",
    [
        '<div style="display:none">SECRET</div>',
        '<div style="DISPLAY : NONE !important">SECRET</div>',
        '<span style="font-size:0">SECRET</span>',
        '<span style="font-size: 0px;">SECRET</span>',
        '<span style="font-size:0.0em">SECRET</span>',
        '<span style="visibility:hidden">SECRET</span>',
        '<span style="opacity:0">SECRET</span>',
        '<span style="mso-hide:all">SECRET</span>',
        '<div style="max-height:0;overflow:hidden">SECRET</div>',
        '<div style="position:absolute;left:-9999px">SECRET</div>',
        '<p style="text-indent:-9999px">SECRET</p>',
        '<span style="color:#fff;background-color:#fff">SECRET</span>',
        '<span style="color:#FFFFFF">SECRET</span>',
        '<font color="white">SECRET</font>',
        "<div hidden>SECRET</div>",
        "<div hidden><p>a</p>SECRET</div>",
        "<template>SECRET</template>",
        "<script>SECRET</script>",
        "<style>SECRET</style>",
        "<title>SECRET</title>",
        "<!-- SECRET -->",
        '<style>.x{display:none}</style><p class="y x">SECRET</p>',
        '<style>p.x, #z { font-size:0 }</style><p id="z">SECRET</p>',
        '<div style="display:none"><div><b>SECRET</b></div>SECRET</div>',
    ],
)
@pytest.mark.parametrize("wrapping", ["{}", "<div>{}</div>", "<div>" * 2_000 + "{}"])
def test_hidden_text_reaches_nobody(hidden: str, wrapping: str) -> None:
    html = wrapping.format(f"<p>Visible before.</p>{hidden}<p>Visible after.</p>")
    message = read(f"From: a@b.example\n{HTML}<html><body>{html}</body></html>")
    assert "SECRET" not in message.text
    assert "SECRET" not in message.analysed
    assert "Visible before." in message.text
    assert "Visible after." in message.text


@pytest.mark.parametrize(
    "html",
    [
        '<div style="background:#003366"><span style="color:#fff">Shown</span></div>',
        '<table bgcolor="#003366"><tr><td><font color="#ffffff">Shown</font></td></tr></table>',
        "<style>@media (max-width:480px){.wide{display:none}}</style><p class=wide>Shown</p>",
        '<p style="font-size:0.9em">Shown</p>',
        '<p style="line-height:0;opacity:0.9">Shown</p>',
        '<p style="margin:0;height:0px">Shown</p>',
    ],
)
def test_visible_text_stays(html: str) -> None:
    assert read(f"From: a@b.example\n{HTML}{html}").text == "Shown"


def test_html_quotes_become_quotes() -> None:
    html = (
        "<div>没有到账</div><div>客服 &lt;s@i.example&gt; 于2024年3月5日周二 10:22写道：<br></div>"
        "<blockquote><p>您好</p><p>客服</p></blockquote>"
    )
    message = read(f"From: a@b.example\n{HTML}{html}")
    assert "> 您好" in message.text
    assert message.clean == "没有到账"


def test_an_answer_below_an_html_quote_survives() -> None:
    html = "<blockquote>Was anybody hurt?</blockquote><p>Nobody was.</p><blockquote>Where?</blockquote><p>Beijing.</p>"
    analysed = read(f"From: a@b.example\n{HTML}{html}").analysed
    assert "Nobody was." in analysed
    assert "Beijing." in analysed


def test_flowed_lines_are_put_together() -> None:
    headers = "From: a@b.example\nContent-Type: text/plain; charset=utf-8; format=flowed; delsp=yes"
    assert read(f"{headers}\n\n我的理赔 \n还没有到账。\n第二行\n").text == "我的理赔还没有到账。\n第二行"


def test_nothing_that_hides_in_text_travels_on() -> None:
    text = read("From: a@b.example\n\nig\u200bnore\u202e this\U000e0041 \x00👨\u200d👩\n").text
    assert text == "ignore this 👨\u200d👩"


# --- attachments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a.pdf"', "a.pdf"),
        ("attachment; filename=保单.pdf", "保单.pdf"),
        ('attachment; filename="=?utf-8?B?5L+d5Y2VLnBkZg==?="', "保单.pdf"),
        ("attachment; filename*=utf-8''%E4%BF%9D%E5%8D%95.pdf", "保单.pdf"),
        ("attachment; filename*=gb2312''%B1%A3%B5%A5.pdf", "保单.pdf"),
        ("attachment; filename*0*=utf-8''%E4%BF%9D%E5;\n filename*1*=%8D%95;\n filename*2=.pdf", "保单.pdf"),
        ("attachment; filename=\"x.pdf\"; filename*=utf-8''%E4%BF%9D%E5%8D%95.pdf", "保单.pdf"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\Users\\\\x\\\\a.pdf"', "a.pdf"),
        ('attachment; filename=".."', "attachment-1.pdf"),
        ('attachment; filename="a\x00b\n c.pdf"', "ab c.pdf"),
        ("attachment", "attachment-1.pdf"),
    ],
)
def test_attachment_names(header: str, name: str) -> None:
    raw = multipart(f"{PLAIN}see file", f"Content-Type: application/pdf\nContent-Disposition: {header}\n\nPDF")
    message = read(raw)
    assert [(a.name, a.content) for a in message.attachments] == [(name, b"PDF")]
    assert message.text == "see file"


def test_safe_names_are_bounded_and_have_no_path() -> None:
    assert safe_name("a/b\\c.pdf") == "c.pdf"
    assert safe_name("CON:x?.pdf") == "CON_x_.pdf"
    assert len(safe_name("长" * 500 + ".pdf")) <= 150
    assert safe_name("长" * 500 + ".pdf").endswith(".pdf")


def test_pictures_in_html_keep_their_content_id() -> None:
    picture = "Content-Type: image/png\nContent-ID: <pic1@x>\nContent-Transfer-Encoding: base64\n\niVBORw0K"
    found = read(multipart(f"{HTML}<p>see</p><img src=cid:pic1@x>", picture, kind="related")).attachments
    assert [(a.name, a.media_type, a.content_id) for a in found] == [("attachment-1.png", "image/png", "pic1@x")]


def test_attached_mail_is_kept_whole_with_its_name() -> None:
    inner = "From: c@d.example\nSubject: =?utf-8?B?6LWU5LuY?=\n\nInner text\n"
    raw = multipart(f"{PLAIN}see mail", f"Content-Type: message/rfc822\n\n{inner}")
    message = read(raw)
    assert message.text == "see mail"
    assert message.attachments[0].name == "赔付.eml"
    assert message.attachments[0].media_type == "message/rfc822"
    assert b"Inner text" in message.attachments[0].content
    coded = base64.encodebytes(inner.encode()).decode()
    raw = multipart(f"{PLAIN}x", f"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{coded}")
    assert read(raw).attachments[0].content == inner.encode()


def test_attachments_over_the_limit_become_a_note() -> None:
    part = "Content-Type: application/pdf\nContent-Disposition: attachment; filename={}.pdf\n\n" + "x" * 600
    message = read(multipart(f"{PLAIN}see files", part.format("a"), part.format("b")), max_attachment_total=1_000)
    assert [a.name for a in message.attachments] == ["a.pdf"]
    assert message.text.startswith("see files")
    assert "b.pdf" in message.text


def tnef(*attributes: tuple[int, int, bytes]) -> bytes:
    """A winmail.dat: signature, key, then level, name, length, data and checksum of each attribute."""
    out = struct.pack("<IH", 0x223E9F78, 1)
    for level, name, data in attributes:
        out += struct.pack("<BII", level, name, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)
    return out


def test_winmail_dat_is_unpacked() -> None:
    packed = tnef(
        (1, 0x00089006, struct.pack("<I", 0x00010000)),
        (1, 0x0002800C, b"The body\x00"),
        (2, 0x00069002, struct.pack("<HIHHI", 1, 0, 0, 0, 0)),
        (2, 0x00018010, b"report.txt\x00"),
        (2, 0x0006800F, b"file content"),
    )
    part = b"Content-Type: application/ms-tnef; name=winmail.dat\nContent-Transfer-Encoding: base64\n\n"
    message = read(multipart(part + base64.encodebytes(packed)))
    assert [(a.name, a.content) for a in message.attachments] == [("report.txt", b"file content")]
    assert message.text == "The body"


@pytest.mark.parametrize("packed", [b"", b"no tnef", tnef()[:5], tnef((2, 0x0006800F, b"x"))[:-3]])
def test_a_broken_winmail_dat_stays_as_it_came(packed: bytes) -> None:
    part = b"Content-Type: application/ms-tnef; name=winmail.dat\nContent-Transfer-Encoding: base64\n\n"
    message = read(multipart(f"{PLAIN}text", part + base64.encodebytes(packed)))
    assert message.text == "text"
    assert [(a.name, a.content) for a in message.attachments] == [("winmail.dat", packed)]


# --- mail made to hurt ------------------------------------------------------------------------------------------------


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
        inner = read(multipart(b"Content-Type: message/rfc822\n\n" + whole)).attachments[0].content
        assert read(inner).attachments[0].content == expected


def test_headers_of_megabytes() -> None:
    for filler in ("A: b\n" * 400_000, "Subject: s\n" + " x\n" * 700_000):
        message = read(f"From: a@b.example\n{filler}\nHello\n")
        assert message.sender == "a@b.example"
        assert message.text.startswith("Hello")
        assert "kept" in message.text


def check(message: domain.Message) -> None:
    """Whatever came in, what goes on can be stored by any database."""
    words = [
        message.text,
        message.analysed,
        message.subject,
        message.sender,
        message.sender_name,
        message.key,
        message.external_id,
    ]
    words += [message.reply_to, message.ticket_hint, *message.thread_keys, *(a.name for a in message.attachments)]
    words += [a.media_type for a in message.attachments] + [a.content_id for a in message.attachments]
    if message.automatic is not None:
        words += [message.automatic.why, *message.automatic.concerns, *message.automatic.recipients]
    for word in words:
        word.encode()
        assert "\x00" not in word
    assert not any({"/", "\\", "\n"} & set(a.name) or a.name in {"", ".", ".."} for a in message.attachments)
    assert message.sender.count("@") == 1


@given(st.binary(max_size=3_000))
@settings(max_examples=150)
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
@settings(max_examples=300)
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
def test_any_bytes_under_any_label_become_text(data: bytes, label: str) -> None:
    mail_text.decode_bytes(data, label).encode("utf-8", "surrogatepass")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_any_html_is_survived(html: str) -> None:
    check(read(f"From: a@b.example\n{HTML}<b>{html}</b>"))


# --- what people are shown --------------------------------------------------------------------------------------------


def test_the_original_is_shown_whole() -> None:
    zone = timezone(timedelta(hours=8))
    raw = multipart(
        f"{PLAIN}没有到账\n\n> 您好",
        "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\nx",
    ).replace(
        b"Subject: s",
        b"Subject: s\nTo: =?utf-8?B?5a6i5pyN?= <support@insurer.example>\nDate: Tue, 05 Mar 2024 10:22:11 +0800",
    )
    shown = full_text(raw)
    assert shown.text == "没有到账\n\n> 您好"
    assert shown.to == "客服 <support@insurer.example>"
    assert shown.date == datetime(2024, 3, 5, 10, 22, 11, tzinfo=zone)
    assert (shown.sender, shown.subject, shown.html, shown.attachments) == ("a@b.example", "s", "", ("a.pdf",))


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Tue, 32 Foo 99999 99:99:99 +9999", "Wed, 15 Dec 2010    59:10 -0500"]
)
def test_a_bad_date_is_none(date: str) -> None:
    assert full_text(f"From: a@b.example\nDate: {date}\n\nx".encode()).date is None


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
