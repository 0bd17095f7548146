"""Labels: what people said that messages really were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from storage.tables import Label, Message, table

label = table(Label)
message = table(Message)


def add(connection: Connection, **values: Any) -> None:
    """message_id, ticket_id, person, at, intent, department, sentiment, said."""
    connection.execute(sa.insert(label).values(**values))


def newest(connection: Connection) -> Iterator[dict[str, Any]]:
    """The newest label of each message with its text, as training reads it (see `nlu.data`)."""
    latest = sa.select(sa.func.max(label.c.id)).group_by(label.c.message_id)
    query = (
        sa.select(
            label.c.message_id, label.c.intent, label.c.department, label.c.sentiment, label.c.person, label.c.at,
            label.c.said, message.c.text, message.c.clean, message.c.subject, message.c.channel,
        )
        .join(message, message.c.id == label.c.message_id)
        .where(label.c.id.in_(latest))
        .order_by(label.c.id)
    )  # fmt: skip
    for row in connection.execute(query):
        at: datetime = row.at
        yield {
            "message_id": row.message_id,
            "text": row.clean if row.clean is not None else row.text,
            "subject": row.subject,
            "intent": row.intent,
            "department": row.department,
            "metadata": {
                "sentiment": row.sentiment,
                "channel": row.channel,
                "labelled_by": row.person,
                "labelled_at": at.isoformat(),
                "said": row.said,
            },
        }


def count(connection: Connection) -> int:
    return connection.scalar(sa.select(sa.func.count(sa.distinct(label.c.message_id)))) or 0
