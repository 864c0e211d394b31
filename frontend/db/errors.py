"""Foreign errors die here: what SQLAlchemy, its drivers and the network raise becomes an error of the service's tree."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy import exc as sql

from frontend.domain.errors import Internal, InvalidRequest, NotFound, ServiceError, Unavailable

log = structlog.get_logger("hermes2.db")

FOREIGN_KEY_VIOLATION = "23503"
READ_ONLY_TRANSACTION = "25006"
DATA_EXCEPTION = "22"
"""Class of SQLSTATE: a value that the database cannot hold, such as a NUL in a text."""


class DatabaseUnavailable(Unavailable):
    """The database is away, locked for too long, or slower than its deadline."""

    code = "database_unavailable"

    def __init__(self) -> None:
        super().__init__("The database does not answer. Please try again.", retry_after_s=1.0)


@contextmanager
def translated() -> Iterator[None]:
    """Around everything that talks to the database, and around nothing else.

    What happened is not chained to what is raised, and logged as its kind only: PostgreSQL quotes rows in its messages.
    """
    try:
        yield
    except sql.DBAPIError as exc:
        raise from_driver(exc) from None
    except (UnicodeEncodeError, OverflowError):
        raise InvalidRequest("It holds a character or a number that cannot be stored.") from None
    except (sql.TimeoutError, OSError, TimeoutError) as exc:
        log.warning("database_unavailable", error=type(exc).__name__)
        raise DatabaseUnavailable from None
    except sql.SQLAlchemyError as exc:
        log.error("database_defect", error=type(exc).__name__)
        raise defect() from None


def from_driver(exc: sql.DBAPIError) -> ServiceError:
    state = getattr(exc.orig, "sqlstate", None) or ""
    source = exc.orig.__cause__ if exc.orig is not None else None
    known = {"error": type(source or exc.orig).__name__, "sqlstate": state or None}
    if isinstance(exc, sql.IntegrityError) and is_foreign_key(exc, state):
        return NotFound("What it belongs to does not exist.")
    if state.startswith(DATA_EXCEPTION) or isinstance(source, ValueError):  # the second: asyncpg's DataError
        return InvalidRequest("It holds a character or a number that cannot be stored.")
    if isinstance(exc, sql.IntegrityError | sql.ProgrammingError) or is_read_only(exc, state):
        log.error("database_defect", **known, statement=exc.statement)
        return defect()
    log.warning("database_unavailable", **known)
    return DatabaseUnavailable()


def is_foreign_key(exc: sql.IntegrityError, state: str) -> bool:
    code = getattr(exc.orig, "sqlite_errorcode", None)
    return state == FOREIGN_KEY_VIOLATION or code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY


def is_read_only(exc: sql.DBAPIError, state: str) -> bool:
    """Something was written in a snapshot, where it would have been lost."""
    code = getattr(exc.orig, "sqlite_errorcode", None)
    return state == READ_ONLY_TRANSACTION or code == sqlite3.SQLITE_READONLY


def defect() -> Internal:
    return Internal("The service failed unexpectedly; its log has the request id.")
