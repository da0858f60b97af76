"""Real servers from wheels, for development and tests: PostgreSQL, Temporal, NATS, S3, a small language model."""
