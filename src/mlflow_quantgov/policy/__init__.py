"""Floor 2: what we demand. Pure functions of (policy, facts); nothing here reads a file of a model or a network."""
