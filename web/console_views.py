"""Rows of the database as people see them: who, why here, why now. Pure: `now` is an argument."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain import Risk, public_number
from router.desk import Desk
from storage.types import AnyRow
from web import console_labels as labels
from web.words import Words

_DIGITS = re.compile(r"(?<!\d)\d{7,}(?!\d)")
_SHAPES = {"over": "octagon", "warn": "clock-half", "ok": "clock", "paused": "pause", "met": "check"}
_RISK_ORDER = [Risk.SELF_HARM, Risk.INJURY, Risk.REGULATOR, Risk.LEGAL, Risk.MEDIA]


@dataclass(frozen=True, slots=True)
class Due:
    """One promise: its shape, its words, its time."""

    kind: str  # over, warn, ok, paused, met
    text: str
    at: datetime | None
    warn_at: datetime | None = None

    @property
    def icon(self) -> str:
        return _SHAPES[self.kind]


@dataclass(frozen=True, slots=True)
class Row:
    """A ticket as a queue lists it."""

    row: AnyRow
    number: str
    customer: str
    due: Due | None
    risks: tuple[str, ...]
    unsure: bool
    owner: str
    mine: bool
    gone: bool = False


def mask(text: str) -> str:
    """Long numbers keep their ends: 138****6021."""
    return _DIGITS.sub(lambda found: f"{found[0][:3]}****{found[0][-4:]}", text)


def customer_name(row: AnyRow, words: Words) -> str:
    """Their name, else the masked address; a chat's visitor has only a session."""
    if row.customer_name:
        return mask(str(row.customer_name))
    if not row.address:
        return words.gettext("Erased customer")
    if row.channel == "chat":
        return words.gettext("Visitor %(mark)s", mark=row.address[-4:])
    return mask(str(row.address))


def _promise(words: Words, at: datetime, start: datetime, warn: float, now: datetime) -> Due:
    left = (at - now).total_seconds()
    warn_at = start + (at - start) * warn
    if left < 0:
        return Due("over", words.gettext("over %(time)s", time=words.lasts(left)), at, warn_at)
    text = f"{int(left) // 60}:{int(left) % 60:02}" if left < 600 else words.lasts(left)
    return Due("warn" if now >= warn_at else "ok", text, at, warn_at)


def first_due(row: AnyRow, desk: Desk, words: Words, now: datetime) -> Due | None:
    """The promise of a first response."""
    if row.first_response_at is not None:
        late = row.first_due_at is not None and row.first_response_at > row.first_due_at
        if late:
            by = words.lasts((row.first_response_at - row.first_due_at).total_seconds())
            return Due("over", words.gettext("met late by %(time)s", time=by), row.first_due_at)
        return Due("met", words.gettext("met"), row.first_due_at)
    if row.first_due_at is None or row.state in ("resolved", "closed"):
        return None
    return _promise(words, row.first_due_at, row.created_at, desk.sla.warn_at, now)


def resolve_due(row: AnyRow, desk: Desk, words: Words, now: datetime) -> Due | None:
    """The promise of a resolution; it stands still while the customer is waited for."""
    if row.resolve_due_at is None:
        return None
    if row.resolved_at is not None:
        if row.resolved_at > row.resolve_due_at:
            by = words.lasts((row.resolved_at - row.resolve_due_at).total_seconds())
            return Due("over", words.gettext("met late by %(time)s", time=by), row.resolve_due_at)
        return Due("met", words.gettext("met"), row.resolve_due_at)
    if row.paused_at is not None:
        return Due("paused", words.gettext("paused"), row.resolve_due_at)
    return _promise(words, row.resolve_due_at, row.created_at, desk.sla.warn_at, now)


def nearest_due(row: AnyRow, desk: Desk, words: Words, now: datetime) -> Due | None:
    """The nearest open promise: what a row shows."""
    if row.state in ("resolved", "closed"):
        return None
    if row.first_response_at is None and row.first_due_at is not None:
        return first_due(row, desk, words, now)
    return resolve_due(row, desk, words, now)


def unsure(row: AnyRow) -> bool:
    """The model was below its threshold, and nobody has said yet what it is."""
    route = row.route or {}
    confidence, threshold = route.get("confidence"), route.get("threshold")
    if confidence is None:
        return False
    return threshold is None or confidence < threshold or str(route.get("rule", "")).startswith("triage.")


def row_of(row: AnyRow, desk: Desk, words: Words, now: datetime, person: str) -> Row:
    flags = [flag.value for flag in _RISK_ORDER if flag.value in row.risk]
    return Row(
        row=row,
        number=public_number(row.id),
        customer=customer_name(row, words),
        due=nearest_due(row, desk, words, now),
        risks=tuple(flags),
        unsure=unsure(row),
        owner=row.owner or "",
        mine=row.owner == person,
    )


# --- sentences --------------------------------------------------------------------------------------------------------


def actor_name(words: Words, actor: str) -> str:
    """`person:li` -> li; the bot and the clock by their names."""
    kind, _, name = actor.partition(":")
    if kind == "token":
        return words.gettext("program %(name)s", name=name)
    known = {"bot": words.gettext("Sluice"), "clock": words.gettext("the clock"), "customer": words.gettext("customer")}
    return name or known.get(kind, kind)


def why_here(row: AnyRow, desk: Desk, words: Words) -> str:
    """Why the ticket is in this department, in one sentence."""
    route: Mapping[str, Any] = row.route or {}
    rule = str(route.get("rule", ""))
    intent = labels.label(words, labels.INTENTS, str(route.get("intent", row.intent)))
    department = desk.department_name(row.department, words.language)
    if rule in ("transferred", "labelled"):
        who = actor_name(words, str(route.get("by", "")))
        origin = desk.department_name(str(route.get("from", "")), words.language)
        if rule == "labelled":
            return words.gettext("%(who)s said at the triage desk that it belongs here, not in %(origin)s.",
                                 who=who, origin=origin)  # fmt: skip
        return words.gettext("%(who)s moved it here from %(origin)s.", who=who, origin=origin)
    sure = words.percent(float(route.get("confidence") or 0))
    least = words.percent(float(route["threshold"])) if route.get("threshold") is not None else ""
    if rule == "model":
        return words.gettext("The model said %(intent)s, %(sure)s; it may route alone from %(least)s up.",
                             intent=intent, sure=sure, least=least)  # fmt: skip
    if rule == "triage.unsure":
        return words.gettext("The model guessed %(intent)s, %(sure)s; below %(least)s people decide.",
                             intent=intent, sure=sure, least=least)  # fmt: skip
    if rule == "triage.uncertified":
        return words.gettext("The model guessed %(intent)s, %(sure)s; it may not route alone in this language yet.",
                             intent=intent, sure=sure)  # fmt: skip
    if rule == "triage.nothing_said":
        return words.gettext("It holds no words yet (a picture, a call); the first words decide where it goes.")
    if rule == "triage.out_of_scope":
        return words.gettext("The model found none of our matters in it; people decide.")
    if rule == "risk.self_harm":
        return words.gettext("Somebody may be in danger: it came to the triage desk at once.")
    if rule == "risk.injury":
        return words.gettext("Somebody is hurt or has died: %(department)s has it at top priority.",
                             department=department)  # fmt: skip
    if rule == "emergency":
        return words.gettext("Help is needed on the spot: %(department)s has it at top priority.",
                             department=department)  # fmt: skip
    if row.look_first:
        return words.gettext("Rule “%(rule)s” sent it to %(department)s; a person must look first.",
                             rule=rule, department=department)  # fmt: skip
    return words.gettext("Rule “%(rule)s” sent it to %(department)s.", rule=rule, department=department)


def event_sentence(event: AnyRow, desk: Desk, words: Words) -> str:
    """One line of the folded history."""
    data: Mapping[str, Any] = event.data or {}
    who = actor_name(words, event.actor)

    def department(key: str) -> str:
        return desk.department_name(str(data.get(key, "")), words.language)

    def state(key: str) -> str:
        return labels.label(words, labels.STATES, str(data.get(key, "")))

    def risks() -> str:
        separator = "、" if words.language == "zh" else ", "
        return separator.join(labels.label(words, labels.RISKS, flag) for flag in data.get("risk") or [])

    _ = words.gettext
    match event.kind:
        case "opened":
            return _("%(who)s opened it in %(department)s.", who=who, department=department("department"))
        case "appended":
            return _("The customer wrote again.")
        case "risk":
            return _("A later message speaks of: %(risks)s.", risks=risks())
        case "state":
            return _("%(who)s: %(origin)s → %(to)s.", who=who, origin=state("from"), to=state("to"))
        case "reopened":
            return _("%(who)s reopened it.", who=who)
        case "assigned" if data.get("to"):
            return _("%(who)s assigned it to %(to)s.", who=who, to=data["to"])
        case "assigned":
            return _("%(who)s freed it.", who=who)
        case "transferred":
            return _("%(who)s moved it from %(origin)s to %(to)s.",
                     who=who, origin=department("from"), to=department("to"))  # fmt: skip
        case "prioritised":
            origin, to = (labels.label(words, labels.PRIORITIES, str(data.get(key, ""))) for key in ("from", "to"))
            return _("%(who)s: %(origin)s → %(to)s.", who=who, origin=origin, to=to)
        case "labelled":
            intent = labels.label(words, labels.INTENTS, str(data.get("intent", "")))
            return _("%(who)s labelled it %(intent)s, %(department)s.",
                     who=who, intent=intent, department=department("department"))  # fmt: skip
        case "warned" | "breached":
            first = data.get("promise") == "first"
            if event.kind == "warned":
                return _("The first response is nearly due.") if first else _("The resolution is nearly due.")
            return _("The first response is overdue.") if first else _("The resolution is overdue.")
        case "acknowledgement":
            return _("Receipt queued for the customer (automatic).")
        case "care":
            return _("Care text queued for the customer (automatic).")
        case "answer_held":
            return _("No automatic answer was sent, to prevent loops.")
        case "automatic_mail":
            kind = labels.label(words, labels.AUTOMATIC_KINDS, str(data.get("automatic", "")))
            return _("Automatic mail about it arrived: %(kind)s.", kind=kind)
        case "bounced":
            return _("Our message did not arrive: it came back.")
        case "sent" | "delivered" | "failed" | "unknown":
            said = labels.label(words, labels.OUT_STATES, event.kind)
            return _("Outgoing message: %(state)s.", state=said)
        case "repeated":
            return _("Outgoing message: the result was unknown, it is sent once more.")
        case "requeued":
            return _("%(who)s had it sent again.", who=who)
        case "withdrawn":
            return _("The customer took a message back.")
        case "rated":
            return _("The customer gave %(score)s of 5.", score=data.get("score", ""))
        case "merged":
            why = labels.label(words, labels.EVIDENCE, str(data.get("evidence", "")))
            return _("Customers joined by %(who)s: %(why)s.", who=who, why=why)
        case "unmerged":
            return _("%(who)s parted joined customers again.", who=who)
        case "merge_refused":
            return _("The code was right, but the customers named different identity numbers. They stay apart.")
        case "code_sent":
            channel = labels.label(words, labels.CHANNELS, str(data.get("channel", "")))
            return _("%(who)s had a code sent by %(channel)s, to be said here.", who=who, channel=channel)
        case "duplicate_differs":
            return _("The same message came again with other content; the first stays.")
        case _:
            return f"{who}: {event.kind}"


#: events that a message in the timeline already says
SHOWN_BY_MESSAGES = frozenset(
    {"replied", "noted", "appended", "acknowledgement", "care", "status", "sent", "delivered", "media_fetched"}
)


def runners_up(row: AnyRow) -> Sequence[tuple[str, float]]:
    """What else the model thought of, with the first guess at the head."""
    route: Mapping[str, Any] = row.route or {}
    if route.get("confidence") is None:
        return []
    guesses = [(str(route.get("intent", "")), float(route["confidence"]))]
    return [*guesses, *((str(intent), float(sure)) for intent, sure in route.get("alternatives") or [])]
