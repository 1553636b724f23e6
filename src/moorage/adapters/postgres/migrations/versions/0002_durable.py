"""The tool-call journal, remembered approval rules, idempotent answers, full-text search, and the fence."""

from moorage.adapters.postgres.scripts import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_script(__file__)
