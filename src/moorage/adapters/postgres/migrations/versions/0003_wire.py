"""Threads and runs as clients of the LangGraph wire know them."""

from moorage.adapters.postgres.scripts import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_script(__file__)
