"""Alembic's entry: runs over the connection that `moorage.adapters.postgres.migrate` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
