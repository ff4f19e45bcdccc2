"""One collector per kind of evidence; each knows its heavy library and nothing of policy."""
