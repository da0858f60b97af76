"""Rules: pure functions and frozen values."""
