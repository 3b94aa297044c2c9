"""How Alembic reaches the database: through the connection, and the transaction, that `database.migrate` opened."""

from alembic import context

from maand_catalog.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
