"""What API clients and provider developers install."""
