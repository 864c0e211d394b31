"""Alembic's entry: runs the versions on the connection that frontend/db/migrate.py has opened, in its transaction.

A new version is a file in versions/ that says what changed in frontend/db/models.py; a test holds the two together.
"""

from alembic import context

from frontend.db.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
