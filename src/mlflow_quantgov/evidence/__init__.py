"""Floor 1: what we know about a model, bound to the digest of its weights."""
