"""The first schema."""

from alembic import op
import sqlalchemy as sa

from storage.search import POSTGRESQL_INDEX, SQLITE_INDEX
from storage.types import Json, RowId, UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('channel_health',
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('ok', sa.Boolean(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.Column('at', UtcTime(), nullable=False),
    sa.PrimaryKeyConstraint('name')
    )
    op.create_table('chat_session',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('site', sa.String(length=256), nullable=False),
    sa.Column('language', sa.String(length=16), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('contact', sa.String(length=512), nullable=False),
    sa.Column('last_seq', sa.Integer(), nullable=False),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.Column('seen_at', UtcTime(), nullable=False),
    sa.Column('ended_at', UtcTime(), nullable=True),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_table('cursor',
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('value', RowId, nullable=False),
    sa.PrimaryKeyConstraint('name')
    )
    op.create_table('customer',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('language', sa.String(length=16), nullable=False),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.Column('erased_at', UtcTime(), nullable=True),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_table('idempotency',
    sa.Column('caller', sa.String(length=128), nullable=False),
    sa.Column('key', sa.String(length=200), nullable=False),
    sa.Column('request', sa.String(length=64), nullable=False),
    sa.Column('answer', Json, nullable=False),
    sa.Column('at', UtcTime(), nullable=False),
    sa.PrimaryKeyConstraint('caller', 'key')
    )
    op.create_table('model',
    sa.Column('version', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('made_at', UtcTime(), nullable=False),
    sa.Column('promoted_at', UtcTime(), nullable=True),
    sa.Column('promoted_by', sa.String(length=128), nullable=False),
    sa.Column('predecessor', sa.String(length=64), nullable=True),
    sa.Column('report', Json, nullable=False),
    sa.Column('content', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('version')
    )
    op.create_index('ix_model_promoted', 'model', ['state'], unique=True, sqlite_where=sa.text("state = 'promoted'"), postgresql_where=sa.text("state = 'promoted'"))
    op.create_table('person',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('role', sa.String(length=16), nullable=False),
    sa.Column('departments', Json, nullable=False),
    sa.Column('password', sa.String(length=256), nullable=False),
    sa.Column('language', sa.String(length=16), nullable=False),
    sa.Column('active', sa.Boolean(), nullable=False),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('name')
    )
    op.create_table('tally',
    sa.Column('name', sa.String(length=300), nullable=False),
    sa.Column('bucket', RowId, autoincrement=False, nullable=False),
    sa.Column('n', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', 'bucket')
    )
    op.create_table('token',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('role', sa.String(length=16), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('digest'),
    sa.UniqueConstraint('name')
    )
    op.create_table('address',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('customer_id', RowId, nullable=False),
    sa.Column('channel', sa.String(length=32), nullable=False),
    sa.Column('address', sa.String(length=512), nullable=False),
    sa.Column('suppressed', sa.String(length=512), nullable=True),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.ForeignKeyConstraint(['customer_id'], ['customer.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('channel', 'address')
    )
    op.create_index(op.f('ix_address_customer_id'), 'address', ['customer_id'], unique=False)
    op.create_table('sign_in',
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('kind', sa.String(length=8), nullable=False),
    sa.Column('person_id', RowId, nullable=True),
    sa.Column('csrf', sa.String(length=64), nullable=False),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.Column('expires_at', UtcTime(), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['person.id'], ),
    sa.PrimaryKeyConstraint('digest')
    )
    op.create_index(op.f('ix_sign_in_person_id'), 'sign_in', ['person_id'], unique=False)
    op.create_table('ticket',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('token', sa.String(length=64), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('department', sa.String(length=64), nullable=False),
    sa.Column('priority', sa.String(length=16), nullable=False),
    sa.Column('owner_id', RowId, nullable=True),
    sa.Column('customer_id', RowId, nullable=False),
    sa.Column('channel', sa.String(length=32), nullable=False),
    sa.Column('account', sa.String(length=128), nullable=False),
    sa.Column('address', sa.String(length=512), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('snippet', sa.String(length=400), nullable=False),
    sa.Column('language', sa.String(length=16), nullable=False),
    sa.Column('intent', sa.String(length=64), nullable=False),
    sa.Column('sentiment', sa.String(length=16), nullable=False),
    sa.Column('risk', Json, nullable=False),
    sa.Column('tags', Json, nullable=False),
    sa.Column('route', Json, nullable=False),
    sa.Column('look_first', sa.Boolean(), nullable=False),
    sa.Column('alarm', sa.String(length=16), nullable=False),
    sa.Column('resolution_code', sa.String(length=64), nullable=False),
    sa.Column('linked_id', RowId, nullable=True),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.Column('updated_at', UtcTime(), nullable=False),
    sa.Column('waiting_since', UtcTime(), nullable=True),
    sa.Column('first_due_at', UtcTime(), nullable=True),
    sa.Column('first_response_at', UtcTime(), nullable=True),
    sa.Column('resolve_due_at', UtcTime(), nullable=True),
    sa.Column('resolved_at', UtcTime(), nullable=True),
    sa.Column('closed_at', UtcTime(), nullable=True),
    sa.Column('paused_at', UtcTime(), nullable=True),
    sa.Column('alarms', Json, nullable=False),
    sa.Column('next_alarm_at', UtcTime(), nullable=True),
    sa.Column('answered_last', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['customer_id'], ['customer.id'], ),
    sa.ForeignKeyConstraint(['linked_id'], ['ticket.id'], ),
    sa.ForeignKeyConstraint(['owner_id'], ['person.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('token')
    )
    op.create_index('ix_ticket_alarm', 'ticket', ['next_alarm_at'], unique=False, sqlite_where=sa.text('next_alarm_at IS NOT NULL'), postgresql_where=sa.text('next_alarm_at IS NOT NULL'))
    op.create_index(op.f('ix_ticket_customer_id'), 'ticket', ['customer_id'], unique=False)
    op.create_index('ix_ticket_owner', 'ticket', ['owner_id'], unique=False, sqlite_where=sa.text('owner_id IS NOT NULL'), postgresql_where=sa.text('owner_id IS NOT NULL'))
    op.create_index('ix_ticket_queue', 'ticket', ['state', 'department', 'id'], unique=False)
    op.create_table('event',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('ticket_id', RowId, nullable=True),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('at', UtcTime(), nullable=False),
    sa.Column('data', Json, nullable=False),
    sa.ForeignKeyConstraint(['ticket_id'], ['ticket.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index(op.f('ix_event_ticket_id'), 'event', ['ticket_id'], unique=False)
    op.create_table('message',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('direction', sa.String(length=8), nullable=False),
    sa.Column('channel', sa.String(length=32), nullable=False),
    sa.Column('account', sa.String(length=128), nullable=False),
    sa.Column('external_id', sa.String(length=1200), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('address', sa.String(length=512), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('clean', sa.Text(), nullable=True),
    sa.Column('key', sa.String(length=1000), nullable=False),
    sa.Column('thread', sa.String(length=512), nullable=False),
    sa.Column('extra', Json, nullable=True),
    sa.Column('answerable', sa.Boolean(), nullable=False),
    sa.Column('automatic', sa.String(length=16), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('tags', Json, nullable=True),
    sa.Column('ticket_id', RowId, nullable=True),
    sa.Column('customer_id', RowId, nullable=True),
    sa.Column('author_id', RowId, nullable=True),
    sa.Column('received_at', UtcTime(), nullable=False),
    sa.Column('stored_at', UtcTime(), nullable=False),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('held_until', UtcTime(), nullable=True),
    sa.ForeignKeyConstraint(['author_id'], ['person.id'], ),
    sa.ForeignKeyConstraint(['customer_id'], ['customer.id'], ),
    sa.ForeignKeyConstraint(['ticket_id'], ['ticket.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('channel', 'account', 'external_id')
    )
    op.create_index('ix_message_automatic', 'message', ['id'], unique=False, sqlite_where=sa.text("state = 'automatic'"), postgresql_where=sa.text("state = 'automatic'"))
    op.create_index(op.f('ix_message_customer_id'), 'message', ['customer_id'], unique=False)
    op.create_index('ix_message_ledger', 'message', ['channel', 'state', 'stored_at'], unique=False, sqlite_where=sa.text("direction = 'in'"), postgresql_where=sa.text("direction = 'in'"))
    op.create_index('ix_message_quarantined', 'message', ['id'], unique=False, sqlite_where=sa.text("state = 'quarantined'"), postgresql_where=sa.text("state = 'quarantined'"))
    op.create_index('ix_message_received', 'message', ['id'], unique=False, sqlite_where=sa.text("state = 'received'"), postgresql_where=sa.text("state = 'received'"))
    op.create_index(op.f('ix_message_ticket_id'), 'message', ['ticket_id'], unique=False)
    op.create_table('thread',
    sa.Column('key', sa.String(length=32), nullable=False),
    sa.Column('ticket_id', RowId, nullable=False),
    sa.ForeignKeyConstraint(['ticket_id'], ['ticket.id'], ),
    sa.PrimaryKeyConstraint('key')
    )
    op.create_index(op.f('ix_thread_ticket_id'), 'thread', ['ticket_id'], unique=False)
    op.create_table('attachment',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('message_id', RowId, nullable=False),
    sa.Column('name', sa.String(length=512), nullable=False),
    sa.Column('media_type', sa.String(length=128), nullable=False),
    sa.Column('content_id', sa.String(length=512), nullable=False),
    sa.Column('size', sa.Integer(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('content', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['message_id'], ['message.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index(op.f('ix_attachment_message_id'), 'attachment', ['message_id'], unique=False)
    op.create_table('chat_line',
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('seq', RowId, autoincrement=False, nullable=False),
    sa.Column('message_id', RowId, nullable=False),
    sa.ForeignKeyConstraint(['message_id'], ['message.id'], ),
    sa.ForeignKeyConstraint(['session_id'], ['chat_session.id'], ),
    sa.PrimaryKeyConstraint('session_id', 'seq'),
    sa.UniqueConstraint('message_id')
    )
    op.create_table('label',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('message_id', RowId, nullable=False),
    sa.Column('ticket_id', RowId, nullable=True),
    sa.Column('person', sa.String(length=64), nullable=False),
    sa.Column('at', UtcTime(), nullable=False),
    sa.Column('intent', sa.String(length=64), nullable=False),
    sa.Column('department', sa.String(length=64), nullable=False),
    sa.Column('sentiment', sa.String(length=16), nullable=False),
    sa.Column('said', Json, nullable=False),
    sa.ForeignKeyConstraint(['message_id'], ['message.id'], ),
    sa.ForeignKeyConstraint(['ticket_id'], ['ticket.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index(op.f('ix_label_message_id'), 'label', ['message_id'], unique=False)
    op.create_index(op.f('ix_label_ticket_id'), 'label', ['ticket_id'], unique=False)
    op.create_table('outbox',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('message_id', RowId, nullable=False),
    sa.Column('ticket_id', RowId, nullable=True),
    sa.Column('channel', sa.String(length=32), nullable=False),
    sa.Column('account', sa.String(length=128), nullable=False),
    sa.Column('address', sa.String(length=512), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('automatic', sa.Boolean(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('tries', sa.Integer(), nullable=False),
    sa.Column('repeated', sa.Boolean(), nullable=False),
    sa.Column('next_at', UtcTime(), nullable=False),
    sa.Column('held_until', UtcTime(), nullable=True),
    sa.Column('provider_id', sa.String(length=512), nullable=False),
    sa.Column('error', sa.Text(), nullable=False),
    sa.Column('created_at', UtcTime(), nullable=False),
    sa.Column('updated_at', UtcTime(), nullable=False),
    sa.ForeignKeyConstraint(['message_id'], ['message.id'], ),
    sa.ForeignKeyConstraint(['ticket_id'], ['ticket.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('message_id')
    )
    op.create_index('ix_outbox_automatic', 'outbox', ['address', 'created_at'], unique=False, sqlite_where=sa.text('automatic = 1'), postgresql_where=sa.text('automatic'))
    op.create_index('ix_outbox_due', 'outbox', ['next_at'], unique=False, sqlite_where=sa.text("state = 'queued'"), postgresql_where=sa.text("state = 'queued'"))
    op.create_index('ix_outbox_sending', 'outbox', ['held_until'], unique=False, sqlite_where=sa.text("state = 'sending'"), postgresql_where=sa.text("state = 'sending'"))
    op.create_index('ix_outbox_state', 'outbox', ['channel', 'state'], unique=False)
    op.create_index(op.f('ix_outbox_ticket_id'), 'outbox', ['ticket_id'], unique=False)
    op.create_table('quarantine',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('message_id', RowId, nullable=False),
    sa.Column('step', sa.String(length=32), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('at', UtcTime(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['message_id'], ['message.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index(op.f('ix_quarantine_message_id'), 'quarantine', ['message_id'], unique=False)
    op.create_table('raw',
    sa.Column('message_id', RowId, autoincrement=False, nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.Column('fingerprint', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['message_id'], ['message.id'], ),
    sa.PrimaryKeyConstraint('message_id')
    )
    op.create_table('sighting',
    sa.Column('id', RowId, autoincrement=True, nullable=False),
    sa.Column('channel', sa.String(length=32), nullable=False),
    sa.Column('place', sa.String(length=256), nullable=False),
    sa.Column('mark', sa.String(length=64), nullable=False),
    sa.Column('message_id', RowId, nullable=True),
    sa.ForeignKeyConstraint(['message_id'], ['message.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('channel', 'place', 'mark')
    )
    op.create_index(op.f('ix_sighting_message_id'), 'sighting', ['message_id'], unique=False)
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE_INDEX if sqlite else POSTGRESQL_INDEX:
        op.execute(statement)
