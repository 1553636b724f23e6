"""Snapshots of threads' files."""

from moorage.adapters.postgres.scripts import run_script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_script(__file__)
