"""The foundation: users, blobs, deltas, catalogue, schedule, outbox, and their row-level security."""

from pathlib import Path

from alembic import op

from migrations.scripts import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        drop table events, dead_letters, run_steps, runs, derivation_outputs, derivation_inputs, derivations,
          cascades, instances, providers, definitions, schemas, bucket_blobs, buckets, manual_edges, snapshots,
          deltas, blobs, contents, idempotency_keys, installation, api_keys, user_state, users cascade;
        drop function app_user(), app_key_hash() cascade;
        """,
    )
