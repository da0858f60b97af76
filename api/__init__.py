"""The HTTP front end: parse, decide, append, answer."""
