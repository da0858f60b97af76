"""Clients of models and HTTP services."""
