"""Content: patches instead of documents, compressed and counted; uploads; what became of proposed deltas."""

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
    run_script(
        op.get_bind(),
        """
        drop policy user_state_relay on user_state;
        revoke select (user_id) on user_state from studio_relay;
        drop index contents_location_idx;
        drop view content_references;
        alter table derivation_outputs drop column volatile;
        alter table instances drop column on_conflict, add column settings_digest text not null default '';
        drop table upload_parts, uploads;
        drop index deltas_open_idx;
        drop index deltas_run_key;
        create unique index deltas_run_key on deltas (user_id, run_id, blob_id)
          where run_id is not null and status = 'applied';
        alter table deltas drop column binary_hash, drop column base_version, drop column resolved_at,
          drop column resolved_by;
        alter table blobs drop column kept_version, drop column patch_bytes;
        alter table contents drop column stored_size, drop column chunks, drop column touched_at,
          drop column accessed_at, drop column verified_at, drop column moved_at;
        alter table user_state drop column bytes_reserved;
        truncate idempotency_keys;
        alter table idempotency_keys drop constraint idempotency_keys_pkey, drop column principal, drop column holder,
          drop column leased_at, drop column outcome,
          add constraint idempotency_keys_pkey primary key (user_id, route, key);
        """,
    )
