"""Alembic migrations of our own tables; own version table, so that MLflow's are never touched."""
