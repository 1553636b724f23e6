"""Sessions that stay at the top of a list, and those that leave it."""

from moorage.adapters.postgres.scripts import run_script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_script(__file__)
