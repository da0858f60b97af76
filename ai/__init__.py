"""The seeds' ``ai-service``: text skills over any OpenAI-compatible model, as an HTTP application."""
