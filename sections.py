"""The sections of config/studio.yaml: every key with its type, default, bounds and meaning; settings.py loads them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from domain.durations import parse_duration


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("must be longer than zero")
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_positive)]
Count = Annotated[int, Field(ge=1)]


class Group(BaseModel):
    """A frozen section of the file; a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class ServiceGroup(Group):
    """The HTTP service."""

    name: str = "memmie-studio"
    """Name in logs, health answers and metrics."""
    host: str = "127.0.0.1"
    """Address that the API binds."""
    port: int = Field(default=8010, ge=0, le=65535)
    """Port that the API binds."""
    failpoint: str = ""
    """The point at which a worker kills itself, or ``random:SEED:ONE_IN``: crash tests only."""


class BlobsGroup(Group):
    """Where large content lives."""

    backend: Literal["s3", "filesystem"] = "s3"
    """Kind of content store: an S3 server, or a folder (one machine, or a file system that all processes share)."""
    path: Path | None = None
    """Folder of the kind filesystem; made at the first start if absent."""
    bucket: str = "memmie-studio-blobs"
    """Bucket of the kind s3; made at the first start if absent."""
    endpoint: str | None = None
    """Address of the S3 server; unset means AWS itself."""
    access_key: SecretStr | None = None
    """Access key id."""
    secret_key: SecretStr | None = None
    """Secret access key."""


class MetadataGroup(Group):
    """PostgreSQL, the truth for data, and one role per duty."""

    backend: Literal["postgres"] = "postgres"
    """Kind of database."""
    url: SecretStr | None = None
    """Database URL of the role studio_app (API and activities)."""
    relay_url: SecretStr | None = None
    """Database URL of the role studio_relay (worker and relay)."""
    admin_url: SecretStr | None = None
    """Database URL that may create roles (migrate only)."""
    pool_size: Count = 16
    """Connections that one process keeps at most."""


class CacheGroup(Group):
    """The hot tier of content: what was read lately."""

    bytes_max: int = Field(default=33_554_432, ge=0)
    """Bytes of content that one process keeps in memory; 0 keeps none."""
    url: SecretStr | None = None
    """URL of a Valkey that processes share (``redis://host:port/0``); unset means that there is none."""
    ttl: Duration = timedelta(hours=1)
    """How long Valkey keeps a content."""


class StorageGroup(Group):
    """Content and metadata."""

    blobs: BlobsGroup = BlobsGroup()
    metadata: MetadataGroup = MetadataGroup()
    cache: CacheGroup = CacheGroup()
    cold_after: Duration = timedelta(days=30)
    """How long nobody reads a content before it moves from PostgreSQL to the object store."""
    inline_max: int = Field(default=1_048_576, ge=0)
    """Bytes of stored content below which it stays in PostgreSQL; S3 has the rest."""
    url_expires: Duration = timedelta(minutes=15)
    """How long a signed content_url can be used (up to a minute more)."""
    part_size: int = Field(default=8_388_608, ge=65_536)
    """Bytes of a part of an upload; S3 itself wants at least 5 MiB."""
    parts_at_once: Count = 8
    """Parts that one API process holds in memory at a time; a further one waits, then gets 429."""
    upload_expires: Duration = timedelta(hours=24)
    """How long after its last part an upload that is not completed stays."""
    snapshot_every: Count = 50
    """Deltas after which a blob's whole document is kept, so that reading any version costs few patches."""
    quota_default: int | None = Field(default=None, ge=0)
    """Bytes that a new user may store; unset means as much as there is room for. Admins change it for each user."""


class RetryPolicyGroup(Group):
    """How an activity of a provider is tried again."""

    max_attempts: Count = 3
    """Attempts of one step, the first included."""
    backoff: Literal["exponential"] = "exponential"
    """How the pause grows from attempt to attempt."""
    first_pause: Duration = timedelta(seconds=1)
    """Pause before the second attempt."""
    factor: float = Field(default=2.0, ge=1, le=10)
    """By how much each pause is longer than the one before."""
    longest_pause: Duration = timedelta(minutes=1)
    """Longest pause between two attempts; what a service asks for with Retry-After is honoured beyond it."""


class ProvidersGroup(Group):
    """Defaults for providers whose definition does not say otherwise."""

    max_concurrent: Count = 10
    """Effectful activities that one worker runs at a time."""
    timeout: Duration = timedelta(seconds=30)
    """Longest duration of one attempt of a step."""
    retry_policy: RetryPolicyGroup = RetryPolicyGroup()


class TopicsGroup(Group):
    """Prefixes of NATS subjects; ``.{user}.{key}`` follows."""

    blob_created: str = "studio.blob.created"
    """Subject prefix: a person made a blob."""
    blob_updated: str = "studio.blob.updated"
    """Subject prefix: a person changed a blob."""
    blob_deleted: str = "studio.blob.deleted"
    """Subject prefix: a person deleted a blob."""
    delta_applied: str = "studio.delta.applied"
    """Subject prefix: any delta, of any actor."""


class EventsGroup(Group):
    """Where events are published for others."""

    backend: Literal["nats"] = "nats"
    """Kind of event bus."""
    url: SecretStr | None = None
    """URL of NATS, with credentials."""
    topics: TopicsGroup = TopicsGroup()


class WorkflowGroup(Group):
    """Temporal, the truth for what is under way."""

    temporal_host: str = "localhost:7233"
    """host:port of the Temporal frontend."""
    namespace: str = "memmie-studio"
    """Temporal namespace."""
    task_queue: str = "studio-providers"
    """Task queue of our workers."""
    ui_url: str | None = None
    """Address of the Temporal UI, for links in answers."""
    health_port: int = Field(default=0, ge=0, le=65535)
    """Loopback port on which the worker says that it is up; 0 means none."""


class ModelPrice(Group):
    """What a model takes, in micro-dollars per million tokens: 0.15 dollars per million are 150000."""

    prompt: int = Field(default=0, ge=0, le=10**12)
    """Of tokens sent."""
    completion: int = Field(default=0, ge=0, le=10**12)
    """Of tokens answered."""


class CalledService(Group):
    """A service that definitions may call by name (``service: ai-service``)."""

    url: str
    """Base URL; a step's endpoint is appended."""
    token: SecretStr | None = None
    """Bearer token sent with each call."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Runs that call it at a time, of all users together; unset means as many as they may have."""
    pure: bool = False
    """Equal requests get equal answers, so that steps with ``cache: inputs`` may reuse them."""
    revision: str = Field(default="", max_length=200)
    """What answers now: after a change nothing older is reused. Unset it is the model's name for ai-service."""
    prices: dict[str, ModelPrice] = Field(default={})
    """What it takes by model, ``default`` for others: micro-dollars per million tokens; empty means free."""
    prompt_tokens_max: Count = 8_192
    """Tokens that one call sends at most, all that a skill asks its model for: with the price, what is reserved."""
    completion_tokens_max: Count = 4_096
    """Tokens that one call is answered at most, where the step has no ``max_tokens``."""

    @property
    def is_paid(self) -> bool:
        """Whether any model of it takes money."""
        return any(price.prompt or price.completion for price in self.prices.values())


class LimitsGroup(Group):
    """Bounds of requests."""

    body_max: Count = 16_777_216
    """Bytes of a request body; beyond is 413."""
    answer_max: Count = 8_388_608
    """Bytes of a service's answer; a run whose service says more fails, and no more of it is read."""


class ApiGroup(Group):
    """API keys."""

    dev_api_key: SecretStr | None = None
    """API key that migrate gives the user dev."""
    admin_api_key: SecretStr | None = None
    """API key that migrate gives the user admin."""
    key_cache: Duration = timedelta(seconds=5)
    """How long a process remembers a key: a key revoked elsewhere works at most that much longer."""


class AiGroup(Group):
    """The ai-service: our text skills over any OpenAI-compatible model."""

    token: SecretStr | None = None
    """Bearer token that callers of the ai-service must send."""
    model_url: str | None = None
    """Base URL of the OpenAI-compatible API, ending in /v1."""
    model_name: str = "SmolLM2-135M-Instruct-Q4_1"
    """Name of the model to ask for."""
    model_api_key: SecretStr | None = None
    """API key of the model's vendor."""
    concurrency: Count = 2
    """Model calls at a time."""
    queue_max: Count = 32
    """Requests that may wait for a place; beyond is 429."""


class CascadesGroup(Group):
    """Pace and bounds of cascades (CASCADES.md has the protocol)."""

    runs_per_user: int | None = Field(default=200, ge=1)
    """Runs that one user has under way at a time; admins change it for each user. Unset means no limit."""
    window: Count = 100
    """Child workflows that one cascade runs at a time."""
    history_max: Count = 4000
    """Events after which a cascade's workflow continues as new; what is in flight then adds a few hundred."""
    inline_batch: Count = 50
    """Inline runs that one activity advances at a time."""
    batch_seconds: float = Field(default=2.0, gt=0)
    """Seconds after which an inline batch ends."""
    lease_seconds: Count = 60
    """Seconds without a sign of life after which a run may be lost."""
    reconcile_interval: Duration = timedelta(seconds=60)
    """Pause between searches for work that no workflow owns."""
    depth_max: Count = 1_200
    """Derivations on the longest path below a root; what would be deeper is not made, and its cascade says so."""
    nodes_max: Count = 10_000
    """New derivations that one cascade may make; what would be more is not made, and its cascade says so."""
    runs_per_derivation_max: Count = 1_000
    """Runs of one derivation within runs_window; more are put off, and their cascade says so."""
    runs_per_root_max: Count = 100_000
    """Runs of everything that stems from one root within runs_window; more are put off."""
    runs_window: Duration = timedelta(hours=1)
    """The window in which runs are counted, against loops through somebody's own writes."""
    redrive_max: Count = 10_000
    """Dead letters that one redrive tries again; of more it takes the newest, and says so."""
    plan_expires: Duration = timedelta(minutes=15)
    """How long a plan may be named by the write that it was made for."""
    plan_timeout: Duration = timedelta(seconds=10)
    """How long making a plan, or a write that names one, may take in all; the user's other writes wait meanwhile."""
    plan_nodes_shown: Count = 500
    """Nodes that a plan lists; it counts all of them."""
    plan_history_runs: Count = 100
    """Settled runs of a provider from which a plan estimates its next ones."""
    losses_max: Count = 5
    """How often in a row a run may get lost before that counts as a failure."""


class HousekeepingGroup(Group):
    """Looking after content: collecting, moving, verifying."""

    interval: Duration = timedelta(hours=1)
    """Pause between two passes over all users."""
    grace: Duration = timedelta(hours=1)
    """How long what nothing refers to is left alone: longer than any write, and than uploads take to be used."""
    steps_kept: Duration = timedelta(days=30)
    """How long after a run has ended the outputs of its steps are kept."""
    memo_kept: Duration = timedelta(days=30)
    """How long an answer that no step asks for again is kept for reuse."""
    memo_max: Count = 20_000
    """Answers kept for each user; beyond it those go that nobody has asked for the longest."""
    plans_kept: Duration = timedelta(days=30)
    """How long after its use a plan is kept; one that nobody used goes after a day, or this if it is less."""
    sample: int = Field(default=20, ge=0)
    """Contents of each user that one pass holds against their hashes."""


class RelayGroup(Group):
    """The relay: from PostgreSQL to NATS and Temporal."""

    poll_interval: Duration = timedelta(seconds=1)
    """Pause between looks when no notification arrives."""
    batch: Count = 200
    """Events, and doorbells, taken at a time."""
