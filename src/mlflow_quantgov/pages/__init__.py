"""Floor 4: what people see on the server, and the report as one file."""
