"""Items that a user's clients keep between threads."""

from moorage.adapters.postgres.scripts import run_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_script(__file__)
