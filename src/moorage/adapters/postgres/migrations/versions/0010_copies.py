"""Threads that are being copied."""

from moorage.adapters.postgres.scripts import run_script

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_script(__file__)
