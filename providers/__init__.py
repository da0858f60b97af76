"""Built-in provider definitions and schemas, as data."""
