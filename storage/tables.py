r"""Every table, as SQLAlchemy Core; what each is for stands beside it (DESIGN section 4).

Three classes, all under forced row-level security: *user* tables (keys lead with ``user_id``; no user set means
no rows), *catalogue* tables (published rows are readable by all), *operational* columns that the relay role sees.
Migrations create them; a test holds the two against each other.

Documents, patches and metadata are canonical JSON as bytes or text, never jsonb, which loses ``\u0000`` and
reshapes numbers (CONTRACT, Documents). Times are ``timestamptz``, sizes bytes.
"""

# fmt: off
# One row of columns that belong together reads better than one column a line.

from __future__ import annotations

# isort: off
from sqlalchemy import (
    BigInteger, CheckConstraint, Column, DateTime, ForeignKeyConstraint, Index, Integer, LargeBinary,
    PrimaryKeyConstraint, Table, Text, UniqueConstraint, text,
)
from sqlalchemy.dialects.postgresql import JSONB

from storage.columns import metadata as named
from storage.columns import (
    big_number as _big, flag as _flag, identity as _id, instant as _time, json_value as _json,
    maybe_identity as _maybe_id, maybe_instant as _maybe_time, maybe_words as _maybe_text, number as _int,
    word_list as _texts, words as _text,
)
from storage.budget_tables import budgets, charges, reservations
from storage.plan_tables import plans
# isort: on

metadata = named

# --- people -----------------------------------------------------------------------------------------------

users = Table(
    "users", metadata,
    _id("user_id"), _text("name"), _texts("roles"), _time("created_at"),
    PrimaryKeyConstraint("user_id"),
    UniqueConstraint("name"),
)

# One row a user: what is counted (quota) and the last event sequence. The row lock on it, taken last in every
# transaction, is what makes the sequence commit-safe.
user_state = Table(
    "user_state", metadata,
    _id("user_id"), _big("event_seq", 0), _big("blob_count", 0), _big("bytes_used", 0),
    Column("bytes_quota", BigInteger), _time("updated_at"), _big("bytes_reserved", 0),
    Column("runs_limit", Integer),
    PrimaryKeyConstraint("user_id"),
)

# Keys are stored as SHA-256; the prefix is what a person recognises one by.
api_keys = Table(
    "api_keys", metadata,
    _id("user_id"), _id("id"), Column("key_hash", LargeBinary, nullable=False), _text("prefix"),
    _text("name", ""),
    _texts("scopes"), _maybe_time("expires_at"), _maybe_time("revoked_at"), _time("created_at"),
    PrimaryKeyConstraint("user_id", "id"),
    UniqueConstraint("key_hash"),
)

# One row: event cursors carry this id, so that a restored database is never mistaken for its past self (rule 11).
installation = Table(
    "installation", metadata,
    _id("id"), _time("created_at"), Column("secret", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id"),
)

# The answer of a keyed request for a day. holder is the attempt that works on it until leased_at is too long ago;
# outcome is what its effect recorded, in its own transaction, for whoever takes over.
idempotency_keys = Table(
    "idempotency_keys", metadata,
    _id("user_id"), _text("route"), _text("key"), _text("fingerprint"), Column("status", Integer),
    Column("headers", JSONB), Column("body", LargeBinary), _time("created_at"), _maybe_time("completed_at"),
    _id("principal"), _id("holder"), _time("leased_at"), Column("outcome", JSONB),
    PrimaryKeyConstraint("user_id", "principal", "route", "key"),
)

# --- blobs and deltas -------------------------------------------------------------------------------------

# Whole documents and binaries, addressed by content; bytes inline below the threshold, else an object. size is what
# a reader gets, stored_size what is kept; chunks are SHA-256 of each MiB, so that a part can be verified alone.
contents = Table(
    "contents", metadata,
    _id("user_id"), _text("hash"), _big("size"), _text("codec", "identity"), _text("tier", "warm"),
    Column("body", LargeBinary), _maybe_text("location"), _time("created_at"),
    _big("stored_size", 0), Column("chunks", LargeBinary), _time("touched_at"), _time("accessed_at"),
    _maybe_time("verified_at"), _maybe_time("moved_at"),
    PrimaryKeyConstraint("user_id", "hash"),
    CheckConstraint("(body is null) <> (location is null)", name="placed"),
    Index("contents_location_idx", "user_id", "location", postgresql_where=text("location is not null")),
)

# version is what readers see, planned_version what the schedule sees (CASCADES rule 1). Version 0 is an output
# that has been planned and not yet made: invisible to readers. kept_version is the newest version whose document is
# kept whole, patch_bytes what the patches since weigh (domain/snapshots.py).
blobs = Table(
    "blobs", metadata,
    _id("user_id"), _id("id"), _text("content_type"), _text("schema_id"), _int("version", 0),
    _maybe_text("document_hash"), _maybe_text("content_hash"), _maybe_text("cutoff_hash"),
    _maybe_text("meta_hash"), _big("size", 0), _int("planned_version", 0), _maybe_text("planned_hash"),
    _maybe_text("planned_meta_hash"),
    _text("title", ""), _text("preview", ""), _texts("tags"), _text("created_by"), _maybe_text("provider_id"),
    _id("root_id"), _int("depth", 0), _text("storage_type", "inline"), _json("processing_meta"),
    _time("created_at"), _time("updated_at"), _maybe_time("deleted_at"),
    _int("kept_version", 0), _big("patch_bytes", 0),
    PrimaryKeyConstraint("user_id", "id"),
    CheckConstraint("planned_version <= version", name="planned"),
    Index("blobs_created_idx", "user_id", "created_at", "id"),
    Index("blobs_schema_idx", "user_id", "schema_id"),
    Index("blobs_root_idx", "user_id", "root_id"),
)

# The only way a blob changes. document_hash is the hash of the whole document after this delta, so that replay
# can be held against it; patch is null for create, whose document is the content itself.
deltas = Table(
    "deltas", metadata,
    _id("user_id"), _id("id"), _id("blob_id"), _int("from_version"), _int("to_version"), _text("operation"),
    _maybe_text("patch"), _maybe_text("inverse"), _text("document_hash"), _text("content_hash"),
    _text("cutoff_hash"), _text("meta_hash"), _text("actor"), _maybe_text("provider_id"),
    _maybe_id("previous_delta"), _maybe_id("caused_by"), _maybe_id("cascade_id"), _text("status", "applied"),
    _maybe_text("idempotency_key"), _maybe_id("run_id"), _maybe_text("machine_hash"), _maybe_text("base_hash"),
    _maybe_text("conflicts"),
    Column("inputs", JSONB), _maybe_text("error"), _time("created_at"), _maybe_time("applied_at"),
    _maybe_text("binary_hash"), Column("base_version", Integer), _maybe_time("resolved_at"),
    _maybe_text("resolved_by"),
    PrimaryKeyConstraint("user_id", "id"),
    ForeignKeyConstraint(["user_id", "blob_id"], ["blobs.user_id", "blobs.id"]),
    CheckConstraint("to_version = from_version + 1", name="contiguous"),
    CheckConstraint(
        "operation in ('create','update','transform','delete','revert','restore')", name="operation"
    ),
    CheckConstraint("status in ('pending','proposed','applied','rejected','failed')", name="status"),
    Index(
        "deltas_version_key", "user_id", "blob_id", "to_version", unique=True,
        postgresql_where=text("status = 'applied'"),
    ),
    Index(
        "deltas_run_key", "user_id", "run_id", "blob_id", unique=True,
        postgresql_where=text("run_id is not null and status = 'applied' and operation in ('create','transform')"),
    ),
    Index(
        "deltas_idempotency_key", "user_id", "idempotency_key", unique=True,
        postgresql_where=text("idempotency_key is not null"),
    ),
    Index("deltas_open_idx", "user_id", "blob_id", postgresql_where=text("status in ('pending','proposed')")),
    Index("deltas_cascade_idx", "user_id", "cascade_id", postgresql_where=text("cascade_id is not null")),
    # What people did under a cascade, without the thousands of deltas that came of it.
    Index(
        "deltas_cause_idx", "user_id", "cascade_id", "created_at",
        postgresql_where=text("cascade_id is not null and (run_id is null or operation = 'update')"),
    ),
)

# A version whose whole document is kept, so that reading any version costs a bounded number of patches.
snapshots = Table(
    "snapshots", metadata,
    _id("user_id"), _id("blob_id"), _int("version"), _text("document_hash"), _time("created_at"),
    PrimaryKeyConstraint("user_id", "blob_id", "version"),
)

# A large content on its way in; reserved counts against the quota until it is completed, aborted or expired.
uploads = Table(
    "uploads", metadata,
    _id("user_id"), _id("id"), _maybe_id("blob_id"), _text("content_type"), Column("size", BigInteger),
    _maybe_text("digest"), _int("part_size"), _text("location"), _maybe_text("multipart"), _text("fields", "{}"),
    _big("reserved", 0), _text("status", "open"), _maybe_text("content_hash"), _time("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False), _maybe_time("ended_at"),
    PrimaryKeyConstraint("user_id", "id"),
    CheckConstraint("status in ('open','completed','aborted')", name="status"),
    Index("uploads_open_idx", "user_id", "expires_at", postgresql_where=text("status = 'open'")),
)

upload_parts = Table(
    "upload_parts", metadata,
    _id("user_id"), _id("upload_id"), _int("number"), _big("size"), _text("etag"), _time("created_at"),
    PrimaryKeyConstraint("user_id", "upload_id", "number"),
    ForeignKeyConstraint(["user_id", "upload_id"], ["uploads.user_id", "uploads.id"], ondelete="CASCADE"),
)

# Lineage that a client states (parent_id); never scheduled.
manual_edges = Table(
    "manual_edges", metadata,
    _id("user_id"), _id("parent_id"), _id("child_id"), _time("created_at"),
    PrimaryKeyConstraint("user_id", "parent_id", "child_id"),
    Index("manual_edges_child_idx", "user_id", "child_id"),
)

# --- buckets ----------------------------------------------------------------------------------------------

buckets = Table(
    "buckets", metadata,
    _id("user_id"), _id("id"), _text("name"), _text("type", "collection"), _maybe_id("parent_id"),
    _text("metadata", "{}"), _int("version", 1), _time("created_at"), _time("updated_at"),
    _maybe_time("deleted_at"),
    PrimaryKeyConstraint("user_id", "id"),
    Index("buckets_type_idx", "user_id", "type"),
)

# The one join table for membership. An output belongs to the buckets of its anchor: inherited_from names the
# member it follows.
bucket_blobs = Table(
    "bucket_blobs", metadata,
    _id("user_id"), _id("bucket_id"), _id("blob_id"), _int("position"), _maybe_id("inherited_from"),
    _time("added_at"),
    PrimaryKeyConstraint("user_id", "bucket_id", "blob_id"),
    ForeignKeyConstraint(["user_id", "bucket_id"], ["buckets.user_id", "buckets.id"]),
    ForeignKeyConstraint(["user_id", "blob_id"], ["blobs.user_id", "blobs.id"]),
    Index("bucket_blobs_blob_idx", "user_id", "blob_id"),
)

# --- catalogue --------------------------------------------------------------------------------------------

schemas = Table(
    "schemas", metadata,
    _id("id"), _id("owner_id"), _text("slug"), _text("name"), _text("version"), _text("type", "intermediate"),
    _text("definition"), _flag("strict_mode", default=False), _text("examples", "[]"), _text("description", ""),
    _texts("compatible_with"), _flag("published", default=False), _flag("deprecated", default=False),
    _flag("active", default=True), _time("created_at"), _text("provider_id", ""), _texts("required_fields"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("owner_id", "slug", "version"),
)

# Immutable versions of a provider's workflow, named by digest. source is what was sent, ir what is interpreted.
definitions = Table(
    "definitions", metadata,
    _id("owner_id"), _text("slug"), _int("version"), _text("digest"), _text("name"), _text("source"),
    _text("ir"),
    _flag("published", default=False), _time("created_at"),
    PrimaryKeyConstraint("owner_id", "slug", "version"),
    UniqueConstraint("owner_id", "slug", "digest"),
)

# spec is the whole registration; the columns beside it are what discovery matches on.
providers = Table(
    "providers", metadata,
    _id("id"), _id("owner_id"), _text("slug"), _text("name"), _text("description", ""), _int("version", 1),
    _text("spec"), _text("workflow_id"), _text("definition_digest"), _texts("input_schemas"),
    _texts("content_types"), _texts("events"), _text("origin"), _text("anchor"),
    _maybe_text("collect_bucket_type"), _maybe_text("collect_schema"), _json("outputs", "[]"),
    _text("execution"), _text("supersede", "finish"),
    _flag("reads_meta", default=False), _text("on_conflict", "keep_human"), _text("on_delete", "keep"),
    _text("on_parent_failure", "block"),
    _int("debounce_ms", 0), _int("debounce_max_ms", 0), _int("priority", 3), _flag("published", default=False),
    _flag("active", default=True), _time("created_at"), _time("updated_at"), Column("max_concurrency", Integer),
    _texts("services"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("owner_id", "slug"),
    CheckConstraint("on_parent_failure in ('block','use_last_good','skip')", name="on_parent_failure"),
    Index("providers_published_idx", "id", postgresql_where=text("published")),
)

# A user's activation of a provider. Built-ins are active without a row; plan makes one when they first match.
instances = Table(
    "instances", metadata,
    _id("user_id"), _id("id"), _id("provider_id"), _flag("active", default=True), _text("settings", "{}"),
    _maybe_text("on_conflict"), _int("version", 1), _time("created_at"), _time("updated_at"),
    Column("debounce_ms", Integer), Column("debounce_max_ms", Integer), _maybe_text("supersede"),
    _maybe_text("on_parent_failure"),
    PrimaryKeyConstraint("user_id", "id"),
    UniqueConstraint("user_id", "provider_id"),
    CheckConstraint("supersede in ('cancel','finish')", name="supersede"),
    CheckConstraint("on_conflict in ('keep_human','wait','take_machine')", name="on_conflict"),
    CheckConstraint("on_parent_failure in ('block','use_last_good','skip')", name="on_parent_failure"),
)

# --- the schedule (CASCADES, Facts) -----------------------------------------------------------------------

derivations = Table(
    "derivations", metadata,
    _id("user_id"), _id("id"), _id("instance_id"), _id("provider_id"), _text("anchor_kind"), _id("anchor_id"),
    _text("execution"), _text("supersede"), _flag("reads_meta", default=False), _text("want_digest"),
    _maybe_text("used_digest"), _flag("unsettled", default=True), _int("pending_inputs", 0),
    _maybe_text("hold"),
    Column("hold_detail", JSONB), _maybe_id("run_id"), _int("attempt", 0), _maybe_id("owner_cascade_id"),
    _maybe_time("run_after"), _maybe_time("dirty_since"), _flag("force", default=False), _int("level", 0),
    _time("created_at"), _maybe_time("settled_at"), _int("priority", 3), Column("budget_place", BigInteger),
    Column("budget_needed", BigInteger), _maybe_id("resume_run_id"),
    _maybe_time("fresh_after"), _text("on_parent_failure", "block"),
    _flag("failing", default=False), _maybe_text("provisional"),
    _int("losses", 0),
    PrimaryKeyConstraint("user_id", "id"),
    UniqueConstraint("user_id", "instance_id", "anchor_id"),
    CheckConstraint(
        "hold in ('approval','conflict','budget','failed','cancelled','inactive','retired')", name="hold"
    ),
    Index(
        "derivations_owner_idx", "user_id", "owner_cascade_id", postgresql_where=text("unsettled"),
    ),
    CheckConstraint("on_parent_failure in ('block','use_last_good','skip')", name="on_parent_failure"),
    CheckConstraint("provisional in ('last_good','skipped')", name="provisional"),
    Index(
        "derivations_failing_idx", "user_id", postgresql_where=text("failing or provisional is not null"),
    ),
    Index("derivations_anchor_idx", "user_id", "anchor_id"),
    # What a claim takes next, in the order that it takes it; a page costs a page, however many wait.
    Index(
        "derivations_ready_idx", "user_id", "owner_cascade_id", "priority", "level", "id",
        postgresql_where=text("unsettled and pending_inputs = 0 and run_id is null and hold is null"),
    ),
    Index(
        "derivations_due_idx", "user_id", "owner_cascade_id", "run_after",
        postgresql_where=text("unsettled and run_after is not null"),
    ),
    Index("derivations_budget_idx", "user_id", "budget_place", postgresql_where=text("budget_place is not null")),
)

derivation_inputs = Table(
    "derivation_inputs", metadata,
    _id("user_id"), _id("derivation_id"), _id("blob_id"), _text("role", "source"), _int("position", 0),
    _flag("required", default=True), _flag("tracks", default=True), Column("used_version", Integer),
    _maybe_text("used_hash"),
    PrimaryKeyConstraint("user_id", "derivation_id", "blob_id"),
    ForeignKeyConstraint(["user_id", "derivation_id"], ["derivations.user_id", "derivations.id"]),
    ForeignKeyConstraint(["user_id", "blob_id"], ["blobs.user_id", "blobs.id"]),
    Index("derivation_inputs_blob_idx", "user_id", "blob_id"),
)

derivation_outputs = Table(
    "derivation_outputs", metadata,
    _id("user_id"), _id("derivation_id"), _text("slot"), _id("blob_id"), _maybe_text("machine_hash"),
    _maybe_id("machine_run_id"), _texts("volatile"),
    PrimaryKeyConstraint("user_id", "derivation_id", "slot"),
    UniqueConstraint("user_id", "blob_id"),
    ForeignKeyConstraint(["user_id", "derivation_id"], ["derivations.user_id", "derivations.id"]),
    ForeignKeyConstraint(["user_id", "blob_id"], ["blobs.user_id", "blobs.id"]),
)

runs = Table(
    "runs", metadata,
    _id("user_id"), _id("id"), _id("derivation_id"), _id("cascade_id"), _text("provider_id"), _int("attempt"),
    _text("execution"), _text("status", "running"), _text("definition_digest"), _text("settings_digest", ""),
    _text("used_digest"), _json("inputs", "[]"), _text("label", ""), _maybe_text("workflow_id"),
    _maybe_time("lease_until"), Column("error", JSONB), _json("usage"), _time("started_at"),
    _maybe_time("ended_at"), _json("effects", "[]"), _maybe_time("fresh_after"),
    _int("resumed", 0),
    PrimaryKeyConstraint("user_id", "id"),
    ForeignKeyConstraint(["user_id", "derivation_id"], ["derivations.user_id", "derivations.id"]),
    CheckConstraint(
        "status in ('running','parked','settled','superseded','failed','lost','cancelled','blocked_budget')",
        name="status",
    ),
    Index(
        "runs_live_key", "user_id", "derivation_id", unique=True,
        postgresql_where=text("status in ('running','parked')"),
    ),
    Index("runs_parked_idx", "user_id", "id", postgresql_where=text("status = 'parked'")),
    Index("runs_cascade_idx", "user_id", "cascade_id", "status"),
    Index("runs_derivation_idx", "user_id", "derivation_id", "attempt"),
    Index("runs_lease_idx", "lease_until", postgresql_where=text("status = 'running'")),
    Index("runs_history_idx", "user_id", "provider_id", "id", postgresql_where=text("status = 'settled'")),
    Index("runs_running_idx", "user_id", "provider_id", postgresql_where=text("status = 'running'")),
)

# Workflows of cancelled runs that the relay is to end.
stops = Table(
    "stops", metadata,
    _id("user_id"), _id("run_id"), _text("workflow_id"), _time("created_at"),
    PrimaryKeyConstraint("user_id", "run_id"),
    Index("stops_created_idx", "created_at"),
)

run_steps = Table(
    "run_steps", metadata,
    _id("user_id"), _id("run_id"), _text("step_id"), _int("position"), _text("type"), _text("status"),
    _maybe_text("output_hash"), _json("usage"), Column("error", JSONB), _time("started_at"),
    _maybe_time("ended_at"), _maybe_text("memo_key"), _maybe_id("reused_from"),
    _int("attempts", 0), _json("errors", "[]"), _int("calls", 0), Column("decision", JSONB),
    PrimaryKeyConstraint("user_id", "run_id", "step_id"),
    ForeignKeyConstraint(["user_id", "run_id"], ["runs.user_id", "runs.id"]),
)

cascades = Table(
    "cascades", metadata,
    _id("user_id"), _id("id"), _text("cause"), _maybe_id("target_id"), _maybe_id("instance_id"), _text("actor"),
    _text("label", ""), _maybe_time("planned_at"), _text("status", "pending"), _maybe_id("superseded_by"),
    _int("touched", 0), _int("cut_off", 0), _big("seq", 1), _big("sent_seq", 0), Column("error", JSONB),
    _time("created_at"), _time("rung_at"), _maybe_time("ended_at"), _time("caused_at"), _json("options"),
    _int("taken", 0), Column("ended_counts", JSONB), _flag("sketching", default=False),
    # Of the transaction that inserts it: whoever writes under a plan causes a cascade of that plan.
    Column(
        "plan_id", Text, nullable=False, server_default=text("coalesce(current_setting('studio.plan_id', true), '')")
    ),
    PrimaryKeyConstraint("user_id", "id"),
    CheckConstraint(
        "status in ('pending','running','completed','partial','cancelled','superseded')", name="status"
    ),
    Index("cascades_created_idx", "user_id", "created_at", "id"),
    Index("cascades_doorbell_idx", "rung_at", postgresql_where=text("seq > sent_seq")),
    Index("cascades_open_idx", "rung_at", postgresql_where=text("status in ('pending','running')")),
    # What an edit of this blob joins (rule 10): otherwise each edit reads all of a user's past cascades.
    Index("cascades_unplanned_idx", "user_id", "target_id", postgresql_where=text("planned_at is null")),
    Index("cascades_superseded_idx", "user_id", "superseded_by", postgresql_where=text("superseded_by is not null")),
)

dead_letters = Table(
    "dead_letters", metadata,
    _id("user_id"), _id("id"), _id("run_id"), _id("derivation_id"), _text("code"), _text("detail"),
    _json("inputs", "[]"), _json("usage"), _time("created_at"), _maybe_time("redriven_at"),
    _text("provider_id", ""), _maybe_id("cascade_id"), _int("attempt", 1), _text("definition_digest", ""),
    _text("settings_digest", ""), _maybe_id("redriven_by"),
    PrimaryKeyConstraint("user_id", "id"),
    UniqueConstraint("user_id", "run_id"),
    Index(
        "dead_letters_redriven_idx", "user_id", "redriven_by", postgresql_where=text("redriven_by is not null"),
    ),
    Index("dead_letters_derivation_idx", "user_id", "derivation_id", "id"),
)

# A derivation that a cascade settled without a run, and why: what its run would read is what its last one read, there
# is nothing to read, or what it reads could not be made.
cut_offs = Table(
    "cut_offs", metadata,
    _id("user_id"), _id("cascade_id"), _id("derivation_id"), _text("reason"), _json("detail"), _time("created_at"),
    PrimaryKeyConstraint("user_id", "cascade_id", "derivation_id"),
    CheckConstraint("reason in ('unchanged','no_input','parent_failed')", name="reason"),
    Index("cut_offs_derivation_idx", "user_id", "derivation_id", "created_at"),
)

# The result of a step under a key that covers everything it depends on; leased while somebody makes it.
memo = Table(
    "memo", metadata,
    _id("user_id"), _text("key"), _text("state", "leased"), _id("run_id"), _text("step_id"), _text("provider_id"),
    _maybe_id("leased_by"), _maybe_time("lease_until"), _maybe_text("output_hash"), _json("usage"),
    _time("created_at"), _time("used_at"),
    PrimaryKeyConstraint("user_id", "key"),
    CheckConstraint("state in ('leased','done')", name="state"),
    Index("memo_used_idx", "user_id", "used_at"),
)

# How many runs what stems from one root has had since when: a loop through somebody's own writes has no lineage.
root_runs = Table(
    "root_runs", metadata,
    _id("user_id"), _id("root_id"), _time("since"), _int("runs", 0),
    PrimaryKeyConstraint("user_id", "root_id"),
)

# A cascade that had to leave what was ready for want of a place: since when, and whether it was told of one. Those who
# wait for a service are seen by all who share it.
room_waits = Table(
    "room_waits", metadata,
    _id("user_id"), _id("cascade_id"), _text("kind"), _text("name"), _int("cap"),
    _flag("interactive", default=True), _time("since"), _flag("rung", default=False),
    PrimaryKeyConstraint("user_id", "cascade_id", "kind", "name"),
    CheckConstraint("kind in ('user','provider','service')", name="kind"),
    Index("room_waits_limit_idx", "kind", "name"),
)

# Operational: who has a run under way that calls a service. Everybody counts, so everybody sees; ids, no content.
service_slots = Table(
    "service_slots", metadata,
    _text("service"), _id("user_id"), _id("run_id"),
    PrimaryKeyConstraint("user_id", "run_id", "service"),
    Index("service_slots_service_idx", "service", "user_id"),
)

# --- outbox -----------------------------------------------------------------------------------------------

# What has happened, and the resume log. seq is per user, assigned under the row lock of user_state.
events = Table(
    "events", metadata,
    _id("user_id"), _big("seq"), _id("id"), _text("type"), _text("subject"), _text("key"), _json("data"),
    _time("time"),
    PrimaryKeyConstraint("user_id", "seq"),
)

# Which of a user's events nobody has been told of yet, a row for each transaction that left some.
outbox = Table(
    "outbox", metadata,
    _id("user_id"), _big("first_seq"), _big("last_seq"),
    PrimaryKeyConstraint("user_id", "first_seq"),
)

USER_TABLES = (
    users, user_state, api_keys, idempotency_keys, contents, blobs, deltas, snapshots, uploads, upload_parts,
    manual_edges, buckets, bucket_blobs, instances, derivations, derivation_inputs, derivation_outputs, runs, run_steps,
    cascades, stops, dead_letters, cut_offs, memo, root_runs, budgets, reservations, charges, plans, room_waits,
    service_slots, events, outbox,
)
"""Tables of one user: the policy is ``user_id = app_user()``."""

CATALOGUE_TABLES = (schemas, definitions, providers)
"""Tables whose published rows everyone reads; the owner writes."""
