"""PostgreSQL, content store, outbox and relay."""
