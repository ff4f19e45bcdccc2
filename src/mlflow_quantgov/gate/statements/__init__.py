"""Evidence and approvals as they come in, and how they are kept."""
