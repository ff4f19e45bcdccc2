"""The gate as a client sees it: over HTTP, or in process."""
