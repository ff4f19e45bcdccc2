"""Floor 0: what a model file is, read from its bytes alone (no torch, no mlflow)."""
