"""Migrations are SQL files beside their Alembic revisions."""

from pathlib import Path

from alembic import op
from psycopg import sql
from sqlalchemy import text

from moorage.adapters.postgres.roles import Roles


def run_script(revision_file: str) -> None:
    """Run the `.sql` beside a revision, inside its transaction, with `:"app"` and `:"system"` as our roles' names.

    The spelling is psql's, so that a script can be tried there with `-v app=... -v system=...`.
    """
    bind = op.get_bind()
    roles = Roles.of_database(bind.execute(text("SELECT current_database()")).scalar_one())
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    for variable, role in (("app", roles.app), ("system", roles.system)):
        script = script.replace(f':"{variable}"', sql.Identifier(role).as_string(None))
    bind.exec_driver_sql(script, execution_options={"no_parameters": True})
