"""Durable, deterministic orchestration."""
