"""what channels with a provider need: media to fetch, what the provider calls our messages, leases"""

from alembic import op
import sqlalchemy as sa

from storage.types import Json, RowId, UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("outbox") as outbox:
        outbox.add_column(sa.Column("done", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("outbox") as outbox:
        outbox.alter_column("done", server_default=None, existing_type=sa.Integer(), existing_nullable=False)
    # With the channel, or what waits for one without a way out is walked through each second for all the others.
    op.drop_index("ix_outbox_due", "outbox")
    queued = sa.text("state = 'queued'")
    op.create_index("ix_outbox_due", "outbox", ["channel", "next_at"], sqlite_where=queued, postgresql_where=queued)
    unfinished = sa.text("(state = 'queued' OR state = 'sending')")
    op.create_index(
        "ix_outbox_unfinished", "outbox", ["address", "id"], sqlite_where=unfinished, postgresql_where=unfinished
    )
    op.create_table(
        "medium",
        sa.Column("id", RowId, autoincrement=True, nullable=False),
        sa.Column("message_id", RowId, nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("reference", Json, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_at", UtcTime(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attachment_id", RowId, nullable=True),
        sa.ForeignKeyConstraint(["attachment_id"], ["attachment.id"]),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_medium_message_id"), "medium", ["message_id"])
    waiting = sa.text("state = 'waiting'")
    op.create_index("ix_medium_waiting", "medium", ["next_at"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "provider_message",
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=128), nullable=False),
        sa.Column("provider_id", sa.String(length=512), nullable=False),
        sa.Column("outbox_id", RowId, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["outbox_id"], ["outbox.id"]),
        sa.PrimaryKeyConstraint("channel", "account", "provider_id"),
    )
    op.create_index(op.f("ix_provider_message_outbox_id"), "provider_message", ["outbox_id"])
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
