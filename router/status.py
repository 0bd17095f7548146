"""Does a customer ask how far their matter is? Then the ticket itself answers, to its own party alone. Pure.

Not the model's task: `claim_status` is about a claim, which people know; this is about a ticket, which we know. A text
counts only when it is short and asks nothing else, or names a ticket's number; people read it all the same.
"""

from __future__ import annotations

import re
import unicodedata

from domain import ticket_id_of

#: with a letter before it or a digit after it, it is some other number
_NUMBER = re.compile(r"(?<![A-Za-z0-9])[Ss][-‐–—－ ]?([1-9][0-9]{5,11})(?![0-9])")
_LONGEST_ZH, _LONGEST_EN = 30, 90
_ASKS_ZH = re.compile(
    r"进度|進度|到哪一?步|怎么样了|怎麼樣了|怎样了|咋样了|处理得?(如何|怎么样|好了[吗嗎没])|处理完了?[吗嗎没]"
    r"|有(结果|消息|进展|回复|回音)了?[吗嗎没]|有没有(结果|消息|进展|回复)|什么时候(能)?(处理|解决|有结果)"
    r"|查(一下|询)?(我的)?工单|我的工单|我的工單"
)
_MINE = r"my (ticket|request|case|complaint)"
_ASKS_EN = re.compile(
    rf"\b(where('s| is) {_MINE}|status of {_MINE}|ticket status|any (news|updates?|progress)|update (on|please)"
    rf"|what('s| is) (happening|the status|going on)|how (far|long)( is| along)? (it|{_MINE}))\b"
    r"|^status\s*[?.!]?$|\bstill waiting\b.*\?",
    re.I,
)
#: asks of these names something else than the ticket
_OTHER = re.compile(r"理赔|理賠|赔款|退款|保单|发票|\bclaim\b|\brefund\b|\bpolicy\b|\binvoice\b", re.I)


def numbers(text: str) -> list[int]:
    """The tickets that a text names, in order, each once: their row ids, which may not exist or be another's."""
    if "s" not in text and "S" not in text and "Ｓ" not in text:
        return []
    found = (ticket_id_of(match[1]) for match in _NUMBER.finditer(unicodedata.normalize("NFKC", text[:4000])))
    return list(dict.fromkeys(each for each in found if each is not None and each < 2**62))


def asks(text: str, *, named: bool) -> bool:
    """Whether it asks how far a ticket is. `named`: a ticket of the writer's own stands in it."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    if not plain:
        return False
    chinese = any("\u4e00" <= char <= "\u9fff" for char in plain)
    if len(plain) > (_LONGEST_ZH if chinese else _LONGEST_EN) * (2 if named else 1):
        return False
    if named and _NUMBER.sub("", plain).strip(" .,;:!?。，！？#") == "":
        return True  # the number alone
    if not named and _OTHER.search(plain):
        return False
    if named:
        plain = _NUMBER.sub(" my ticket ", plain)
    return bool(_ASKS_ZH.search(plain) or _ASKS_EN.search(" ".join(plain.split())))
