"""Runs at set times, and webhooks on their completion."""

from moorage.adapters.postgres.scripts import run_script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_script(__file__)
