"""Scripts that run in the peers' own environments; nothing of ours imports them."""
