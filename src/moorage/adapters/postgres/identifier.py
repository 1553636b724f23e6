"""What tells a database apart from every other one, for as long as it lives."""

import psycopg

from moorage.errors import Unavailable

_IDENTIFY = """
SELECT system_identifier::text || ' ' || oid::text || ' ' || datname AS identifier
FROM pg_control_system(), pg_database WHERE datname = current_database()
"""


def database_identifier(url: str) -> str:
    """The cluster's identifier, made once by initdb, with the database's number and name. Blocks.

    Raises Unavailable when Postgres does not answer. A physical copy of a cluster has its original's.
    """
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            found = connection.execute(_IDENTIFY).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise Unavailable("The database's user needs: GRANT EXECUTE ON FUNCTION pg_control_system() TO it") from error
    except psycopg.OperationalError as error:
        raise Unavailable("Postgres does not answer", retry_after=2) from error
    assert found is not None  # noqa: S101 -- we are connected to it
    return str(found[0])
