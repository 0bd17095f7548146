"""Which mail no person wrote: bounces, reports, automatic replies, no-reply senders, and our own come round again.

RFC 3464 (delivery reports), RFC 5965 (abuse reports), RFC 8098 (read receipts), RFC 3834 (automatic replies), and what
senders do that know none of these. No single sign is in all of it, so the union of the signs decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from domain import Automatic, AutomaticKind


@dataclass(slots=True)
class Signs:
    """What of a mail says whether a machine wrote it. Header names are lower case, values decoded."""

    headers: Mapping[str, str]
    #: media type and its parameters
    media_type: str = "text/plain"
    report_type: str = ""
    sender: str = ""
    sender_name: str = ""
    subject: str = ""
    key: str = ""
    thread_keys: tuple[str, ...] = ()
    text: str = ""
    #: media types of all parts
    parts: Collection[str] = ()
    #: field lists of the report parts (message/delivery-status: one for the mail, one for each recipient)
    report_fields: Sequence[Sequence[tuple[str, str]]] = field(default_factory=list)
    #: Message-IDs of the mails inside; asked for only when a machine wrote it
    inner_keys: Callable[[], Iterable[str]] = tuple


_DAEMON = re.compile(
    r"mailer[-_. ]?daemon|mail[-_. ]?daemon|^post-?master(?:@|$|[-_.])|^mail delivery|mail delivery (?:system|service)"
    r"|mail delivery subsystem|mail administrator|^mdaemon@|double-bounce|delivery status notification"
    r"|邮件系统|郵件系統|系统退信",
    re.I,
)
_BOUNCER = re.compile(r"^(?:bounces?|return|mail-?er)(?:@|[-+_.])", re.I)
_MAILER_DAEMON = re.compile(r"mailer[-_. ]?daemon|mail[-_. ]?daemon|mail delivery (?:sub)?system|double-bounce", re.I)
_BOUNCE_SUBJECT = re.compile(
    r"undeliver(?:ed|able)|delivery (?:status )?(?:notification|failure|report|has failed|problem|error)"
    r"|failure (?:notice|delivery)|mail delivery (?:fail|system)|returned mail|return(?:ed)? to sender"
    r"|delivery to .{1,80} failed|could ?n[o']t be delivered|message (?:not|undeliver)"
    r"|(?:delivery|mail) (?:failed|delayed)|non-?delivery|warning: could not send"
    r"|退信|投递失败|投遞失敗|无法投递|無法投遞|无法送达|無法傳送|未送达|未送達|传递状态|投递状态"
    r"|邮件被退回|郵件退回|发送失败",
    re.I,
)
_NO_REPLY = re.compile(r"(?:^|[-_.+])(?:no|do[-_.]?not|dont|never)[-_.]?reply(?:$|[-_.+=\d])", re.I)
#: exact beginnings that mailers write themselves
_AUTO_REPLY_PREFIX = re.compile(
    r"^(?:automatic reply|auto[- ]?reply|auto(?:matic)?[- ]response|auto[- ]?responder|vacation (?:reply|notice)"
    r"|out of (?:the )?office(?: auto-?reply| reply)?"
    r"|自动回复|自動回復|自動回覆|自动答复|自動答覆|外出自动回复|休假自动回复|自动应答)\s*(?:[:：]|$)",
    re.I,
)
#: beginnings that need a header beside them: people write so too
_AUTO_REPLY_SUBJECT = re.compile(
    r"^(?:automatic reply|\[?auto[- ]?(?:reply|response)|out of (?:the )?office|on (?:vacation|leave|holiday)|away from"
    r"|vacation|ooo\b|i am (?:away|out)|【?自动回复|【?自動回覆|自動回復|自动答复|外出|休假|不在办公室|年假)",
    re.I,
)
_REPLY_HEADERS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponse",
    "x-auto-reply",
    "x-autoreply-from",
    "x-mail-autoreply",
)
_LIST_HEADERS = ("list-id", "list-post", "list-unsubscribe", "list-help", "x-mailing-list", "x-loop", "feedback-id")
#: every header that `Signs.headers` may hold
HEADERS = frozenset(
    {
        *_REPLY_HEADERS,
        *_LIST_HEADERS,
        "auto-submitted",
        "precedence",
        "return-path",
        "x-auto-response-suppress",
        "x-failed-recipients",
        "x-post-messageclass",
        "x-sluice",
    }
)
_BULK = frozenset({"bulk", "list", "junk"})
_ADDRESS = re.compile(r"[^\s<>@,;:\"'()\[\]]{1,128}@[A-Za-z0-9][A-Za-z0-9.-]{0,250}")
_STATUS = re.compile(r"\b([245])\.\d{1,3}\.\d{1,3}\b")
_PERMANENT_TEXT = re.compile(
    r"(?:^|[\s#(\[:])5\.[0-7]\.\d{1,3}\b|\b(?:smtp|error|code|said:|status)\D{0,40}\b55[0-6]\b", re.I
)
_INNER_KEY = re.compile(r"^[ \t>|]*message-id[ \t]*:[ \t]*\r?\n?[ \t>]*<([^<>\s]{3,300})>", re.I | re.M)
#: how much of a report's text is searched
_SEARCHED = 200_000


def keys_in(text: str) -> list[str]:
    """Message-IDs of the mails whose headers are quoted in a text."""
    return _INNER_KEY.findall(text[:_SEARCHED])[:50]


def detect(signs: Signs, own_domains: Collection[str] = ()) -> tuple[Automatic | None, bool]:
    """Whether a machine wrote it, and whether it may be answered automatically."""
    found = _own(signs, own_domains) or _bounce(signs) or _report(signs) or _auto_reply(signs) or _no_reply(signs)
    return found, found is None and not _suppressed(signs)


def _own(signs: Signs, own_domains: Collection[str]) -> Automatic | None:
    local, _, host = signs.key.rpartition("@")
    if "x-sluice" in signs.headers:
        return Automatic(kind=AutomaticKind.OWN, why="header X-Sluice", concerns=_unique([signs.key]))
    if local.startswith("sluice.") and host.lower() in {name.lower() for name in own_domains}:
        return Automatic(kind=AutomaticKind.OWN, why="own Message-ID", concerns=_unique([signs.key]))
    return None


def _bounce(signs: Signs) -> Automatic | None:
    headers = signs.headers
    why = ""
    actions = {value.strip().lower() for part in signs.report_fields for name, value in part if name == "action"}
    # Delayed mail is still on its way: what was sent has not failed.
    if actions and actions <= {"delivered", "relayed", "expanded", "delayed"}:
        return _about(signs, AutomaticKind.REPORT, "delivery report: " + ", ".join(sorted(actions)))
    daemon = _is_daemon(signs)
    if signs.report_type == "delivery-status" or "message/delivery-status" in signs.parts:
        why = "multipart/report; delivery-status"
    elif "x-failed-recipients" in headers:
        why = "header X-Failed-Recipients"
    elif daemon and _null_return_path(headers):
        why = "empty Return-Path and a mail system's name"
    elif _MAILER_DAEMON.search(signs.sender) or _MAILER_DAEMON.search(signs.sender_name):
        why = "sent by a mail system"
    elif _BOUNCE_SUBJECT.search(signs.subject) and (
        daemon or _null_return_path(headers) or _BOUNCER.match(signs.sender)
    ):
        why = "subject of a bounce"
    return _about(signs, AutomaticKind.BOUNCE, why) if why else None


def _report(signs: Signs) -> Automatic | None:
    if signs.media_type == "multipart/report":
        return _about(signs, AutomaticKind.REPORT, f"multipart/report; {signs.report_type or 'no type'}")
    for kind in ("message/feedback-report", "message/disposition-notification"):
        if kind in signs.parts:
            return _about(signs, AutomaticKind.REPORT, kind)
    return None


def _auto_reply(signs: Signs) -> Automatic | None:
    headers = signs.headers
    submitted = headers.get("auto-submitted", "").split(";")[0].strip().lower()
    why = ""
    if submitted == "auto-replied":
        why = "Auto-Submitted: auto-replied"
    elif name := next((n for n in _REPLY_HEADERS if headers.get(n, "").strip().lower() not in {"no", ""}), ""):
        why = f"header {name.title()}"
    elif headers.get("precedence", "").strip().lower() in {"auto_reply", "auto-reply"}:
        why = "Precedence: auto_reply"
    elif "autoresponder" in headers.get("x-post-messageclass", "").lower():
        why = "X-POST-MessageClass: Autoresponder"
    elif _AUTO_REPLY_PREFIX.match(signs.subject):
        why = "subject of an automatic reply"
    elif _AUTO_REPLY_SUBJECT.match(signs.subject) and _suppressed(signs):
        why = "subject of an automatic reply, and a header beside it"
    return _about(signs, AutomaticKind.AUTO_REPLY, why) if why else None


def _no_reply(signs: Signs) -> Automatic | None:
    local = signs.sender.rpartition("@")[0]
    if _NO_REPLY.search(local):
        return _about(signs, AutomaticKind.NO_REPLY, "sender takes no replies")
    if _is_daemon(signs):
        return _about(signs, AutomaticKind.NO_REPLY, "sent by a mail system")
    return None


def is_no_reply(address: str) -> bool:
    """An address that says of itself that nobody reads it."""
    return _NO_REPLY.search(address.rpartition("@")[0]) is not None


def _suppressed(signs: Signs) -> bool:
    """Lists, bulk and what machines send with a person's words: a ticket, and no automatic answer.

    X-Auto-Response-Suppress stands only here: Exchange also puts it on what people write, by transport rules.
    """
    headers = signs.headers
    return (
        any(name in headers for name in _LIST_HEADERS)
        or headers.get("precedence", "").strip().lower() in _BULK
        or headers.get("auto-submitted", "no").split(";")[0].strip().lower() not in {"no", ""}
        or headers.get("x-auto-response-suppress", "none").strip().lower() not in {"none", ""}
        or _null_return_path(headers)
    )


def _is_daemon(signs: Signs) -> bool:
    return bool(_DAEMON.search(signs.sender) or _DAEMON.search(signs.sender_name))


def _null_return_path(headers: Mapping[str, str]) -> bool:
    return headers.get("return-path", "-").replace(" ", "") in {"<>", ""}


def _about(signs: Signs, kind: AutomaticKind, why: str) -> Automatic:
    """With the messages that it is about, and for a bounce what could not be reached."""
    concerns = _unique([*signs.inner_keys(), *signs.thread_keys[::-1]], but=signs.key)
    if kind is not AutomaticKind.BOUNCE:
        return Automatic(kind=kind, why=why, concerns=concerns)
    permanent, recipients = _failed(signs)
    return Automatic(kind=kind, why=why, concerns=concerns, permanent=permanent, recipients=recipients)


def _failed(signs: Signs) -> tuple[bool, tuple[str, ...]]:
    """Whether it is for good, and the addresses; those that failed for good only, where some did."""
    lasting: list[str] = []
    passing: list[str] = []
    permanent = False
    for part in signs.report_fields:
        fields = dict(reversed(part))
        status = _STATUS.search(fields.get("status", "")) or _STATUS.search(fields.get("diagnostic-code", ""))
        address = _ADDRESS.search(f"{fields.get('final-recipient', '')} {fields.get('original-recipient', '')}")
        if status is None and address is None:
            continue
        action = fields.get("action", "").strip().lower()
        failed_for_good = status is not None and status[1] == "5" and action not in {"delayed", "delivered", "relayed"}
        permanent = permanent or failed_for_good
        if address is not None and (status is None or status[1] != "2"):
            (lasting if failed_for_good else passing).append(address[0].lower())
    if not signs.report_fields:
        permanent = _PERMANENT_TEXT.search(signs.text[:_SEARCHED]) is not None
    named = _ADDRESS.findall(signs.headers.get("x-failed-recipients", "").lower())
    return permanent, _unique(lasting or passing or named)


def _unique(keys: Iterable[str], but: str = "") -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for key in keys if key and key != but))[:100]
