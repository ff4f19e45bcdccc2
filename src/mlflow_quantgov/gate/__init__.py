"""Floor 3: where policy is enforced. One registry store for every door; one ledger for every decision."""
