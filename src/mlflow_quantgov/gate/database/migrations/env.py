"""Run migrations on the connection that `upgrade` hands over."""

from alembic import context

from mlflow_quantgov.gate.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="alembic_version_quantgov",
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
