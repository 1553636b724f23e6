"""The tables of the first release, each behind row-level security."""

from moorage.adapters.postgres.scripts import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_script(__file__)
