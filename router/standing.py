"""May an address be written to now? What its customer decided, and the time that a channel leaves for answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from channels import Limits
from storage import customers, outbox


@dataclass(frozen=True, slots=True)
class Standing:
    """How an address stands with a channel: when its customer last wrote, and why nothing may go there, or ""."""

    heard_at: datetime | None
    refusal: str
    #: what the refusal is: `chosen` by the customer, the `window` is over, or ""
    kind: str = ""


def standing_of(
    connection: Connection,
    customer_id: int | None,
    channel: str,
    address: str,
    limits: Limits,
    *,
    automatic: bool = False,
) -> Standing:
    """The reason is in words for an agent."""
    known = customers.find(connection, [(channel, address)]).get((channel, address))
    if known is not None and known.suppressed in customers.CHOSEN:
        return Standing(
            None, f"The customer does not take messages here ({known.suppressed}). Use another channel.", "chosen"
        )
    window = limits.automatic_window if automatic else limits.window
    if limits.window is None and limits.automatic_window is None:
        return Standing(None, "")
    heard_at = outbox.heard(connection, customer_id, channel, address)
    refusal = closed_window(heard_at, window, datetime.now(UTC))
    return Standing(heard_at, refusal, "window" if refusal else "")


def closed_window(heard_at: datetime | None, window: timedelta | None, now: datetime) -> str:
    """Why the channel's time for answers is over; "" = it is not."""
    if window is None or (heard_at is not None and now - heard_at <= window):
        return ""
    hours = round(window.total_seconds() / 3600)
    return f"This channel takes answers for {hours} hours after the customer's last message. Use another channel."
