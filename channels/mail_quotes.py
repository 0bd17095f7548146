"""Quotes and signatures out of a mail's text, Chinese and English first. For analysis only: people see the whole mail.

Works on lines. What was typed between quotes survives, with the quotes that it answers; what cannot be told apart from
a person's own words stays. Every pattern runs over one short line, so the time grows with the text and no faster.
"""

from __future__ import annotations

import re

#: lines and characters looked at; what comes later is kept as it is
MAX_LINES = 4_000
#: lines longer than this carry no mark
_MARK_LENGTH = 400
#: an attribution broken by the mailer: lines and characters
_WRAPPED_LINES, _WRAPPED_LENGTH = 7, 400

# --- attributions: "On ... wrote:" ------------------------------------------------------------------------------------

_VERB = (
    r"(?:wrote|写道|寫道|写到|寫到|schrieb|schreef|geschreven|a écrit|ha scritto|skrev|napisał(?:\(a\)|a)?"
    r"|escreveu|escribió|написала?|пишет|пише)"
)
_VERB_ENDS = re.compile(rf"{_VERB}\s*(?:[:：]|-{{2,6}})\s*$|(?:写道|寫道)$", re.I)
_VERB_INSIDE = re.compile(
    r"\b(?:skrev|schrieb|schreef|wrote)\b[^<>]{0,80}<[^<>]{3,200}(?:<[^<>]{0,200}>)?>?\s*[:：]?\s*$", re.I
)
_TIME = re.compile(r"\d{1,2}\s?[:.：hH时時点點]\s?\d{2}")
_ADDRESS = re.compile(r"[^\s<>@]@[^\s<>@]")
_YEAR = re.compile(r"(?:19|20)\d\d|\d{1,2}/\d{1,2}")
_DATE_AND_NAME = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:,?\s+\d{1,2}:\d{2}(?::\d{2})?(?:\s+GMT\s?[+-]\d{2}:?\d{2}\s+\S.{0,100}|.{1,100}<[^<>]*@[^<>]*>)"
    r"|\s.{1,100}<[^<>]*@[^<>]*>)\s*[:：]?\s*$"
)
#: how an attribution may begin (a digit must stand in the same line, or it names an address)
_OPENER = re.compile(r"(?:-{2,6}\s*)?(?:On|At|Am|Le|El|Il|Op|Den|Em|Dnia|W dniu|在|于|於)\s*\S", re.I)
_ZH_DATE = re.compile(r"(?:在|于|於)?\s*\d{4}\s*[-年/.]")
_ZH_NAME_AND_DATE = re.compile(r".{0,60}[\s>〉》\"”](?:于|於|在)\s*\d{4}\s*[-年/.]|.{1,30}(?:于|於)\d{4}年")
_CLOSES_WRAP = re.compile(rf">\s*(?:{_VERB})?\s*[:：]?\s*$", re.I)

# --- header blocks and separators -------------------------------------------------------------------------------------

_FIELDS = {
    "from": ("from", "von", "de", "från", "da", "van", "от"),
    "发件人": ("发件人", "發件人", "寄件者", "寄件人", "发信人", "發信人"),
    "sent": ("sent", "gesendet", "envoyé", "skickat", "verzonden", "enviado"),
    "发送时间": ("发送时间", "發送時間", "发送日期", "發送日期", "寄件日期", "传送时间", "傳送時間", "时间", "日期"),
    "date": ("date", "data", "datum", "fecha"),
    "to": ("to", "an", "à", "till", "a", "aan", "para", "收件人", "收件者", "收信人"),
    "cc": ("cc", "抄送", "副本", "kopia", "密送"),
    "subject": ("subject", "betreff", "objet", "ämne", "oggetto", "onderwerp", "asunto", "主题", "主題", "主旨"),
    "reply-to": ("reply-to", "risposta", "回复", "回覆"),
}
_KIND = {word: kind for kind, words in _FIELDS.items() for word in words}
_FIELD = re.compile(r"[\s*_|]*([^\W\d_][\w-]{0,11}|[^\W\d_]\s?[^\W\d_]{1,3})[\s*_]*[:：|][\s*_]*(.*)$")
_DASHES = r"[-—–=_*－]{2,40}"
_ORIGINAL = re.compile(
    rf"[\s*_|]*{_DASHES}\s*(?:原始?(?:邮件|郵件|信息|訊息|讯息|信件)|回[复覆]的原?[邮郵]件|[邮郵]件原件"
    r"|original(?:\s(?:message|mail|e-?mail|text))?|replied message|ursprüngliche nachricht|message d'origine)"
    rf"\s*{_DASHES}[\s*_|]*",
    re.I,
)
_FORWARDED = re.compile(
    rf"[\s*_|]*{_DASHES}\s*(?:forwarded (?:message|mail)|转发的?(?:邮件|消息)(?:信息)?|轉寄的?郵件)\s*{_DASHES}[\s*_|]*"
    r"|[\s>]*(?:begin forwarded message|开始转发的邮件|開始轉寄郵件|以下是转发的邮件)\s*[:：]?\s*",
    re.I,
)
_INITIALS = re.compile(r"[A-Z]{1,2}>")
_RULE = re.compile(r"[\s>]*(?:[-_=*~#+—–─━]{2,}|ᐧ)[\s]*")

# --- signatures -------------------------------------------------------------------------------------------------------

_DASH_SIGNATURE = re.compile(r"(?:--|—|- -)\s*")
_UNDERSCORES = re.compile(r"\s*_{5,}\s*")
_MY_DEVICE = re.compile(
    r"[\s(<\[*_-]*(?:"
    r"sent (?:from|via|with|by|using|on)\s+(?!.{0,60}\b(?:bank|account|insur|polic|card|branch|post office)).{0,40}"
    r"(?:iphone|ipad|ipod|android|mobile|phone|cell\b|galaxy|samsung|huawei|honor|xiaomi|redmi|oppo|vivo|outlook|mail|blackberry|windows|yahoo"
    r"|gmail|device|tablet|sparrow|proton|htc|nokia|alcatel|\bpc\b).{0,80}"
    r"|sent from my (?!.{0,60}\b(?:bank|account|insur|polic|card|branch|office))[\w-]+(?:\s[\w-]+){0,4}\W*"
    r"|(?:get|download)\s\[?outlook for .{2,60}"
    r"|.{0,20}\bfrom (?:my )?(?:mobile|phone|iphone(?: \w{1,8})?|ipad)"
    r"|(?:发自|发送自|發自|發送自|寄自|来自|來自|从|從)\s*(?:我的|于)?\s*.{0,24}?"
    r"(?:iphone|ipad|android|outlook|手机|手機|平板|华为|小米|荣耀|三星|客户端|客戶端|邮箱|郵箱|信箱|邮箱大师|邮件|郵件|应用|foxmail|mac|windows)"
    r"[A-Za-z0-9\s+-]{0,16}?(?:客户端|版邮件应用|版邮件|手机|手機)?\s*(?:发送|發送|传送|傳送|发出|寄出)?"
    r"|(?:获取|下载|取得|下載)\s*\[?outlook\b.{0,60}"
    r"|envoyé (?:de(?:puis)?|à partir de) mon .{2,30}"
    r"|von meinem .{2,30} gesendet|diese nachricht wurde von meinem .{2,60}"
    r"|sendt fra min .{2,20}|verzonden (?:met|vanaf) .{2,30}|enviado desde mi .{2,20}|inviato da(?:l mio)? .{2,20}"
    r")[\s)>\]*_.。!！]*",
    re.I,
)
_ZH_CLOSING = re.compile(
    r"\s*(?:此致|敬[礼禮]|此致[\s,，]*敬[礼禮]|[顺順][颂頌].{2,4}"
    r"|[顺順即敬]?[祝颂頌](?:商祺|好|近祺|大安|安好|[时時]祺|[春夏秋冬]安)"
    r"|祝(?:您|你|贵司|贵公司|各位)?(?:工作|生活|身体|万事|一切|阖家)?"
    r"(?:顺利|愉快|健康|安康|如意|开心|顺心|幸福))[\s!！。.~]*"
)
_CONTACT = re.compile(
    r"电话|電話|手机|手機|联系|聯繫|邮箱|郵箱|地址|公司|部门|传真|tel|phone|mobile|e-?mail|fax|微信|qq", re.I
)
_BUSINESS = re.compile(r"保单|保單|单号|單號|理赔|理賠|案件|报案|報案|赔案|投保|退保|policy|claim|[?？]", re.I)


def own_words(text: str) -> str:
    """What the writer wrote now: without quotes, quoted headers and signature. "" where nothing else is there."""
    lines = text.replace("\xa0", " ").split("\n")
    tail = lines[MAX_LINES:]
    lines = _cut_rules([line.rstrip() for line in lines[:MAX_LINES]])
    for _ in range(4):
        before = len(lines)
        lines = _without_quotes(_without_signature(lines))
        if len(lines) == before:
            break
    if tail and lines and not _is_quote(tail[0]):
        lines += tail
    return "\n".join(lines).strip("\n").rstrip()


def _is_quote(line: str) -> bool:
    """`> ` and the initials of the quoted person (`AB> `)."""
    line = line.lstrip(" \t")
    return line[:1] == ">" or (">" in line[1:3] and _INITIALS.match(line) is not None)


def _blank(lines: list[str], start: int = 0, end: int | None = None) -> bool:
    return not any(line.strip() for line in lines[start:end])


# --- quotes -----------------------------------------------------------------------------------------------------------


def _without_quotes(lines: list[str]) -> list[str]:
    quoted = [_is_quote(line) for line in lines]
    out: list[str] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        if quoted[i] or not _may_mark(line):
            out.append(line)
            i += 1
            continue
        if _FORWARDED.fullmatch(line):
            # what is passed on is what the mail is about: only its frame goes
            i = max(i + 1, _header_block(lines, _next_text(lines, i + 1)))
            continue
        end = i + 1 if _ORIGINAL.fullmatch(line) else _header_block(lines, i)
        if end > i:
            if not _nothing_typed(out):
                return _cut(out)
            i = max(end, _header_block(lines, _next_text(lines, end)))
            continue
        end = _attribution(lines, quoted, i)
        if end > i:
            first = _next_text(lines, end)
            if first >= len(lines) or not quoted[first]:
                if not _nothing_typed(out):
                    return _cut(out)
                i = end
                continue
            last = _quote_end(lines, quoted, first)
            answered = not _blank([text for text, q in zip(lines[last:], quoted[last:], strict=True) if not q])
            if not answered:
                return _cut(out)
            # typed below: the one quote on top goes; between quotes: each stays with its answer
            i = last if _nothing_typed(out) and not any(quoted[last:]) else end
            continue
        out.append(line)
        i += 1
    return _cut(out)


def _may_mark(line: str) -> bool:
    """Cheap: most lines of prose hold none of what a mark is made of."""
    return len(line) <= _MARK_LENGTH and (
        ":" in line
        or "：" in line
        or "@" in line
        or "|" in line
        or "20" in line
        or "19" in line
        or line[-1:] == "<"
        or "写道" in line
        or "寫道" in line
        or "wrote" in line
        or "--" in line
        or "转发" in line
        or "—" in line
        or "__" in line
    )


def _next_text(lines: list[str], start: int) -> int:
    while start < len(lines) and not lines[start].strip():
        start += 1
    return start


def _quote_end(lines: list[str], quoted: list[bool], start: int) -> int:
    """Behind the quote that begins at `start`; blank lines inside belong to it."""
    end = i = start
    while i < len(lines) and (quoted[i] or not lines[i].strip()):
        i += 1
        if quoted[i - 1]:
            end = i
    return end


def _nothing_typed(lines: list[str]) -> bool:
    return all(not line.strip() or _is_quote(line) or _RULE.fullmatch(line) for line in lines)


def _cut(lines: list[str]) -> list[str]:
    """Without the quotes, rules and blank lines at its end."""
    end = len(lines)
    while end and (not lines[end - 1].strip() or _is_quote(lines[end - 1]) or _RULE.fullmatch(lines[end - 1])):
        end -= 1
    return lines[:end]


def _attribution(lines: list[str], quoted: list[bool], start: int) -> int:
    """Behind the attribution that begins at this line, else `start`."""
    line = lines[start].strip()
    if not _may_begin(line):
        return start
    joined = ""
    i = start
    while i < min(len(lines), start + _WRAPPED_LINES):
        piece = lines[i].strip()
        if not piece:
            # a mailer that puts the address on a line of its own
            following = _next_text(lines, i)
            if i == start or following >= len(lines) or not lines[following].startswith("<"):
                return start
            i = following
            continue
        if i > start and quoted[i] and not _CLOSES_WRAP.fullmatch(piece):
            return start
        joined = f"{joined} {piece}" if joined else piece
        i += 1
        if len(joined) > _WRAPPED_LENGTH:
            return start
        following = _next_text(lines, i)
        answered = following < len(lines) and quoted[following] and not _CLOSES_WRAP.fullmatch(lines[following])
        if _is_attribution(joined, answered):
            # an address in the writer's own last sentence is no beginning where a later line is a better one
            later = any(_strong(lines[k].strip()) for k in range(start + 1, i))
            return start if later and not _strong(line) else i
    return start


def _strong(line: str) -> bool:
    """Begins as mailers begin."""
    return (_OPENER.match(line) is not None and any(c.isdigit() for c in line)) or _ZH_DATE.match(line) is not None


def _may_begin(line: str) -> bool:
    return (
        _strong(line)
        or "@" in line
        or line.endswith(("<", "写道：", "寫道：", "写道:", "寫道:", "写道", "寫道"))
        or _ZH_NAME_AND_DATE.match(line) is not None
        or (line[0].isdigit() and _YEAR.search(line) is not None)
        or (line.endswith((":", "：")) and _YEAR.search(line) is not None)
    )


def _is_attribution(text: str, quote_follows: bool) -> bool:
    if quote_follows and text.endswith((":", "：")):
        return bool(_TIME.search(text) or _ADDRESS.search(text) or _YEAR.search(text))
    if _VERB_ENDS.search(text) or _VERB_INSIDE.search(text):
        if _ADDRESS.search(text):
            return True
        # without an address a date with a time must stand where mailers put it: people also tell who wrote what
        begins = _OPENER.match(text) or _ZH_DATE.match(text) or _ZH_NAME_AND_DATE.match(text) or text[0].isdigit()
        return bool(begins and _TIME.search(text))
    return _DATE_AND_NAME.match(text) is not None


def _header_block(lines: list[str], start: int) -> int:
    """Behind a block of quoted headers (From, Sent, To, Subject in any order) that begins here, else `start`."""
    if start >= len(lines) or _field_kind(lines[start])[0] == "":
        return start
    kinds: dict[str, str] = {}
    end = i = start
    loose = 0  # lines that belong to no field: a folded subject, a blank between fields
    while i < len(lines) and i < start + 24 and loose < 3:
        kind, value = _field_kind(lines[i])
        i += 1
        if kind:
            kinds[kind] = kinds.get(kind, "") + value
            end, loose = i, 0
        elif not lines[i - 1].strip() and {"subject", "to"} <= kinds.keys():
            break
        else:
            loose += 1
    if "subject" in kinds and end < len(lines) and lines[end].strip() and lines[end - 1].strip():
        end = next((k for k in range(end, min(end + 3, len(lines))) if not lines[k].strip()), end)  # a folded subject
    return end if _is_header_block(kinds) else start


def _field_kind(line: str) -> tuple[str, str]:
    if not line or len(line) > _MARK_LENGTH * 10:
        return "", ""
    match = _FIELD.match(line[:_MARK_LENGTH])
    return (_KIND.get(match[1].replace(" ", "").lower(), ""), match[2]) if match else ("", "")


def _is_header_block(kinds: dict[str, str]) -> bool:
    """Strict, since people begin lines so too ("From: the start ...", "From: Beijing, To: Shanghai, Date: ...")."""
    if "发件人" in kinds:
        return len(kinds) >= 2
    dated = any(any(c.isdigit() for c in kinds.get(name, "")) for name in ("sent", "date", "发送时间"))
    if "from" not in kinds:
        return False
    addressed = "@" in "".join(kinds.values())
    return (dated and (addressed or "sent" in kinds or "subject" in kinds)) or (addressed and len(kinds) >= 3)


# --- signatures -------------------------------------------------------------------------------------------------------


def _without_signature(lines: list[str]) -> list[str]:
    lines = _cut_rules(lines)
    while lines and len(lines[-1]) <= 160 and _MY_DEVICE.fullmatch(lines[-1]):
        lines = _cut_rules(lines[:-1])
    filled = 0
    for i in range(len(lines) - 1, max(-1, len(lines) - 40), -1):
        line = lines[i]
        if not line.strip():
            continue
        if _DASH_SIGNATURE.fullmatch(line) and filled <= 15:
            return _cut_rules(lines[:i])
        if filled <= 6 and _UNDERSCORES.fullmatch(line) and _only_a_name(lines[i + 1 :], longest=80):
            return _cut_rules(lines[:i])
        if filled <= 7 and _ZH_CLOSING.fullmatch(line) and _only_a_name(lines[i + 1 :]):
            return _cut_rules(lines[:i])
        if _is_quote(line):
            break
        filled += 1
    return lines


def _only_a_name(lines: list[str], longest: int = 20) -> bool:
    """A name, a firm, how to reach them: nothing that is about the matter."""
    for line in map(str.strip, lines):
        if _ZH_CLOSING.fullmatch(line):
            continue
        if _BUSINESS.search(line) or len(line) > (80 if _CONTACT.search(line) else longest):
            return False
    return True


def _cut_rules(lines: list[str]) -> list[str]:
    end = len(lines)
    while end and (not lines[end - 1].strip() or (_RULE.fullmatch(lines[end - 1]) and not _is_quote(lines[end - 1]))):
        end -= 1
    return lines[:end]
