"""The ai-service: text skills over any OpenAI-compatible model."""
