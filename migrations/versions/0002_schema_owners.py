"""Schemas say which provider they belong to and which fields they require (seed 004)."""

from pathlib import Path

from alembic import op

from migrations.scripts import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    run_script(op.get_bind(), "alter table schemas drop column provider_id, drop column required_fields")
