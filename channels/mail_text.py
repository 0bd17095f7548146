"""Text out of mail: charsets, encoded words in headers, characters that must not travel on."""

from __future__ import annotations

import binascii
import codecs
import re
from functools import lru_cache

# --- charsets ---------------------------------------------------------------------------------------------------------

#: what senders write -> the superset that their bytes really use
_SUPERSETS = {
    "gb2312": "gb18030",
    "gb-2312": "gb18030",
    "gb_2312-80": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "cp936": "gb18030",
    "ms936": "gb18030",
    "euc-cn": "gb18030",
    "x-euc-cn": "gb18030",
    "gb18030": "gb18030",
    "hz-gb-2312": "hz",
    "big5": "big5hkscs",
    "x-x-big5": "big5hkscs",
    "cp950": "big5hkscs",
    "big5-hkscs": "big5hkscs",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "windows-1252": "cp1252",
    "iso8859-1": "cp1252",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "windows-31j": "cp932",
    "iso-2022-jp": "iso2022_jp_ext",
    "unicode-1-1-utf-7": "utf-7",
    "iso-8859-8-i": "iso-8859-8",
    "utf8": "utf-8",
    "utf8mb4": "utf-8",
    "unicode-1-1-utf-8": "utf-8",
}
#: labels that say nothing about bytes above 127
_VAGUE = frozenset({"", "us-ascii", "ascii", "unknown-8bit", "x-unknown", "unknown", "default", "8bit"})
#: charsets that hide their characters in plain ASCII
_STATEFUL = ("hz", "utf-7", "utf-16", "utf-32", "iso2022")
#: Python's text codecs that are no charsets of mail
_NO_CHARSETS = frozenset({"idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
_GB_PAIR = re.compile(rb"[\x81-\xfe][\x30-\xfe]")
_HAN = re.compile("[\u4e00-\u9fff]")


@lru_cache(maxsize=256)
def _codec(label: str) -> str:
    """A label as found -> the codec to try; "" where it says nothing."""
    name = label.strip().strip("\"'").lower().split("*")[0]
    if name in _VAGUE:
        return ""
    name = _SUPERSETS.get(name, name)
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError):
        return ""
    # Python's codecs for base64, zip and the like are no charsets either
    return str(info.name) if getattr(info, "_is_text_encoding", True) and info.name not in _NO_CHARSETS else ""


def _strict(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except (UnicodeError, ValueError, LookupError):
        return None


def decode_bytes(data: bytes, label: str = "") -> str:
    """Bytes with the charset that the sender claimed -> text, whatever was claimed. Never raises.

    Guessing libraries misread short Chinese, so the order is fixed: UTF-8 where the label is weak and the bytes are
    valid, the superset of the label, UTF-8, GB18030, then replacement characters.
    """
    codec = _codec(label[:60])
    if data.isascii() and not codec.startswith(_STATEFUL):
        return data.decode("ascii")
    vague = codec in {"", "cp1252"}
    utf8 = _strict(data, "utf-8")
    if utf8 is not None and (vague or codec in {"utf-8", "big5hkscs"}):
        return utf8
    if utf8 is not None and codec == "gb18030" and len(_HAN.findall(utf8[:2000])) >= 4:
        return utf8  # so many whole Han characters are no accident of GBK's bytes
    if vague and (text := _strict(data, "gb2312")) is not None and len(_HAN.findall(text)) >= 2:
        return text  # Chinese under a Latin label; accented letters come singly and are no GB2312
    if codec in {"", "utf-8"}:
        broken = data.decode("utf-8", "replace")
        if broken.count("\ufffd") * 4 < len(broken) - len(broken.encode("ascii", "ignore")):
            return broken  # UTF-8 with a few cut characters, not another charset
    if codec and (text := _strict(data, codec)) is not None:
        return text
    if utf8 is not None:
        return utf8
    if (codec == "utf-8" or (vague and _pairs(data))) and (text := _strict(data, "gb18030")) is not None:
        return text
    if vague and (text := _strict(data, "cp1252")) is not None:
        return text
    return data.decode(codec or "utf-8", "replace")


def _pairs(data: bytes) -> bool:
    """Bytes above 127 that come in pairs, as Chinese does and accented letters do not."""
    pairs: list[bytes] = _GB_PAIR.findall(data)
    high = [pair for pair in pairs if pair[1] >= 0x80]
    return len(high) * 4 >= len(pairs) * 3


# --- characters that must not travel on -------------------------------------------------------------------------------

#: NUL and other controls (PostgreSQL refuses NUL), lone surrogates, and what shows nothing and only misleads:
#: zero-width spaces, direction overrides, the tag characters. The joiner U+200D stays: emoji are made of it.
UNWANTED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_LINE_END = re.compile("\r\n?|\u2028|\u2029|\x85")
SPACES = re.compile(r"\s+")


def tidy(text: str) -> str:
    """Text that any database and page can hold; line ends are `\\n`."""
    if text.isascii() and text.isprintable():
        return text
    if "\r" in text or not text.isascii():
        text = _LINE_END.sub("\n", text)
    return UNWANTED.sub("", text)


def tidy_line(text: str) -> str:
    """The same, on one line."""
    return SPACES.sub(" ", tidy(text)).strip()


# --- headers ----------------------------------------------------------------------------------------------------------

_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*(?:\?(?!=)[^?]*){0,3})\?=")


def raw_bytes(text: str) -> bytes:
    """What the parser read, as the bytes that they were."""
    return text.encode("ascii", "surrogateescape") if text.isascii() else text.encode("utf-8", "surrogateescape")


def decode_header(raw: str) -> str:
    """A header as the parser gives it (surrogates for 8-bit bytes) -> one line of text. Never raises."""
    if "=?" not in raw:
        if raw.isascii():
            return tidy_line(raw)
        return tidy_line(decode_bytes(raw_bytes(raw)))
    out: list[str] = []
    pending: list[bytes] = []  # neighbours of one charset: a character may be split between them
    charset = ""
    end = 0
    for match in _ENCODED_WORD.finditer(raw):
        between = raw[end : match.start()]
        end = match.end()
        word_charset = match[1].split("*")[0].lower()
        if pending and (between.strip() or word_charset != charset):
            out.append(decode_bytes(b"".join(pending), charset))
            pending.clear()
        if between.strip() or (not out and not pending):
            out.append(between if between.isascii() else decode_bytes(raw_bytes(between)))
        charset = word_charset
        pending.append(_encoded_word(match[2], match[3]))
    if pending:
        out.append(decode_bytes(b"".join(pending), charset))
    rest = raw[end:]
    out.append(rest if rest.isascii() else decode_bytes(raw_bytes(rest)))
    return tidy_line("".join(out))


def _encoded_word(encoding: str, content: str) -> bytes:
    if encoding in "bB":
        return decode_base64(raw_bytes(content))
    return binascii.a2b_qp(raw_bytes(content).replace(b" ", b"_"), header=True)


_LARGE = 2_000_000
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def decode_base64(data: bytes) -> bytes:
    """Base64 with whatever between and missing at the end."""
    try:
        if len(data) > _LARGE:
            # in pieces of whole lines, so that other threads get their turn
            lines = data.splitlines(keepends=True)
            return b"".join(binascii.a2b_base64(b"".join(lines[i : i + 5_000])) for i in range(0, len(lines), 5_000))
        return binascii.a2b_base64(data)
    except binascii.Error:
        clean = _NOT_BASE64.sub(b"", data.split(b"=")[0] if data.count(b"=") < 3 else data.replace(b"=", b""))
        clean = clean[: len(clean) - 1] if len(clean) % 4 == 1 else clean
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))


# --- plain text -------------------------------------------------------------------------------------------------------


def unflow(text: str, delsp: bool) -> str:
    """RFC 3676: put lines together that only the sender's mailer broke (`format=flowed`)."""
    out: list[list[str]] = []  # lines, each in the pieces that its mailer made of it
    open_depth = -1  # quote depth of the line that goes on, -1 = none does
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        flows = content.endswith(" ") and content != "-- "
        if content == "-- " or depth != open_depth:
            out.append([f"{'>' * depth} "] if depth else [])
        out[-1].append(content[:-1] if flows and delsp else content)
        open_depth = depth if flows else -1
    return "\n".join("".join(pieces) for pieces in out)
