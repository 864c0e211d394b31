"""Alembic's entry: runs the versions on the connection that frontend/db/migrate.py has opened, in its transaction.

A new version is a file in versions/ that says what changed in the tables (frontend/db/models.py and document_models.py); a
test holds the two together.
"""

from alembic import context

from frontend.db.document_models import FileRow

context.configure(
    connection=context.config.attributes["connection"], target_metadata=FileRow.metadata, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
