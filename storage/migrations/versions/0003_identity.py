"""who is who: merges of customers with their evidence, codes sent to another address"""

from alembic import op
import sqlalchemy as sa

from storage.types import Json, RowId, UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity_merge",
        sa.Column("id", RowId, autoincrement=True, nullable=False),
        sa.Column("kept_id", RowId, nullable=False),
        sa.Column("absorbed_id", RowId, nullable=False),
        sa.Column("evidence", Json, nullable=False),
        sa.Column("moved", Json, nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("undone_at", UtcTime(), nullable=True),
        sa.Column("undone_by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["absorbed_id"], ["customer.id"]),
        sa.ForeignKeyConstraint(["kept_id"], ["customer.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_identity_merge_kept_id"), "identity_merge", ["kept_id"])
    op.create_index(op.f("ix_identity_merge_absorbed_id"), "identity_merge", ["absorbed_id"])
    op.create_table(
        "identity_code",
        sa.Column("id", RowId, autoincrement=True, nullable=False),
        sa.Column("customer_id", RowId, nullable=False),
        sa.Column("ticket_id", RowId, nullable=True),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("address", sa.String(length=512), nullable=False),
        sa.Column("digest", sa.String(length=128), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customer.id"]),
        sa.ForeignKeyConstraint(["ticket_id"], ["ticket.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_identity_code_customer_id"), "identity_code", ["customer_id"])
    op.create_index("ix_identity_code_place", "identity_code", ["channel", "address"])
    left = sa.text("contact <> ''")
    op.create_index("ix_chat_session_contact", "chat_session", ["contact"], sqlite_where=left, postgresql_where=left)
