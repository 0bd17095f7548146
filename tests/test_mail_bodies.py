"""Charsets, bodies, HTML without what is hidden, and attachments."""

from __future__ import annotations

import base64
import struct
from itertools import product

import pytest

from channels import mail_text
from channels.mail_body import safe_name
from channels.mail_parse import full_text
from tests.mail_samples import HTML, PLAIN, TEXT, mail, multipart, read

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
