"""The studio command."""
