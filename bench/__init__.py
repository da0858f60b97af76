"""Measured scenarios, each a ratio to the raw limit of the part underneath, taken in the same run."""
