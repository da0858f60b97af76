"""Real embedded servers, started from wheels."""
