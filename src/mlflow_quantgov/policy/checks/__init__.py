"""One file per check: pure functions of (gate, yardsticks, facts)."""
