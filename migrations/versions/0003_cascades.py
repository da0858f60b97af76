"""Cascades that explain themselves: facts about what did not run, memo, controls, budgets, plans, limits."""

from pathlib import Path

from alembic import op

from migrations.scripts import run_script

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    run_script(
        op.get_bind(),
        """
        drop policy derivations_counted on derivations;
        drop function if exists everybodys_totals();
        drop function if exists everybodys_queue(int, int, uuid, int);

        -- Why and loops
        drop table root_runs;
        drop index runs_derivation_idx;

        alter table cascades drop column sketching;
        alter table blobs reset (fillfactor);
        alter table derivation_inputs reset (fillfactor);
        alter table derivation_outputs reset (fillfactor);
        alter table snapshots add constraint snapshots_user_id_blob_id_fkey
          foreign key (user_id, blob_id) references blobs (user_id, id);

        -- Publishing
        alter table events add column published_at timestamptz default now();
        alter table events alter column published_at drop default, no force row level security;
        alter table outbox no force row level security;
        update events e set published_at = null from outbox o
          where o.user_id = e.user_id and e.seq between o.first_seq and o.last_seq;
        alter table events force row level security;
        create index events_unpublished_idx on events (user_id, seq) where published_at is null;
        create policy events_relay_mark on events for update to studio_relay using (true) with check (true);
        grant update (published_at) on events to studio_relay;
        drop table outbox;

        -- Scale
        drop index providers_published_idx, deltas_cause_idx, derivations_due_idx, derivations_ready_idx;

        -- Pace and limits
        drop trigger if exists runs_moved on runs;
        drop trigger if exists runs_made on runs;
        drop table service_slots, room_waits;
        drop index runs_running_idx;
        alter table user_state drop column runs_limit;
        alter table providers drop column max_concurrency, drop column services;
        alter table derivations drop column priority;
        alter table instances drop column debounce_ms, drop column debounce_max_ms, drop column supersede;
        drop index cascades_superseded_idx;
        alter table cascades drop column caused_at;

        -- Plans
        drop index runs_history_idx;
        alter table cascades drop column plan_id;
        drop table plans;

        -- Budgets
        drop trigger if exists runs_ended on runs;
        drop function if exists studio_run_ended();
        alter table runs no force row level security;
        update runs set status = 'failed' where status = 'blocked_budget';
        alter table runs force row level security, drop constraint runs_status_check,
          add constraint runs_status_check check (status in
            ('running','parked','settled','superseded','failed','lost','cancelled'));
        drop index derivations_budget_idx;
        alter table derivations drop column budget_place, drop column budget_needed, drop column resume_run_id;
        drop table charges, reservations, budgets;

        -- Failures
        alter table run_steps drop column attempts, drop column errors;
        alter table dead_letters drop column provider_id, drop column cascade_id, drop column attempt,
          drop column definition_digest, drop column settings_digest, drop column redriven_by;
        alter table derivations drop column on_parent_failure, drop column failing, drop column provisional;
        alter table instances drop column on_parent_failure;
        alter table providers drop column on_parent_failure;

        -- Controls
        drop table stops;
        drop index runs_parked_idx;
        alter table runs drop column resumed;
        drop trigger if exists cascades_ended on cascades;
        drop function if exists studio_cascade_ended();
        alter table run_steps drop column decision;
        alter table cascades drop column taken, drop column ended_counts;
        alter table derivations drop column losses;

        -- Memo and cut-off
        alter table run_steps drop column memo_key, drop column reused_from;
        alter table runs drop column effects, drop column fresh_after;
        alter table derivations drop column fresh_after;
        alter table cascades drop column options;
        create or replace view content_references with (security_invoker = true) as
          select user_id, document_hash as hash, 'snapshot' as reason, blob_id as id from snapshots
          union all select user_id, machine_hash, 'machine_head', blob_id from derivation_outputs
            where machine_hash is not null
          union all select user_id, machine_hash, 'machine', id from deltas where machine_hash is not null
          union all select user_id, base_hash, 'base', id from deltas where base_hash is not null
          union all select user_id, binary_hash, 'binary', id from deltas where binary_hash is not null
          union all select user_id, output_hash, 'step', run_id from run_steps where output_hash is not null
          union all select user_id, 'sha256:' || substr(split_part(want_digest, ':', 2), 5), 'settings', id
            from derivations where want_digest like '%:pin-%'
          union all select user_id, 'sha256:' || substr(settings_digest, 5), 'settings', id from runs
            where settings_digest like 'pin-%' and status in ('running', 'parked');
        drop table memo, cut_offs;
        """,
    )
